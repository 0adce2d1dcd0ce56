"""What the gate shows people: the odd place of the part that was refused, beside the defect that it would hide."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.learning.gate import Box, Hidden

SIDE: Final = 240
BORDER: Final = 10
CAPTION: Final = 26
ROOM: Final = 16  # pixels of the frame around the odd place: what is missing is seen by its surroundings
LINE: Final = (40, 40, 230)  # BGR
FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


def picture_of(hidden: Hidden, pixels: NDArray[np.float32]) -> bytes:
    """Return a PNG of both frames' patches side by side, the refused part (C, H, W) on the left."""
    defect = hidden.defect.look()
    panels = [_panel(pixels, hidden.box, "confirmed normal, refused")]
    if defect is not None:
        panels.append(_panel(defect, hidden.defect_box, "confirmed defect"))
    gap = np.full((panels[0].shape[0], BORDER, 3), 255, np.uint8)
    row = [part for panel in panels for part in (gap, panel)]
    return cv2.imencode(".png", np.hstack([*row, gap]))[1].tobytes()


def _panel(pixels: NDArray[np.float32], box: Box, caption: str) -> NDArray[np.uint8]:
    x, y, width, height = box
    side = min(max(width, height) + 2 * ROOM, *pixels.shape[1:])
    left = int(np.clip(x + width // 2 - side // 2, 0, pixels.shape[2] - side))
    top = int(np.clip(y + height // 2 - side // 2, 0, pixels.shape[1] - side))
    patch = (pixels[:, top : top + side, left : left + side].transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)
    large = np.asarray(cv2.resize(patch, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), np.uint8)
    canvas = np.array(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR) if large.ndim == 2 else large)  # noqa: PLR2004 - grey
    scale = SIDE / side
    first = int((x - left) * scale), int((y - top) * scale)
    last = int((x - left + width) * scale), int((y - top + height) * scale)
    cv2.rectangle(canvas, first, last, LINE, 1)
    band = np.full((CAPTION, SIDE, 3), 255, np.uint8)
    cv2.putText(band, caption, (2, CAPTION - 9), FONT, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    return np.vstack([canvas, band, np.full((BORDER, SIDE, 3), 255, np.uint8)])
