"""What every bank store holds to: what it knows of a learned frame, and which entries it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.core import bank_entry
from monitor.ports import BankShape, LearnedSlot
from schemas.errors import BankMismatchError


@dataclass(frozen=True, slots=True)
class Learned:
    """What a store knows about a frame that a bank has learned; a repeated ``add`` answers with it."""

    version: int
    slot: int
    evicted: tuple[str, ...] = ()


def to_bytes(features: NDArray[np.float16], shape: BankShape) -> bytes:
    """Return a slot's content, the same on every machine: see ``monitor.core.bank_entry``.

    Raises:
        BankMismatchError: the features do not have the bank's shape.
    """
    if features.shape != shape.features:
        msg = f"features of shape {features.shape} do not fit a bank of {shape.features}: another encoder made them"
        raise BankMismatchError(msg)
    return bank_entry.to_bytes(features)


def require_unpinned(learned: Sequence[LearnedSlot], pinned: int) -> None:
    """Raise BankMismatchError if what a bank had learned lies where pinned normals are now."""
    for entry in learned:
        if entry.slot < pinned:
            msg = f"the bank had learned frame {entry.frame_id} in slot {entry.slot}, which now holds a pinned normal"
            raise BankMismatchError(msg)
