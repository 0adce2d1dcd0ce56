"""Inspections, dead letters and the outbox in SQL: one transaction a batch, and every frame once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import tenacity
from sqlalchemy import Engine, delete, insert, inspect, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from monitor.adapters.database import WRITES, while_running
from monitor.adapters.drift_reports import as_drift_report, drift_row
from monitor.adapters.settled import Settled, camera_and_frame, digest, new_gaps, new_shadows, readable
from monitor.ports import (
    BatchOutcome,
    DeadLetter,
    DriftReport,
    InspectionRecord,
    LogGap,
    LogPosition,
    OutboxMessage,
    Recorded,
)
from schemas.messages import InspectionEvent, utc_now
from schemas.tables import (
    Base,
    DeadLetterRow,
    DriftStateRow,
    InspectionRow,
    LogGapRow,
    OutboxRow,
    RegionRow,
    ShadowInspectionRow,
)

MAX_DETAIL: Final = 2000

Values = dict[str, Any]

# A worker that lost its partitions but does not know it yet may store the same frames at the same moment. The unique
# constraints let one of the two win; the other begins again and finds repeats.
REPEATED: Final = tenacity.retry(
    retry=tenacity.retry_if_exception_type(IntegrityError), stop=tenacity.stop_after_attempt(5), reraise=True
)


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

        A frame is stored already when its frame id is, or its place in the log; a dead letter also when one of the same
        camera, frame id and bytes waits.

        Raises:
            StoreUnavailableError: the database is away. Repeat the call: should the commit have got through although
                its answer did not, all of the batch is seen as repeats.
        """
        with while_running():
            return self._record(outcome)

    @REPEATED
    def _record(self, outcome: BatchOutcome) -> Recorded:
        with Session(self._writer) as session, session.begin():
            settled = Settled.find(session, outcome)
            inspections = [record for record in outcome.inspections if settled.takes(record)]
            letters = [letter for letter in outcome.dead_letters if settled.takes_letter(letter)]
            _insert_inspections(session, inspections)
            _insert(session, OutboxRow, [self._outbox_values(record) for record in inspections])
            _insert(session, DeadLetterRow, [self._dead_letter_values(letter) for letter in letters])
            gaps = new_gaps(session, outcome.gaps)
            _insert(session, LogGapRow, [self._gap_values(gap) for gap in gaps])
            for report in outcome.drift:
                session.merge(drift_row(report))
        given = len(outcome.inspections) + len(outcome.dead_letters)
        new = len(inspections) + len(letters)
        return Recorded(inspections=len(inspections), dead_letters=len(letters), repeats=given - new, gaps=gaps)

    def record_shadows(self, records: Sequence[InspectionRecord]) -> None:
        """Store what models without a say found on frames that are stored; the masks' regions are not.

        Raises:
            StoreUnavailableError: the database is away.
        """
        with while_running():
            self._record_shadows(records)

    @REPEATED
    def _record_shadows(self, records: Sequence[InspectionRecord]) -> None:
        with Session(self._writer) as session, session.begin():
            new = new_shadows(session, records)
            _insert(session, ShadowInspectionRow, [_shadow_values(record) for record in new])

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
        first = OutboxRow.published_at.is_(None)
        published = update(OutboxRow).where(OutboxRow.id.in_(ids), first).values(published_at=self._now())
        with while_running(), self._writer.begin() as connection:
            connection.execute(published)

    def forget_published(self, age: timedelta, limit: int) -> int:
        """Delete at most ``limit`` outbox messages, published so long ago; return how many.

        Raises:
            StoreUnavailableError: the database is away.
        """
        old = select(OutboxRow.id).where(OutboxRow.published_at < self._now() - age)
        oldest = old.order_by(OutboxRow.published_at).limit(limit)
        with while_running(), self._writer.begin() as connection:
            return connection.execute(delete(OutboxRow).where(OutboxRow.id.in_(oldest.scalar_subquery()))).rowcount

    def _outbox_values(self, record: InspectionRecord) -> Values:
        event = inspection_event(record)
        return {
            "dedupe_id": event.dedupe_id,
            "topic": self._topic,
            "key": event.camera,
            "headers": [list(header) for header in event.to_headers()],
            "payload": event.to_json(),
            "created_at": self._now(),
        }

    def _gap_values(self, gap: LogGap) -> Values:
        place = gap.position
        return {
            "topic": place.topic,
            "topic_id": place.topic_id,
            "partition": place.partition,
            "first_offset": place.offset,
            "messages": gap.count,
            "found_at": self._now(),
        }

    def _dead_letter_values(self, letter: DeadLetter) -> Values:
        record = letter.record
        camera, frame_id = camera_and_frame(record)
        return dict(
            topic=record.position.topic,
            topic_id=record.position.topic_id,
            partition=record.position.partition,
            offset=record.position.offset,
            camera=camera,
            frame_id=frame_id,
            reason=letter.reason.value,
            detail=readable(letter.detail.encode(errors="replace"), MAX_DETAIL) or "",
            size_bytes=len(record.value or b""),
            sha256=digest(record),
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


def _insert_inspections(session: Session, records: Sequence[InspectionRecord]) -> None:
    if not records:
        return
    query = insert(InspectionRow).returning(InspectionRow.frame_id, InspectionRow.id)
    stored = session.execute(query, [_inspection_values(record) for record in records])
    ids = {row.frame_id: row.id for row in stored}
    regions = [
        region.model_dump() | {"inspection_id": ids[record.frame.frame_id]}
        for record in records
        for region in record.regions
    ]
    _insert(session, RegionRow, regions)


def _insert(session: Session, table: type[Base], rows: Sequence[Values]) -> None:
    # Rows as objects would cost three times as much, and under overload this is most of what a frame costs.
    if rows:
        # What is returned is of no use, but without it psycopg sends the rows in its pipeline mode, after which
        # PostgreSQL lets a transaction stand still for ever, whatever its time-out.
        session.execute(insert(table).returning(*inspect(table).primary_key), rows)


def _inspection_values(record: InspectionRecord) -> Values:
    frame, position = record.frame, record.position
    return {
        "frame_id": frame.frame_id,
        "camera": frame.camera,
        "topic": position.topic,
        "topic_id": position.topic_id,
        "partition": position.partition,
        "offset": position.offset,
        "part_serial": frame.part_serial,
        "lot": frame.lot,
        "captured_at": frame.captured_at,
        "inspected_at": record.inspected_at,
        "latency_ms": (record.inspected_at - frame.captured_at).total_seconds() * 1000,
        "verdict": record.verdict.value,
        "reason": record.reason,
        "score": record.score,
        "threshold": record.threshold,
        "defect_area": record.defect_area,
        "mask_png": record.mask_png,
        "model_id": record.model_id,
        "bank_version": record.bank_version,
        "image_sha256": record.image_sha256,
        "content_type": frame.content_type,
        "region_count": record.region_count,
    }


def _shadow_values(record: InspectionRecord) -> Values:
    return {
        "frame_id": record.frame.frame_id,
        "camera": record.frame.camera,
        "model_id": record.model_id,
        "inspected_at": record.inspected_at,
        "verdict": record.verdict.value,
        "score": record.score,
        "threshold": record.threshold,
        "defect_area": record.defect_area,
        "mask_png": record.mask_png,
        "bank_version": record.bank_version,
    }


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
