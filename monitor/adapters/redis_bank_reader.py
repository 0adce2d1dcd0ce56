"""Follows memory banks in Redis: what changed since a version, or all of a bank while it is being edited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from monitor.adapters import redis_bank_wire as wire
from monitor.core.bank_entry import most_bytes
from monitor.errors import StoreUnavailableError
from monitor.ports import BankChanges, BankKey, SlotChange

MAX_ATTEMPTS: Final = 10
MAX_TURNS: Final = 100
HEADS_KEPT: Final = 64

Slots: TypeAlias = dict[int, NDArray[np.float16] | None]


class BankReader:
    """Reads a bank's changes for one copy of it.

    Args:
        chunk_bytes: how much of a bank to transfer in one answer, at most (but at least one slot).
    """

    def __init__(self, chunk_bytes: int) -> None:
        self._chunk_bytes = chunk_bytes
        # Versions say how old a copy is, heads say that it is a copy of this bank and not of one before it. Only those
        # that a caller was given: a head read for a copy that never came about would vouch for the caller's old one.
        self._heads: dict[BankKey, dict[int, bytes]] = {}

    def changes(self, client: wire.Client, key: BankKey, since: int | None) -> BankChanges:
        """Return what brings a copy at version ``since`` up to date; see ``BankStore.changes``."""
        head = None if since is None else self._heads.get(key, {}).get(since)
        delta = self._delta(client, key, since, head)
        if not delta.reload and (changes := self._catch_up(client, key, delta, {}, reload=False)):
            return changes
        for _ in range(MAX_ATTEMPTS):
            start = self._delta(client, key, None, None)
            slots = self._read_slots(client, key, start, self._filled(client, key))
            # Edits during the reading may have mixed versions; the log since its beginning puts that right.
            delta = self._delta(client, key, start.version, start.head)
            if changes := self._catch_up(client, key, delta, slots, reload=True):
                return changes
        msg = f"bank {wire.tag(key)} changed faster than it could be read, last from version {start.version}"
        raise StoreUnavailableError(msg)

    def _catch_up(
        self, client: wire.Client, key: BankKey, delta: wire.Delta, slots: Slots, *, reload: bool
    ) -> BankChanges | None:
        """Return the changes up to the newest version, or None if the log was trimmed meanwhile.

        Each turn reads what was edited during the one before: less and less, unless edits are faster than reading.
        """
        for _ in range(MAX_TURNS):
            if delta.reload:
                return None
            if delta.names:
                slots |= self._read_slots(client, key, delta, delta.names)
                delta = self._delta(client, key, delta.version, delta.head)
                continue
            slots |= {change.slot: change.features for change in delta.slots}
            self._vouch(key, delta)
            changed = (SlotChange(slot, slots[slot]) for slot in sorted(slots) if not reload or slots[slot] is not None)
            return BankChanges(version=delta.version, reload=reload, slots=tuple(changed))
        return None

    def _delta(self, client: wire.Client, key: BankKey, since: int | None, head: bytes | None) -> wire.Delta:
        start = ("", "") if since is None or head is None else (since, head)
        return wire.parse_delta(key, wire.CHANGES(client, wire.keys(key)[:4], [*start, self._chunk_bytes]))

    def _filled(self, client: wire.Client, key: BankKey) -> list[int]:
        return sorted(int(slot) for slot in client.hkeys(wire.keys(key)[wire.PARTS.index("slots")]))

    def _read_slots(self, client: wire.Client, key: BankKey, start: wire.Delta, wanted: Sequence[int]) -> Slots:
        name = wire.keys(key)[wire.PARTS.index("slots")]
        size = max(1, self._chunk_bytes // most_bytes(start.shape))
        slots: Slots = {}
        for first in range(0, len(wanted), size):
            chunk = wanted[first : first + size]
            for slot, data in zip(chunk, client.hmget(name, chunk), strict=True):
                slots[slot] = wire.parse_entry(key, data, start.shape)
        return slots

    def _vouch(self, key: BankKey, delta: wire.Delta) -> None:
        heads = self._heads.setdefault(key, {})
        heads.pop(delta.version, None)
        heads[delta.version] = delta.head
        if len(heads) > HEADS_KEPT:
            del heads[next(iter(heads))]
