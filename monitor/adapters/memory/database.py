"""The in-memory twin of the inspection store. Reviews and the bank's book have none: SQLite is as quick."""

from __future__ import annotations

from collections.abc import Sequence

from monitor.adapters.inspections import inspection_event
from monitor.ports import BatchOutcome, DeadLetter, DriftReport, InspectionRecord, LogPosition, OutboxMessage, Recorded


class MemoryInspectionStore:
    """The ``InspectionStore`` port in lists.

    Args:
        inspections_topic: where the outbox's events are to be published.
    """

    def __init__(self, inspections_topic: str) -> None:
        self.inspections: dict[str, InspectionRecord] = {}
        self.dead_letters: list[DeadLetter] = []
        self.drift: dict[tuple[str, str], DriftReport] = {}
        self._places: set[tuple[str, int, int]] = set()
        self._topic = inspections_topic
        self._outbox: dict[int, OutboxMessage] = {}
        self._events = 0

    def record(self, outcome: BatchOutcome) -> Recorded:
        """Store a batch and its outbox; what is stored already stays as it is."""
        inspections = letters = 0
        for record in outcome.inspections:
            if record.frame.frame_id not in self.inspections and self._settle(record.position):
                self.inspections[record.frame.frame_id] = record
                self._announce(record)
                inspections += 1
        for letter in outcome.dead_letters:
            if self._settle(letter.record.position):
                self.dead_letters.append(letter)
                letters += 1
        self.drift |= {(report.camera, report.model_id): report for report in outcome.drift}
        repeats = len(outcome.inspections) + len(outcome.dead_letters) - inspections - letters
        return Recorded(inspections=inspections, dead_letters=letters, repeats=repeats)

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

    def _settle(self, position: LogPosition) -> bool:
        place = (position.topic_id, position.partition, position.offset)
        new = place not in self._places
        self._places.add(place)
        return new

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
