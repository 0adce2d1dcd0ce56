"""Square cells of a contact sheet, and the words on it. Colours are BGR."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

PAPER, INK = 32, (235, 235, 235)
RESIDUAL_GAIN = 3.0  # residuals are faint: shown so many times brighter
Cell = NDArray[np.uint8]  # (side, side, 3)


def image_cell(planes: NDArray[np.generic], side: int) -> Cell:
    """Return (C, H, W) in [0, 1], C = 1 or 3, as a cell."""
    pixels = np.clip(planes.astype(np.float32).transpose(1, 2, 0) * 255, 0, 255).astype(np.uint8)
    return fit(np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels, side)


def heat_cell(values: NDArray[np.float32], side: int) -> Cell:
    """Return a map (H, W), 0 darkest and 1 brightest, as a cell."""
    scaled = np.clip(values * 255, 0, 255).astype(np.uint8)
    return fit(np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_INFERNO), dtype=np.uint8), side)


def fit(pixels: NDArray[np.uint8], side: int) -> Cell:
    """Return a picture (h, w, 3) centred in a cell, its aspect kept."""
    scale = side / max(pixels.shape[:2])
    size = max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))
    resized = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    cell = np.full((side, side, 3), PAPER, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    cell[top : top + size[1], left : left + size[0]] = resized
    return cell


def write(sheet: NDArray[np.uint8], text: str, x: int, y: int, height: float) -> None:
    """Write on a sheet (h, w, 3), the baseline's left end at (x, y)."""
    cv2.putText(sheet, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, height, INK, 1, cv2.LINE_AA)
