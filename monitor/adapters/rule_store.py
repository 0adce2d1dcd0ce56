"""What the rule asks of the database, and where its word goes: into the reviews, as what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from monitor.adapters.database import WRITES, while_running
from monitor.learning.rule import CalmFrame
from monitor.ports import Policy
from schemas.messages import Verdict, utc_now
from schemas.tables import InspectionRow, ReviewRow

REVIEWER: Final = "rule"


class SqlRuleStore:
    """The ``RuleStore`` port on SQLite or PostgreSQL.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        now: the time of a review.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._now = now

    def newest(self) -> int:
        """Return the number of the newest inspection, 0 without any."""
        with while_running(), self._reader.connect() as connection:
            return connection.execute(select(func.max(InspectionRow.id))).scalar() or 0

    def calm_frames(self, model_id: str, after: int, share: float, limit: int) -> Sequence[CalmFrame]:
        """Return frames stored after ``after`` with kept images, unreviewed, under ``share`` of their threshold."""
        columns = (
            InspectionRow.id,
            InspectionRow.frame_id,
            InspectionRow.camera,
            InspectionRow.score,
            InspectionRow.threshold,
        )
        reviewed = select(ReviewRow.id).where(ReviewRow.frame_id == InspectionRow.frame_id).exists()
        query = (
            select(*columns)
            .where(InspectionRow.id > after, InspectionRow.model_id == model_id, ~reviewed)
            .where(InspectionRow.verdict == Verdict.NORMAL.value, InspectionRow.image_sha256.is_not(None))
            .where(InspectionRow.score <= share * InspectionRow.threshold)
            .order_by(InspectionRow.id)
            .limit(limit)
        )
        with while_running(), self._reader.connect() as connection:
            rows = connection.execute(query).all()
        return tuple(
            CalmFrame(number, frame, camera, score or 0, line or 0) for number, frame, camera, score, line in rows
        )

    def confirmed_since(self, camera: str, since: datetime) -> int:
        """Return how many of a camera's frames the rule has confirmed since then."""
        query = (
            select(func.count())
            .select_from(ReviewRow)
            .join(InspectionRow, InspectionRow.frame_id == ReviewRow.frame_id)
            .where(ReviewRow.policy == Policy.RULE.value, ReviewRow.created_at >= since)
            .where(InspectionRow.camera == camera)
        )
        with while_running(), self._reader.connect() as connection:
            return connection.execute(query).scalar_one()

    def confirm(self, frame_id: str, note: str) -> bool:
        """Store the rule's word on a frame; False if there is a word on it already."""
        review = ReviewRow(
            frame_id=frame_id,
            verdict=Verdict.NORMAL.value,
            policy=Policy.RULE.value,
            reviewer=REVIEWER,
            note=note,
            created_at=self._now(),
        )
        with while_running():
            try:
                with Session(self._writer) as session, session.begin():
                    session.add(review)
            except IntegrityError:
                return False  # a person, or another learner, was faster
        return True
