"""The in-memory twins of the inspection store and the review store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from monitor.adapters.inspections import inspection_event
from monitor.ports import (
    BankEntry,
    BatchOutcome,
    DeadLetter,
    InspectionRecord,
    LogPosition,
    OutboxMessage,
    PendingReview,
    Recorded,
    ReviewOutcome,
)
from schemas.messages import Verdict, utc_now


class MemoryInspectionStore:
    """The ``InspectionStore`` port in lists.

    Args:
        inspections_topic: where the outbox's events are to be published.
    """

    def __init__(self, inspections_topic: str) -> None:
        self.inspections: dict[str, InspectionRecord] = {}
        self.dead_letters: list[DeadLetter] = []
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
        repeats = len(outcome.inspections) + len(outcome.dead_letters) - inspections - letters
        return Recorded(inspections=inspections, dead_letters=letters, repeats=repeats)

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


@dataclass(frozen=True, slots=True)
class _Entry:
    entry: BankEntry
    version_removed: int | None = None


class MemoryReviewStore:
    """The ``ReviewStore`` port over a ``MemoryInspectionStore``, and ``confirm`` to fill it.

    Args:
        inspections: where the frames are.
        now: the time of a review.
    """

    def __init__(self, inspections: MemoryInspectionStore, now: Callable[[], datetime] = utc_now) -> None:
        self.outcomes: dict[int, ReviewOutcome] = {}
        self._inspections = inspections
        self._now = now
        self._reviews: dict[int, PendingReview] = {}
        self._entries: list[_Entry] = []

    def confirm(self, frame_id: str, verdict: Verdict, reviewer: str, note: str | None = None) -> int:
        """Store a person's word on a frame; return the review's id, the first one's if there is one already."""
        for review in self._reviews.values():
            if review.frame_id == frame_id:
                return review.review_id
        record = self._inspections.inspections[frame_id]
        review_id = len(self._reviews) + 1
        self._reviews[review_id] = PendingReview(
            review_id=review_id,
            frame_id=frame_id,
            camera=record.frame.camera,
            verdict=verdict,
            reviewer=reviewer,
            note=note,
            image_sha256=record.image_sha256,
            created_at=self._now(),
        )
        return review_id

    def pending_reviews(self, limit: int) -> Sequence[PendingReview]:
        """Return the oldest reviews the learner has not dealt with."""
        return tuple(review for id_, review in self._reviews.items() if id_ not in self.outcomes)[:limit]

    def complete_review(self, review_id: int, outcome: ReviewOutcome, entry: BankEntry | None = None) -> None:
        """Store what became of a review and the bank entry it made; repeating it is harmless."""
        if review_id in self.outcomes:
            return
        self.outcomes[review_id] = outcome
        if entry is None or self._is_stored(entry):
            return
        for index, stored in enumerate(self._entries):
            if stored.entry.frame_id == entry.evicted_frame and self._is_active(stored, entry.camera, entry.model_id):
                self._entries[index] = replace(stored, version_removed=entry.version_added)
        self._entries.append(_Entry(replace(entry, evicted_frame=None)))

    def active_entries(self, camera: str, model_id: str) -> Sequence[BankEntry]:
        """Return what a bank holds beside its pinned normals, in the order in which it was added."""
        active = (stored.entry for stored in self._entries if self._is_active(stored, camera, model_id))
        return tuple(sorted(active, key=lambda entry: entry.version_added))

    def taught_cameras(self, model_id: str) -> Sequence[str]:
        """Return the cameras whose bank of this model was ever edited."""
        return tuple(sorted({stored.entry.camera for stored in self._entries if stored.entry.model_id == model_id}))

    def bank_version(self, camera: str, model_id: str) -> int:
        """Return the newest version that the bank's entries name; 0 without entries."""
        of_bank = [s for s in self._entries if (s.entry.camera, s.entry.model_id) == (camera, model_id)]
        return max((max(s.entry.version_added, s.version_removed or 0) for s in of_bank), default=0)

    def next_bank_version(self, camera: str, model_id: str) -> int:
        """Return a version above every one that entries and inspections name."""
        records = self._inspections.inspections.values()
        inspected = (r.bank_version or 0 for r in records if (r.frame.camera, r.model_id) == (camera, model_id))
        return max(max(inspected, default=0), self.bank_version(camera, model_id)) + 1

    def _is_stored(self, entry: BankEntry) -> bool:
        name = (entry.camera, entry.model_id, entry.frame_id, entry.version_added)
        stored = (s.entry for s in self._entries)
        return any((e.camera, e.model_id, e.frame_id, e.version_added) == name for e in stored)

    def _is_active(self, stored: _Entry, camera: str, model_id: str) -> bool:
        of_bank = (stored.entry.camera, stored.entry.model_id) == (camera, model_id)
        return of_bank and stored.version_removed is None
