"""What people say about frames, and what the bank learned from it, in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Engine, func, select, update
from sqlalchemy.orm import Session

from monitor.adapters.database import WRITES, while_running
from monitor.ports import BankEntry, PendingReview, ReviewOutcome
from schemas.messages import Verdict, utc_now
from schemas.tables import BankEntryRow, InspectionRow, ReviewRow

PENDING: Final = "pending"


class SqlReviewStore:
    """The ``ReviewStore`` port on SQLite or PostgreSQL; ``monitor.adapters.review_desk`` is for people.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        now: the time that rows say they were written at.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._now = now

    def pending_reviews(self, limit: int) -> Sequence[PendingReview]:
        """Return the oldest reviews the learner has not dealt with.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = (
            select(ReviewRow, InspectionRow.camera, InspectionRow.image_sha256)
            .join(InspectionRow, InspectionRow.frame_id == ReviewRow.frame_id)
            .where(ReviewRow.outcome == PENDING)
            .order_by(ReviewRow.id)
            .limit(limit)
        )
        with while_running(), Session(self._reader) as session:
            return tuple(_pending(row, camera, image) for row, camera, image in session.execute(query))

    def complete_review(self, review_id: int, outcome: ReviewOutcome, entry: BankEntry | None = None) -> None:
        """Store what became of a review and the bank entry it made, in one transaction; repeating it is harmless.

        Raises:
            StoreUnavailableError: the database is away; the review is still pending.
        """
        completed = (
            update(ReviewRow)
            .where(ReviewRow.id == review_id, ReviewRow.outcome == PENDING)
            .values(
                outcome=outcome.outcome,
                outcome_detail=outcome.detail,
                bank_version=outcome.bank_version,
                applied_at=self._now(),
            )
            .returning(ReviewRow.id)
        )
        with while_running(), Session(self._writer) as session, session.begin():
            # Another learner completed it, or this one did before its answer got lost: its entry is stored as well.
            if session.scalar(completed) is None:
                return
            if entry is not None and not _is_stored(session, entry):
                self._store_entry(session, entry)

    def active_entries(self, camera: str, model_id: str) -> Sequence[BankEntry]:
        """Return what a bank holds beside its pinned normals, in the order in which it was added."""
        query = (
            select(BankEntryRow)
            .where(*_of_bank(camera, model_id), BankEntryRow.version_removed.is_(None))
            .order_by(BankEntryRow.version_added, BankEntryRow.id)
        )
        with while_running(), Session(self._reader) as session:
            return tuple(_entry(row) for row in session.scalars(query))

    def taught_cameras(self, model_id: str) -> Sequence[str]:
        """Return the cameras whose bank of this model was ever edited."""
        query = select(BankEntryRow.camera).where(BankEntryRow.model_id == model_id).distinct()
        with while_running(), Session(self._reader) as session:
            return tuple(session.scalars(query.order_by(BankEntryRow.camera)))

    def bank_version(self, camera: str, model_id: str) -> int:
        """Return the newest version that the bank's entries name: no bank may be behind it. 0 without entries."""
        newest = select(func.max(BankEntryRow.version_added), func.max(BankEntryRow.version_removed))
        with while_running(), self._reader.connect() as connection:
            versions = connection.execute(newest.where(*_of_bank(camera, model_id))).one()
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

    def _store_entry(self, session: Session, entry: BankEntry) -> None:
        if entry.evicted_frame is not None:
            session.execute(
                update(BankEntryRow)
                .where(
                    *_of_bank(entry.camera, entry.model_id),
                    BankEntryRow.frame_id == entry.evicted_frame,
                    BankEntryRow.version_removed.is_(None),
                )
                .values(version_removed=entry.version_added, removed_why=f"evicted for frame {entry.frame_id}")
            )
        session.add(
            BankEntryRow(
                camera=entry.camera,
                model_id=entry.model_id,
                frame_id=entry.frame_id,
                slot=entry.slot,
                image_sha256=entry.image_sha256,
                features_sha256=entry.features_sha256,
                added_by=entry.added_by,
                why=entry.why,
                added_at=self._now(),
                version_added=entry.version_added,
            )
        )


def _of_bank(camera: str, model_id: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return BankEntryRow.camera == camera, BankEntryRow.model_id == model_id


def _is_stored(session: Session, entry: BankEntry) -> bool:
    query = select(BankEntryRow.id).where(
        *_of_bank(entry.camera, entry.model_id),
        BankEntryRow.frame_id == entry.frame_id,
        BankEntryRow.version_added == entry.version_added,
    )
    return session.scalar(query) is not None


def _pending(row: ReviewRow, camera: str, image_sha256: str | None) -> PendingReview:
    return PendingReview(
        review_id=row.id,
        frame_id=row.frame_id,
        camera=camera,
        verdict=Verdict(row.verdict),
        reviewer=row.reviewer,
        note=row.note,
        image_sha256=image_sha256,
        created_at=row.created_at,
    )


def _entry(row: BankEntryRow) -> BankEntry:
    return BankEntry(
        camera=row.camera,
        model_id=row.model_id,
        frame_id=row.frame_id,
        slot=row.slot,
        image_sha256=row.image_sha256,
        features_sha256=row.features_sha256,
        added_by=row.added_by,
        why=row.why,
        version_added=row.version_added,
    )
