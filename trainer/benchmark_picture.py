"""The picture of a benchmark, like the paper's Fig. 9: a row per frame, with each method's steps, map and mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.baselines.base import Layers
from trainer.metrics import Maps, Masks, dice
from trainer.test_set import TestSet

CELL, GAP, HEADER, CAPTION = 128, 4, 40, 16
PAPER, INK = 32, (235, 235, 235)
RESIDUAL_GAIN = 3.0
Cell = NDArray[np.uint8]  # (CELL, CELL, 3) BGR


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
        _write(sheet, above, GAP + column * (CELL + GAP), 15)
        _write(sheet, below, GAP + column * (CELL + GAP), 33)
    for row, index in enumerate(shown):
        top = HEADER + row * (CELL + CAPTION + GAP)
        truth = test.truth[index]
        cells = [(_image(test.images[index]), test.names[index]), (_image(truth[None]), "")]
        for panel in panels:
            cells += _method_cells(panel, row, truth)
        for column, (cell, caption) in enumerate(cells):
            left = GAP + column * (CELL + GAP)
            sheet[top : top + CELL, left : left + CELL] = cell
            _write(sheet, caption, left, top + CELL + 12)
    return sheet


def _method_cells(panel: Panel, row: int, truth: NDArray[np.bool_]) -> list[tuple[Cell, str]]:
    """Return one method's cells of a row, each with its caption."""
    cells: list[tuple[Cell, str]] = []
    if panel.layers is not None:
        layers = panel.layers
        steps = layers.prior[row], layers.background[row], RESIDUAL_GAIN * np.abs(layers.residual[row])
        cells = [(_image(step), "") for step in steps]
    dark, bright = panel.scale
    heat = np.clip((panel.maps[row] - dark) / max(bright - dark, 1e-12) * 255, 0, 255).astype(np.uint8)
    cells.append((_fit(np.asarray(cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO), dtype=np.uint8)), ""))
    caption = f"Dice {dice(panel.masks[row][None], truth[None])[0]:.2f}" if truth.any() else ""
    return [*cells, (_image(panel.masks[row][None]), caption)]


def _image(planes: NDArray[np.generic]) -> Cell:
    """Return (C, H, W) in [0, 1], C = 1 or 3, as a cell."""
    pixels = np.clip(planes.astype(np.float32).transpose(1, 2, 0) * 255, 0, 255).astype(np.uint8)
    return _fit(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels)


def _fit(pixels: NDArray[np.uint8]) -> Cell:
    """Return (h, w, 3) centred in a cell, its aspect kept."""
    scale = CELL / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    cell = np.full((CELL, CELL, 3), PAPER, np.uint8)
    top, left = (CELL - size[1]) // 2, (CELL - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = resized
    return cell


def _write(sheet: NDArray[np.uint8], text: str, x: int, y: int) -> None:
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, INK, 1, cv2.LINE_AA)
