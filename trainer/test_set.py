"""Test images with their true masks, in MVTec layout, at the network's size."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.preprocessing import decode_pixels
from monitor.core.view import Placement, Prepared, Viewer
from schemas.errors import DataError, UnregistrableError
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
        unregistered: how many could not be registered, and are measured where they lie.
    """

    __test__ = False  # no test case, whatever its name

    images: NDArray[np.float32]
    truth: NDArray[np.bool_]
    good: NDArray[np.bool_]
    masked: NDArray[np.bool_]
    names: tuple[str, ...]
    unregistered: int = 0

    @property
    def delineated(self) -> NDArray[np.bool_]:
        """(B,) the frames that Dice is measured on: defective, with a known mask that is not empty at this size."""
        return self.masked & ~self.good & self.truth.any(axis=(1, 2))


def load_test_set(data: Path, other: Path | None, viewer: Viewer, limit: int | None, seed: int) -> TestSet:
    """Read ``test`` and ``ground_truth`` of a folder in MVTec layout, as the line's view shows them.

    Args:
        data: the folder with the training normals.
        other: where the test images are if not there. Has it no good ones, those of ``data`` are taken.
        viewer: prepares the frames; a defect's ignored pixels do not count.
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
    read = [_read(path, viewer) for path in paths]
    truths = [
        None if path.parent.name == GOOD else _truth(folder, path, viewer, seen.placement)
        for path, (seen, _) in zip(paths, read, strict=True)
    ]
    blank = np.zeros((viewer.spec.height, viewer.spec.width), np.bool_)
    good = np.arange(len(paths)) < len(goods)
    return TestSet(
        images=np.stack([seen.pixels for seen, _ in read]),
        truth=np.stack([blank if truth is None else truth for truth in truths]),
        good=good,
        masked=good | np.array([truth is not None for truth in truths]),
        names=tuple(f"{path.parent.name}/{path.stem}" for path in paths),
        unregistered=sum(not registered for _, registered in read),
    )


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _draw(paths: list[Path], limit: int | None, rng: np.random.Generator) -> list[Path]:
    if limit is None or len(paths) <= limit:
        return paths
    return [paths[index] for index in np.sort(rng.choice(len(paths), limit, replace=False))]


def _read(path: Path, viewer: Viewer) -> tuple[Prepared, bool]:
    """Return a frame as the network sees it, and whether its part could be registered."""
    try:
        image = decode_pixels(path.read_bytes(), viewer.spec.channels)
    except ValueError as error:
        msg = f"{path}: {error}. Convert it, or take it out of the folder."
        raise DataError(msg) from error
    if image is None:
        msg = f"{path}: not an image that can be read. Take it out of the folder, or restore it."
        raise DataError(msg)
    size, roi = (image.shape[0], image.shape[1]), viewer.view.roi
    if roi and size != viewer.spec.source_size:
        msg = f"{path}: {size[1]} x {size[0]} pixels, unlike the normals, so --roi means another place in it."
        raise DataError(msg)
    try:
        return viewer.prepare(image), True
    except UnregistrableError:
        # The line would not judge it. To leave it out would flatter, and the other methods see it too.
        return viewer.prepare_at(Placement(size, roi), image), False


def _truth(folder: Path, image: Path, viewer: Viewer, placement: Placement) -> NDArray[np.bool_] | None:
    """Return the true mask (H, W) of a defective image where the network sees it, None if there is none."""
    stem = folder / "ground_truth" / image.parent.name / image.stem
    for path in (stem.with_name(f"{image.stem}_mask.png"), stem.with_name(f"{image.stem}.png")):
        if path.is_file():
            mask = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
            if mask is None:
                msg = f"{path}: not a mask that can be read. Restore it."
                raise DataError(msg)
            truth = _placed(np.asarray(mask) > HALF, placement, path)
            seen = shrink(truth, (viewer.spec.height, viewer.spec.width))
            return seen if viewer.inspected is None else seen & viewer.inspected
    return None


def _placed(truth: NDArray[np.bool_], placement: Placement, path: Path) -> NDArray[np.bool_]:
    """Return a mask of the camera's size as the network sees it, not resized yet."""
    if placement.roi is None and placement.moved is None:
        return truth
    if truth.shape != placement.frame:
        msg = f"{path}: {truth.shape[1]} x {truth.shape[0]} pixels, unlike its image, so it cannot be laid on it."
        raise DataError(msg)
    return placement.look(truth.astype(np.float32)) >= 0.5  # noqa: PLR2004 - covered by half
