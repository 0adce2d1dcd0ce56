"""What became of every frame and every word: asked of the database, the broker and the bank themselves."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from deploy.chaos.feed import Kind
from monitor.adapters.kafka.connection import client_options
from monitor.settings import KafkaSettings
from schemas.tables import BankEntryRow, BankOrderRow, DeadLetterRow, InspectionRow, OutboxRow, ReviewRow

READ_S: Final = 10.0
VERIFY_S: Final = 60.0
WANTED: Final[Mapping[Kind, frozenset[str]]] = {
    Kind.BROKEN: frozenset({"dead letter"}),
    Kind.LATE: frozenset({"uninspected"}),
    Kind.GOOD: frozenset({"normal", "defect"}),
    Kind.ODD: frozenset({"normal", "defect"}),
    Kind.DEFECT: frozenset({"normal", "defect"}),
}


@dataclass(frozen=True, slots=True)
class Ends:
    """What became of the frames. ``rows``: every row of the database as (frame id, verdict or "dead letter")."""

    rows: tuple[tuple[str, str], ...]

    @property
    def frames(self) -> set[str]:
        """The ids of the frames that came to an end."""
        return {frame_id for frame_id, _ in self.rows}

    @property
    def duplicates(self) -> int:
        """How many rows too many there are."""
        return len(self.rows) - len(self.frames)

    def count(self, *ends: str) -> int:
        """Return how many frames came to one of these ends."""
        return len({frame_id for frame_id, end in self.rows if end in ends})

    def wrong(self, kinds: Mapping[str, Kind]) -> int:
        """Return how many rows say what cannot be of such a frame, or of one that was never sent."""
        return sum(frame_id not in kinds or end not in WANTED[kinds[frame_id]] for frame_id, end in self.rows)


def read_ends(engine: Engine) -> Ends:
    """Return what became of the frames so far.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is away.
    """
    with Session(engine) as session:
        query = select(InspectionRow.frame_id, InspectionRow.verdict)
        inspections = [(row.frame_id, row.verdict) for row in session.execute(query)]
        letters = session.scalars(select(DeadLetterRow.frame_id)).all()
    return Ends((*inspections, *((str(frame_id), "dead letter") for frame_id in letters)))


def unsettled(engine: Engine) -> int:
    """Return how many results, words and orders still wait to be dealt with."""
    with Session(engine) as session:
        waiting = (
            select(func.count()).where(OutboxRow.published_at.is_(None)),
            select(func.count()).where(ReviewRow.outcome == "pending", ReviewRow.withdrawn_at.is_(None)),
            select(func.count()).where(BankOrderRow.outcome == "pending"),
        )
        return sum(session.scalar(each) or 0 for each in waiting)


def read_committed(settings: KafkaSettings) -> set[str]:
    """Return the ids of the frames that the workers' group has committed: these are never delivered again.

    Raises:
        kafka.errors.KafkaError: the broker is away.
    """
    options = client_options(settings, settings.connect_timeout_s)
    with KafkaConsumer(**options, group_id=settings.group, enable_auto_commit=False) as consumer:
        partitions = [TopicPartition(settings.frames_topic, number) for number in range(settings.partitions)]
        consumer.assign(partitions)
        return set(_frame_ids(consumer, {each: consumer.committed(each) or 0 for each in partitions}))


def _frame_ids(consumer: KafkaConsumer, ends: Mapping[TopicPartition, int]) -> Iterable[str]:
    consumer.seek_to_beginning()
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        fetched = consumer.poll(round(READ_S * 1000))
        if not fetched:
            msg = f"the broker did not give back within {READ_S:.0f} s what was committed"
            raise TimeoutError(msg)
        for partition, records in fetched.items():
            for record in records:
                if record.offset < ends[partition]:
                    yield dict(record.headers)["ce_id"].decode()


def bank_problems(engine: Engine, config: Path, cameras: Iterable[str]) -> list[str]:
    """Return what is wrong with the banks: what 'bank verify' says, and words that the book does not have."""
    problems = []
    for camera in cameras:
        command = [sys.executable, "-m", "monitor", "--config", str(config), "bank", "verify", "--camera", camera]
        done = subprocess.run(command, capture_output=True, text=True, timeout=VERIFY_S, check=False)  # noqa: S603
        if done.returncode:
            problems.append(f"bank of {camera}: {done.stdout.strip()} {done.stderr.strip()}")
    with Session(engine) as session:
        entries = Counter(session.scalars(select(BankEntryRow.frame_id)))
        active = set(session.scalars(select(BankEntryRow.frame_id).where(BankEntryRow.version_removed.is_(None))))
        words = session.execute(select(ReviewRow.frame_id, ReviewRow.withdrawn_at).where(ReviewRow.outcome == "added"))
        added: set[str] = set()
        withdrawn: set[str] = set()
        for frame_id, withdrawn_at in words:
            (added if withdrawn_at is None else withdrawn).add(frame_id)
    problems += [f"frame {frame_id}: taught, says its review; no bank knows of it" for frame_id in added - set(entries)]
    problems += [f"frame {frame_id}: in the bank, though taken back" for frame_id in (withdrawn - added) & active]
    return problems
