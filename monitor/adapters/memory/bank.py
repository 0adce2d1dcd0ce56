"""The in-memory twin of the bank store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from monitor.adapters.bank_slots import Learned, require_unpinned, to_bytes
from monitor.core.bank_entry import from_bytes
from monitor.errors import BankFullError, BankMissingError, BankMovedError
from monitor.ports import Addition, BankChanges, BankEdit, BankKey, BankShape, LearnedSlot, SlotChange
from schemas.errors import BankMismatchError


@dataclass(slots=True)
class _Bank:
    shape: BankShape
    pinned: int
    seed_sha256: str
    version: int
    slots: dict[int, bytes]
    learned: dict[str, Learned]
    # Version -> the slots that its edit changed; none for the version that the bank began with.
    log: dict[int, tuple[int, ...]]
    # Frame -> the version that took it away.
    removed: dict[str, int] = field(default_factory=dict)
    # Only a copy that was taken from this bank can be brought up to date; one of a bank before it cannot.
    copied: set[int] = field(default_factory=set)


class MemoryBankStore:
    """The ``BankStore`` port in a dictionary.

    Args:
        log_length: log entries kept per bank; a copy further behind gets the whole bank.
    """

    def __init__(self, log_length: int = 10_000) -> None:
        self._log_length = log_length
        self._banks: dict[BankKey, _Bank] = {}

    def wipe(self) -> None:
        """Forget every bank, as a Redis without its disk does."""
        self._banks.clear()

    def open(
        self,
        key: BankKey,
        shape: BankShape,
        seed: NDArray[np.float16],
        *,
        learned: Sequence[LearnedSlot] = (),
        version: int = 0,
    ) -> int:
        """Return the bank's version, creating or replacing it as the port says.

        Raises:
            BankMismatchError: the bank was made by another encoder or from another seed, or has another shape.
        """
        require_unpinned(learned, len(seed))
        slots = {slot: to_bytes(features, shape) for slot, features in enumerate(seed)}
        seed_sha256 = hashlib.sha256(b"".join(slots.values())).hexdigest()
        bank = self._banks.get(key)
        if bank is not None:
            found, wanted = (bank.shape, bank.pinned, bank.seed_sha256), (shape, len(seed), seed_sha256)
            if found != wanted:
                msg = f"bank {key.camera}:{key.model_id} is {found}, this model's is {wanted}"
                raise BankMismatchError(msg)
            if bank.version >= version:
                return bank.version
        self._banks[key] = _Bank(
            shape=shape,
            pinned=len(seed),
            seed_sha256=seed_sha256,
            version=version,
            slots=slots | {entry.slot: to_bytes(entry.features, shape) for entry in learned},
            learned={entry.frame_id: Learned(entry.version_added, entry.slot) for entry in learned},
            log={version: ()},
        )
        return version

    def version(self, key: BankKey) -> int | None:
        """Return the bank's version, or None when there is no such bank."""
        bank = self._banks.get(key)
        return None if bank is None else bank.version

    def changes(self, key: BankKey, since: int | None) -> BankChanges:
        """Return what brings a copy at version ``since`` up to date; the whole bank when that is not known.

        Raises:
            BankMissingError: there is no such bank.
        """
        bank = self._find(key)
        reload = since is None or since not in bank.copied or since not in bank.log
        if since is None or reload:
            changed = set(bank.slots)
        else:
            changed = {slot for version, slots in bank.log.items() if version > since for slot in slots}
        bank.copied.add(bank.version)
        slots = tuple(SlotChange(slot, self._features(bank, slot)) for slot in sorted(changed))
        return BankChanges(version=bank.version, reload=reload, slots=slots)

    def learned(self, key: BankKey, frame_id: str) -> BankEdit | None:
        """Return the edit that added a frame, not ``added`` again, or None if the bank does not hold it."""
        bank = self._banks.get(key)
        known = bank.learned.get(frame_id) if bank else None
        return None if known is None else BankEdit(known.version, known.slot, added=False, evicted=known.evicted)

    def all_learned(self, key: BankKey) -> dict[str, int]:
        """Return the frames that a bank has learned and still holds, and the version that added each."""
        bank = self._banks.get(key)
        return {frame: there.version for frame, there in bank.learned.items()} if bank else {}

    def left(self, key: BankKey, frame_ids: Sequence[str]) -> dict[str, int]:
        """Return which of these frames were taken out of a bank, and in which version."""
        bank = self._banks.get(key)
        return {frame: bank.removed[frame] for frame in frame_ids if frame in bank.removed} if bank else {}

    def add(self, key: BankKey, shape: BankShape, addition: Addition) -> BankEdit:
        """Add an entry under its frame id, and evict what makes room for it, in one step.

        Raises:
            BankMovedError: the bank is at another version.
            BankFullError: it would take more than the budget.
            BankMismatchError: the bank was made by another encoder or has another shape.
            BankMissingError: there is no such bank.
        """
        data = to_bytes(addition.features, shape)
        bank = self._find(key, shape)
        known = bank.learned.get(addition.frame_id)
        if known is not None:
            return BankEdit(known.version, known.slot, added=False, evicted=known.evicted)
        if addition.at != bank.version:
            msg = f"bank {key.camera}:{key.model_id} is at version {bank.version}, the addition is for {addition.at}"
            raise BankMovedError(msg)
        owners = {there.slot: frame for frame, there in bank.learned.items()}
        evicted = tuple(owners[slot] for slot in addition.evict)
        left = sum(len(bank.slots[slot]) for slot in owners if slot not in addition.evict)
        if left + len(data) > addition.budget:
            msg = f"bank {key.camera}:{key.model_id} would take more than its {addition.budget} bytes"
            raise BankFullError(msg)
        if addition.slot < bank.pinned or addition.slot in bank.slots.keys() - set(addition.evict):
            msg = f"slot {addition.slot} is pinned or taken"
            raise ValueError(msg)
        self._log(bank, addition.slot, *addition.evict)
        for slot, frame in zip(addition.evict, evicted, strict=True):
            del bank.slots[slot], bank.learned[frame]
            bank.removed[frame] = bank.version
        bank.slots[addition.slot] = data
        bank.learned[addition.frame_id] = Learned(bank.version, addition.slot, evicted)
        bank.removed.pop(addition.frame_id, None)
        return BankEdit(bank.version, addition.slot, added=True, evicted=evicted)

    def remove(self, key: BankKey, shape: BankShape, frame_id: str) -> int:
        """Empty the slot of a frame that was added; return the version that took it away, as the port says.

        Raises:
            BankMismatchError: the bank was made by another encoder or has another shape.
            BankMissingError: there is no such bank.
        """
        bank = self._find(key, shape)
        known = bank.learned.pop(frame_id, None)
        if known is None:
            return bank.removed.get(frame_id, bank.version)
        self._log(bank, known.slot)
        del bank.slots[known.slot]
        bank.removed[frame_id] = bank.version
        return bank.version

    def _find(self, key: BankKey, shape: BankShape | None = None) -> _Bank:
        bank = self._banks.get(key)
        if bank is None:
            msg = f"there is no bank {key.camera}:{key.model_id}"
            raise BankMissingError(msg)
        if shape is not None and bank.shape != shape:
            msg = f"bank {key.camera}:{key.model_id} is {bank.shape}, this model's is {shape}"
            raise BankMismatchError(msg)
        return bank

    def _log(self, bank: _Bank, *slots: int) -> None:
        bank.version += 1
        bank.log[bank.version] = slots
        while len(bank.log) > self._log_length:
            del bank.log[next(iter(bank.log))]

    def _features(self, bank: _Bank, slot: int) -> NDArray[np.float16] | None:
        data = bank.slots.get(slot)
        return None if data is None else from_bytes(data, bank.shape.features)
