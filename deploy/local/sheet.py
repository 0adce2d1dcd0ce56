"""The contact sheet: frame, truth, prior, background, residual, anomaly map and mask of some parts, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.local.parts import DemoPart
from monitor.core.inspector import Inspection, Inspector
from trainer.metrics import mean_dice, shrink

COLUMNS = ("frame", "truth", "prior", "background", "residual", "anomaly", "mask")
CELL = 160
GAP = 6
HEADER = 26
INK = (235, 235, 235)
PAPER = 32
RESIDUAL_GAIN = 3.0


def write_sheet(path: Path, inspector: Inspector, parts: Sequence[DemoPart]) -> None:
    """Inspect parts with the model's own bank and write their sheet as PNG."""
    rows = [_row(inspector, part) for part in parts]
    width = len(COLUMNS) * (CELL + GAP) + GAP
    sheet = np.full((HEADER + len(rows) * (CELL + HEADER + GAP), width, 3), PAPER, np.uint8)
    for column, name in enumerate(COLUMNS):
        _write(sheet, name, GAP + column * (CELL + GAP), 18)
    for index, (caption, cells) in enumerate(rows):
        top = HEADER + index * (CELL + HEADER + GAP)
        for column, cell in enumerate(cells):
            left = GAP + column * (CELL + GAP)
            sheet[top : top + CELL, left : left + CELL] = cell
        _write(sheet, caption, GAP, top + CELL + 18)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet)


def _row(inspector: Inspector, part: DemoPart) -> tuple[str, list[NDArray[np.uint8]]]:
    image = np.asarray(cv2.imdecode(np.frombuffer(part.content, np.uint8), cv2.IMREAD_UNCHANGED), dtype=np.uint8)
    frame = inspector.prepare(image)
    inspection = inspector.inspect(frame[None], inspector.new_bank())[0]
    truth = shrink(part.truth, (frame.shape[1], frame.shape[2]))
    calibration = inspector.manifest.calibration
    cells = [
        _picture(frame),
        _picture(truth[None]),
        _picture(inspection.prior),
        _picture(inspection.background),
        _picture(RESIDUAL_GAIN * np.abs(inspection.residual)),
        _heat(inspection.anomaly / (2 * calibration.mask_threshold)),
        _picture(inspection.mask[None]),
    ]
    return _caption(part, inspection, truth, calibration.verdict.threshold), cells


def _caption(part: DemoPart, inspection: Inspection, truth: NDArray[np.bool_], limit: float) -> str:
    truth_says = part.defect or part.variant or "good"
    verdict = "flagged" if inspection.flagged else "passed"
    dice = "" if part.good else f", Dice {mean_dice(inspection.mask[None], truth[None]):.2f}"
    return f"{part.serial} ({truth_says}): {verdict}, score {inspection.score:.1f} of {limit:.1f}{dice}"


def _picture(planes: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return (C, H, W) in [0, 1] as a square BGR cell."""
    pixels = np.clip(planes.astype(np.float32).transpose(1, 2, 0) * 255, 0, 255).astype(np.uint8)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return _fit(pixels)


def _heat(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    scaled = np.clip(values * 255, 0, 255).astype(np.uint8)
    return _fit(np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO), dtype=np.uint8))


def _fit(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture centred in a square cell, its aspect kept."""
    scale = CELL / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    cell = np.full((CELL, CELL, 3), PAPER, np.uint8)
    top, left = (CELL - size[1]) // 2, (CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = resized
    return cell


def _write(sheet: NDArray[np.uint8], text: str, x: int, y: int) -> None:
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, INK, 1, cv2.LINE_AA)
