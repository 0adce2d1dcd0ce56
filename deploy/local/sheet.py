"""The contact sheet: frame, truth, prior, background, residual, anomaly map and mask of some parts, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.local.parts import DemoPart
from monitor.core.inspector import Inspection, Inspector
from trainer.cells import PAPER, RESIDUAL_GAIN, Cell, heat_cell, image_cell, write
from trainer.metrics import mean_dice, shrink

COLUMNS = ("frame", "truth", "prior", "background", "residual", "anomaly", "mask")
CELL = 160
GAP = 6
HEADER = 26
LETTERS = 0.45


def write_sheet(path: Path, inspector: Inspector, parts: Sequence[DemoPart]) -> None:
    """Inspect parts with the model's own bank and write their sheet as PNG."""
    rows = [_row(inspector, part) for part in parts]
    width = len(COLUMNS) * (CELL + GAP) + GAP
    sheet = np.full((HEADER + len(rows) * (CELL + HEADER + GAP), width, 3), PAPER, np.uint8)
    for column, name in enumerate(COLUMNS):
        write(sheet, name, GAP + column * (CELL + GAP), 18, LETTERS)
    for index, (caption, cells) in enumerate(rows):
        top = HEADER + index * (CELL + HEADER + GAP)
        for column, cell in enumerate(cells):
            left = GAP + column * (CELL + GAP)
            sheet[top : top + CELL, left : left + CELL] = cell
        write(sheet, caption, GAP, top + CELL + 18, LETTERS)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), sheet)


def _row(inspector: Inspector, part: DemoPart) -> tuple[str, list[Cell]]:
    image = np.asarray(cv2.imdecode(np.frombuffer(part.content, np.uint8), cv2.IMREAD_UNCHANGED), dtype=np.uint8)
    frame = inspector.prepare(image).pixels
    inspection = inspector.inspect(frame[None], inspector.new_bank())[0]
    truth = shrink(part.truth, (frame.shape[1], frame.shape[2]))
    calibration = inspector.manifest.calibration
    cells = [
        image_cell(frame, CELL),
        image_cell(truth[None], CELL),
        image_cell(inspection.prior, CELL),
        image_cell(inspection.background, CELL),
        image_cell(RESIDUAL_GAIN * np.abs(inspection.residual), CELL),
        heat_cell(inspection.anomaly / (2 * calibration.mask_threshold), CELL),
        image_cell(inspection.mask[None], CELL),
    ]
    return _caption(part, inspection, truth, calibration.verdict.threshold), cells


def _caption(part: DemoPart, inspection: Inspection, truth: NDArray[np.bool_], limit: float) -> str:
    truth_says = part.defect or part.variant or "good"
    verdict = "flagged" if inspection.flagged else "passed"
    dice = "" if part.good else f", Dice {mean_dice(inspection.mask[None], truth[None]):.2f}"
    return f"{part.serial} ({truth_says}): {verdict}, score {inspection.score:.1f} of {limit:.1f}{dice}"
