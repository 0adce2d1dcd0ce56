"""Writes parts to disk: a folder in the layout of MVTec AD, and a contact sheet for the eye."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.simulation.line import Part, SimulatedLine

OUTLINE_BGR = (40, 60, 235)


def write_mvtec(
    line: SimulatedLine,
    out: Path,
    train: int,
    test_good: int,
    test_defects: int,
    *,
    on_written: Callable[[Part], None] | None = None,
) -> None:
    """Write `train` + `test_good` good and `test_defects` defective parts under `out`, no index twice.

    Makes `train/good`, `test/good`, `test/<defect>` and `ground_truth/<defect>/<stem>_mask.png` (255 on the
    defect). The kinds in the line's settings take turns, so `test_defects` is their total. Calls
    `on_written` after each part.

    Raises:
        ValueError: A count is negative, or there are defects to write and the line's settings name no kind.
        FileExistsError: `out` already holds images, which would mix with these.
        OSError: A file could not be written.
    """
    kinds = line.settings.defects
    for key, value in (("train", train), ("test_good", test_good), ("test_defects", test_defects)):
        if value < 0:
            message = f"{key}={value} is negative: give the number of images to write, or 0 for none"
            raise ValueError(message)
    if test_defects and not kinds:
        message = f"test_defects={test_defects}, but defects=(): name a kind in the settings or write none"
        raise ValueError(message)
    if any((out / folder).exists() for folder in ("train", "test", "ground_truth")):
        message = f"{out} already holds a data set, which would mix with this one: choose an empty folder"
        raise FileExistsError(message)
    for path, part in _plan(line, kinds, train, test_good, test_defects):
        write_png(out / path, part.image)
        if part.defect is not None:
            truth = out / "ground_truth" / part.defect / f"{path.stem}_mask.png"
            write_png(truth, part.mask.astype(np.uint8) * 255)
        if on_written is not None:
            on_written(part)


def _plan(
    line: SimulatedLine, kinds: tuple[str, ...], train: int, test_good: int, test_defects: int
) -> Iterator[tuple[Path, Part]]:
    """Yield each part to write and its image's path below the data set's root."""
    for number in range(train):
        yield Path("train", "good", f"{number:03d}.png"), line.good_part(number)
    for number in range(test_good):
        yield Path("test", "good", f"{number:03d}.png"), line.good_part(train + number)
    for number in range(test_defects):
        turn, which = divmod(number, len(kinds))
        path = Path("test", kinds[which], f"{turn:03d}.png")
        yield path, line.defective_part(train + test_good + number, kinds[which])


def write_png(path: Path, image: NDArray[np.uint8]) -> None:
    """Write `image`, (H, W) or BGR (H, W, 3), and the folders above it.

    Raises:
        OSError: The file could not be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Encoded in memory, because the codec's own file writing reports a full disk or a bad path as a mere False.
    _, data = cv2.imencode(".png", image)
    path.write_bytes(data.tobytes())


def contact_sheet(line: SimulatedLine, columns: int = 6, zoom: int = 3) -> NDArray[np.uint8]:
    """Return a BGR sheet: a row of good parts, one of stamped ones, and one a kind of defect above its masks."""
    stamped = SimulatedLine(replace(line.settings, novelty_from=0, novelty_rate=1.0))
    rows = [[_cell(line.good_part(index), zoom) for index in range(columns)]]
    rows.append([_cell(stamped.good_part(index), zoom) for index in range(columns)])
    for kind in line.settings.defects:
        parts = [line.defective_part(index, kind) for index in range(columns)]
        rows.append([_cell(part, zoom) for part in parts])
        rows.append([_cell(part, zoom, outline=True) for part in parts])
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def _cell(part: Part, zoom: int, *, outline: bool = False) -> NDArray[np.uint8]:
    """Return one part enlarged to its pixels, BGR, with its mask drawn round where `outline`."""
    height, width = part.mask.shape
    image = np.broadcast_to(part.image.reshape(height, width, -1), (height, width, 3))
    large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
    if outline:
        mask = part.mask.astype(np.uint8).repeat(zoom, axis=0).repeat(zoom, axis=1)
        edge = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, np.ones((2, 2), np.uint8)) > 0
        large[edge] = OUTLINE_BGR
    large[:2], large[:, :2] = 255, 255
    return large
