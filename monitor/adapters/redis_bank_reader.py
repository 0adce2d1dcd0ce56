"""Follows memory banks in Redis: what changed since a version, or all of a bank while it is being edited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from monitor.adapters import redis_bank_wire as wire
from monitor.adapters.bank_slots import from_bytes
from monitor.errors import StoreUnavailableError
from monitor.ports import BankChanges, BankKey, SlotChange

MAX_ATTEMPTS: Final = 10
HEADS_KEPT: Final = 64


class BankReader:
    """Reads a bank's changes for one copy of it.

    Args:
        client: a ``redis.Redis`` (untyped: redis-py says of every answer that it may be awaitable).
        chunk_bytes: how much of a bank to transfer in one answer, at most (but at least one slot).
    """

    def __init__(self, client: Any, chunk_bytes: int) -> None:  # noqa: ANN401 - as told above
        self._redis = client
        self._chunk_bytes = chunk_bytes
        self._script: Callable[..., list[Any]] = client.register_script(wire.script("bank_changes.lua"))
        # Versions say how old a copy is, heads say that it is a copy of this bank and not of one before it. Only those
        # that a caller was given: a head read for a copy that never came about would vouch for the caller's old one.
        self._heads: dict[BankKey, dict[int, bytes]] = {}

    def changes(self, key: BankKey, since: int | None) -> BankChanges:
        """Return what brings a copy at version ``since`` up to date; see ``BankStore.changes``."""
        head = None if since is None else self._heads.get(key, {}).get(since)
        delta = self._delta(key, since, head)
        if not delta.reload:
            return self._give(key, delta, reload=False, slots=delta.slots)
        for _ in range(MAX_ATTEMPTS):
            slots = self._read_slots(key, delta)
            # Edits during the reading may have mixed versions; the log since its beginning puts that right.
            begun, delta = delta, self._delta(key, delta.version, delta.head)
            if not delta.reload:
                slots.update({change.slot: change.features for change in delta.slots})
                filled = (SlotChange(slot, slots[slot]) for slot in sorted(slots) if slots[slot] is not None)
                return self._give(key, delta, reload=True, slots=tuple(filled))
        msg = f"bank {wire.tag(key)} changed faster than it could be read, last from version {begun.version}"
        raise StoreUnavailableError(msg)

    def _delta(self, key: BankKey, since: int | None, head: bytes | None) -> wire.Delta:
        start = ("", "") if since is None or head is None else (since, head)
        return wire.parse_delta(key, self._script(keys=wire.keys(key)[:3], args=[*start, self._chunk_bytes]))

    def _read_slots(self, key: BankKey, start: wire.Delta) -> dict[int, NDArray[np.float16] | None]:
        name = wire.keys(key)[wire.PARTS.index("slots")]
        filled = sorted(int(slot) for slot in self._redis.hkeys(name))
        size = max(1, self._chunk_bytes // (2 * int(np.prod(start.shape))))
        slots: dict[int, NDArray[np.float16] | None] = {}
        for first in range(0, len(filled), size):
            chunk = filled[first : first + size]
            for slot, data in zip(chunk, self._redis.hmget(name, chunk), strict=True):
                slots[slot] = None if data is None else from_bytes(data, start.shape)
        return slots

    def _give(self, key: BankKey, delta: wire.Delta, *, reload: bool, slots: tuple[SlotChange, ...]) -> BankChanges:
        heads = self._heads.setdefault(key, {})
        heads.pop(delta.version, None)
        heads[delta.version] = delta.head
        if len(heads) > HEADS_KEPT:
            del heads[next(iter(heads))]
        return BankChanges(version=delta.version, reload=reload, slots=slots)
