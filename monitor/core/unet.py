"""A small U-Net: the body that the segmenter and the denoiser share."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from monitor.core.tiles import Reach, seen_beyond


class UNet(nn.Module):
    """Planes to planes of the same size.

    Each stage on the way down halves the resolution; on the way up, its output is handed past the deeper stages, so
    that what comes out lies on the pixels of what went in.

    Args:
        inputs: planes in.
        outputs: planes out.
        widths: filters per stage, from the full resolution to the coarsest.
    """

    def __init__(self, inputs: int, outputs: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        entering = (inputs, *widths[:-1])
        self.down = nn.ModuleList(_stage(inner, outer) for inner, outer in zip(entering, widths, strict=True))
        rising = widths[::-1]
        self.up = nn.ModuleList(_stage(inner + outer, outer) for inner, outer in pairwise(rising))
        self.head = nn.Conv2d(widths[0], outputs, 1)

    def reach(self, beyond: int) -> Reach:
        """Return how far it sees, where each of its maps' pixels sees ``beyond`` pixels of the frame on each side."""
        deepest = 0
        for stage in reversed(self.up):
            deepest = math.ceil(seen_beyond(stage, deepest) / 2)
        for depth, stage in reversed(list(enumerate(self.down))):
            deepest = seen_beyond(stage, deepest) * (2 if depth else 1)
        return Reach.of(deepest + beyond, 2 ** (len(self.down) - 1))

    def planes(self, maps: Tensor) -> Tensor:
        """Return (B, outputs, H, W) of maps (B, inputs, H, W), each side a multiple of 2^(stages - 1)."""
        maps = maps.contiguous(memory_format=torch.channels_last)
        passed: list[Tensor] = []
        for depth, stage in enumerate(self.down):
            maps = stage(functional.max_pool2d(maps, 2) if depth else maps)
            passed.append(maps)
        passed.pop()
        for stage in self.up:
            raised = functional.interpolate(maps, scale_factor=2.0, mode="nearest")
            maps = stage(torch.cat([raised, passed.pop()], dim=1))
        planes: Tensor = self.head(maps)
        return planes


def _stage(inner: int, outer: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inner, outer):
        layers += [
            nn.Conv2d(channels, outer, 3, padding=1, bias=False),
            nn.BatchNorm2d(outer),
            nn.LeakyReLU(0.1),
        ]
    return nn.Sequential(*layers)
