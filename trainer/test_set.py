"""Test images with their true masks, in MVTec layout, at the network's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.preprocessing import decode_pixels, prepare
from schemas.artifacts import InputSpec
from schemas.errors import DataError
from trainer.dataset import SUFFIXES
from trainer.metrics import shrink

GOOD = "good"
HALF = 127  # a mask is 0 or 255; in between lie those that were saved with loss


@dataclass(frozen=True, slots=True)
class TestSet:
    """Frames that no method learns from; the good ones first.

    Attributes:
        images: (B, C, H, W) in [0, 1].
        truth: (B, H, W), the pixels a defect covers by half or more.
        good: (B,) which frames are good.
        masked: (B,) which frames' truth is known: the good ones, and those whose mask is there.
        names: ``kind/stem`` of each.
    """

    __test__ = False  # no test case, whatever its name

    images: NDArray[np.float32]
    truth: NDArray[np.bool_]
    good: NDArray[np.bool_]
    masked: NDArray[np.bool_]
    names: tuple[str, ...]

    @property
    def delineated(self) -> NDArray[np.bool_]:
        """(B,) the frames that Dice is measured on: defective, with a known mask that is not empty at this size."""
        return self.masked & ~self.good & self.truth.any(axis=(1, 2))


def load_test_set(data: Path, other: Path | None, spec: InputSpec, limit: int | None, seed: int) -> TestSet:
    """Read ``test`` and ``ground_truth`` of a folder in MVTec layout.

    Args:
        data: the folder with the training normals.
        other: where the test images are if not there. Has it no good ones, those of ``data`` are taken.
        spec: the network's size.
        limit: at most so many good and so many defective frames, drawn at random by ``seed``.
        seed: of that draw.

    Raises:
        DataError: there are no test images, or one cannot be read.
    """
    folder = other or data
    goods = _images(folder / "test" / GOOD) or _images(data / "test" / GOOD)
    kinds = sorted(path for path in (folder / "test").glob("*") if path.is_dir() and path.name != GOOD)
    defects = [path for kind in kinds for path in _images(kind)]
    if not defects:
        msg = f"{folder}: no defective images (test/DEFECT/*). The benchmark needs the layout of MVTec AD."
        raise DataError(msg)
    rng = np.random.default_rng(seed)
    goods, defects = _draw(goods, limit, rng), _draw(defects, limit, rng)
    paths = [*goods, *defects]
    truths = [None if path.parent.name == GOOD else _truth(folder, path, spec) for path in paths]
    blank = np.zeros((spec.height, spec.width), np.bool_)
    good = np.arange(len(paths)) < len(goods)
    return TestSet(
        images=np.stack([_read(path, spec) for path in paths]),
        truth=np.stack([blank if truth is None else truth for truth in truths]),
        good=good,
        masked=good | np.array([truth is not None for truth in truths]),
        names=tuple(f"{path.parent.name}/{path.stem}" for path in paths),
    )


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _draw(paths: list[Path], limit: int | None, rng: np.random.Generator) -> list[Path]:
    if limit is None or len(paths) <= limit:
        return paths
    return [paths[index] for index in np.sort(rng.choice(len(paths), limit, replace=False))]


def _read(path: Path, spec: InputSpec) -> NDArray[np.float32]:
    try:
        image = decode_pixels(path.read_bytes(), spec.channels)
    except ValueError as error:
        msg = f"{path}: {error}. Convert it, or take it out of the folder."
        raise DataError(msg) from error
    if image is None:
        msg = f"{path}: not an image that can be read. Take it out of the folder, or restore it."
        raise DataError(msg)
    return prepare(image, spec)


def _truth(folder: Path, image: Path, spec: InputSpec) -> NDArray[np.bool_] | None:
    """Return the true mask (H, W) of a defective image, None if there is none."""
    stem = folder / "ground_truth" / image.parent.name / image.stem
    for path in (stem.with_name(f"{image.stem}_mask.png"), stem.with_name(f"{image.stem}.png")):
        if path.is_file():
            mask = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
            if mask is None:
                msg = f"{path}: not a mask that can be read. Restore it."
                raise DataError(msg)
            return shrink(np.asarray(mask) > HALF, (spec.height, spec.width))
    return None
