"""What of a batch is in the database already: a frame once, a place in the log once, a waiting dead letter once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Self

from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from monitor.ports import BatchOutcome, DeadLetter, InspectionRecord, LogGap, LogPosition, RawRecord
from schemas.tables import DeadLetterRow, InspectionRow, LogGapRow, ShadowInspectionRow

MAX_NAME: Final = 128

Place = tuple[str, int, int]
Name = tuple[str, str, str]


@dataclass
class Settled:
    """What is stored; asked in the order of the batch, it also remembers what it said yes to.

    Attributes:
        frames: ids of inspected frames.
        places: places in the log.
        waiting: camera, frame id and SHA-256 of the bytes of dead letters that wait. A camera that sends a broken frame
            again, because it does not know whether it arrived, adds none; one that people sent to be inspected again
            does not wait.
    """

    frames: set[str] = field(default_factory=set)
    places: set[Place] = field(default_factory=set)
    waiting: set[Name] = field(default_factory=set)

    @classmethod
    def find(cls, session: Session, outcome: BatchOutcome) -> Self:
        """Ask the database about all that is in a batch."""
        _one_at_a_time(session, outcome)
        frame_ids = {record.frame.frame_id for record in outcome.inspections}
        places = {_place(record.position) for record in outcome.inspections}
        places |= {_place(letter.record.position) for letter in outcome.dead_letters}
        dead = {camera_and_frame(letter.record)[1] for letter in outcome.dead_letters}
        frames = session.scalars(select(InspectionRow.frame_id).where(InspectionRow.frame_id.in_(frame_ids)))
        return cls(set(frames), _stored_places(session, places), _waiting(session, dead))

    def takes(self, record: InspectionRecord) -> bool:
        """Return whether an inspection is new."""
        if record.frame.frame_id in self.frames or _place(record.position) in self.places:
            return False
        self.frames.add(record.frame.frame_id)
        self.places.add(_place(record.position))
        return True

    def takes_letter(self, letter: DeadLetter) -> bool:
        """Return whether a dead letter is new."""
        name = name_of(letter.record)
        if _place(letter.record.position) in self.places or name in self.waiting:
            return False
        self.places.add(_place(letter.record.position))
        if name is not None:
            self.waiting.add(name)
        return True


def new_shadows(session: Session, records: Sequence[InspectionRecord]) -> list[InspectionRecord]:
    """Return those of a shadow's records whose frame is stored, as of this place in the log, and that are not."""
    frame_ids = {record.frame.frame_id for record in records}
    columns = (InspectionRow.topic_id, InspectionRow.partition, InspectionRow.offset)
    stored = {tuple(row) for row in session.execute(select(*columns).where(InspectionRow.frame_id.in_(frame_ids)))}
    pairs = select(ShadowInspectionRow.frame_id, ShadowInspectionRow.model_id)
    seen = {tuple(row) for row in session.execute(pairs.where(ShadowInspectionRow.frame_id.in_(frame_ids)))}
    return [
        record
        for record in records
        if _place(record.position) in stored and (record.frame.frame_id, record.model_id) not in seen
    ]


def new_gaps(session: Session, gaps: Sequence[LogGap]) -> tuple[LogGap, ...]:
    """Return those gaps of the log that are not stored. A worker that died before it committed finds them again."""
    if not gaps:
        return ()
    columns = (LogGapRow.topic_id, LogGapRow.partition, LogGapRow.first_offset)
    places = [_place(gap.position) for gap in gaps]
    stored = {tuple(row) for row in session.execute(select(*columns).where(tuple_(*columns).in_(places)))}
    return tuple(gap for gap in gaps if _place(gap.position) not in stored)


def name_of(record: RawRecord) -> Name | None:
    """Return what names a message that nobody has checked, if its camera and frame id are readable."""
    camera, frame_id = camera_and_frame(record)
    return (camera, frame_id, digest(record)) if camera and frame_id else None


def camera_and_frame(record: RawRecord) -> tuple[str | None, str | None]:
    """Return the camera and the frame id that a message claims, each as far as it is readable."""
    frame_ids = [value for name, value in record.headers if name.lower() == "ce_id"]
    return readable(record.key, MAX_NAME), readable(frame_ids[0] if frame_ids else None, MAX_NAME)


def digest(record: RawRecord) -> str:
    """Return the SHA-256 of a message's bytes, in hexadecimal."""
    return hashlib.sha256(record.value or b"").hexdigest()


def readable(raw: bytes | None, limit: int) -> str | None:
    """Return what people can read of bytes that nobody has checked, and that every database can store."""
    text = (raw or b"").decode(errors="replace")
    return "".join(character for character in text if character.isprintable())[:limit] or None


def _one_at_a_time(session: Session, outcome: BatchOutcome) -> None:
    """Let nobody else store frames of these partitions until the end of the transaction.

    A worker that was taken for dead may store what its successor stores at this moment. Each table's constraints let
    one of the two win, but none keeps the same frame out of the other table. SQLite has one writer at a time anyway.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    positions = [each.position for each in outcome.inspections]
    positions += [letter.record.position for letter in outcome.dead_letters]
    positions += [gap.position for gap in outcome.gaps]
    # In one order, or two workers could wait for each other.
    for partition in sorted({f"{position.topic_id}/{position.partition}" for position in positions}):
        session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(partition, 0))))


def _place(position: LogPosition) -> Place:
    return position.topic_id, position.partition, position.offset


def _stored_places(session: Session, places: Iterable[Place]) -> set[Place]:
    stored: set[Place] = set()
    # Both tables: a frame that was a dead letter stays one, even if the limits were raised since.
    for table in (InspectionRow, DeadLetterRow):
        columns = (table.topic_id, table.partition, table.offset)
        rows = session.execute(select(*columns).where(tuple_(*columns).in_(list(places))))
        stored.update((topic_id, partition, offset) for topic_id, partition, offset in rows)
    return stored


def _waiting(session: Session, frame_ids: Iterable[str | None]) -> set[Name]:
    columns = (DeadLetterRow.camera, DeadLetterRow.frame_id, DeadLetterRow.sha256)
    query = select(*columns).where(DeadLetterRow.frame_id.in_(list(frame_ids)), DeadLetterRow.replayed_at.is_(None))
    return {(camera or "", frame_id or "", sha256 or "") for camera, frame_id, sha256 in session.execute(query)}
