"""Inspections, dead letters and the outbox in SQL: one transaction a batch, and every frame once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Final

import tenacity
from sqlalchemy import Engine, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from monitor.adapters.database import WRITES, while_running
from monitor.adapters.drift_reports import as_drift_report, drift_row
from monitor.ports import BatchOutcome, DeadLetter, DriftReport, InspectionRecord, LogPosition, OutboxMessage, Recorded
from schemas.messages import InspectionEvent, utc_now
from schemas.tables import DeadLetterRow, DriftStateRow, InspectionRow, OutboxRow, RegionRow

MAX_DETAIL: Final = 2000

Place = tuple[str, int, int]


class SqlInspectionStore:
    """The ``InspectionStore`` port on SQLite or PostgreSQL.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        inspections_topic: where the outbox's events are to be published.
        now: the time that rows say they were written at.
    """

    def __init__(self, engine: Engine, inspections_topic: str, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._topic = inspections_topic
        self._now = now

    def record(self, outcome: BatchOutcome) -> Recorded:
        """Store a batch and its outbox in one transaction; what is stored already stays as it is.

        A frame is stored already when its frame id is, or its place in the log.

        Raises:
            StoreUnavailableError: the database is away. Repeat the call: should the commit have got through although
                its answer did not, all of the batch is seen as repeats.
        """
        with while_running():
            return self._record(outcome)

    # A worker that lost its partitions but does not know it yet may store the same frames at the same moment. The
    # unique constraints let one of the two win; the other begins again and finds repeats.
    @tenacity.retry(
        retry=tenacity.retry_if_exception_type(IntegrityError), stop=tenacity.stop_after_attempt(5), reraise=True
    )
    def _record(self, outcome: BatchOutcome) -> Recorded:
        with Session(self._writer) as session, session.begin():
            frames, places = _settled(session, outcome)
            inspections = []
            for record in outcome.inspections:
                if record.frame.frame_id not in frames and _place(record.position) not in places:
                    inspections.append(record)
                    frames.add(record.frame.frame_id)
                    places.add(_place(record.position))
            letters = []
            for letter in outcome.dead_letters:
                if _place(letter.record.position) not in places:
                    letters.append(letter)
                    places.add(_place(letter.record.position))
            session.add_all(_inspection_row(record) for record in inspections)
            session.add_all(self._outbox_row(record) for record in inspections)
            session.add_all(self._dead_letter_row(letter) for letter in letters)
            for report in outcome.drift:
                session.merge(drift_row(report))
        given = len(outcome.inspections) + len(outcome.dead_letters)
        new = len(inspections) + len(letters)
        return Recorded(inspections=len(inspections), dead_letters=len(letters), repeats=given - new)

    def drift_report(self, camera: str, model_id: str) -> DriftReport | None:
        """Return the drift report stored last of a camera and model, if any.

        Raises:
            StoreUnavailableError: the database is away.
        """
        with while_running(), Session(self._reader) as session:
            row = session.get(DriftStateRow, (camera, model_id))
            return None if row is None else as_drift_report(row)

    def unpublished(self, limit: int) -> Sequence[OutboxMessage]:
        """Return the oldest outbox messages not yet published.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = select(OutboxRow).where(OutboxRow.published_at.is_(None)).order_by(OutboxRow.id).limit(limit)
        with while_running(), Session(self._reader) as session:
            return tuple(_outbox_message(row) for row in session.scalars(query))

    def mark_published(self, ids: Sequence[int]) -> None:
        """Mark outbox messages as published.

        Raises:
            StoreUnavailableError: the database is away; the messages will be published again.
        """
        published = update(OutboxRow).where(OutboxRow.id.in_(ids)).values(published_at=self._now())
        with while_running(), self._writer.begin() as connection:
            connection.execute(published)

    def _outbox_row(self, record: InspectionRecord) -> OutboxRow:
        event = inspection_event(record)
        return OutboxRow(
            dedupe_id=event.dedupe_id,
            topic=self._topic,
            key=event.camera,
            headers=[list(header) for header in event.to_headers()],
            payload=event.to_json(),
            created_at=self._now(),
        )

    def _dead_letter_row(self, letter: DeadLetter) -> DeadLetterRow:
        record = letter.record
        frame_ids = [value for name, value in record.headers if name.lower() == "ce_id"]
        return DeadLetterRow(
            topic=record.position.topic,
            topic_id=record.position.topic_id,
            partition=record.position.partition,
            offset=record.position.offset,
            camera=readable(record.key, 128),
            frame_id=readable(frame_ids[0] if frame_ids else None, 128),
            reason=letter.reason.value,
            detail=readable(letter.detail.encode(errors="replace"), MAX_DETAIL) or "",
            size_bytes=len(record.value or b""),
            received_at=self._now(),
            **(place_columns(letter.kept_at) if letter.kept_at else {}),
        )


def place_columns(place: LogPosition) -> dict[str, str | int]:
    """Return the columns that say where a dead letter's bytes lie."""
    return {
        "dead_topic": place.topic,
        "dead_topic_id": place.topic_id,
        "dead_partition": place.partition,
        "dead_offset": place.offset,
    }


def _place(position: LogPosition) -> Place:
    return position.topic_id, position.partition, position.offset


def _settled(session: Session, outcome: BatchOutcome) -> tuple[set[str], set[Place]]:
    """Return which of the batch's frame ids and places in the log are stored already."""
    frame_ids = {record.frame.frame_id for record in outcome.inspections}
    places = {_place(record.position) for record in outcome.inspections}
    places |= {_place(letter.record.position) for letter in outcome.dead_letters}
    frames = session.scalars(select(InspectionRow.frame_id).where(InspectionRow.frame_id.in_(frame_ids)))
    return set(frames), _stored_places(session, places)


def _stored_places(session: Session, places: Iterable[Place]) -> set[Place]:
    stored: set[Place] = set()
    # Both tables: a frame that was a dead letter stays one, even if the limits were raised since.
    for table in (InspectionRow, DeadLetterRow):
        columns = (table.topic_id, table.partition, table.offset)
        rows = session.execute(select(*columns).where(tuple_(*columns).in_(list(places))))
        stored.update((topic_id, partition, offset) for topic_id, partition, offset in rows)
    return stored


def _inspection_row(record: InspectionRecord) -> InspectionRow:
    frame, position = record.frame, record.position
    return InspectionRow(
        frame_id=frame.frame_id,
        camera=frame.camera,
        topic=position.topic,
        topic_id=position.topic_id,
        partition=position.partition,
        offset=position.offset,
        part_serial=frame.part_serial,
        lot=frame.lot,
        captured_at=frame.captured_at,
        inspected_at=record.inspected_at,
        latency_ms=(record.inspected_at - frame.captured_at).total_seconds() * 1000,
        verdict=record.verdict.value,
        reason=record.reason,
        score=record.score,
        threshold=record.threshold,
        defect_area=record.defect_area,
        mask_png=record.mask_png,
        model_id=record.model_id,
        bank_version=record.bank_version,
        image_sha256=record.image_sha256,
        content_type=frame.content_type,
        region_count=record.region_count,
        regions=[RegionRow(**region.model_dump()) for region in record.regions],
    )


def inspection_event(record: InspectionRecord) -> InspectionEvent:
    """Return the event that tells of an inspection."""
    frame = record.frame
    return InspectionEvent(
        frame_id=frame.frame_id,
        camera=frame.camera,
        part_serial=frame.part_serial,
        lot=frame.lot,
        verdict=record.verdict,
        reason=record.reason,
        score=record.score,
        threshold=record.threshold,
        defect_area=record.defect_area,
        regions=record.regions,
        region_count=record.region_count,
        model_id=record.model_id,
        bank_version=record.bank_version,
        captured_at=frame.captured_at,
        inspected_at=record.inspected_at,
    )


def _outbox_message(row: OutboxRow) -> OutboxMessage:
    headers = tuple((name, value) for name, value in row.headers)
    return OutboxMessage(id=row.id, topic=row.topic, key=row.key, headers=headers, payload=row.payload)


def readable(raw: bytes | None, limit: int) -> str | None:
    """Return what people can read of bytes that nobody has checked, and that every database can store."""
    text = (raw or b"").decode(errors="replace")
    return "".join(character for character in text if character.isprintable())[:limit] or None
