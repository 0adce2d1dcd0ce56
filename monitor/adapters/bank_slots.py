"""Where a bank puts what it learns: the policy of slots, the same for every store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.ports import BankShape, LearnedSlot
from schemas.errors import BankMismatchError


@dataclass(frozen=True, slots=True)
class Learned:
    """What a store knows about a frame that a bank has learned; a repeated ``add`` answers with it."""

    version: int
    slot: int
    evicted_frame: str | None


def choose_slot(learned: Mapping[str, Learned], pinned: int, capacity: int) -> int:
    """Return the slot for the next normal: the first free one, else that of the frame learned first.

    Args:
        learned: the frames that the bank has learned online.
        pinned: the slots 0 to ``pinned - 1`` hold training normals, and are never given away.
        capacity: all slots, pinned ones included; above ``pinned``.
    """
    taken = {frame.slot for frame in learned.values()}
    free = (slot for slot in range(pinned, capacity) if slot not in taken)
    first_free = next(free, None)
    if first_free is not None:
        return first_free
    return min(learned.values(), key=lambda frame: frame.version).slot


def to_bytes(features: NDArray[np.float16], shape: BankShape) -> bytes:
    """Return a slot's content: (P1, P2, P3 + R) as little-endian float16 in C order, the same on every machine.

    Raises:
        BankMismatchError: the features do not have the bank's shape.
    """
    if features.shape != shape.features:
        msg = f"features of shape {features.shape} do not fit a bank of {shape.features}: another encoder made them"
        raise BankMismatchError(msg)
    return np.ascontiguousarray(features, dtype="<f2").tobytes()


def from_bytes(data: bytes, features: tuple[int, int, int]) -> NDArray[np.float16]:
    """Return a slot's (P1, P2, P3 + R) features, writable."""
    return np.frombuffer(data, dtype="<f2").reshape(features).astype(np.float16)


def require_room(shape: BankShape, pinned: int, learned: Sequence[LearnedSlot] = ()) -> None:
    """Raise BankMismatchError unless the bank has slots beside its pinned ones, and those that it had learned fit."""
    if shape.capacity <= pinned:
        msg = f"a bank of {shape.capacity} slots has none left beside {pinned} pinned normals: raise model.online_slots"
        raise BankMismatchError(msg)
    outside = [entry for entry in learned if not pinned <= entry.slot < shape.capacity]
    if outside:
        entry = max(outside, key=lambda entry: entry.slot)
        msg = (
            f"the bank had learned frame {entry.frame_id} in slot {entry.slot}, but now has only slots {pinned} to "
            f"{shape.capacity - 1} for it: set model.online_slots back to {entry.slot + 1 - pinned} or more"
        )
        raise BankMismatchError(msg)
