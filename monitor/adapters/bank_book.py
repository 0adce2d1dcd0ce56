"""The bank's book: in SQL, what every bank has learned, lost and been told. Redis' banks can be made anew from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Engine, func, or_, select, update
from sqlalchemy.orm import Session

from monitor.adapters.database import WRITES, while_running
from monitor.ports import BankEntry, BankOrder, OrderKind, Policy, Removal
from schemas.messages import Verdict, utc_now
from schemas.tables import BankEntryRow, BankOrderRow, InspectionRow, LearningPauseRow, ReviewRow

PENDING: Final = "pending"


class SqlBankBook:
    """The ``BankBook`` port on SQLite or PostgreSQL; ``monitor.adapters.bank_desk`` is for people.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        now: the time that rows say they were written at.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._now = now

    def active_entries(self, camera: str, model_id: str) -> Sequence[BankEntry]:
        """Return what a bank holds beside its pinned normals, in the order in which it was added.

        Raises:
            StoreUnavailableError: the database is away.
        """
        return self._entries(*_of_bank(camera, model_id), BankEntryRow.version_removed.is_(None))

    def entries_at(self, camera: str, model_id: str, version: int) -> Sequence[BankEntry]:
        """Return what it held at an earlier version.

        Raises:
            StoreUnavailableError: the database is away.
        """
        there = or_(BankEntryRow.version_removed.is_(None), BankEntryRow.version_removed > version)
        return self._entries(*_of_bank(camera, model_id), BankEntryRow.version_added <= version, there)

    def taught_cameras(self, model_id: str) -> Sequence[str]:
        """Return the cameras whose bank of this model was ever edited."""
        query = select(BankEntryRow.camera).where(BankEntryRow.model_id == model_id).distinct()
        with while_running(), Session(self._reader) as session:
            return tuple(session.scalars(query.order_by(BankEntryRow.camera)))

    def bank_version(self, camera: str, model_id: str) -> int:
        """Return the newest version that entries and orders name: no bank may be behind it. 0 without any."""
        edited = select(func.max(BankEntryRow.version_added), func.max(BankEntryRow.version_removed))
        ordered = select(func.max(BankOrderRow.bank_version)).where(
            BankOrderRow.camera == camera, BankOrderRow.model_id == model_id
        )
        with while_running(), self._reader.connect() as connection:
            versions = [*connection.execute(edited.where(*_of_bank(camera, model_id))).one()]
            versions.append(connection.execute(ordered).scalar())
        return max((version for version in versions if version is not None), default=0)

    def next_bank_version(self, camera: str, model_id: str) -> int:
        """Return a version above every one that entries and inspections name, for a bank that is restored."""
        # Inspections may name a version whose edit reached Redis but not SQL before both were lost.
        inspected = select(func.max(InspectionRow.bank_version)).where(
            InspectionRow.camera == camera, InspectionRow.model_id == model_id
        )
        with while_running(), self._reader.connect() as connection:
            newest = connection.execute(inspected).scalar() or 0
        return max(newest, self.bank_version(camera, model_id)) + 1

    def write(self, camera: str, model_id: str, added: Sequence[BankEntry], removed: Sequence[Removal]) -> None:
        """Write down edits of a bank, in one transaction; repeating it is harmless.

        Raises:
            StoreUnavailableError: the database is away.
        """
        with while_running(), Session(self._writer) as session, session.begin():
            write_edits(session, (camera, model_id), added, removed, self._now())

    def pending_orders(self, model_id: str, limit: int) -> Sequence[BankOrder]:
        """Return the oldest orders for banks of this model that the learner has not dealt with."""
        query = (
            select(BankOrderRow)
            .where(BankOrderRow.outcome == PENDING, BankOrderRow.model_id == model_id)
            .order_by(BankOrderRow.id)
            .limit(limit)
        )
        with while_running(), Session(self._reader) as session:
            return tuple(as_order(row) for row in session.scalars(query))

    def complete_order(self, order_id: int, outcome: str, detail: str, bank_version: int) -> None:
        """Store what became of an order; repeating it is harmless."""
        completed = (
            update(BankOrderRow)
            .where(BankOrderRow.id == order_id, BankOrderRow.outcome == PENDING)
            .values(outcome=outcome, outcome_detail=detail, bank_version=bank_version, applied_at=self._now())
        )
        # Two learners may carry out the same order: the later version is the one that no bank may be behind.
        newest = (
            update(BankOrderRow)
            .where(BankOrderRow.id == order_id, BankOrderRow.bank_version < bank_version)
            .values(bank_version=bank_version)
        )
        with while_running(), Session(self._writer) as session, session.begin():
            session.execute(completed)
            session.execute(newest)

    def quarantined(self, frame_id: str) -> BankOrder | None:
        """Return the order that put a frame in quarantine, if any did: no bank may hold it."""
        query = (
            select(BankOrderRow)
            .where(BankOrderRow.kind == OrderKind.QUARANTINE.value, BankOrderRow.frame_id == frame_id)
            .order_by(BankOrderRow.id)
            .limit(1)
        )
        with while_running(), Session(self._reader) as session:
            row = session.scalar(query)
            return None if row is None else as_order(row)

    def barred(self, frame_ids: Collection[str]) -> Collection[str]:
        """Return which of these frames may not come back: in quarantine, or their review was taken back."""
        orders = select(BankOrderRow.frame_id).where(
            BankOrderRow.kind.in_([OrderKind.QUARANTINE.value, OrderKind.RETRACT.value]),
            BankOrderRow.frame_id.in_(list(frame_ids)),
        )
        # One that was taken back and given anew counts.
        in_force = select(ReviewRow.frame_id).where(
            ReviewRow.frame_id.in_(list(frame_ids)),
            ReviewRow.verdict == Verdict.NORMAL.value,
            ReviewRow.withdrawn_at.is_(None),
        )
        with while_running(), Session(self._reader) as session:
            quarantined = set(session.scalars(orders.where(BankOrderRow.kind == OrderKind.QUARANTINE.value)))
            ordered, confirmed = set(session.scalars(orders)), set(session.scalars(in_force))
        return {frame for frame in quarantined | (ordered - confirmed) if frame is not None}

    def paused(self) -> Collection[Policy]:
        """Return the policies that teach nothing for now."""
        query = select(LearningPauseRow.policy).where(LearningPauseRow.resumed_at.is_(None))
        with while_running(), Session(self._reader) as session:
            return {Policy(policy) for policy in session.scalars(query)}

    def _entries(self, *where: ColumnElement[bool]) -> Sequence[BankEntry]:
        query = select(BankEntryRow).where(*where).order_by(BankEntryRow.version_added, BankEntryRow.id)
        with while_running(), Session(self._reader) as session:
            return tuple(as_entry(row) for row in session.scalars(query))


def write_edits(
    session: Session,
    bank: tuple[str, str],
    added: Sequence[BankEntry],
    removed: Sequence[Removal],
    now: datetime,
) -> None:
    """Write edits of a bank (camera, model id) into the session's transaction; what was written before stays."""
    for entry in added:
        stored = select(BankEntryRow.id).where(
            *_of_bank(*bank),
            BankEntryRow.frame_id == entry.frame_id,
            BankEntryRow.version_added == entry.version_added,
        )
        if session.scalar(stored) is None:
            session.add(_row(entry, now))
    session.flush()
    for removal in removed:
        # Only an entry that was there before: the frame may have come back since.
        earlier = (BankEntryRow.frame_id == removal.frame_id, BankEntryRow.version_added < removal.version)
        session.execute(
            update(BankEntryRow)
            .where(*_of_bank(*bank), *earlier, BankEntryRow.version_removed.is_(None))
            .values(version_removed=removal.version, removed_at=now, removed_by=removal.by, removed_why=removal.why)
        )


def as_entry(row: BankEntryRow) -> BankEntry:
    """Return a row as what the program knows."""
    return BankEntry(
        camera=row.camera,
        model_id=row.model_id,
        frame_id=row.frame_id,
        slot=row.slot,
        image_sha256=row.image_sha256,
        features_sha256=row.features_sha256,
        size_bytes=row.size_bytes,
        locations=row.locations,
        policy=Policy(row.policy),
        added_by=row.added_by,
        why=row.why,
        added_at=row.added_at,
        version_added=row.version_added,
        version_removed=row.version_removed,
        removed_at=row.removed_at,
        removed_by=row.removed_by,
        removed_why=row.removed_why,
    )


def as_order(row: BankOrderRow) -> BankOrder:
    """Return a row as what the program knows."""
    return BankOrder(
        order_id=row.id,
        kind=OrderKind(row.kind),
        camera=row.camera,
        model_id=row.model_id,
        frame_id=row.frame_id,
        version=row.version,
        snapshot_sha256=row.snapshot_sha256,
        ordered_by=row.ordered_by,
        why=row.why,
        created_at=row.created_at,
        outcome=row.outcome,
        outcome_detail=row.outcome_detail,
        applied_at=row.applied_at,
        bank_version=row.bank_version,
    )


def _row(entry: BankEntry, now: datetime) -> BankEntryRow:
    return BankEntryRow(
        camera=entry.camera,
        model_id=entry.model_id,
        frame_id=entry.frame_id,
        slot=entry.slot,
        image_sha256=entry.image_sha256,
        features_sha256=entry.features_sha256,
        size_bytes=entry.size_bytes,
        locations=entry.locations,
        policy=entry.policy.value,
        added_by=entry.added_by,
        why=entry.why,
        added_at=now,
        version_added=entry.version_added,
    )


def _of_bank(camera: str, model_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return BankEntryRow.camera == camera, BankEntryRow.model_id == model_id
