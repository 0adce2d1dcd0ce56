"""Reviews for people: which parts were flagged, what was seen on them, and a person's word about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, Select, and_, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from monitor.adapters.database import WRITES, while_running
from monitor.ports import OrderKind, Policy
from schemas.errors import OperatorError
from schemas.messages import RegionMessage, Verdict, utc_now
from schemas.tables import BankEntryRow, BankOrderRow, InspectionRow, ReviewRow

FLAGGED: Final = (Verdict.DEFECT.value, Verdict.UNINSPECTED.value)
MIN_PREFIX: Final = 4
MAX_REVIEWER: Final = 128


@dataclass(frozen=True, slots=True)
class Review:
    """A word on a frame. ``outcome`` is pending until the learner made it added, known, explained, recorded or refused.

    ``hidden_picture``: where the image store has the patches of a refused part and of the defect it would have hidden.
    """

    frame_id: str
    verdict: Verdict
    reviewer: str
    note: str | None
    created_at: datetime
    outcome: str
    outcome_detail: str | None
    applied_at: datetime | None
    bank_version: int | None
    policy: Policy = Policy.PERSON
    hidden_frame_id: str | None = None
    hidden_picture: str | None = None


@dataclass(frozen=True, slots=True)
class FlaggedFrame:
    """One line of the list of parts that a person should look at."""

    frame_id: str
    camera: str
    part_serial: str | None
    lot: str | None
    captured_at: datetime
    verdict: Verdict
    reason: str | None
    score: float | None
    threshold: float | None
    defect_area: float | None
    image_sha256: str | None
    review: Review | None


@dataclass(frozen=True, slots=True)
class FrameDetails:
    """Everything that is known about one frame."""

    frame: FlaggedFrame
    topic: str
    partition: int
    offset: int
    inspected_at: datetime
    latency_ms: float
    model_id: str
    bank_version: int | None
    content_type: str
    mask_png: bytes | None
    regions: tuple[RegionMessage, ...]
    region_count: int | None


class ReviewDesk:
    """Lists flagged frames and takes people's word on them.

    Frames are named by their id or by a beginning of it that only one frame has.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        now: the time of a review.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._now = now

    def list_flagged(self, limit: int, camera: str | None = None, *, only_open: bool = True) -> Sequence[FlaggedFrame]:
        """Return the newest frames that were found defective or were not inspected.

        Args:
            limit: how many at most.
            camera: only this camera's.
            only_open: leave out those that were reviewed.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = (
            select(InspectionRow, ReviewRow)
            .outerjoin(ReviewRow, and_(ReviewRow.frame_id == InspectionRow.frame_id, ReviewRow.withdrawn_at.is_(None)))
            .where(InspectionRow.verdict.in_(FLAGGED))
            .options(defer(InspectionRow.mask_png))
            .order_by(InspectionRow.id.desc())
            .limit(limit)
        )
        if camera is not None:
            query = query.where(InspectionRow.camera == camera)
        if only_open:
            query = query.where(ReviewRow.id.is_(None))
        with while_running(), Session(self._reader) as session:
            return tuple(_flagged(row, review) for row, review in session.execute(query))

    def show(self, frame_id: str) -> FrameDetails:
        """Return everything that is known about a frame.

        Raises:
            OperatorError: there is no such frame, or the beginning of an id fits several.
            StoreUnavailableError: the database is away.
        """
        with while_running(), Session(self._reader) as session:
            row = _find(session, frame_id)
            return FrameDetails(
                frame=_flagged(row, _stored_review(session, row.frame_id)),
                topic=row.topic,
                partition=row.partition,
                offset=row.offset,
                inspected_at=row.inspected_at,
                latency_ms=row.latency_ms,
                model_id=row.model_id,
                bank_version=row.bank_version,
                content_type=row.content_type,
                mask_png=row.mask_png,
                regions=tuple(_region(region) for region in row.regions),
                region_count=row.region_count,
            )

    def confirm(self, frame_id: str, verdict: Verdict, reviewer: str, note: str | None = None) -> Review:
        """Store a person's word on a frame for the learner; saying the same again returns the first review.

        Args:
            frame_id: the frame, or a beginning of its id.
            verdict: ``NORMAL`` or ``DEFECT``.
            reviewer: who says so.
            note: why, for people.

        Raises:
            OperatorError: no such frame, another verdict is recorded already, or the image to learn from was not kept.
            StoreUnavailableError: the database is away; nothing was stored.
        """
        _require_word(verdict, reviewer)
        with while_running():
            try:
                return self._confirm(frame_id, verdict, reviewer, note)
            except IntegrityError:
                # Two people clicked at once: the other's review is stored, and this one is held against it.
                return self._confirm(frame_id, verdict, reviewer, note)

    def retract(self, frame_id: str, by: str, why: str | None = None) -> tuple[Review, Sequence[int]]:
        """Take back what was said about a frame; it may be reviewed again.

        What it taught is taken out of the banks by the learner.

        Returns:
            The review, and the ids of the orders to the learner (``BankDesk.order``).

        Raises:
            OperatorError: no such frame, or nothing was said about it.
            StoreUnavailableError: the database is away; nothing was changed.
        """
        require_name(by)
        with while_running(), Session(self._writer) as session, session.begin():
            row = _find(session, frame_id)
            stored = _stored_review(session, row.frame_id)
            if stored is None:
                msg = f"frame {row.frame_id}: nobody has reviewed it, so there is nothing to take back"
                raise OperatorError(msg)
            stored.withdrawn_at, stored.withdrawn_by, stored.withdrawn_why = self._now(), by, printable(why)
            # The learner may be about to add it: then the order finds it.
            models = {row.model_id} | set(session.scalars(_models_taught(row.frame_id)))
            orders = [
                BankOrderRow(
                    kind=OrderKind.RETRACT.value,
                    camera=row.camera,
                    model_id=model_id,
                    frame_id=row.frame_id,
                    ordered_by=by,
                    why=printable(why),
                    created_at=self._now(),
                )
                for model_id in sorted(models if stored.verdict == Verdict.NORMAL.value else ())
            ]
            session.add_all(orders)
            session.flush()
            return _review(stored), [order.id for order in orders]

    def _confirm(self, frame_id: str, verdict: Verdict, reviewer: str, note: str | None) -> Review:
        with Session(self._writer) as session, session.begin():
            row = _find(session, frame_id)
            stored = _stored_review(session, row.frame_id)
            if stored is not None:
                return _review(_require_same(stored, verdict))
            if verdict is Verdict.NORMAL and row.image_sha256 is None:
                msg = (
                    f"frame {row.frame_id}: its image was not kept, so the bank cannot learn it as normal. Set "
                    "images.keep to 'flagged' or 'all' to keep the images of frames to come."
                )
                raise OperatorError(msg)
            review = ReviewRow(
                frame_id=row.frame_id,
                verdict=verdict.value,
                reviewer=reviewer,
                note=printable(note),
                created_at=self._now(),
            )
            session.add(review)
            session.flush()
            return _review(review)


def _require_word(verdict: Verdict, reviewer: str) -> None:
    if verdict is Verdict.UNINSPECTED:
        msg = "a person confirms a frame as normal or defect, not as uninspected"
        raise OperatorError(msg)
    require_name(reviewer)


def require_name(name: str) -> None:
    """Raise OperatorError unless a person's name can be stored."""
    if not 0 < len(name) <= MAX_REVIEWER or not name.isprintable():
        msg = f"reviewer {name[:MAX_REVIEWER]!r}: give a name of 1 to {MAX_REVIEWER} printable characters"
        raise OperatorError(msg)


def printable(text: str | None) -> str | None:
    """Return a person's words as every database can store them: no NUL, and no half of a character.

    Such a half is what a shell's argument holds that is not in UTF-8.
    """
    return text.encode(errors="replace").decode().replace("\0", "") or None if text else None


def _models_taught(frame_id: str) -> Select[str]:
    """Return the query for the models whose bank holds a frame."""
    there = BankEntryRow.version_removed.is_(None)
    return select(BankEntryRow.model_id).where(BankEntryRow.frame_id == frame_id, there).distinct()


def _require_same(stored: ReviewRow, verdict: Verdict) -> ReviewRow:
    if stored.verdict != verdict.value:
        msg = (
            f"frame {stored.frame_id}: {stored.reviewer} confirmed it as {stored.verdict} on "
            f"{stored.created_at:%Y-%m-%d %H:%M} UTC ({stored.outcome}), so it cannot become {verdict.value}. "
            "Ask them; 'review retract' takes it back."
        )
        raise OperatorError(msg)
    return stored


def _find(session: Session, frame_id: str) -> InspectionRow:
    exact = session.scalar(select(InspectionRow).where(InspectionRow.frame_id == frame_id))
    if exact is not None:
        return exact
    if len(frame_id) < MIN_PREFIX:
        msg = f"frame {frame_id!r}: give the frame's id, or at least its first {MIN_PREFIX} characters"
        raise OperatorError(msg)
    # Not LIKE: on SQLite it takes no heed of upper and lower case.
    beginning = func.substr(InspectionRow.frame_id, 1, len(frame_id)) == frame_id
    rows = session.scalars(select(InspectionRow).where(beginning).order_by(InspectionRow.id.desc()).limit(3)).all()
    if not rows:
        msg = f"frame {frame_id!r}: no frame with this id, or with an id that begins so, was inspected"
        raise OperatorError(msg)
    if len(rows) > 1:
        found = ", ".join(row.frame_id for row in rows)
        msg = f"frame {frame_id!r}: several ids begin so, among them {found}. Give more characters."
        raise OperatorError(msg)
    return rows[0]


def _stored_review(session: Session, frame_id: str) -> ReviewRow | None:
    in_force = ReviewRow.withdrawn_at.is_(None)
    return session.scalar(select(ReviewRow).where(ReviewRow.frame_id == frame_id, in_force))


def _flagged(row: InspectionRow, review: ReviewRow | None) -> FlaggedFrame:
    return FlaggedFrame(
        frame_id=row.frame_id,
        camera=row.camera,
        part_serial=row.part_serial,
        lot=row.lot,
        captured_at=row.captured_at,
        verdict=Verdict(row.verdict),
        reason=row.reason,
        score=row.score,
        threshold=row.threshold,
        defect_area=row.defect_area,
        image_sha256=row.image_sha256,
        review=None if review is None else _review(review),
    )


def _review(row: ReviewRow) -> Review:
    return Review(
        frame_id=row.frame_id,
        verdict=Verdict(row.verdict),
        reviewer=row.reviewer,
        note=row.note,
        created_at=row.created_at,
        outcome=row.outcome,
        outcome_detail=row.outcome_detail,
        applied_at=row.applied_at,
        bank_version=row.bank_version,
        policy=Policy(row.policy),
        hidden_frame_id=row.hidden_frame_id,
        hidden_picture=row.hidden_picture,
    )


def _region(row: object) -> RegionMessage:
    return RegionMessage.model_validate(row, from_attributes=True)
