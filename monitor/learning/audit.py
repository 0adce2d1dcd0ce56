"""Whether a bank in Redis is what the book says: slot for slot, byte for byte."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.core.bank_entry import to_bytes
from monitor.ports import BankEntry, BankKey, BankStore


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found of a bank.

    Attributes:
        version: of the bank in Redis.
        checksum: SHA-256 over all slots, in order: equal checksums are equal banks.
        pinned, learned: how many slots hold normals of training, and learned ones.
        size_bytes: what the learned ones take.
        problems: one line each; none if the bank is what the book says.
    """

    version: int
    checksum: str
    pinned: int
    learned: int
    size_bytes: int
    problems: tuple[str, ...]


def audit(store: BankStore, key: BankKey, seed: NDArray[np.float16], active: Sequence[BankEntry]) -> Audit:
    """Hold a bank in Redis against the bundle's pinned normals and the book's active entries.

    Raises:
        StoreUnavailableError, BankMissingError: Redis is away, or has no such bank.
    """
    changes = store.changes(key, None)
    found = {change.slot: to_bytes(change.features) for change in changes.slots if change.features is not None}
    problems = [
        f"slot {slot}: not the bundle's pinned normal"
        for slot, entry in enumerate(seed)
        if found.get(slot) != to_bytes(entry)
    ]
    expected = {entry.slot: entry for entry in active}
    for slot, entry in sorted(expected.items()):
        if slot not in found:
            problems.append(f"slot {slot}: empty, should hold frame {entry.frame_id}")
        elif hashlib.sha256(found[slot]).hexdigest() != entry.features_sha256:
            problems.append(f"slot {slot}: not what frame {entry.frame_id} taught")
    surplus = sorted(slot for slot in found if slot >= len(seed) and slot not in expected)
    problems += [f"slot {slot}: filled, but the database knows of nothing there" for slot in surplus]
    learned = {slot: data for slot, data in found.items() if slot >= len(seed)}
    return Audit(
        version=changes.version,
        checksum=_checksum(found),
        pinned=len(found) - len(learned),
        learned=len(learned),
        size_bytes=sum(map(len, learned.values())),
        problems=tuple(problems),
    )


def _checksum(slots: dict[int, bytes]) -> str:
    digest = hashlib.sha256()
    for slot, data in sorted(slots.items()):
        digest.update(f"{slot} {len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()
