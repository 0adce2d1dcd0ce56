"""What the demo streams: parts with the truth about them, simulated or from a data set in MVTec layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.simulation import Part, SimulatedLine
from schemas.errors import DataError

SUFFIXES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".bmp": "image/bmp"}
GOOD = "good"


@dataclass(frozen=True)
class DemoPart:
    """One part as the camera sends it, and the truth that only the demo knows.

    Attributes:
        serial: the part's serial number.
        content: the encoded image.
        content_type: of ``content``.
        defect: the kind of defect, None on a good part.
        truth: bool (h, w) at the camera's size: the defect's true mask; empty on a good part.
        variant: a harmless novelty on a good part, None on an ordinary one.
    """

    serial: str
    content: bytes = field(repr=False)
    content_type: str
    defect: str | None
    truth: NDArray[np.bool_] = field(repr=False)
    variant: str | None = None

    @property
    def good(self) -> bool:
        """Whether the part has no defect."""
        return self.defect is None


def simulated(part: Part) -> DemoPart:
    """Return a simulated part, its image encoded as PNG."""
    encoded = cv2.imencode(".png", part.image)[1]
    return DemoPart(part.serial, encoded.tobytes(), "image/png", part.defect, part.mask, part.variant)


def write_normals(line: SimulatedLine, folder: Path, count: int) -> None:
    """Write ``count`` good parts of the line into a folder, as a camera would deliver them for training."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        part = line.good_part(index)
        cv2.imwrite(str(folder / f"{part.serial}.png"), part.image)


def dataset_parts(data: Path, seed: int) -> list[DemoPart]:
    """Return all parts of ``data/test``, shuffled by ``seed``.

    Raises:
        DataError: there are none, or a defect's mask is missing.
    """
    folder = data / "test"
    if not folder.is_dir():
        msg = f"{folder}: no such folder. --data needs an MVTec layout: train/good, test/<kind>, ground_truth/<kind>."
        raise DataError(msg)
    parts = [part for kind in sorted(folder.iterdir()) if kind.is_dir() for part in _parts_of(data, kind)]
    if not parts:
        msg = f"{folder}: no images ({', '.join(SUFFIXES)}) in its subfolders."
        raise DataError(msg)
    order = np.random.default_rng(seed).permutation(len(parts))
    return [parts[index] for index in order]


def _parts_of(data: Path, folder: Path) -> Iterator[DemoPart]:
    kind = folder.name
    for path in sorted(folder.iterdir()):
        content_type = SUFFIXES.get(path.suffix.lower())
        if content_type is None:
            continue
        content = path.read_bytes()
        image = _read(content, path)
        truth = np.zeros(image.shape, dtype=np.bool_)
        if kind != GOOD:
            mask = data / "ground_truth" / kind / f"{path.stem}_mask.png"
            if not mask.is_file():
                msg = f"{mask}: missing; without it the demo cannot tell how good the mask of {path} is."
                raise DataError(msg)
            truth = _read(mask.read_bytes(), mask) > 127  # noqa: PLR2004 - half of 255
        yield DemoPart(f"{kind}-{path.stem}", content, content_type, None if kind == GOOD else kind, truth)


def _read(content: bytes, path: Path) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE) if content else None
    if image is None:
        msg = f"{path}: not an image that can be read. Restore it from its source."
        raise DataError(msg)
    return np.asarray(image, dtype=np.uint8)
