"""The way of a frame: receive → decode → batch → inspect → store → commit. The delivery guarantee is in this file.

**Every frame sent ends in the database once: with a verdict, as uninspected, or as a dead letter.** Why it holds:

1. An offset is committed only after the transaction that holds its frame, and in the order of the log. So whatever is
   killed, and whenever: frames not stored are delivered again, and none is skipped.
2. What is delivered again meets unique frame ids and places in the log: the database stores nothing twice.
3. Nothing here drops a frame. What retention took before it was read is stored as a gap of the log. What cannot be
   decoded becomes a dead letter; what cannot be inspected, or not in time (`monitor.overload`), is stored as
   uninspected, which is never 'normal'. What the database cannot take is kept and tried again while the partitions are
   paused.
4. When partitions go to another worker, frames in hand are finished all the same; should the other worker store them
   first, see 2. (To drop them would rest the guarantee on how a Kafka client rewinds the partitions that stay.)

One thread, which calls `run`, owns source, models, device and banks: there are no locks. Decoding has a few threads and
storing has one, so that batch n is stored while n+1 is inspected and n+2 is decoded. Another model is loaded on a
thread of its own and taken over between two batches; what was decoded for the old one, the old one inspects. A shadow
looks at a batch after it was handed to the store (`monitor.shadowing`), and never in its stead. All of it is bounded:
two batches received, one inspected, one at the store, each with ``batch.max_frames`` (and `MAX_LIGHT` that are let go)
and about `MAX_BATCH_BYTES` at most.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeAlias

import structlog

from monitor.batching import Batcher, BatchSize
from monitor.inspecting import BatchInspector
from monitor.intake import DecodedFrame, Door, FailedFrame, take_in
from monitor.metrics import LAG, STAGE_SECONDS
from monitor.models import Models
from monitor.overload import PAST_DEADLINE, Pace
from monitor.ports import Clock, DeadLetter, FrameSource, InspectionRecord, LogGap, LogPosition, RawRecord, Recorded
from monitor.post import Post
from monitor.settings import Settings
from monitor.shadowing import ShadowInspector
from monitor.storing import FinishedBatch, Recorder
from schemas.errors import PaedidError
from schemas.messages import FrameEvent, Verdict

log = structlog.get_logger()

IDLE_POLL_S = 0.1  # how long an idle worker waits for frames before it looks whether it should stop
STORE_PATIENCE_S = 0.2  # a store that takes longer is taken for one that may be away: the partitions are paused
REVOCATION_PATIENCE_S = 2.0  # short of any session time-out, or waiting for the store would itself cost the partitions
STOP_GRACE_S = 5.0  # how long a stopping worker waits for a store that is away
LAG_EVERY_S = 1.0

Arrival: TypeAlias = DecodedFrame | FailedFrame | DeadLetter | LogGap


class _StoreAwayError(PaedidError):
    """The store did not come back while the worker was stopping."""


@dataclass(frozen=True, slots=True)
class _Received:
    item: RawRecord | LogGap
    at: float
    decoded: Future[Arrival]


def _done(arrival: Arrival) -> Future[Arrival]:
    future: Future[Arrival] = Future()
    future.set_result(arrival)
    return future


@dataclass(frozen=True, slots=True)
class _AtStore:
    positions: Sequence[LogPosition]
    stored: Future[Recorded]


class Pipeline:
    """Takes frames from a source until told to stop. One thread calls `run`, once.

    Args:
        source: the frames; `run` closes it when it ends.
        models: the models at work; `run` closes them when it ends.
        shadows: the models that look on, likewise.
        recorder: the writer thread; `run` closes it when it ends.
        settings: batch sizes, decode threads, limits on frames and cameras.
        clock: for ages, deadlines and grace periods.
        stop_grace: seconds a stopping worker waits for a store that is away.
    """

    def __init__(
        self,
        *,
        source: FrameSource,
        models: Models[Post],
        shadows: Models[Post | None],
        recorder: Recorder,
        settings: Settings,
        clock: Clock,
        stop_grace: float = STOP_GRACE_S,
    ) -> None:
        self._source = source
        self._models = models
        self._shadows = shadows
        self._shadow_inspector = ShadowInspector(shadows, clock, settings.batch.max_frames)
        self._batch_inspector = BatchInspector(models, clock, settings.cameras)
        self._recorder = recorder
        self._limits = settings.limits
        self._pace = Pace()
        self._door = Door(settings.limits, settings.cameras, clock, self._pace)
        self._clock = clock
        self._stop_grace = stop_grace
        self._decoders = ThreadPoolExecutor(settings.batch.decode_threads, thread_name_prefix="decode")
        self._batch_size = BatchSize(settings.batch.max_frames, settings.batch.target_s)
        self._received: Batcher[_Received] = Batcher(self._batch_size, settings.batch.max_age_s, clock)
        self._at_store: _AtStore | None = None
        self._lag_due = 0.0

    def run(self, stop: threading.Event) -> None:
        """Inspect until ``stop`` is set; then finish what is in hand, commit it and leave the group.

        Whatever ends it, frames that were not committed will be delivered again.

        Raises:
            OperatorError: a person must act, e.g. the online bank belongs to another model.
        """
        self._source.on_revoked(self._before_revocation)
        try:
            while not stop.is_set():
                self._models.follow()
                self._shadows.follow()
                self._receive(self._received.room, self._poll_timeout())
                if self._received.ready():
                    self._process_batch(stop)
                self._commit_if_stored()
                self._report_lag()
            while len(self._received):
                self._process_batch(stop)
            self._wait_for_store(stop)
        except _StoreAwayError:
            log.warning("Leaving while the store is away; the frames in hand will be delivered again")
        finally:
            self._recorder.abandon()
            self._recorder.close()
            self._decoders.shutdown(wait=False, cancel_futures=True)
            self._models.close()
            self._shadows.close()
            self._source.close()

    def _receive(self, room: int, timeout: float) -> None:
        """Take at most ``room`` records and start to decode them."""
        if room == 0:
            return
        for item in self._source.poll(timeout, room):
            if isinstance(item, LogGap):
                self._received.add(_Received(item, self._clock.monotonic(), _done(item)), size=0, light=True)
                continue
            admitted = self._door.admit(item)
            received = _Received(item, self._clock.monotonic(), self._decode(item, admitted))
            self._received.add(received, size=len(item.value or b""), light=isinstance(admitted, FailedFrame))

    def _decode(self, record: RawRecord, admitted: FrameEvent | FailedFrame | DeadLetter) -> Future[Arrival]:
        if isinstance(admitted, FrameEvent):
            post = self._models.active(admitted.camera)
            shadow = self._shadow_inspector.post_for(admitted.camera, post, record.newer)
            return self._decoders.submit(take_in, record, admitted, post, self._limits, shadow)
        return _done(admitted)

    def _poll_timeout(self) -> float:
        """Return how long to wait for frames: no longer than those received may wait for more."""
        due = self._received.due_in()
        return IDLE_POLL_S if due is None else min(due, IDLE_POLL_S)

    def _process_batch(self, stop: threading.Event) -> None:
        received = self._received.take()
        arrivals = [each.decoded.result() for each in received]
        frames = [arrival for arrival in arrivals if not isinstance(arrival, DeadLetter | LogGap)]
        inspections = self._inspect(received, frames)  # meanwhile the batch before is being stored
        dead = tuple(arrival for arrival in arrivals if isinstance(arrival, DeadLetter))
        gaps = tuple(arrival for arrival in arrivals if isinstance(arrival, LogGap))
        messages = {each.item.position: each.item for each in received if isinstance(each.item, RawRecord)}
        batch = FinishedBatch(inspections, dead, messages, self._batch_inspector.take_drift(), gaps)
        self._wait_for_store(stop)  # one batch at the store, no more
        self._at_store = _AtStore(batch.positions, self._recorder.submit(batch))
        if shadows := self._shadow_inspector.inspect(frames, inspections):
            self._recorder.submit_shadows(shadows)

    def _inspect(
        self, batch: Sequence[_Received], frames: Sequence[DecodedFrame | FailedFrame]
    ) -> tuple[InspectionRecord, ...]:
        """Find each frame's end: a verdict, or a reason why there is none."""
        started = self._clock.monotonic()
        with STAGE_SECONDS.labels(stage="inspect").time():
            inspections = tuple(self._batch_inspector.inspect(frames))
        if tried := sum(each.verdict is not Verdict.UNINSPECTED for each in inspections):
            self._batch_size.observe(tried, self._clock.monotonic() - started)
        self._learn_pace(batch, inspections)
        return inspections

    def _learn_pace(self, batch: Sequence[_Received], inspections: Sequence[InspectionRecord]) -> None:
        """Learn how long a frame is on its way from the door to its verdict: the first of those that got one."""
        with_verdict = {each.position for each in inspections if each.verdict is not Verdict.UNINSPECTED}
        came = [received.at for received in batch if received.item.position in with_verdict]
        if came:
            self._pace.observe(self._clock.monotonic() - min(came))
        elif any(each.reason == PAST_DEADLINE for each in inspections):
            self._pace.forget()

    def _wait_for_store(self, stop: threading.Event) -> None:
        """Wait until the batch at the store is in the database, and commit it.

        While that takes long, the partitions are paused and polled: the worker stays in its group, and frames wait in
        Kafka rather than here.

        Raises:
            _StoreAwayError: the worker is stopping, and the store is away for longer than the grace period.
        """
        paused = False
        leave_at: float | None = None
        while self._at_store and not wait([self._at_store.stored], STORE_PATIENCE_S).done:
            if stop.is_set():
                now = self._clock.monotonic()
                leave_at = leave_at or now + self._stop_grace
                if now >= leave_at:
                    raise _StoreAwayError
            self._source.pause()  # again each time: a rebalance may have brought partitions
            self._receive(max(1, self._received.room), timeout=0.05)
            paused = True
        if paused:
            self._source.resume()
        self._commit_if_stored()

    def _commit_if_stored(self) -> None:
        """Commit the batch at the store if the database has it.

        Raises:
            Exception: what the store raised where that was no outage; nothing is committed.
        """
        if self._at_store is None or not self._at_store.stored.done():
            return
        self._at_store.stored.result()
        self._source.commit(self._at_store.positions)
        self._at_store = None

    def _before_revocation(self) -> None:
        """Give the batch at the store a moment to be committed, so that the next owner need not repeat it.

        The source calls this from within `poll`. What is still in hand afterwards is finished and stored as ever.
        """
        if self._at_store is None:
            return
        stored = self._at_store.stored
        wait([stored], REVOCATION_PATIENCE_S)
        if stored.done() and stored.exception() is None:
            self._commit_if_stored()

    def _report_lag(self) -> None:
        now = self._clock.monotonic()
        if now < self._lag_due:
            return
        self._lag_due = now + LAG_EVERY_S
        lag = self._source.lag()
        if lag is not None:
            LAG.set(lag)
