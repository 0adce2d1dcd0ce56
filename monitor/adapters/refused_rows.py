"""Finds out which rows of a batch a database refuses, so that the others can be stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from monitor.adapters.database_refusals import ROW_FAULTS, is_of_a_row, words
from monitor.adapters.settled import Settled, one_at_a_time
from monitor.errors import RowsRefusedError
from monitor.ports import BatchOutcome, DeadLetter, DriftReport, InspectionRecord, LogPosition
from schemas.errors import OperatorError

REFUSES_ALL: Final = (
    "the database refuses a batch whatever is spared of it: {}. Its frames wait in Kafka. Look for a trigger or a "
    "constraint that is not this program's, and start again."
)

log = structlog.get_logger()

Insert = Callable[[Session, BatchOutcome, Settled], object]


@dataclass
class Refused:
    """What a database said of the rows that it refused; dead letters by their place in the log."""

    inspections: dict[LogPosition, str] = field(default_factory=dict)
    letters: dict[LogPosition, str] = field(default_factory=dict)
    drift: dict[tuple[str, str], str] = field(default_factory=dict)

    def spare(self, outcome: BatchOutcome) -> BatchOutcome:
        """Return a batch with the bare account of its refused dead letters, and without its refused drift reports."""
        letters = tuple(_bare(each) if each.record.position in self.letters else each for each in outcome.dead_letters)
        drift = tuple(each for each in outcome.drift if _of(each) not in self.drift)
        return replace(outcome, dead_letters=letters, drift=drift)


def spare_refused(session: Session, outcome: BatchOutcome, insert: Insert, error: Exception) -> BatchOutcome:
    """Return what is to be stored of a batch that a database refused as a whole, where no frame is refused.

    Args:
        session: see ``find_refused``.
        outcome: the batch.
        insert: stores what of a batch is new.
        error: what storing all of it raised; raised again where it is no row's fault.

    Raises:
        RowsRefusedError: frames are refused: they are to be made dead letters first.
    """
    if not is_of_a_row(error):
        raise error
    refused = find_refused(session, outcome, insert)
    if refused.inspections:
        raise RowsRefusedError(refused.inspections)
    for (camera, model_id), why in refused.drift.items():
        log.warning("The database refuses a drift report; the next takes its place", camera=camera, model=model_id,
                    error=why)  # fmt: skip
    for position, why in refused.letters.items():
        log.warning("The database refuses what a dead letter says; storing its place alone", at=position, error=why)
    return refused.spare(outcome)


@contextmanager
def refusing_all() -> Iterator[None]:
    """Turn what a database says of a batch that was spared all it can be into the operator's error."""
    try:
        yield
    except ROW_FAULTS as error:
        if not is_of_a_row(error):
            raise
        raise OperatorError(REFUSES_ALL.format(words(error))) from error


def one_by_one(
    records: Sequence[InspectionRecord], store: Callable[[Sequence[InspectionRecord]], None], error: Exception
) -> None:
    """Store a shadow's records each by itself, for all together raised ``error``; what is refused is lost, and told.

    Raises:
        Exception: ``error``, where it is no row's fault.
    """
    if not is_of_a_row(error):
        raise error
    if len(records) > 1:
        for record in records:
            store([record])
        return
    frames = [record.frame.frame_id for record in records]
    log.warning("The database refuses what a shadow found", frames=frames, error=words(error))


def find_refused(session: Session, outcome: BatchOutcome, insert: Insert) -> Refused:
    """Try each row of a batch by itself, in the order of the batch. The caller takes all of it back.

    Args:
        session: within a transaction, which is not to be committed.
        outcome: the batch.
        insert: stores what of a batch is new.
    """
    refused = Refused()
    # Outside of the savepoints: a lock taken within one goes with it.
    one_at_a_time(session, outcome)
    for record in outcome.inspections:
        if said := _attempt(session, BatchOutcome(inspections=(record,)), insert):
            refused.inspections[record.position] = said
    for letter in outcome.dead_letters:
        if said := _attempt(session, BatchOutcome(dead_letters=(letter,)), insert):
            refused.letters[letter.record.position] = said
    for report in outcome.drift:
        if said := _attempt(session, BatchOutcome(drift=(report,)), insert):
            refused.drift[_of(report)] = said
    return refused


def _attempt(session: Session, outcome: BatchOutcome, insert: Insert) -> str | None:
    """Return what the database says against a batch of one row; None if it takes it, or has it."""
    try:
        with session.begin_nested():
            insert(session, outcome, Settled.find(session, outcome))
            if session.get_bind().dialect.name == "postgresql":
                # What is to be checked at the commit is to be checked here.
                session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))
    except ROW_FAULTS as error:
        if not is_of_a_row(error):
            raise
        if isinstance(error, IntegrityError) and _stored(session, outcome):
            return None  # another worker was faster
        return words(error)
    return None


def _stored(session: Session, outcome: BatchOutcome) -> bool:
    settled = Settled.find(session, outcome)
    return not any(settled.takes(each) for each in outcome.inspections) and not any(
        settled.takes_letter(each) for each in outcome.dead_letters
    )


def _bare(letter: DeadLetter) -> DeadLetter:
    """Return a dead letter without what nobody has checked: its place, reason, size and hash are left."""
    return replace(letter, record=replace(letter.record, key=None, headers=()), detail="")


def _of(report: DriftReport) -> tuple[str, str]:
    return report.camera, report.model_id
