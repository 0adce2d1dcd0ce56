"""The picture of a benchmark, like the paper's Fig. 9: a row per frame, with each method's steps, map and mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.baselines.base import Layers
from trainer.cells import PAPER, RESIDUAL_GAIN, Cell, heat_cell, image_cell, write
from trainer.metrics import Maps, Masks, dice
from trainer.test_set import TestSet

CELL, GAP, HEADER, CAPTION = 128, 4, 40, 16
LETTERS = 0.4


@dataclass(frozen=True, slots=True)
class Panel:
    """What is shown of one method, for the chosen frames.

    Attributes:
        name: of the method.
        maps: (R, H, W).
        scale: the map values shown darkest and brightest.
        masks: (R, H, W), with the label-free threshold.
        layers: prior, background and residual, where the method has them.
    """

    name: str
    maps: Maps
    scale: tuple[float, float]
    masks: Masks
    layers: Layers | None


def draw_picture(test: TestSet, shown: NDArray[np.intp], panels: Sequence[Panel]) -> NDArray[np.uint8]:
    """Return the picture (h, w, 3) BGR of the frames ``shown`` (R,)."""
    columns = [("frame", ""), ("truth", "")]
    for panel in panels:
        names = ("prior", "background", "residual") if panel.layers is not None else ()
        columns += [(panel.name if not index else "", name) for index, name in enumerate((*names, "map", "mask"))]
    width = len(columns) * (CELL + GAP) + GAP
    sheet = np.full((HEADER + len(shown) * (CELL + CAPTION + GAP), width, 3), PAPER, np.uint8)
    for column, (above, below) in enumerate(columns):
        write(sheet, above, GAP + column * (CELL + GAP), 15, LETTERS)
        write(sheet, below, GAP + column * (CELL + GAP), 33, LETTERS)
    for row, index in enumerate(shown):
        top = HEADER + row * (CELL + CAPTION + GAP)
        truth = test.truth[index]
        cells = [(image_cell(test.images[index], CELL), test.names[index]), (image_cell(truth[None], CELL), "")]
        for panel in panels:
            cells += _method_cells(panel, row, truth)
        for column, (cell, caption) in enumerate(cells):
            left = GAP + column * (CELL + GAP)
            sheet[top : top + CELL, left : left + CELL] = cell
            write(sheet, caption, left, top + CELL + 12, LETTERS)
    return sheet


def _method_cells(panel: Panel, row: int, truth: NDArray[np.bool_]) -> list[tuple[Cell, str]]:
    """Return one method's cells of a row, each with its caption."""
    cells: list[tuple[Cell, str]] = []
    if panel.layers is not None:
        layers = panel.layers
        steps = layers.prior[row], layers.background[row], RESIDUAL_GAIN * np.abs(layers.residual[row])
        cells = [(image_cell(step, CELL), "") for step in steps]
    dark, bright = panel.scale
    cells.append((heat_cell((panel.maps[row] - dark) / max(bright - dark, 1e-12), CELL), ""))
    caption = f"Dice {dice(panel.masks[row][None], truth[None])[0]:.2f}" if truth.any() else ""
    return [*cells, (image_cell(panel.masks[row][None], CELL), caption)]
