"""Who makes room in a bank that is full. Pinned normals never do; of what was learned, the least needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from monitor.core.memory_bank import MemoryBank

AT_ONCE: Final = 64

Policy = Callable[[MemoryBank, Sequence[int]], int]


def oldest(bank: MemoryBank, learned: Sequence[int]) -> int:
    """Return the slot that was filled first, as far as this bank knows: first in, first out, to compare with."""
    there = set(learned)
    return next(slot for slot in bank.by_age if slot in there)


def least_needed(bank: MemoryBank, learned: Sequence[int]) -> int:
    """Return the slot, of those that were learned, that would be missed least.

    What would be missing without an entry is how far each location that it keeps is from the nearest other entry there,
    on average: an entry goes of which others are nearly the same, and what only one entry knows stays, however old.
    """
    missing: dict[int, float] = {}
    for first in range(0, len(learned), AT_ONCE):
        some = learned[first : first + AT_ONCE]
        for slot, distance in zip(some, bank.distances_to_others(some), strict=True):
            missing[slot] = float(np.nanmean(distance))
    return min(missing, key=lambda slot: (missing[slot], slot))
