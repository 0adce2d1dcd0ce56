"""Who makes room in a bank that is full. Pinned normals never do; of what was learned, what has outlived its need."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from monitor.core.memory_bank import MemoryBank

AT_ONCE: Final = 64
TINY: Final = 1e-9

Policy = Callable[[MemoryBank, Sequence[int]], int]


def oldest(bank: MemoryBank, learned: Sequence[int]) -> int:
    """Return the slot that was filled first, as far as this bank knows: first in, first out, to compare with."""
    there = set(learned)
    return next(slot for slot in bank.by_age if slot in there)


def outlived(bank: MemoryBank, learned: Sequence[int]) -> int:
    """Return the slot, of those that were learned, that is old for how little it would be missed.

    Its age, counted in later entries that are still there, over the square root of what would be missing without it: of
    two that would be missed alike the older one goes, and one that would be missed four times as much stays twice as
    long.
    """
    there = set(learned)
    order = [slot for slot in bank.by_age if slot in there]
    missing = _missing(bank, order)
    return max(order, key=lambda slot: (len(order) - order.index(slot)) / math.sqrt(max(missing[slot], TINY)))


def least_needed(bank: MemoryBank, learned: Sequence[int]) -> int:
    """Return the slot, of those that were learned, that would be missed least, however old: to compare with."""
    missing = _missing(bank, learned)
    return min(missing, key=lambda slot: (missing[slot], slot))


def _missing(bank: MemoryBank, learned: Sequence[int]) -> dict[int, float]:
    """Return what would be missing without each slot.

    That is how far each location that it keeps is from the nearest other entry there, on average.
    """
    missing: dict[int, float] = {}
    for first in range(0, len(learned), AT_ONCE):
        some = learned[first : first + AT_ONCE]
        for slot, distance in zip(some, bank.distances_to_others(some), strict=True):
            missing[slot] = float(np.nanmean(distance))
    return missing
