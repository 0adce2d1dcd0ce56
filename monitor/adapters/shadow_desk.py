"""What shadows found beside what the active models did, in SQL: for people who are to choose between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

from sqlalchemy import Engine, Select, and_, select
from sqlalchemy.orm import Session

from monitor.adapters.database import while_running
from monitor.comparison import Comparison, Tally
from monitor.ports import Policy
from schemas.messages import Verdict
from schemas.tables import InspectionRow, ReviewRow, ShadowInspectionRow

DEFECT: Final = Verdict.DEFECT.value
ROWS_AT_ONCE: Final = 500

AnySelect: TypeAlias = Select[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Look:
    """What one of the two models found on a frame."""

    model_id: str
    verdict: Verdict
    score: float
    threshold: float
    mask_png: bytes | None


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A frame on which one of the two saw a defect, and the other none. ``truth``: what a person says it is."""

    frame_id: str
    camera: str
    captured_at: datetime
    active: Look
    shadow: Look
    truth: Verdict | None
    image_sha256: str | None


class SqlShadowDesk:
    """Compares models on SQLite or PostgreSQL.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
    """

    def __init__(self, engine: Engine) -> None:
        self._reader = engine

    def compare(self, camera: str | None = None, since: datetime | None = None) -> Sequence[Comparison]:
        """Return how each shadow and each active model judged the frames that both inspected, the newest pair first.

        Args:
            camera: only this camera's frames.
            since: only frames that the shadow inspected then or later.

        Raises:
            StoreUnavailableError: the database is away.
        """
        active, shadow = InspectionRow, ShadowInspectionRow
        pair = (active.model_id, shadow.model_id)
        seen = _both(
            select(
                *pair, active.verdict, shadow.verdict, ReviewRow.verdict, active.score, active.threshold, shadow.score,
                shadow.threshold,
            ),
            camera, since,
        )  # fmt: skip
        masks = _both(select(*pair, active.mask_png, shadow.mask_png), camera, since)
        masks = masks.where(active.verdict == DEFECT, shadow.verdict == DEFECT)
        tallies: dict[tuple[str, str], Tally] = {}
        with while_running(), Session(self._reader) as session:
            for a, s, a_said, s_said, truth, a_score, a_limit, s_score, s_limit in _rows(session, seen):
                tally = tallies.pop((a, s), None) or Tally(a, s)
                tallies[a, s] = tally  # the last one is the newest
                tally.add(
                    active=a_said == DEFECT,
                    shadow=s_said == DEFECT,
                    truth=truth,
                    active_ratio=_ratio(a_score, a_limit),
                    shadow_ratio=_ratio(s_score, s_limit),
                )
            for a, s, a_mask, s_mask in _rows(session, masks):
                if (a, s) in tallies:  # else it was inspected since
                    tallies[a, s].add_masks(a_mask, s_mask)
        return [tally.result() for tally in reversed(tallies.values())]

    def disagreements(
        self, limit: int, camera: str | None = None, since: datetime | None = None
    ) -> Sequence[Disagreement]:
        """Return the newest frames on which the two disagree; with the arguments of ``compare``.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = _both(select(InspectionRow, ShadowInspectionRow, ReviewRow.verdict), camera, since)
        query = query.where(InspectionRow.verdict != ShadowInspectionRow.verdict)
        query = query.order_by(ShadowInspectionRow.id.desc()).limit(limit)
        with while_running(), Session(self._reader) as session:
            return [
                Disagreement(
                    frame_id=active.frame_id,
                    camera=active.camera,
                    captured_at=active.captured_at,
                    active=_look(active),
                    shadow=_look(shadow),
                    truth=None if truth is None else Verdict(truth),
                    image_sha256=active.image_sha256,
                )
                for active, shadow, truth in session.execute(query)
            ]


def _both(query: AnySelect, camera: str | None, since: datetime | None) -> AnySelect:
    """Return a query over the frames that both inspected, with what a person said of them."""
    active, shadow, review = InspectionRow, ShadowInspectionRow, ReviewRow
    by_a_person = and_(
        review.frame_id == active.frame_id, review.withdrawn_at.is_(None), review.policy == Policy.PERSON.value
    )
    query = query.select_from(shadow).join(active, active.frame_id == shadow.frame_id).outerjoin(review, by_a_person)
    query = query.where(active.verdict != Verdict.UNINSPECTED.value)
    if camera is not None:
        query = query.where(shadow.camera == camera)
    if since is not None:
        query = query.where(shadow.inspected_at >= since)
    return query


def _rows(session: Session, query: AnySelect) -> Any:  # noqa: ANN401 - rows of these columns
    """Return the rows as they are read: there may be millions."""
    query = query.order_by(ShadowInspectionRow.id).execution_options(yield_per=ROWS_AT_ONCE)
    return session.execute(query)


def _ratio(score: float | None, threshold: float | None) -> float | None:
    return score / threshold if score is not None and threshold else None


def _look(row: InspectionRow | ShadowInspectionRow) -> Look:
    return Look(row.model_id, Verdict(row.verdict), float(row.score or 0.0), float(row.threshold or 0.0), row.mask_png)
