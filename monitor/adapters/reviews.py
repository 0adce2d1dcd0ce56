"""What is said about frames, and what became of it, in SQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from monitor.adapters.bank_book import write_edits
from monitor.adapters.database import WRITES, while_running
from monitor.assignments import EVERY_CAMERA, Cameras
from monitor.ports import BankEntry, GoldenDefect, PendingReview, Policy, Removal, ReviewOutcome
from schemas.messages import Verdict, utc_now
from schemas.tables import InspectionRow, ReviewRow

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

    def pending_reviews(
        self, limit: int, policies: Collection[Policy] = tuple(Policy), cameras: Cameras = EVERY_CAMERA
    ) -> Sequence[PendingReview]:
        """Return the oldest reviews of these policies, of these cameras' frames, that no learner has dealt with.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = (
            select(ReviewRow, InspectionRow.camera, InspectionRow.image_sha256)
            .join(InspectionRow, InspectionRow.frame_id == ReviewRow.frame_id)
            .where(ReviewRow.outcome == PENDING, ReviewRow.withdrawn_at.is_(None))
            .where(ReviewRow.policy.in_([policy.value for policy in policies]))
            .where(
                InspectionRow.camera.not_in(cameras.names)
                if cameras.all_but
                else InspectionRow.camera.in_(cameras.names)
            )
            .order_by(ReviewRow.id)
            .limit(limit)
        )
        with while_running(), Session(self._reader) as session:
            return tuple(_pending(row, camera, image) for row, camera, image in session.execute(query))

    def is_pending(self, review_id: int) -> bool:
        """Return whether nobody has dealt with a review, and it was not taken back.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = select(ReviewRow.id).where(
            ReviewRow.id == review_id, ReviewRow.outcome == PENDING, ReviewRow.withdrawn_at.is_(None)
        )
        with while_running(), self._reader.connect() as connection:
            return connection.execute(query).first() is not None

    def complete_review(
        self,
        review_id: int,
        outcome: ReviewOutcome,
        entry: BankEntry | None = None,
        removals: Sequence[Removal] = (),
    ) -> None:
        """Store what became of a review, the entry that it made and who made room, in one transaction.

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
                hidden_frame_id=outcome.hidden.frame_id if outcome.hidden else None,
                hidden_picture=outcome.hidden.picture_sha256 if outcome.hidden else None,
                applied_at=self._now(),
            )
        )
        with while_running(), Session(self._writer) as session, session.begin():
            session.execute(completed)
            # Whoever completed it first: what the bank was taught is written down.
            if entry is not None:
                write_edits(session, (entry.camera, entry.model_id), [entry], removals, self._now())

    def golden_defects(self, camera: str, most: int) -> Sequence[GoldenDefect]:
        """Return a camera's confirmed defects whose image was kept, the ``most`` that were confirmed last.

        They come in the order in which they were confirmed.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = (
            select(ReviewRow.frame_id, InspectionRow.image_sha256)
            .join(InspectionRow, InspectionRow.frame_id == ReviewRow.frame_id)
            .where(InspectionRow.camera == camera, InspectionRow.image_sha256.is_not(None))
            .where(ReviewRow.verdict == Verdict.DEFECT.value, ReviewRow.withdrawn_at.is_(None))
            .order_by(ReviewRow.id.desc())
            .limit(most)
        )
        with while_running(), self._reader.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(GoldenDefect(frame_id, sha256) for frame_id, sha256 in reversed(rows) if sha256)


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
        policy=Policy(row.policy),
    )
