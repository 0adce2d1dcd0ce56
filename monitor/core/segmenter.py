"""A second witness beside the decomposition: a small U-Net that has learnt on synthetic defects what one looks like.

The decomposition knows what is normal *at this place*; on a stochastic texture no bank has that, and its residual is
the texture itself. The segmenter knows what a defect looks like *in this texture*: on normal frames with synthetic
defects pasted in it learns to tell the defect's pixels from the texture's, as the discriminative half of DRAEM does
(Zavrtanik 2021). Alone it would know only defects of the kinds it was shown; it therefore never makes an anomaly, but
weighs the residuals of the decomposition (``monitor.core.scoring.weigh``).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

# The sides, in pixels, of the boxes that part a frame into fine and middling detail, and what brings either to about
# the same size. Plain pixels hardly train: from frame to frame the brightness changes far more than any defect does.
FINE, MIDDLING = 5, 17
GAINS = 15.0, 8.0


class Segmenter(nn.Module):
    """Frames to the log-odds that a pixel belongs to a defect."""

    def __init__(self, channels: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (3 * channels, *widths[:-1])
        self.down = nn.ModuleList(_stage(inner, outer) for inner, outer in zip(inputs, widths, strict=True))
        rising = widths[::-1]
        self.up = nn.ModuleList(_stage(inner + outer, outer) for inner, outer in pairwise(rising))
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the log-odds (B, H, W) of frames (B, C, H, W), each side a multiple of 2^(stages - 1)."""
        maps = bands(frames).contiguous(memory_format=torch.channels_last)
        passed: list[Tensor] = []
        for depth, stage in enumerate(self.down):
            maps = stage(functional.max_pool2d(maps, 2) if depth else maps)
            passed.append(maps)
        passed.pop()
        for stage in self.up:
            raised = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = stage(torch.cat([raised, passed.pop()], dim=1))
        logits: Tensor = self.head(maps)
        return logits[:, 0].contiguous()


def bands(frames: Tensor) -> Tensor:
    """Return (B, 3C, H, W): the frames (B, C, H, W), their fine and their middling detail."""
    fine, middling = _box(frames, FINE), _box(frames, MIDDLING)
    return torch.cat([frames - 0.5, (frames - fine) * GAINS[0], (fine - middling) * GAINS[1]], dim=1)


def _box(frames: Tensor, side: int) -> Tensor:
    margin = side // 2
    padded = functional.pad(frames, (margin, margin, margin, margin), mode="reflect")
    return functional.avg_pool2d(padded, side, stride=1)


def _stage(inner: int, outer: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers += [
            nn.Conv2d(channels, outer, 3, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.LeakyReLU(0.1),
        ]
    return nn.Sequential(*layers)
