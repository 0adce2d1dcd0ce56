"""What a U-Net is shown of a frame: its brightness, its fine and its middling detail."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

# The sides, in pixels, of the boxes that part a frame into fine and middling detail, and what brings either to about
# the same size. Plain pixels hardly train: from frame to frame the brightness changes far more than any defect does.
FINE, MIDDLING = 5, 17
GAINS = 15.0, 8.0
BANDS = 3
# How far beyond a pixel its bands see.
BEYOND = MIDDLING // 2


def bands(frames: Tensor) -> Tensor:
    """Return (B, 3C, H, W): the frames (B, C, H, W), their fine and their middling detail."""
    fine, middling = _box(frames, FINE), _box(frames, MIDDLING)
    return torch.cat([frames - 0.5, (frames - fine) * GAINS[0], (fine - middling) * GAINS[1]], dim=1)


def _box(frames: Tensor, side: int) -> Tensor:
    margin = side // 2
    padded = functional.pad(frames, (margin, margin, margin, margin), mode="reflect")
    return functional.avg_pool2d(padded, side, stride=1)
