"""Dead letters for people: what waits, and what was done with it. A row stays whatever becomes of its letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Engine, and_, func, or_, select, update
from sqlalchemy.orm import Session

from monitor.adapters.database import WRITES, while_running
from monitor.adapters.inspections import place_columns
from monitor.adapters.review_desk import require_name
from monitor.ports import LogPosition
from schemas.errors import OperatorError, Reason
from schemas.messages import Verdict, utc_now
from schemas.tables import DeadLetterRow, InspectionRow

# Letters that one command takes: what it holds in memory, and names in one statement, stays bounded.
MOST: Final = 10_000


class State(StrEnum):
    """What became of a dead letter."""

    WAITING = "waiting"
    REPLAYED = "replayed"
    PURGED = "purged"


STATES: Final[Mapping[State, ColumnElement[bool]]] = {
    State.WAITING: and_(DeadLetterRow.replayed_at.is_(None), DeadLetterRow.purged_at.is_(None)),
    State.REPLAYED: and_(DeadLetterRow.replayed_at.is_not(None), DeadLetterRow.purged_at.is_(None)),
    State.PURGED: DeadLetterRow.purged_at.is_not(None),
}


@dataclass(frozen=True, slots=True)
class Letter:
    """The account of one dead letter. ``kept_at``: where its bytes lie, if that was recorded."""

    id: int
    position: LogPosition
    camera: str | None
    frame_id: str | None
    reason: str
    detail: str
    size_bytes: int
    received_at: datetime
    kept_at: LogPosition | None
    replayed_at: datetime | None
    replayed_by: str | None
    purged_at: datetime | None
    purged_by: str | None

    @property
    def state(self) -> State:
        """What became of it."""
        if self.purged_at is not None:
            return State.PURGED
        return State.WAITING if self.replayed_at is None else State.REPLAYED


@dataclass(frozen=True, slots=True)
class Selection:
    """Which letters are meant: those that fit all that is given.

    Attributes:
        ids: these; None: any.
        states: in one of these states.
        before: received before.
        newest: no newer than the letter with this id.
    """

    ids: tuple[int, ...] | None = None
    camera: str | None = None
    reason: Reason | None = None
    states: tuple[State, ...] = ()
    before: datetime | None = None
    newest: int | None = None

    def clauses(self) -> list[ColumnElement[bool]]:
        """Return what SQL is asked."""
        row = DeadLetterRow
        return [
            *([row.id.in_(self.ids)] if self.ids is not None else []),
            *([row.camera == self.camera] if self.camera is not None else []),
            *([row.reason == self.reason.value] if self.reason is not None else []),
            *([or_(*(STATES[state] for state in self.states))] if self.states else []),
            *([row.received_at < self.before] if self.before is not None else []),
            *([row.id <= self.newest] if self.newest is not None else []),
        ]


class DeadLetterDesk:
    """Lists dead letters, and writes down what people did with them.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        now: the time of what is written down.

    All methods raise StoreUnavailableError when the database is away; nothing was changed then.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._now = now

    def newest(self, selection: Selection, limit: int) -> Sequence[Letter]:
        """Return the newest letters that are meant, at most ``limit``, the newest first."""
        return self._letters(selection, DeadLetterRow.id.desc(), limit)

    def oldest(self, selection: Selection, limit: int) -> Sequence[Letter]:
        """Return the oldest letters that are meant, at most ``limit``, the oldest first."""
        return self._letters(selection, DeadLetterRow.id.asc(), limit)

    def named(self, ids: Sequence[int]) -> Sequence[Letter]:
        """Return these letters, the oldest first.

        Raises:
            OperatorError: one of them does not exist, or they are more than ``MOST``.
        """
        wanted = set(ids)
        if len(wanted) > MOST:
            msg = f"{len(wanted)} dead letters are named; at most {MOST} at a time"
            raise OperatorError(msg)
        letters = self.oldest(Selection(ids=tuple(wanted)), MOST)
        unknown = sorted(wanted - {letter.id for letter in letters})
        if unknown:
            msg = f"dead letter {unknown[0]}: there is none with this id. 'dlq list --state all' lists them."
            raise OperatorError(msg)
        return letters

    def totals(self, selection: Selection) -> dict[str, int]:
        """Return how many letters are meant by reason, the most frequent reason first."""
        count = func.count()
        query = select(DeadLetterRow.reason, count).where(*selection.clauses()).group_by(DeadLetterRow.reason)
        with while_running(), Session(self._reader) as session:
            rows = session.execute(query.order_by(count.desc(), DeadLetterRow.reason))
            return {reason: number for reason, number in rows}  # noqa: C416 - rows are no pairs to mypy

    def verdict(self, letter: Letter) -> Verdict | None:
        """Return what was found on a letter's frame when it came another time, if it was inspected then."""
        query = select(InspectionRow.verdict).where(InspectionRow.frame_id == letter.frame_id)
        with while_running(), Session(self._reader) as session:
            verdict = session.scalar(query)
            return None if verdict is None else Verdict(verdict)

    def remember(self, places: Mapping[int, LogPosition]) -> None:
        """Write down where letters' bytes were found, by the letters' ids."""
        with while_running(), Session(self._writer) as session, session.begin():
            for id_, place in places.items():
                session.execute(update(DeadLetterRow).where(DeadLetterRow.id == id_).values(place_columns(place)))

    def mark_replayed(self, ids: Sequence[int], by: str) -> None:
        """Write down that letters were sent to be inspected again.

        Raises:
            OperatorError: ``by`` is no name.
        """
        self._mark(Selection(ids=tuple(ids)), by, "replayed")

    def purge(self, selection: Selection, by: str) -> int:
        """Write down that nobody wants to look at letters again; return how many there were that were not purged yet.

        Raises:
            OperatorError: ``by`` is no name.
        """
        return self._mark(selection, by, "purged", DeadLetterRow.purged_at.is_(None))

    def _mark(self, selection: Selection, by: str, what: str, *also: ColumnElement[bool]) -> int:
        require_name(by)
        values = {f"{what}_at": self._now(), f"{what}_by": by}
        statement = update(DeadLetterRow).where(*selection.clauses(), *also).values(values)
        with while_running(), self._writer.begin() as connection:
            return connection.execute(statement).rowcount

    def _letters(self, selection: Selection, order: ColumnElement[int], limit: int) -> Sequence[Letter]:
        query = select(DeadLetterRow).where(*selection.clauses()).order_by(order).limit(limit)
        with while_running(), Session(self._reader) as session:
            return tuple(_letter(row) for row in session.scalars(query))


def _letter(row: DeadLetterRow) -> Letter:
    kept_at = None
    if row.dead_topic is not None and row.dead_partition is not None and row.dead_offset is not None:
        kept_at = LogPosition(row.dead_topic, row.dead_topic_id or "", row.dead_partition, row.dead_offset)
    return Letter(
        id=row.id,
        position=LogPosition(row.topic, row.topic_id, row.partition, row.offset),
        camera=row.camera,
        frame_id=row.frame_id,
        reason=row.reason,
        detail=row.detail,
        size_bytes=row.size_bytes,
        received_at=row.received_at,
        kept_at=kept_at,
        replayed_at=row.replayed_at,
        replayed_by=row.replayed_by,
        purged_at=row.purged_at,
        purged_by=row.purged_by,
    )
