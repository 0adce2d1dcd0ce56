"""The memory bank in Redis or Valkey: edited atomically by scripts, followed through a log of edits."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.adapters import redis_bank_wire as wire
from monitor.adapters.bank_slots import require_unpinned, to_bytes
from monitor.adapters.redis_bank_reader import BankReader
from monitor.adapters.redis_connection import RedisConnection
from monitor.adapters.redis_start import check_at_start
from monitor.errors import BankFullError, BankMovedError
from monitor.ports import Addition, BankChanges, BankEdit, BankKey, BankShape, LearnedSlot
from monitor.settings import RedisSettings
from schemas.errors import BankMismatchError

# Redis answers nobody else while it copies a reply: a few megabytes take it a few milliseconds.
CHUNK_BYTES: Final = 4 * 2**20
STAGED_FOR_S: Final = 600

log = structlog.get_logger()


class RedisBankStore:
    """The ``BankStore`` port on Redis or Valkey (version 7 or later): one server, a cluster, or behind Sentinels.

    One object follows each bank for one copy of it: a program with two copies makes two objects. What a call finds is
    that Redis is away (StoreUnavailableError) or refuses (StoreRefusedError, which is one of these).

    Args:
        settings: where Redis is, and how long its log is to be.
        chunk_bytes: how much of a bank to transfer in one request, at most (but at least one slot).
    """

    def __init__(self, settings: RedisSettings, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._settings = settings
        self._chunk_bytes = chunk_bytes
        self._connection = RedisConnection(settings)
        self._reader = BankReader(chunk_bytes)

    def ping(self) -> None:
        """Return once Redis has answered, and would let all be done that is needed.

        Raises:
            ServiceUnavailableError: it does not answer, or cannot serve yet; names ``redis.url``.
            ConfigurationError: it refuses: a right is missing, a password or a database is wrong.
        """
        check_at_start(self._connection, self._settings)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()

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
            StoreUnavailableError: Redis is away.
        """
        require_unpinned(learned, len(seed))
        slots = {slot: to_bytes(features, shape) for slot, features in enumerate(seed)}
        wanted = wire.meta(shape, len(seed), hashlib.sha256(b"".join(slots.values())).hexdigest())
        taught = {entry.slot: to_bytes(entry.features, shape) for entry in learned}
        slots |= taught
        fields = wanted | {"bytes": str(sum(map(len, taught.values())))}
        with self._connection.client() as client:
            existing = self._existing_version(client, key, wanted)
            if existing is not None and existing >= version:
                return existing
            staged = self._stage(client, key, slots)
            arguments = [
                version,
                secrets.token_hex(20),
                len(fields),
                *(part for field in fields.items() for part in field),
            ]
            arguments += [part for entry in learned for part in (entry.slot, entry.frame_id, entry.version_added)]
            opened = int(wire.PUBLISH(client, [*wire.keys(key), staged], arguments))
            # Another program may have opened it first, with another model.
            self._existing_version(client, key, wanted)
        log.info("bank opened", camera=key.camera, model=key.model_id, version=opened, slots=len(slots))
        return opened

    def version(self, key: BankKey) -> int | None:
        """Return the bank's version, or None when Redis has no such bank, or only a part of it.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        with self._connection.client() as client:
            found, whole = self._look(client, key)
        return int(found["version"]) if whole else None

    def changes(self, key: BankKey, since: int | None) -> BankChanges:
        """Return what brings a copy at version ``since`` up to date.

        ``since`` is a version that this object returned lately. After any other, or when the log was trimmed or the
        bank made anew since then, the answer is the whole bank.

        Raises:
            StoreUnavailableError: Redis is away.
            BankMissingError: Redis has no such bank.
        """
        with self._connection.client() as client:
            return self._reader.changes(client, key, since)

    def learned(self, key: BankKey, frame_id: str) -> BankEdit | None:
        """Return the edit that added a frame, not ``added`` again, or None if the bank does not hold it.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        with self._connection.client() as client:
            record = client.hget(wire.keys(key)[wire.PARTS.index("frames")], frame_id)
        if record is None:
            return None
        found = wire.parse_record(key, record)
        return BankEdit(found.version, found.slot, added=False, evicted=found.evicted)

    def all_learned(self, key: BankKey) -> dict[str, int]:
        """Return the frames that a bank has learned and still holds, and the version that added each.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        with self._connection.client() as client:
            records = client.hgetall(wire.keys(key)[wire.PARTS.index("frames")])
        return {frame.decode(): wire.parse_record(key, record).version for frame, record in records.items()}

    def left(self, key: BankKey, frame_ids: Sequence[str]) -> dict[str, int]:
        """Return which of these frames were taken out of a bank, as far as Redis remembers, and in which version.

        Raises:
            StoreUnavailableError: Redis is away.
        """
        if not frame_ids:
            return {}
        with self._connection.client() as client:
            versions = client.hmget(wire.keys(key)[wire.PARTS.index("removed")], list(frame_ids))
        return {frame: int(version) for frame, version in zip(frame_ids, versions, strict=True) if version is not None}

    def add(self, key: BankKey, shape: BankShape, addition: Addition) -> BankEdit:
        """Add an entry under its frame id, and evict what makes room for it, in one step.

        Raises:
            BankMovedError: the bank is at another version; look at it again.
            BankFullError: it would take more than the budget.
            StoreUnavailableError: Redis is away; repeat the call, the frame will not be added twice.
            BankMismatchError: the bank was made by another encoder or has another shape.
            BankMissingError: Redis has no such bank.
        """
        data = to_bytes(addition.features, shape)
        checksum = hashlib.sha256(data).hexdigest()
        status, answer = self._run_edit(
            key, shape, "add", addition.frame_id, addition.at, addition.budget, addition.slot, data, checksum,
            *addition.evict,
        )  # fmt: skip
        if status == "moved":
            msg = f"bank {wire.tag(key)} is at version {int(answer)}, the addition is for {addition.at}"
            raise BankMovedError(msg)
        if status == "full":
            msg = f"bank {wire.tag(key)} would take {int(answer)} bytes, more than its {addition.budget}"
            raise BankFullError(msg)
        found = wire.parse_record(key, answer)
        return BankEdit(found.version, found.slot, added=status == "added", evicted=found.evicted)

    def remove(self, key: BankKey, shape: BankShape, frame_id: str) -> int:
        """Empty the slot of a frame that was added; return the version that took it away, as the port says.

        Raises:
            StoreUnavailableError: Redis is away; repeat the call.
            BankMismatchError: the bank was made by another encoder or has another shape.
            BankMissingError: Redis has no such bank.
        """
        _, version = self._run_edit(key, shape, "remove", frame_id)
        return int(version)

    def _run_edit(
        self, key: BankKey, shape: BankShape, operation: str, frame_id: str, *rest: str | int | bytes
    ) -> tuple[str, bytes]:
        arguments = [operation, wire.fingerprint(shape), self._settings.log_length, frame_id, *rest]
        with self._connection.client() as client:
            status, answer = wire.EDIT(client, wire.keys(key), arguments)
        if status == b"missing":
            raise wire.missing(key)
        if status == b"mismatch":
            msg = (
                f"bank {wire.prefix(key)}meta in Redis is of layout, encoder and shape {answer.decode()}, "
                f"this model of {wire.fingerprint(shape)}. {wire.REMEDY}"
            )
            raise BankMismatchError(msg)
        return status.decode(), answer

    def _existing_version(self, client: wire.Client, key: BankKey, wanted: dict[str, str]) -> int | None:
        found, whole = self._look(client, key)
        if found:
            wire.require_same(key, found, wanted)
        return int(found["version"]) if whole else None

    def _look(self, client: wire.Client, key: BankKey) -> tuple[dict[str, str], bool]:
        """Return the bank's meta, empty if there is none, and whether the bank has all of its slots."""
        meta, slots, _, frames, *_ = wire.keys(key)
        raw, filled, learned = wire.LOOK(client, [meta, slots, frames])
        found = {name.decode(): value.decode() for name, value in zip(raw[::2], raw[1::2], strict=True)}
        return found, bool(found) and filled == int(found["pinned"]) + learned

    def _stage(self, client: wire.Client, key: BankKey, slots: dict[int, bytes]) -> str:
        """Write the slots beside the bank, in chunks; return their key."""
        staged = f"{wire.prefix(key)}staged:{secrets.token_hex(8)}"
        order = sorted(slots)
        size = max(1, self._chunk_bytes // len(slots[order[0]]))
        for first in range(0, len(order), size):
            chunk = [part for slot in order[first : first + size] for part in (slot, slots[slot])]
            wire.STAGE(client, [staged], [STAGED_FOR_S, *chunk])
        return staged
