"""Keeps each camera's memory bank up to date between two batches, and inspection going while Redis is away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import structlog

from monitor.bank_retries import BankRetries
from monitor.core.inspector import Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.errors import BankMissingError, StoreRefusedError, StoreUnavailableError
from monitor.metrics import OUTAGES
from monitor.ports import BankChanges, BankKey, BankShape, BankStore, Clock

log = structlog.get_logger()

UNREACHABLE: Final = "Redis unreachable; inspecting with bank version %s"
# Not the end of the worker: frames need their verdict, and who mends the right or the password need not start it again.
REFUSED: Final = "Redis refuses the bank; until that is mended, inspecting with bank version %s"


@dataclass(slots=True)
class _Copy:
    """A bank on the device. ``followed`` says whether it has ever been the store's, not just the bundle's."""

    key: BankKey
    bank: MemoryBank
    followed: bool = False
    missing: bool = False


def bank_shape(inspector: Inspector) -> BankShape:
    """Return what a bank of this model must fit."""
    return BankShape(inspector.manifest.encoder_hash, inspector.manifest.architecture.entry_shape)


class BankFollower:
    """Owns the banks on the device, one per camera. Used by one thread, between batches.

    Args:
        inspector: makes the banks, filled with the bundle's pinned normals as version 0.
        store: where edits come from.
        clock: for the pause between attempts while the store is away.
        strict: raise while the store is away or lost the bank, instead of going on with the version at hand.
    """

    def __init__(self, inspector: Inspector, store: BankStore, clock: Clock, *, strict: bool = False) -> None:
        self._inspector = inspector
        self._store = store
        self._clock = clock
        self._strict = strict
        self._copies: dict[str, _Copy] = {}
        self._retries = BankRetries()
        self._told: str | None = None

    def current(self, camera: str) -> MemoryBank:
        """Return the camera's bank: at the store's version, or, while it is away or refuses, at the last one known.

        Raises:
            BankMismatchError: the store's bank was made by another encoder or has another shape.
            StoreUnavailableError, BankMissingError: if ``strict``.
        """
        copy = self._copies.get(camera)
        if copy is None:
            key = BankKey(camera, self._inspector.manifest.model_id)
            copy = self._copies[camera] = _Copy(key, self._inspector.new_bank())
        if self._strict:
            self._follow(copy)
            return copy.bank
        started = self._clock.monotonic()
        if not self._retries.due(camera, started):
            return copy.bank
        try:
            self._follow(copy)
        except StoreUnavailableError as error:
            now = self._clock.monotonic()
            self._retries.failed(camera, now, lost=now - started)
            self._say_away(error)
        else:
            if self._retries.worked(camera):
                self._say_back()
        return copy.bank

    def _follow(self, copy: _Copy) -> None:
        try:
            if not copy.followed:
                # Whoever comes first makes the bank; from then on it is only followed, never made again.
                self._store.open(copy.key, bank_shape(self._inspector), self._inspector.seed)
            changes = self._store.changes(copy.key, since=copy.bank.version if copy.followed else None)
        except BankMissingError:
            if self._strict:
                raise
            # Made anew from the bundle it would lack what people have taught; the learner rebuilds it from SQL.
            if not copy.missing:
                log.warning(
                    "Redis has lost the bank; inspecting with version %d until it is rebuilt",
                    copy.bank.version,
                    camera=copy.key.camera,
                )
            copy.missing = True
            # As long as nothing was learnt, the bundle's normals are all there was.
            copy.followed = copy.bank.version > 0
            return
        copy.missing = False
        self._apply(copy, changes)
        copy.followed = True

    def _apply(self, copy: _Copy, changes: BankChanges) -> None:
        bank = copy.bank
        before = bank.version
        if not changes.reload and not changes.slots and changes.version == before:
            return
        if changes.reload:
            bank.clear()
        for change in changes.slots:
            if change.features is None:
                bank.remove(change.slot)
            else:
                bank.put(change.slot, change.features)
        bank.version = changes.version
        log.info(
            "Inspecting with bank version %d",
            changes.version,
            camera=copy.key.camera,
            model=copy.key.model_id,
            before=before,
            changed_slots=len(changes.slots),
            reloaded=changes.reload,
        )

    def _say_away(self, error: StoreUnavailableError) -> None:
        event = REFUSED if isinstance(error, StoreRefusedError) else UNREACHABLE
        if self._told == event:
            return
        self._told = event
        if event == UNREACHABLE:
            OUTAGES.labels(service="bank").inc()
        versions = {camera: copy.bank.version for camera, copy in self._copies.items()}
        said = ", ".join(str(version) for version in sorted(set(versions.values())))
        log.warning(event, said, versions=versions, error=str(error))

    def _say_back(self) -> None:
        if self._told is not None:
            self._told = None
            log.info("Redis is back; following the banks again")
