"""A frame gives the same result alone or in any batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Of the frames that are explained together: every step makes a few planes of each, a hundred bytes for each pixel.
PIXELS_AT_ONCE = 64 * 128 * 128


def per_frame(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """Apply ``function`` to each frame of ``batch`` (B, ...) by itself on CPU, to all at once on an accelerator.

    Matrix kernels choose their blocking, and so their rounding, by the batch's size; a flipped near-tie in the
    retrieval then changes a whole patch. On CPU one frame at a time is also no slower: its planes stay in the cache.
    Convolutions choose by the layout in memory as well, so it is always the same one.
    """
    if batch.device.type != "cpu" or not batch.shape[0]:
        return function(batch)
    return torch.cat([function(frame.unsqueeze(0).contiguous()) for frame in batch])


def few_at_once(frames: Tensor) -> Iterator[slice]:
    """Yield which of frames (N, C, H, W) to take together, in order: all of them would not fit into memory if large."""
    count = max(1, PIXELS_AT_ONCE // frames.shape[2:].numel())
    for start in range(0, len(frames), count):
        yield slice(start, start + count)
