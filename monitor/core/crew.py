"""Frames side by side: on a CPU each thread inspects some of them, alone on its core.

Torch would rather give every core a part of each frame. Small frames have too little work for that, the cores wait for
each other at every layer: of 16 frames of 128x128, two threads with eight frames each took 14 ms a frame where torch's
own two took 23 and one took 26. And torch's sums depend on how many cores share them; a frame inspected by one thread
gives the same bits on every machine of a kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")

# Larger frames have work enough for all cores, and often come one at a time: torch parts each of them.
LARGEST = 512 * 512


class Crew:
    """Threads that share frames out among themselves.

    Args:
        threads: how many; None: as many as torch would use.
    """

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or torch.get_num_threads()
        # Made when first asked for: threads do not survive a fork, and not every process inspects.
        self._pool: ThreadPoolExecutor | None = None

    def share(self, function: Callable[[Tensor], list[Result]], frames: Tensor) -> list[Result]:
        """Return ``function``'s results of all frames (B, C, H, W), in their order.

        Args:
            function: (b, C, H, W) to b results; called in several threads at once, each in inference mode.
            frames: what is shared out. Small ones on a CPU; of others ``function`` is given all at once.
        """
        if frames.device.type != "cpu" or frames.shape[2:].numel() > LARGEST:
            return _quietly(function, frames)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads, "inspect", initializer=_alone)
        parts = torch.split(frames, max(1, math.ceil(len(frames) / self.threads)))
        return [result for results in self._pool.map(partial(_quietly, function), parts) for result in results]


@torch.inference_mode()  # it holds for the thread that asks for it, no other
def _quietly(function: Callable[[Tensor], list[Result]], frames: Tensor) -> list[Result]:
    return function(frames)


def _alone() -> None:
    # Of this thread alone; threads that are made later, and never called this, would start with it too.
    torch.set_num_threads(1)
