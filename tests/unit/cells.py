"""Cells as electroluminescence shows them, drawn: bright, with dark busbars and fingers, on a dark ground."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def cell(number: int, height: int = 200, width: int = 200, *, colour: bool = False) -> Image:
    """Draw cell ``number`` in the middle of a frame: its light, its stains and its noise are its own."""
    rng = np.random.default_rng(number)
    frame = np.full((height, width), 12.0, np.float32)
    top, left = height // 8, width // 8
    down, across = height - 2 * top, width - 2 * left
    body = np.full((down, across), rng.uniform(90, 190), np.float32)
    stains = cv2.resize(rng.normal(0, 1, (5, 5)).astype(np.float32), (across, down), interpolation=cv2.INTER_CUBIC)
    body *= 1 + 0.15 * stains
    body[:: max(4, down // 12)] *= 0.85  # fingers
    for bar in (1, 2, 3):
        place = bar * across // 4
        body[:, place - across // 50 - 1 : place + across // 50 + 1] *= 0.35
    cut = min(down, across) // 6  # two cut corners: turned by half a circle it is another part
    rows, columns = np.indices(body.shape)
    body[(rows + columns < cut) | (rows - columns > down - cut)] = 12
    frame[top : top + down, left : left + across] = body
    frame = cv2.GaussianBlur(frame, (0, 0), 0.8) + rng.normal(0, 2, frame.shape)
    if colour:
        frame = frame[:, :, None] * np.array([0.6, 0.8, 1.0])
    return frame.clip(0, 255).astype(np.uint8)


def moved(image: Image, right: float, down: float, degrees: float) -> Image:
    """Shift an image in pixels and turn it about its centre, counter-clockwise."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    matrix[:, 2] += (right, down)
    flags = cv2.INTER_CUBIC
    return cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def write(folder: Path, images: list[Image]) -> Path:
    """Write images as ``000.png`` and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        cv2.imwrite(str(folder / f"{index:03d}.png"), image)
    return folder
