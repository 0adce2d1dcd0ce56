"""The in-memory twin of the inspection store. Reviews and the bank's book have none: SQLite is as quick."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from monitor.adapters.inspections import inspection_event
from monitor.adapters.settled import Settled
from monitor.ports import BatchOutcome, DeadLetter, DriftReport, InspectionRecord, LogGap, OutboxMessage, Recorded


class MemoryInspectionStore:
    """The ``InspectionStore`` port in lists.

    Args:
        inspections_topic: where the outbox's events are to be published.
    """

    def __init__(self, inspections_topic: str) -> None:
        self.inspections: dict[str, InspectionRecord] = {}
        self.dead_letters: list[DeadLetter] = []
        self.drift: dict[tuple[str, str], DriftReport] = {}
        self.shadows: list[InspectionRecord] = []
        self.gaps: list[LogGap] = []
        self._settled = Settled()
        self._topic = inspections_topic
        self._outbox: dict[int, OutboxMessage] = {}
        self._events = 0

    def record(self, outcome: BatchOutcome) -> Recorded:
        """Store a batch and its outbox; what is stored already stays as it is."""
        inspections = [record for record in outcome.inspections if self._settled.takes(record)]
        letters = [letter for letter in outcome.dead_letters if self._settled.takes_letter(letter)]
        for record in inspections:
            self.inspections[record.frame.frame_id] = record
            self._announce(record)
        self.dead_letters += letters
        gaps = tuple(gap for gap in outcome.gaps if gap not in self.gaps)
        self.gaps += gaps
        self.drift |= {(report.camera, report.model_id): report for report in outcome.drift}
        given = len(outcome.inspections) + len(outcome.dead_letters)
        new = len(inspections) + len(letters)
        return Recorded(inspections=len(inspections), dead_letters=len(letters), repeats=given - new, gaps=gaps)

    def record_shadows(self, records: Sequence[InspectionRecord]) -> None:
        """Store what models without a say found on frames that are stored."""
        places = {record.position for record in self.inspections.values()}
        known = {(record.position, record.model_id) for record in self.shadows}
        self.shadows += [
            record
            for record in records
            if record.position in places and (record.position, record.model_id) not in known
        ]

    def drift_report(self, camera: str, model_id: str) -> DriftReport | None:
        """Return the drift report stored last of a camera and model, if any."""
        return self.drift.get((camera, model_id))

    def unpublished(self, limit: int) -> Sequence[OutboxMessage]:
        """Return the oldest outbox messages not yet published."""
        return tuple(self._outbox.values())[:limit]

    def mark_published(self, ids: Sequence[int]) -> None:
        """Mark outbox messages as published."""
        for id_ in ids:
            self._outbox.pop(id_, None)

    def forget_published(self, age: timedelta, limit: int) -> int:  # noqa: ARG002 - the port's signature
        """Do nothing: published messages are not kept here."""
        return 0

    def _announce(self, record: InspectionRecord) -> None:
        event = inspection_event(record)
        self._events += 1
        self._outbox[self._events] = OutboxMessage(
            id=self._events,
            topic=self._topic,
            key=event.camera,
            headers=tuple(event.to_headers()),
            payload=event.to_json(),
        )
