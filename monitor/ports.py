"""The edges of the pipeline as Protocols, and the records that pass through them. Adapters implement these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Reason
from schemas.messages import FrameEvent, Headers, RegionMessage, Verdict


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A message's place in Kafka. ``topic_id`` tells a re-created topic from the one before it."""

    topic: str
    topic_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A message as the broker gave it."""

    position: LogPosition
    key: bytes | None
    headers: Headers
    value: bytes | None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that can never be inspected, and why."""

    record: RawRecord
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class InspectionRecord:
    """One frame's result on its way to the database. ``score`` and the rest are None when it was not inspected."""

    position: LogPosition
    frame: FrameEvent
    verdict: Verdict
    model_id: str
    inspected_at: datetime
    reason: str | None = None
    score: float | None = None
    threshold: float | None = None
    defect_area: float | None = None
    mask_png: bytes | None = None
    regions: tuple[RegionMessage, ...] = ()
    region_count: int | None = None  # that the mask has; ``regions`` are the largest of them
    bank_version: int | None = None
    image_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """All that one batch of messages came to: what one SQL transaction stores."""

    inspections: tuple[InspectionRecord, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """How much of a batch was new; the rest had been stored before (a redelivery)."""

    inspections: int
    dead_letters: int
    repeats: int


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """An event waiting in the outbox."""

    id: int
    topic: str
    key: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes


@dataclass(frozen=True, slots=True)
class PendingReview:
    """A person's word that the learner has not dealt with yet."""

    review_id: int
    frame_id: str
    camera: str
    verdict: Verdict
    reviewer: str
    note: str | None
    image_sha256: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ReviewOutcome:
    """What became of a review: ``outcome`` is added, known, recorded or refused."""

    outcome: str
    detail: str
    bank_version: int | None = None


@dataclass(frozen=True, slots=True)
class BankEntry:
    """One normal taught to a bank, as SQL remembers it."""

    camera: str
    model_id: str
    frame_id: str
    slot: int
    image_sha256: str
    features_sha256: str
    added_by: str
    why: str | None
    version_added: int
    evicted_frame: str | None = None


@dataclass(frozen=True, slots=True)
class BankKey:
    """Whose bank: one per camera and model."""

    camera: str
    model_id: str


@dataclass(frozen=True, slots=True)
class BankShape:
    """What a bank must fit: the encoder, the (P1, P2, P3 + R) of an entry (features and residual), and its slots."""

    encoder_hash: str
    features: tuple[int, int, int]
    capacity: int


@dataclass(frozen=True, slots=True)
class SlotChange:
    """A slot's new content: a (P1, P2, P3 + R) float16 feature map, or None when it was emptied."""

    slot: int
    features: NDArray[np.float16] | None


@dataclass(frozen=True, slots=True)
class BankChanges:
    """What brings a copy to ``version``: with ``reload``, all filled slots; else those changed since."""

    version: int
    reload: bool
    slots: tuple[SlotChange, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class BankEdit:
    """The result of offering features: the version that holds them, the slot, and whether they had been there."""

    version: int
    slot: int
    added: bool
    evicted_frame: str | None = None


@dataclass(frozen=True, slots=True)
class LearnedSlot:
    """A normal that a bank had learned, as a lost bank is restored: the same slot, the same bytes."""

    slot: int
    frame_id: str
    version_added: int
    features: NDArray[np.float16]


class Clock(Protocol):
    """Time, passed in so that tests own it."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


class FrameSource(Protocol):
    """Where frames come from. Owned by one thread."""

    def poll(self, timeout: float, max_records: int) -> Sequence[RawRecord]:
        """Return at most ``max_records`` new messages, waiting up to ``timeout`` seconds for the first."""

    def commit(self, positions: Iterable[LogPosition]) -> None:
        """Mark everything up to and including ``positions`` as done, partition by partition."""

    def pause(self) -> None:
        """Fetch nothing until ``resume``; polling goes on, so that the group keeps its members."""

    def resume(self) -> None:
        """Fetch again."""

    def on_revoked(self, callback: Callable[[], None]) -> None:
        """Call back before partitions go to another worker, while offsets may still be committed."""

    def lag(self) -> int | None:
        """Return about how many messages wait, or None when it is not known."""

    def close(self) -> None:
        """Leave the group. Commits nothing."""


class Publisher(Protocol):
    """Sends to Kafka and returns once the broker has everything."""

    def dead_letters(self, letters: Sequence[DeadLetter]) -> None:
        """Send the original bytes, key and headers, and the reason, to the dead-letter topic."""

    def events(self, messages: Sequence[OutboxMessage]) -> None:
        """Send outbox messages to their topics."""

    def close(self) -> None:
        """Flush and disconnect."""


class InspectionStore(Protocol):
    """The database, as the worker sees it."""

    def record(self, outcome: BatchOutcome) -> Recorded:
        """Store a batch and its outbox in one transaction; what is stored already stays as it is.

        Raises:
            StoreUnavailableError: the database is away; nothing was stored, try again later.
        """

    def unpublished(self, limit: int) -> Sequence[OutboxMessage]:
        """Return the oldest outbox messages not yet published."""

    def mark_published(self, ids: Sequence[int]) -> None:
        """Mark outbox messages as published."""


class ReviewStore(Protocol):
    """The database, as the learner sees it."""

    def pending_reviews(self, limit: int) -> Sequence[PendingReview]:
        """Return the oldest reviews the learner has not dealt with."""

    def complete_review(self, review_id: int, outcome: ReviewOutcome, entry: BankEntry | None = None) -> None:
        """Store what became of a review and the bank entry it made, in one transaction; repeating it is harmless.

        The entry of ``entry.evicted_frame``, if any, is closed at ``entry.version_added`` in the same transaction.
        """

    def active_entries(self, camera: str, model_id: str) -> Sequence[BankEntry]:
        """Return what a bank holds beside its pinned normals, in the order in which it was added."""

    def taught_cameras(self, model_id: str) -> Sequence[str]:
        """Return the cameras whose bank of this model was ever edited."""

    def bank_version(self, camera: str, model_id: str) -> int:
        """Return the newest version that the bank's entries name: no bank may be behind it. 0 without entries."""

    def next_bank_version(self, camera: str, model_id: str) -> int:
        """Return a version above every one that entries and inspections name, for a bank that is restored."""


class BankStore(Protocol):
    """The online memory bank: versioned, edited atomically, followed by the workers."""

    def open(
        self,
        key: BankKey,
        shape: BankShape,
        seed: NDArray[np.float16],
        *,
        learned: Sequence[LearnedSlot] = (),
        version: int = 0,
    ) -> int:
        """Return the bank's version, creating it with the ``seed`` (N, P1, P2, P3 + R) of pinned normals if absent.

        To restore a bank that was lost, the learner names all that it had ``learned`` and a ``version`` that was
        never used; a bank behind ``version`` is replaced as a whole, in one step.

        Raises:
            BankMismatchError: the bank was made by another encoder or from another seed, or has another shape.
            StoreUnavailableError: the store is away.
        """

    def version(self, key: BankKey) -> int | None:
        """Return the bank's version, or None when the store has no such bank.

        Raises:
            StoreUnavailableError: the store is away.
        """

    def changes(self, key: BankKey, since: int | None) -> BankChanges:
        """Return what brings a copy at version ``since`` up to date; everything when ``since`` is None or too old.

        Raises:
            StoreUnavailableError: the store is away.
            BankMissingError: the store has no such bank (it was emptied).
        """

    def add(self, key: BankKey, shape: BankShape, frame_id: str, features: NDArray[np.float16]) -> BankEdit:
        """Add a normal's (P1, P2, P3 + R) features under its frame id; a frame already there changes nothing.

        Raises:
            StoreUnavailableError, BankMismatchError, BankMissingError.
        """

    def remove(self, key: BankKey, shape: BankShape, frame_id: str) -> int:
        """Empty the slot of a frame that was added; return the bank's version, in which the frame is not.

        Raises:
            StoreUnavailableError, BankMismatchError, BankMissingError.
        """


class ImageStore(Protocol):
    """Content-addressed bytes: the same image stored twice is stored once."""

    def put(self, data: bytes) -> str:
        """Store bytes and return their SHA-256."""

    def get(self, sha256: str) -> bytes:
        """Return the bytes.

        Raises:
            KeyError: there is nothing at this address.
        """
