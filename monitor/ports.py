"""The edges of the pipeline as Protocols, and the records that pass through them. Adapters implement these."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.assignments import EVERY_CAMERA, Cameras
from schemas.errors import Reason
from schemas.messages import FrameEvent, Headers, RegionMessage, Verdict

# An addition is held against so many golden defects of a camera, those confirmed last: a click takes no longer when
# thousands were confirmed, and light that is long gone does not stand in the way of what is normal now.
MOST_GOLDEN: Final = 40


@dataclass(frozen=True, slots=True, order=True)
class LogPosition:
    """A message's place in Kafka. ``topic_id`` tells a re-created topic from the one before it."""

    topic: str
    topic_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A message as the broker gave it.

    Attributes:
        newer: how many of its partition waited behind it then.
        problem: why nothing of it but its place could be read, if so.
    """

    position: LogPosition
    key: bytes | None
    headers: Headers
    value: bytes | None
    newer: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class LogGap:
    """Messages that retention deleted before they were read.

    Attributes:
        position: of the first of them.
        count: offsets that are gone, at least 1. A marker of a transaction takes an offset too.
    """

    position: LogPosition
    count: int

    @property
    def last(self) -> LogPosition:
        """The place of the last of them."""
        return replace(self.position, offset=self.position.offset + self.count - 1)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that can never be inspected, why, and where in the dead-letter topic its bytes lie, once they do."""

    record: RawRecord
    reason: Reason
    detail: str
    kept_at: LogPosition | None = None


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
class DriftReport:
    """Where a camera's drift charts stand (``monitor.core.drift``).

    Attributes:
        since: when the charts began.
        frames: that they have seen.
        ratio: of the score's average: 0 as normals are, 1 at the limit.
        drifting_since: None: the line is near its bank.
        last_drift_at: when it was last away from it.
        locations: those beyond their limit, as (row, column, ratio), the farthest first.
        score_ewma, distance_ewma: the averages; of the locations as little-endian float32.
    """

    camera: str
    model_id: str
    bank_version: int
    updated_at: datetime
    since: datetime
    frames: int
    ratio: float
    drifting_since: datetime | None
    last_drift_at: datetime | None
    locations: tuple[tuple[int, int, float], ...]
    score_ewma: float
    distance_ewma: bytes

    @property
    def quiet_since(self) -> datetime | None:
        """Since when the camera is known to be without drift; None while it drifts."""
        return None if self.drifting_since is not None else max(self.since, self.last_drift_at or self.since)


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """All that one batch of messages came to: what one SQL transaction stores."""

    inspections: tuple[InspectionRecord, ...] = ()
    dead_letters: tuple[DeadLetter, ...] = ()
    drift: tuple[DriftReport, ...] = ()
    gaps: tuple[LogGap, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """How much of a batch was new; the rest had been stored before (a redelivery)."""

    inspections: int
    dead_letters: int
    repeats: int
    gaps: tuple[LogGap, ...] = ()


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """An event waiting in the outbox."""

    id: int
    topic: str
    key: str
    headers: tuple[tuple[str, str], ...]
    payload: bytes


class Policy(StrEnum):
    """Whose word teaches a bank: a person's, or that of the rule (``monitor.learning.rule``)."""

    PERSON = "person"
    RULE = "rule"


@dataclass(frozen=True, slots=True)
class PendingReview:
    """A word on a frame that the learner has not dealt with yet."""

    review_id: int
    frame_id: str
    camera: str
    verdict: Verdict
    reviewer: str
    note: str | None
    image_sha256: str | None
    created_at: datetime
    policy: Policy = Policy.PERSON


@dataclass(frozen=True, slots=True)
class HiddenDefect:
    """The confirmed defect that an addition would have hidden, and the address of a picture of both."""

    frame_id: str
    picture_sha256: str


@dataclass(frozen=True, slots=True)
class ReviewOutcome:
    """What became of a review: ``outcome`` is added, known, explained, recorded or refused."""

    outcome: str
    detail: str
    bank_version: int | None = None
    hidden: HiddenDefect | None = None


@dataclass(frozen=True, slots=True)
class GoldenDefect:
    """A frame that was confirmed as defective: no addition to its camera's bank may hide it."""

    frame_id: str
    image_sha256: str


@dataclass(frozen=True, slots=True)
class BankEntry:
    """One normal taught to a bank, as SQL remembers it; the last four say how it left the bank, if it did."""

    camera: str
    model_id: str
    frame_id: str
    slot: int
    image_sha256: str
    features_sha256: str
    size_bytes: int
    added_by: str
    why: str | None
    version_added: int
    locations: bytes | None = None  # that it keeps, a bit each (``bank_entry.pack``); None: all
    policy: Policy = Policy.PERSON
    added_at: datetime | None = None
    version_removed: int | None = None
    removed_at: datetime | None = None
    removed_by: str | None = None
    removed_why: str | None = None


@dataclass(frozen=True, slots=True)
class Removal:
    """An entry that left a bank: in which version, by whose doing, and why."""

    frame_id: str
    version: int
    by: str
    why: str


class OrderKind(StrEnum):
    """What a person may tell the learner to do with a bank."""

    QUARANTINE = "quarantine"  # take a frame out for good
    RETRACT = "retract"  # take a frame out because a review was taken back
    ROLLBACK = "rollback"  # go back to what the bank was at a version
    RESTORE = "restore"  # go back to what a snapshot holds
    REBUILD = "rebuild"  # make the bank in Redis anew, of what SQL says


@dataclass(frozen=True, slots=True)
class BankOrder:
    """An order and, once the learner has dealt with it, what became of it: done or refused."""

    order_id: int
    kind: OrderKind
    camera: str
    model_id: str
    ordered_by: str
    created_at: datetime
    why: str | None = None
    frame_id: str | None = None
    version: int | None = None
    snapshot_sha256: str | None = None
    outcome: str = "pending"
    outcome_detail: str | None = None
    applied_at: datetime | None = None
    bank_version: int | None = None


@dataclass(frozen=True, slots=True)
class BankKey:
    """Whose bank: one per camera and model."""

    camera: str
    model_id: str


@dataclass(frozen=True, slots=True)
class BankShape:
    """What a bank must fit: the encoder, and the (P1, P2, P3 + R) of an entry (features and residual)."""

    encoder_hash: str
    features: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class SlotChange:
    """A slot's new content: a (P1, P2, P3 + R) float16 entry, NaN where it keeps nothing; None when it was emptied."""

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
    """The result of an addition: the version that holds the entry, its slot, and whether it is new.

    ``evicted``: the frames that made room for it, in the same edit.
    """

    version: int
    slot: int
    added: bool
    evicted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Addition:
    """An entry on its way into a bank, and what was decided about it when the bank had version ``at``.

    Attributes:
        frame_id: whose entry.
        features: (P1, P2, P3 + R) float16, NaN at locations that are not kept.
        at: the bank's version then; at another one the decision would be another.
        slot: a slot that is free, or made free by ``evict``.
        evict: slots of entries that make room, never pinned ones.
        budget: what all learned entries may take in bytes together, as ``monitor.core.bank_entry`` counts them.
    """

    frame_id: str
    features: NDArray[np.float16]
    at: int
    slot: int
    evict: tuple[int, ...] = ()
    budget: int = 2**62


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

    def poll(self, timeout: float, max_records: int) -> Sequence[RawRecord | LogGap]:
        """Return at most ``max_records`` new messages, waiting up to ``timeout`` seconds for the first.

        A gap stands in the place of messages that are gone. Partitions take turns: the backlog of one does not keep the
        others waiting.
        """

    def commit(self, positions: Iterable[LogPosition]) -> None:
        """Mark everything up to and including ``positions`` as done, partition by partition."""

    def pause(self) -> None:
        """Hand out nothing until ``resume``; polling goes on, so that the group keeps its members."""

    def resume(self) -> None:
        """Go on."""

    def on_revoked(self, callback: Callable[[], None]) -> None:
        """Call back before partitions go to another worker, while offsets may still be committed."""

    def lag(self) -> int | None:
        """Return about how many messages wait, or None when it is not known."""

    def ready(self) -> bool:
        """Return whether frames can arrive here, or could if others did not take them all. Any thread may ask."""

    def close(self) -> None:
        """Leave the group. Commits nothing."""


class Publisher(Protocol):
    """Sends to Kafka and returns once the broker has everything."""

    def dead_letters(self, letters: Sequence[DeadLetter]) -> Sequence[LogPosition | None]:
        """Send the original bytes, key and headers, and the reason, to the dead-letter topic.

        Returns:
            Where each of them lies there; None where the broker did not say.
        """

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
            RowsRefusedError: it refuses what some frames hold; nothing was stored. Once they are made dead letters, it
                takes the rest.
        """

    def record_shadows(self, records: Sequence[InspectionRecord]) -> None:
        """Store what models without a say found on frames that are stored; the masks' regions are not.

        Raises:
            StoreUnavailableError: the database is away; nothing was stored, try again later.
        """

    def drift_report(self, camera: str, model_id: str) -> DriftReport | None:
        """Return the drift report stored last of a camera and model, if any.

        Raises:
            StoreUnavailableError: the database is away.
        """

    def unpublished(self, limit: int) -> Sequence[OutboxMessage]:
        """Return the oldest outbox messages not yet published."""

    def mark_published(self, ids: Sequence[int]) -> None:
        """Mark outbox messages as published."""

    def forget_published(self, age: timedelta, limit: int) -> int:
        """Delete at most ``limit`` outbox messages, published so long ago; return how many."""


class ReviewStore(Protocol):
    """People's words in the database, as the learner sees them."""

    def pending_reviews(
        self, limit: int, policies: Collection[Policy], cameras: Cameras = EVERY_CAMERA
    ) -> Sequence[PendingReview]:
        """Return the oldest reviews of these policies, of these cameras' frames, that no learner has dealt with."""

    def is_pending(self, review_id: int) -> bool:
        """Return whether nobody has dealt with a review, and it was not taken back."""

    def complete_review(
        self,
        review_id: int,
        outcome: ReviewOutcome,
        entry: BankEntry | None = None,
        removals: Sequence[Removal] = (),
    ) -> None:
        """Store what became of a review, the entry that it made and who made room, in one transaction.

        Repeating it is harmless.
        """

    def golden_defects(self, camera: str, most: int) -> Sequence[GoldenDefect]:
        """Return a camera's confirmed defects whose image was kept: the ``most`` last ones, in their order."""


class BankBook(Protocol):
    """What the database knows of banks: the truth about them, from which Redis' can be made anew."""

    def active_entries(self, camera: str, model_id: str) -> Sequence[BankEntry]:
        """Return what a bank holds beside its pinned normals, in the order in which it was added."""

    def entries_at(self, camera: str, model_id: str, version: int) -> Sequence[BankEntry]:
        """Return what it held at an earlier version."""

    def taught_cameras(self, model_id: str) -> Sequence[str]:
        """Return the cameras whose bank of this model was ever edited."""

    def bank_version(self, camera: str, model_id: str) -> int:
        """Return the newest version that entries and orders name: no bank may be behind it. 0 without any."""

    def next_bank_version(self, camera: str, model_id: str) -> int:
        """Return a version above every one that entries and inspections name, for a bank that is restored."""

    def write(self, camera: str, model_id: str, added: Sequence[BankEntry], removed: Sequence[Removal]) -> None:
        """Write down edits of a bank, in one transaction; repeating it is harmless."""

    def pending_orders(self, model_id: str, limit: int) -> Sequence[BankOrder]:
        """Return the oldest orders for banks of this model that the learner has not dealt with."""

    def complete_order(self, order_id: int, outcome: str, detail: str, bank_version: int) -> None:
        """Store what became of an order; repeating it is harmless."""

    def quarantined(self, frame_id: str) -> BankOrder | None:
        """Return the order that put a frame in quarantine, if any did: no bank may hold it."""

    def barred(self, frame_ids: Collection[str]) -> Collection[str]:
        """Return which of these frames may not come back: in quarantine, or their review was taken back."""

    def paused(self) -> Collection[Policy]:
        """Return the policies that teach nothing for now."""


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

    def learned(self, key: BankKey, frame_id: str) -> BankEdit | None:
        """Return the edit that added a frame, not ``added`` again, or None if the bank does not hold it.

        Raises:
            StoreUnavailableError: the store is away.
        """

    def all_learned(self, key: BankKey) -> Mapping[str, int]:
        """Return the frames that a bank has learned and still holds, and the version that added each.

        Raises:
            StoreUnavailableError: the store is away.
        """

    def left(self, key: BankKey, frame_ids: Sequence[str]) -> Mapping[str, int]:
        """Return which of these frames were taken out of a bank, as far as the store remembers, and in which version.

        Raises:
            StoreUnavailableError: the store is away.
        """

    def add(self, key: BankKey, shape: BankShape, addition: Addition) -> BankEdit:
        """Add an entry under its frame id, and evict what makes room for it, in one step.

        A frame that is there already changes nothing, whatever else the addition says.

        Raises:
            BankMovedError: the bank is at another version.
            BankFullError: it would take more than the budget.
            StoreUnavailableError, BankMismatchError, BankMissingError.
        """

    def remove(self, key: BankKey, shape: BankShape, frame_id: str) -> int:
        """Empty the slot of a frame that was added; return the version that took it away.

        A frame that is not there changes nothing: the version that took it away, as far as the store remembers, else
        the bank's.

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
