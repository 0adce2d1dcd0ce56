"""Stores finished batches on a thread of its own, so that storing one overlaps inspecting the next."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import structlog
from tenacity.wait import wait_base

from monitor.errors import ImageStoreFullError, RowsRefusedError, StoreUnavailableError
from monitor.metrics import (
    BATCH_FRAMES,
    FRAMES,
    IMAGES_DROPPED,
    LATENCY_SECONDS,
    LOST,
    OUTAGES,
    REPEATS,
    STAGE_SECONDS,
    UNINSPECTED,
)
from monitor.patience import RETRY_WAIT, keep_trying
from monitor.ports import (
    BatchOutcome,
    Clock,
    DeadLetter,
    DriftReport,
    ImageStore,
    InspectionRecord,
    InspectionStore,
    LogGap,
    LogPosition,
    Publisher,
    RawRecord,
    Recorded,
)
from monitor.settings import ImageSettings
from schemas.errors import Reason
from schemas.messages import Verdict

log = structlog.get_logger()
T = TypeVar("T")

# What a server that is away looks like: adapters translate their clients' errors, a full disk speaks for itself.
OUTAGE: Final = (StoreUnavailableError, OSError)


@dataclass(frozen=True, slots=True)
class FinishedBatch:
    """All that became of one batch.

    Attributes:
        messages: that brought the inspected frames, by their places in the log: image, key and headers as they came.
    """

    inspections: tuple[InspectionRecord, ...]
    dead_letters: tuple[DeadLetter, ...]
    messages: Mapping[LogPosition, RawRecord]
    drift: tuple[DriftReport, ...] = ()
    gaps: tuple[LogGap, ...] = ()

    @property
    def positions(self) -> list[LogPosition]:
        """Where the batch's records lie in the log."""
        others = [letter.record.position for letter in self.dead_letters] + [gap.last for gap in self.gaps]
        return [record.position for record in self.inspections] + others


def keeps_image(record: InspectionRecord, policy: ImageSettings) -> bool:
    """Return whether a frame's image is kept for review: what is not normal, and a sample of what is.

    The frame id alone draws the sample, so that a redelivered frame meets the same decision.
    """
    if policy.keep != "flagged":
        return policy.keep == "all"
    if record.verdict is not Verdict.NORMAL:
        return True
    digest = hashlib.sha256(record.frame.frame_id.encode()).digest()
    return int.from_bytes(digest[:8]) < policy.sample_normal * 2**64


class Recorder:
    """The writer thread. ``submit`` is called by one thread, which submits a batch only after the one before is done.

    A step that meets an outage is tried again until it succeeds, or until ``abandon``: nothing is skipped. Each step is
    retried by itself, so that dead letters which Kafka has are not sent again because the database is away.

    Args:
        store: the database.
        images: where kept images go.
        publisher: where dead letters go; used by the writer thread alone.
        policy: which images are kept.
        clock: for the latency from capture to result.
        on_stored: called on the writer thread after each transaction.
        retry_wait: how long to wait between attempts.
    """

    def __init__(
        self,
        *,
        store: InspectionStore,
        images: ImageStore,
        publisher: Publisher,
        policy: ImageSettings,
        clock: Clock,
        on_stored: Callable[[], None] = lambda: None,
        retry_wait: wait_base = RETRY_WAIT,
    ) -> None:
        self._store = store
        self._images = images
        self._publisher = publisher
        self._policy = policy
        self._clock = clock
        self._on_stored = on_stored
        self._retry_wait = retry_wait
        self._full = False
        self._abandoned = threading.Event()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: a call that hangs in a dead server must not keep the process from leaving.
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def submit(self, batch: FinishedBatch) -> Future[Recorded]:
        """Hand over a batch; the future is done once the database has committed it.

        The future raises what the store raised where that was no outage, and the outage once abandoned.
        """
        future: Future[Recorded] = Future()
        self._jobs.put(partial(self._settle, batch, future))
        return future

    def submit_shadows(self, records: tuple[InspectionRecord, ...]) -> None:
        """Hand over what shadows found on frames submitted before. Nobody waits for it; should it fail, it is lost."""
        self._jobs.put(partial(self._record_shadows, records))

    def abandon(self) -> None:
        """Stop waiting for servers that are away; an attempt under way is not interrupted."""
        self._abandoned.set()

    def close(self, timeout: float = 1.0) -> None:
        """End the thread after what was submitted, waiting up to ``timeout`` seconds."""
        self._jobs.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _settle(self, batch: FinishedBatch, future: Future[Recorded]) -> None:
        try:
            recorded = self._record(batch)
        except BaseException as error:  # noqa: BLE001 - the owner of the batch gets it, whatever it is
            future.set_exception(error)
        else:
            future.set_result(recorded)

    def _record_shadows(self, records: tuple[InspectionRecord, ...]) -> None:
        try:
            self._persist("database", lambda: self._store.record_shadows(records))
        except Exception as error:  # noqa: BLE001 - whatever it is, the frames have their verdicts
            log.warning("What the shadow found could not be stored", frames=len(records), error=str(error))

    def _record(self, batch: FinishedBatch) -> Recorded:
        """Kept images, then dead letters, then the transaction: what a row points to exists before the row does.

        A frame that the database refuses is a dead letter from then on, in the same order: its bytes, then its row.
        """
        started = time.perf_counter()
        inspections = tuple(self._keep_image(record, batch) for record in batch.inspections)
        outcome = BatchOutcome(inspections, self._keep_dead(batch.dead_letters), batch.drift, batch.gaps)
        while True:
            try:
                recorded = self._persist("database", lambda: self._store.record(outcome))  # noqa: B023 - called here
                break
            except RowsRefusedError as error:
                outcome = self._set_aside(outcome, error.refused, batch)
        STAGE_SECONDS.labels(stage="store").observe(time.perf_counter() - started)
        self._count(outcome, recorded)
        self._on_stored()
        return recorded

    def _set_aside(
        self, outcome: BatchOutcome, refused: Mapping[LogPosition, str], batch: FinishedBatch
    ) -> BatchOutcome:
        """Make dead letters of the frames that the database refuses, so that it takes the others."""
        letters = tuple(
            DeadLetter(batch.messages[record.position], Reason.REFUSED_BY_DATABASE, refused[record.position])
            for record in outcome.inspections
            if record.position in refused
        )
        for letter in letters:
            log.warning("The database refuses a frame; it goes to the dead letters", at=letter.record.position,
                        error=letter.detail)  # fmt: skip
        taken = tuple(record for record in outcome.inspections if record.position not in refused)
        return replace(outcome, inspections=taken, dead_letters=(*outcome.dead_letters, *self._keep_dead(letters)))

    def _keep_image(self, record: InspectionRecord, batch: FinishedBatch) -> InspectionRecord:
        if not keeps_image(record, self._policy):
            return record
        image = batch.messages[record.position].value or b""
        return replace(record, image_sha256=self._persist("image store", lambda: self._put(image)))

    def _put(self, image: bytes) -> str | None:
        """Keep an image, or return None if there is no room: the verdict and the mask are stored all the same."""
        try:
            sha256 = self._images.put(image)
        except ImageStoreFullError as error:
            IMAGES_DROPPED.inc()
            if not self._full:
                log.warning("The image store is full; frames are stored without their image", error=str(error))
            self._full = True
            return None
        if self._full:
            log.info("The image store has room again; images are kept")
        self._full = False
        return sha256

    def _keep_dead(self, letters: tuple[DeadLetter, ...]) -> tuple[DeadLetter, ...]:
        if not letters:
            return ()
        places = self._persist("dead letters", lambda: self._publisher.dead_letters(letters))
        return tuple(replace(letter, kept_at=place) for letter, place in zip(letters, places, strict=True))

    def _persist(self, service: str, action: Callable[[], T]) -> T:
        """Do ``action``, again and again while its server is away."""

        def say_away(error: BaseException) -> None:
            OUTAGES.labels(service=service).inc()
            log.warning("The %s cannot be reached; frames wait in Kafka until it is back", service, error=str(error))

        return keep_trying(
            action,
            errors=OUTAGE,
            given_up=self._abandoned,
            on_outage=say_away,
            on_return=lambda: log.info("The %s is back; no frame was lost", service),
            wait=self._retry_wait,
        )

    def _count(self, outcome: BatchOutcome, recorded: Recorded) -> None:
        for gap in recorded.gaps:
            LOST.labels(topic=gap.position.topic, partition=gap.position.partition).inc(gap.count)
        if not (outcome.inspections or outcome.dead_letters):
            return
        now = self._clock.now()
        BATCH_FRAMES.observe(len(outcome.inspections) + len(outcome.dead_letters))
        REPEATS.inc(recorded.repeats)
        FRAMES.labels(outcome="dead").inc(len(outcome.dead_letters))
        for record in outcome.inspections:
            FRAMES.labels(outcome=record.verdict.value).inc()
            if record.verdict is Verdict.UNINSPECTED:
                UNINSPECTED.labels(reason=record.reason or "", camera=record.frame.camera).inc()
            LATENCY_SECONDS.observe((now - record.frame.captured_at).total_seconds())
