"""Training the segmenter: on small pieces of normal frames with synthetic defects, to mark every defective pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from monitor.core.segmenter import Segmenter
from schemas.artifacts import Architecture
from schemas.errors import TrainingError
from trainer.crops import choose_crop
from trainer.descent import Progress, descend
from trainer.visible_defects import paste_visible_defect

Images = NDArray[np.float32]
Masks = NDArray[np.bool_]
Inspected = NDArray[np.bool_] | None
# Standard deviations of the light's gain, from place to place, and of its offset, of a range of 1.
UNEVEN, OFFSET = 0.12, 0.03
# Its gradient steps for each of the autoencoder's, where a user says how many.
STEPS_EACH = 2
MIRRORED = ((), (1,), (2,), (1, 2))


@dataclass(frozen=True, slots=True)
class SegmenterSettings:
    """How the segmenter is trained. The defaults hold for every product.

    Attributes:
        steps: gradient steps.
        batch: pieces per step.
        piece: the side of a piece, in pixels: small ones show more frames, and more defects, in the same time.
        pieces: taken from one defective frame, or crop of a large one.
        defects: pasted into a frame, at least and at most.
        on_defect: share of the pieces that lie on a defect.
        clean: share of the pieces that are shown without any.
        varied_light: share of the frames that are shown in another light: a line's light changes, and is no defect.
        learning_rate: the highest of the one-cycle schedule.
        seed: of everything random.
    """

    steps: int = 2400
    batch: int = 24
    piece: int = 64
    pieces: int = 4
    defects: tuple[int, int] = (2, 4)
    on_defect: float = 0.6
    clean: float = 0.15
    varied_light: float = 0.5
    learning_rate: float = 3e-3
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Pieces:
    """A batch of pieces.

    Attributes:
        frames: (B, C, h, w) as they are shown, most with defects.
        normals: (B, C, h, w) the same in the same light, without.
        masks: (B, h, w) where the defects are.
    """

    frames: Images
    normals: Images
    masks: Masks


def train_segmenter(
    architecture: Architecture,
    images: Images,
    settings: SegmenterSettings,
    progress: Progress | None = None,
    inspected: Inspected = None,
) -> Segmenter:
    """Train a segmenter on normal images (N, C, H, W).

    Args:
        architecture: its channels and widths.
        images: normals; which of them are mirrored does not matter to it, so all are.
        settings: how.
        progress: told after each step.
        inspected: (H, W) the pixels that count; None: all.

    Raises:
        TrainingError: its loss is no number.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    segmenter = Segmenter(architecture.input.channels, architecture.segmenter)

    def loss() -> Tensor:
        frames, truth = draw_pieces(images, settings, rng, inspected)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_halves()):
            logits = segmenter(torch.from_numpy(frames))
        return segmentation_loss(logits.float(), torch.from_numpy(truth))

    last = descend(segmenter, loss, settings.steps, settings.learning_rate, progress)
    if not np.isfinite(last):
        msg = "the segmenter's loss is no number. Nothing was saved. Train with a smaller --learning-rate."
        raise TrainingError(msg)
    return segmenter


def segmentation_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Return cross-entropy plus half the soft Dice loss of the batch, of logits and truth (B, H, W).

    Defects are a few pixels in a hundred: the cross-entropy alone would long be content with none.
    """
    wanted = truth.float()
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted)
    found = logits.sigmoid()
    overlap = (2.0 * (found * wanted).sum() + 1.0) / (found.sum() + wanted.sum() + 1.0)
    return entropy + 0.5 * (1.0 - overlap)


def draw_pieces(
    images: Images, settings: SegmenterSettings, rng: np.random.Generator, inspected: Inspected = None
) -> tuple[Images, Masks]:
    """Return a batch of pieces (B, C, h, w) and of their true masks (B, h, w)."""
    pieces = draw_restorable_pieces(images, settings, rng, inspected)
    return pieces.frames, pieces.masks


def draw_restorable_pieces(
    images: Images, settings: SegmenterSettings, rng: np.random.Generator, inspected: Inspected = None
) -> Pieces:
    """Return a batch of pieces, of their true masks and of what they show without their defects."""
    frames: list[Images] = []
    normals: list[Images] = []
    masks: list[Masks] = []
    while len(frames) < settings.batch:
        axes = MIRRORED[rng.integers(len(MIRRORED))]
        normal = np.flip(images[rng.integers(len(images))], axes)
        counts = None if inspected is None else np.flip(inspected, tuple(axis - 1 for axis in axes))
        rows, columns = choose_crop(normal.shape[1:], rng, inspected=counts)
        normal, counts = normal[:, rows, columns], None if counts is None else counts[rows, columns]
        normal = vary_light(normal, rng) if rng.random() < settings.varied_light else np.ascontiguousarray(normal)
        defective, mask = _spoil(normal, settings, rng, counts)
        for _ in range(settings.pieces):
            place = _choose_place(mask, settings, rng)
            clean = rng.random() < settings.clean
            frames.append((normal if clean else defective)[:, *place])
            normals.append(normal[:, *place])
            masks.append(np.zeros_like(mask[place]) if clean else mask[place])
    count = settings.batch
    return Pieces(np.stack(frames[:count]), np.stack(normals[:count]), np.stack(masks[:count]))


def vary_light(image: Images, rng: np.random.Generator) -> Images:
    """Return an image (C, H, W) in another light: somewhat brighter or darker, and not everywhere alike."""
    height, width = image.shape[1:]
    corners = rng.normal(0.0, UNEVEN, (3, 3)).astype(np.float32)
    field = cv2.resize(corners, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(image * (1.0 + field) + rng.normal(0.0, OFFSET), 0.0, 1.0), dtype=np.float32)


def _spoil(
    normal: Images, settings: SegmenterSettings, rng: np.random.Generator, inspected: Inspected
) -> tuple[Images, Masks]:
    image, mask = normal, np.zeros(normal.shape[1:], np.bool_)
    least, most = settings.defects
    for _ in range(rng.integers(least, most + 1)):
        defect = paste_visible_defect(image, rng, inspected)
        image, mask = defect.image, mask | defect.mask
    return image, mask


def _choose_place(mask: Masks, settings: SegmenterSettings, rng: np.random.Generator) -> tuple[slice, slice]:
    """Return a piece's rows and columns: on a pixel of the mask (H, W), anywhere in the piece, or just anywhere."""
    size = np.array([min(settings.piece, side) for side in mask.shape])
    room = np.array(mask.shape) - size
    corner = rng.integers(room + 1)
    if rng.random() < settings.on_defect and mask.any():
        pixels = np.argwhere(mask)
        margin = size // 8
        corner = pixels[rng.integers(len(pixels))] - rng.integers(margin, size - margin)
    top, left = np.clip(corner, 0, room)
    return slice(top, top + size[0]), slice(left, left + size[1])


def fast_halves() -> bool:
    """Return whether this processor multiplies in bfloat16 itself; elsewhere it would be slower, not faster."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())
