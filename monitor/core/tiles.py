"""Frames larger than a tile go through a network tile by tile: the same result without a seam, in bounded memory.

What a convolutional network says of a place depends on the frame only as far as it sees. So each tile is shown with a
halo of its surroundings as wide as that, and what the network says of the halo is thrown away. At the frame's own
border there is no halo: the convolutions' zeros and the reflection of ``monitor.core.bands`` stand there as they do
for the whole frame. Poolings halve the same pixels as in the whole frame if each tile begins on their grid.

Only networks are tiled, for they make dozens of planes of each frame at once. The retrieval, the decomposition and the
scores make a few planes of the frame's size each, and some of them look at the frame as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

# Small enough that a tile's planes take half a gigabyte; large enough that the halo, whose work is done twice, is a
# third of it and less. Tiles of 512 made frames of 768x768 a quarter slower and saved 0.2 gigabytes.
TILE = 768


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a network sees; all in pixels of the frame.

    Attributes:
        step: the side of the cells that its poolings make of the frame.
        halo: how far beyond a tile of whole cells it sees, rounded up to whole cells.
        entering: the side of what one location of its input stands for.
        leaving: the same of its output.
    """

    step: int
    halo: int
    entering: int = 1
    leaving: int = 1

    @classmethod
    def of(cls, beyond: int, step: int, entering: int = 1, leaving: int = 1) -> Reach:
        """Return the reach of a network that sees ``beyond`` pixels beyond a tile."""
        return cls(step, step * math.ceil(beyond / step), entering, leaving)


@dataclass(frozen=True, slots=True)
class _Strip:
    """One axis of a tile in pixels of the frame: what is ``kept``, and what is ``shown`` to know it."""

    kept: tuple[int, int]
    shown: tuple[int, int]


def seen_beyond(layers: nn.Module, beyond: int = 0) -> int:
    """Return how far layers in a row look beyond a tile of their input to know ``beyond`` more of their output.

    The tile begins and ends on the poolings' grid. Poolings and enlargements are by two.
    """
    for layer in reversed(list(layers.children())):
        if isinstance(layer, nn.Conv2d):
            beyond += layer.kernel_size[0] // 2
        elif isinstance(layer, nn.MaxPool2d):
            beyond *= 2
        elif isinstance(layer, nn.Upsample):
            beyond = math.ceil(beyond / 2)
    return beyond


def tiled(function: Callable[[Tensor], Tensor], reach: Reach) -> Callable[[Tensor], Tensor]:
    """Return ``function`` as ``per_tile`` applies it."""
    return partial(per_tile, function, reach=reach)


def per_tile(function: Callable[[Tensor], Tensor], maps: Tensor, reach: Reach, tile: int = TILE) -> Tensor:
    """Apply a network to maps (B, C, h, w) tile by tile; maps of a frame no larger than a tile at once.

    Args:
        function: to planes (..., h', w'); a network that sees as far as ``reach`` says, and does not train.
        maps: of frames whose sides are multiples of ``reach.step``.
        reach: how far it sees.
        tile: the largest side of what is kept of one tile, in pixels of the frame; rounded up to ``reach.step``.
    """
    height, width = (side * reach.entering for side in maps.shape[-2:])
    if max(height, width) <= tile:
        return function(maps)
    across = _strips(width, reach, tile)
    rows = [
        torch.cat([_one_tile(function, maps, reach, rows, columns) for columns in across], dim=-1)
        for rows in _strips(height, reach, tile)
    ]
    return torch.cat(rows, dim=-2)


def _one_tile(
    function: Callable[[Tensor], Tensor], maps: Tensor, reach: Reach, rows: _Strip, columns: _Strip
) -> Tensor:
    down, across = (_locations(strip.shown, 0, reach.entering) for strip in (rows, columns))
    # Contiguous, for convolutions choose their kernels by the layout in memory, too.
    planes = function(maps[..., down, across].contiguous())
    down, across = (_locations(strip.kept, strip.shown[0], reach.leaving) for strip in (rows, columns))
    return planes[..., down, across]


def _strips(length: int, reach: Reach, tile: int) -> list[_Strip]:
    """Cut a side into strips of about the same length, none longer than ``tile``."""
    cells = length // reach.step
    count = min(cells, math.ceil(length / tile))
    cuts = [cells * number // count * reach.step for number in range(count + 1)]
    return [
        _Strip((start, stop), (max(0, start - reach.halo), min(length, stop + reach.halo)))
        for start, stop in pairwise(cuts)
    ]


def _locations(pixels: tuple[int, int], origin: int, side: int) -> slice:
    """Return the locations, each ``side`` pixels wide, that stand for ``pixels`` in a map that begins at ``origin``."""
    return slice((pixels[0] - origin) // side, (pixels[1] - origin) // side)
