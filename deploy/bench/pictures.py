"""Charts and strips of frames, drawn with OpenCV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.bench.learning import Learning
from deploy.simulation import Part
from monitor.review_pictures import overlay

WIDTH: Final = 1240
HEIGHT: Final = 420
LEFT, RIGHT, TOP, BOTTOM = 70, 30, 60, 60
TILE: Final = 300
INK: Final = (40, 40, 40)
FAINT: Final = (225, 225, 225)
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX

Picture = NDArray[np.uint8]
Bgr = tuple[int, int, int]


@dataclass(frozen=True)
class Curve:
    """A line of a chart: values from 0 to 1, evenly spaced."""

    name: str
    values: Sequence[float]
    colour: Bgr


@dataclass(frozen=True)
class Bar:
    """A bar of a chart, from 0 to 1, with its interval."""

    name: str
    value: float
    low: float
    high: float
    colour: Bgr


def chart(title: str, curves: Sequence[Curve], below: str) -> Picture:
    """Return a chart of curves from 0 to 100 %."""
    canvas = _axes(title, below)
    for number, curve in enumerate(curves):
        xs = np.linspace(LEFT, WIDTH - RIGHT, len(curve.values))
        ys = [_y(value) for value in curve.values]
        points = np.stack([xs, ys], axis=1).round().astype(np.int32)
        cv2.polylines(canvas, [points], isClosed=False, color=curve.colour, thickness=2, lineType=cv2.LINE_AA)
        x = LEFT + 20
        y = TOP + 26 + 24 * number
        cv2.line(canvas, (x, y - 5), (x + 26, y - 5), curve.colour, 3)
        write(canvas, curve.name, (x + 34, y))
    return canvas


def bars(title: str, drawn: Sequence[Bar], groups: Sequence[str]) -> Picture:
    """Return a chart of bars from 0 to 100 %, with their intervals, in groups of equal size."""
    canvas = _axes(title, "")
    for number, group in enumerate(groups):
        write(canvas, group, (LEFT + 12 + round(number * (WIDTH - LEFT - RIGHT) / len(groups)), HEIGHT - 16), 0.52)
    step = (WIDTH - LEFT - RIGHT) / max(1, len(drawn))
    for number, bar in enumerate(drawn):
        left, right = round(LEFT + step * (number + 0.2)), round(LEFT + step * (number + 0.8))
        cv2.rectangle(canvas, (left, round(_y(bar.value))), (right, round(_y(0))), bar.colour, -1)
        middle = (left + right) // 2
        cv2.line(canvas, (middle, round(_y(bar.low))), (middle, round(_y(bar.high))), INK, 2)
        write(canvas, f"{bar.value:.3f}", (left, round(_y(bar.high)) - 6), 0.42)
        write(canvas, bar.name, (left, HEIGHT - BOTTOM + 18), 0.42)
    return canvas


def overlays(title: str, learning: Learning, parts: Sequence[Part]) -> Picture:
    """Return parts side by side, each with its mask's outline and its verdict."""
    frames = learning.see(parts)
    tiles = []
    for part, found in zip(parts, learning.inspect(frames), strict=True):
        image = part.image if part.image.ndim == 3 else cv2.cvtColor(part.image, cv2.COLOR_GRAY2BGR)  # noqa: PLR2004
        large = np.asarray(cv2.resize(overlay(np.asarray(image, np.uint8), found.mask), (TILE, TILE)), np.uint8)
        band = np.full((26, TILE, 3), 255, np.uint8)
        verdict = "flagged" if found.flagged else "passes"
        write(band, f"{part.defect or 'good part'}: {verdict} ({found.score:.1f})", (2, 18))
        tiles += [np.vstack([large, band]), np.full((TILE + 26, 12, 3), 255, np.uint8)]
    row = np.hstack(tiles)
    head = np.full((34, row.shape[1], 3), 255, np.uint8)
    write(head, title, (2, 24), 0.6)
    return np.vstack([head, row])


def stack(pictures: Sequence[Picture]) -> Picture:
    """Return pictures below each other, on white."""
    width = max(picture.shape[1] for picture in pictures)
    rows = []
    for picture in pictures:
        row = np.full((picture.shape[0] + 14, width, 3), 255, np.uint8)
        row[: picture.shape[0], : picture.shape[1]] = picture
        rows.append(row)
    return np.vstack(rows)


def write(canvas: Picture, text: str, place: tuple[int, int], size: float = 0.48) -> None:
    """Write on a picture, at the text's left lower corner."""
    cv2.putText(canvas, text, place, FONT, size, INK, 1, cv2.LINE_AA)


def _axes(title: str, below: str) -> Picture:
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    write(canvas, title, (LEFT, 32), 0.68)
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = round(_y(share))
        cv2.line(canvas, (LEFT, y), (WIDTH - RIGHT, y), FAINT, 1)
        write(canvas, f"{share:.0%}", (14, y + 5))
    write(canvas, below, (LEFT, HEIGHT - 14))
    return canvas


def _y(value: float) -> float:
    return HEIGHT - BOTTOM - min(1.0, max(0.0, value)) * (HEIGHT - TOP - BOTTOM)
