"""Synthetic defects, pasted onto normal images: what training denoises and calibration measures on.

They stand for defects in general, not for those of any product: thin lines, soft blobs, specks and pieces of the same
image in the wrong place, darker and brighter alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Opacity = NDArray[np.float32]
Contrast = tuple[float, float]
# The contour of a soft edge is half-way down. It goes by the paint and not by the change, which is largest where the
# defect crosses an edge of the part: a bright scratch over a dark bar would else be nothing but the crossing.
CONTOUR = 0.5
# Within the contour a pixel belongs to the defect where it changed by more than this, of a range of 1, ...
VISIBLE = 0.03
# ... and by at least this share of the defect's median change.
AGREES = 0.3
# A piece moved from elsewhere agrees with what was there in most places, and only the rest is a defect: what changed
# by this share of its largest changes.
MOVED = 0.4
# A defect counts as seen if it stands out of the part's own texture: its mean change, evened out over a pixel (so that
# a piece of the same texture, which averages to nothing, is none), against this share of the deviation around it.
STANDS_OUT = 0.6
NEIGHBOURHOOD = 4.0  # standard deviation, in pixels, of the Gaussian that says what is around
DRAWS = 8  # of one kind, before another kind is tried
KINDS_TRIED = 3


@dataclass(frozen=True, slots=True)
class SyntheticDefect:
    """``image`` (C, H, W) in [0, 1] with a defect, its ``mask`` (H, W), and the ``kind`` of defect."""

    image: Image
    mask: NDArray[np.bool_]
    kind: str


@dataclass(frozen=True, slots=True)
class Family:
    """Which defects are drawn: their ``kinds``, and how strong their contrast is, at least and at most, of 1."""

    kinds: tuple[str, ...]
    contrast: tuple[float, float]


def paste_defect(image: Image, rng: np.random.Generator, family: Family | None = None) -> SyntheticDefect:
    """Return a copy of a normal image (C, H, W) with one random defect of a family (``ALL``) that a person could see.

    On an image where nothing stands out (white noise, say) it is the most visible of those tried.
    """
    family = family or ALL
    texture = _deviation(image)
    best, most = _draw_one(image, str(rng.choice(family.kinds)), family, rng), -1.0
    for attempt in range(KINDS_TRIED * DRAWS):
        if attempt % DRAWS == 0:
            kind = str(rng.choice(family.kinds))
        defect = _draw_one(image, kind, family, rng)
        visibility = _visibility(defect, image, texture)
        if visibility >= 1.0:
            return defect
        if visibility > most:
            best, most = defect, visibility
    return best


def _draw_one(image: Image, kind: str, family: Family, rng: np.random.Generator) -> SyntheticDefect:
    opacity, paint = KINDS[kind](image, family.contrast, rng)
    result = np.clip(image + opacity * (paint - image), 0.0, 1.0).astype(np.float32)
    change = np.abs(result - image).max(axis=0)
    mask: NDArray[np.bool_] = opacity > max(CONTOUR * float(opacity.max()), 1e-3)
    if mask.any():
        inside = change[mask]
        agrees = MOVED * np.quantile(inside, 0.9) if kind == "misplaced" else AGREES * np.median(inside)
        mask &= change > max(VISIBLE, float(agrees))
    return SyntheticDefect(result, mask, kind)


def _visibility(defect: SyntheticDefect, image: Image, texture: Image) -> float:
    """Return how well a defect stands out of the normal ``image``, seen from 1 on; -1 if it is nowhere."""
    if not defect.mask.any():
        return -1.0
    change = defect.image - image
    strongest = change[int(np.abs(change).sum(axis=(1, 2)).argmax())]  # (H, W)
    evened = np.abs(cv2.GaussianBlur(strongest, (0, 0), 1.0))[defect.mask].mean()
    return float(evened / np.maximum(VISIBLE, STANDS_OUT * texture[defect.mask]).mean())


def _deviation(image: Image) -> Image:
    """Return the local standard deviation (H, W) of an image (C, H, W), the largest over its channels."""
    deviations = []
    for plane in image:
        mean = cv2.GaussianBlur(plane, (0, 0), NEIGHBOURHOOD)
        square = cv2.GaussianBlur(plane * plane, (0, 0), NEIGHBOURHOOD)
        deviations.append(np.sqrt(np.maximum(square - mean * mean, 0.0)))
    return np.asarray(np.max(deviations, axis=0), dtype=np.float32)


def _crack(image: Image, contrast: Contrast, rng: np.random.Generator) -> tuple[Opacity, Image]:
    """Draw a thin random walk with up to two branches."""
    height, width = image.shape[1:]
    start = rng.uniform(0, (width, height))
    length = rng.uniform(0.08, 0.7) * min(height, width)
    strokes = [_walk(start, rng.uniform(0, 2 * np.pi), length, rng)]
    for _ in range(rng.integers(0, 3)):
        origin = strokes[0][rng.integers(len(strokes[0]))]
        strokes.append(_walk(origin, rng.uniform(0, 2 * np.pi), length * rng.uniform(0.2, 0.6), rng))
    return _draw(image, strokes, _thickness(image, rng), rng), _shade(image, contrast, rng)


def _scratch(image: Image, contrast: Contrast, rng: np.random.Generator) -> tuple[Opacity, Image]:
    """Draw a long, nearly straight line."""
    height, width = image.shape[1:]
    start = rng.uniform(0, (width, height))
    length = rng.uniform(0.2, 0.8) * min(height, width)
    stroke = _walk(start, rng.uniform(0, 2 * np.pi), length, rng, wander=0.02)
    return _draw(image, [stroke], _thickness(image, rng), rng), _shade(image, contrast, rng)


def _blob(image: Image, contrast: Contrast, rng: np.random.Generator) -> tuple[Opacity, Image]:
    """Draw an irregular blob with an edge between sharp and soft."""
    height, width = image.shape[1:]
    radius = rng.uniform(0.015, 0.12) * min(height, width)
    centre = rng.uniform(0, (width, height))
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    waves = [rng.normal(0, 0.18 / k) * np.cos(k * angles + rng.uniform(0, 2 * np.pi)) for k in (1, 2, 3, 4)]
    wobble = 1 + np.sum(waves, axis=0)
    outline = centre + radius * wobble[:, None] * np.stack([np.cos(angles), rng.uniform(0.4, 1) * np.sin(angles)], 1)
    opacity = np.zeros((height, width), np.float32)
    cv2.fillPoly(opacity, [_fixed(outline)], 1.0, lineType=cv2.LINE_AA, shift=4)
    softness = rng.uniform(0.3, 0.35 * radius + 0.4)
    return np.asarray(cv2.GaussianBlur(opacity, (0, 0), softness), np.float32), _shade(image, contrast, rng)


def _specks(image: Image, contrast: Contrast, rng: np.random.Generator) -> tuple[Opacity, Image]:
    """Draw a few small specks near each other."""
    height, width = image.shape[1:]
    opacity = np.zeros((height, width), np.float32)
    centre = rng.uniform(0, (width, height))
    for _ in range(rng.integers(1, 6)):
        spot = centre + rng.normal(0, 0.05 * min(height, width), 2)
        radius = int(16 * rng.uniform(0.8, 2.5))
        cv2.circle(opacity, tuple(_fixed(spot[None])[0].tolist()), radius, 1.0, -1, cv2.LINE_AA, 4)
    return opacity, _shade(image, contrast, rng)


def _misplaced(image: Image, contrast: Contrast, rng: np.random.Generator) -> tuple[Opacity, Image]:
    """Put a piece of the same image where it does not belong: something missing, or something too much."""
    height, width = image.shape[1:]
    shift = rng.uniform(0.15, 0.85, 2) * (height, width)
    moved = np.roll(image, shift.astype(int), axis=(1, 2))
    opacity, _ = _blob(image, contrast, rng)
    return opacity, np.ascontiguousarray(moved)


KINDS: dict[str, Callable[[Image, Contrast, np.random.Generator], tuple[Opacity, Image]]] = {
    "crack": _crack,
    "scratch": _scratch,
    "blob": _blob,
    "specks": _specks,
    "misplaced": _misplaced,
}
# Faint ones as likely as strong ones: to learn from, for most real defects are faint.
ALL = Family(tuple(KINDS), (0.08, 0.9))
# To choose thresholds by: a contour is only as sure as the defect is plain, and a moved piece hardly has one.
PLAIN = Family(("crack", "scratch", "blob", "specks"), (0.4, 0.9))


def _shade(image: Image, contrast: Contrast, rng: np.random.Generator) -> Image:
    """Return the image darkened or brightened by a random contrast, per channel somewhat differently."""
    strength = np.exp(rng.uniform(*np.log(contrast))) * rng.choice((-1.0, 1.0))
    tint = 1 + rng.normal(0, 0.15, (image.shape[0], 1, 1)) * (image.shape[0] > 1)
    shift = strength * tint
    # Darkening scales, as a shadow or a crack does; brightening moves towards white.
    shaded = np.where(shift < 0, image * (1 + shift) + 0.15 * shift, image + shift * (1.15 - image))
    return np.asarray(np.clip(shaded, 0, 1), dtype=np.float32)


def _thickness(image: Image, rng: np.random.Generator) -> float:
    """Return a line's thickness in pixels: of a 128x128 frame 0.8 to 5, thin ones as likely as thick ones."""
    scale = max(1.0, min(image.shape[1:]) / 128)
    return float(np.exp(rng.uniform(np.log(0.8), np.log(5.0 * scale))))


def _walk(
    start: NDArray[np.float64], heading: float, length: float, rng: np.random.Generator, wander: float = 0.35
) -> NDArray[np.float64]:
    """Return the points (n, 2) of a random walk with steps of two pixels."""
    steps = max(2, int(length / 2))
    headings = heading + np.cumsum(rng.normal(0, wander, steps))
    moves = 2.0 * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    return np.asarray(start + np.concatenate([np.zeros((1, 2)), np.cumsum(moves, axis=0)]))


def _draw(image: Image, strokes: list[NDArray[np.float64]], thickness: float, rng: np.random.Generator) -> Opacity:
    """Return the anti-aliased strokes as opacity (H, W); drawn at three times the size for sub-pixel widths."""
    height, width = image.shape[1:]
    canvas = np.zeros((3 * height, 3 * width), np.float32)
    for stroke in strokes:
        cv2.polylines(canvas, [_fixed(3 * stroke)], isClosed=False, color=1.0, thickness=max(1, round(3 * thickness)),
                      lineType=cv2.LINE_AA, shift=4)  # fmt: skip
    opacity = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(opacity * rng.uniform(0.6, 1.0), dtype=np.float32)


def _fixed(points: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return points in OpenCV's fixed-point coordinates, with four fractional bits."""
    return np.round(points * 16).astype(np.int32)
