"""Frames from Kafka, as one member of a consumer group."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import structlog
from kafka import TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import CommitFailedError, KafkaConnectionError, KafkaError, RebalanceInProgressError
from kafka.structs import OffsetAndMetadata

from monitor.adapters.kafka import library
from monitor.adapters.kafka.connection import ask_whether_refused
from monitor.adapters.kafka.reader import Item, Polled, TopicReader
from monitor.adapters.kafka.refusals import refusal
from monitor.adapters.kafka.standing import Standing
from monitor.adapters.kafka.turns import Turns
from monitor.ports import LogPosition
from monitor.settings import KafkaSettings
from schemas.errors import OperatorError

COMMIT_TIMEOUT_S: Final = 3.0
COMMIT_RETRY_S: Final = 1.0
CLOSE_TIMEOUT_S: Final = 3.0
REBALANCE_S: Final = 2.0
JOIN_TIMEOUT_S: Final = 1.0
# So long a call waits for the library at least: less, and a call with nothing to wait for would never see an answer.
LEAST_WAIT_S: Final = 0.1
AWAY_PAUSE_S: Final = 0.5

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Rebalance:
    """What the group says, on its way to the thread that owns the source."""

    assigned: frozenset[TopicPartition] = frozenset()
    revoked: frozenset[TopicPartition] = frozenset()
    lost: frozenset[TopicPartition] = frozenset()
    answered: threading.Event = field(default_factory=threading.Event)


class KafkaSource:
    """The :class:`~monitor.ports.FrameSource` for Kafka: manual commits, from the earliest message on.

    All methods are called from one thread, and so is the callback of :meth:`on_revoked`. The library is polled in a
    thread of its own: it runs rebalances inside its poll, on a loop that must not be blocked, and a poll that joins the
    group must not be cut short (``library.keep_join``). So a call here may return before the poll does, which goes on;
    and whatever the library does, no call takes longer than it was asked to.

    Partitions take turns. The library would hand out all that it has fetched of one before it comes to the next: of
    small frames thousands, while another camera's pass their deadline. So what it has is taken at once, and a partition
    is paused until its share has been handed out: at most two fetches of each wait, one here and one in the library.

    Args:
        settings: the broker, the group and the topic.

    Raises:
        ServiceUnavailableError: the broker does not answer at start.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._reader = TopicReader(settings)
        self._turns: Turns[TopicPartition, Item] = Turns()
        self._owned: set[TopicPartition] = set()
        self._topic_ids: dict[TopicPartition, str] = {}
        self._uncommitted: dict[TopicPartition, int] = {}
        self._next_commit = 0.0
        self._paused = False
        self._revoked: Callable[[], None] | None = None
        self._away = False
        self._lag: int | None = None
        self._standing = Standing(settings)
        self._events: queue.SimpleQueue[_Rebalance | None] = queue.SimpleQueue()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._polling: Future[Polled] | None = None
        self._listener = _Listener(self._reader, self._events)
        self._reader.subscribe(self._listener, settings.connect_timeout_s)
        # A daemon: a call that hangs in the library must not keep the process from leaving.
        self._poller = threading.Thread(target=self._run_jobs, name="kafka-poll", daemon=True)
        self._poller.start()

    @property
    def partitions(self) -> frozenset[int]:
        """The numbers of the partitions that are read here."""
        return frozenset(partition.partition for partition in self._owned)

    def poll(self, timeout: float, max_records: int) -> Sequence[Item]:
        """Return at most ``max_records`` new messages, waiting up to ``timeout`` seconds for the first.

        An outage of the broker is waited out: nothing arrives until it is back.

        Raises:
            OperatorError: the broker refuses; waiting does not help.
        """
        started = time.monotonic()
        if self._uncommitted and started >= self._next_commit:
            self._commit()
        while True:
            left = max(0.0, timeout - (time.monotonic() - started))
            try:
                self._take_over(self._poll_library(left))
            except KafkaError as error:
                if (refused := refusal(error, self._settings)) is not None:
                    raise refused from error
                self._standing.away(error)
                self._away = True
                time.sleep(min(left, AWAY_PAUSE_S))
            taken = [] if self._paused else self._turns.take(max_records)
            # A poll may end early and empty: it joined the group, or found where to begin.
            if taken or time.monotonic() - started >= timeout:
                return taken

    def commit(self, positions: Iterable[LogPosition]) -> None:
        """Mark everything up to and including ``positions`` as done, partition by partition.

        A commit that fails loses nothing, so it raises nothing: it is repeated while the partition stays here, and
        otherwise the frames are seen again and recognised.
        """
        for position in positions:
            partition = TopicPartition(position.topic, position.partition)
            # Offsets of a topic that was re-created since mean other messages now: committed, they would skip them.
            if self._topic_ids.get(partition) == position.topic_id:
                self._uncommitted[partition] = max(position.offset + 1, self._uncommitted.get(partition, 0))
        if self._uncommitted:
            self._commit()

    def pause(self) -> None:
        """Hand out nothing until ``resume``; polling goes on, so that the group keeps its members."""
        self._paused = True

    def resume(self) -> None:
        """Go on."""
        self._paused = False

    def on_revoked(self, callback: Callable[[], None]) -> None:
        """Call back before partitions go to another worker, while offsets may still be committed.

        The callback runs inside :meth:`poll`, in its thread. The whole group waits for it: it must return in seconds.
        """
        self._revoked = callback

    def lag(self) -> int | None:
        """Return about how many messages wait, or None when it is not known."""
        if self._lag is None:
            return None
        return self._lag + sum(self._turns.waiting(partition) for partition in self._owned)

    def ready(self) -> bool:
        """Return whether frames can arrive here, or could if others did not take them all. Any thread may ask."""
        return self._standing.ready

    def close(self) -> None:
        """Leave the group. Commits nothing that was not marked as done."""
        self._commit_rest()
        self._listener.closing = True
        self._jobs.put(None)
        try:
            self._reader.close(CLOSE_TIMEOUT_S)
        except KafkaError as error:
            log.warning("left without telling Kafka; others take over after the session timeout", error=str(error))
        self._poller.join(JOIN_TIMEOUT_S)

    def _commit_rest(self) -> None:
        """Commit what a rebalance kept from being committed: polls go on until that is over, for a moment."""
        deadline = time.monotonic() + REBALANCE_S
        while self._uncommitted and not self._away and time.monotonic() < deadline:
            try:
                self._poll_library(LEAST_WAIT_S)  # what it brings is delivered again
            except (KafkaError, OperatorError):
                return
            self._commit()

    def _run_jobs(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _poll_library(self, timeout: float) -> Polled | None:
        """Return what a poll found, once it is done; else None after about ``timeout``, and the poll goes on.

        Raises:
            KafkaError, OperatorError: what it met instead.
        """
        if self._polling is None:
            held = {partition for partition in self._owned if self._turns.waiting(partition)}
            # None waits where something waits to be handed out.
            timeout = 0.0 if held and not self._paused else timeout
            self._polling = self._submit(timeout, held)
        deadline = time.monotonic() + max(timeout, LEAST_WAIT_S)
        while True:
            try:
                event = self._events.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return None
            if event is None:
                polling, self._polling = self._polling, None
                return polling.result()
            self._apply(event)

    def _submit(self, timeout: float, held: set[TopicPartition]) -> Future[Polled]:
        future: Future[Polled] = Future()
        paused = None if self._paused else held

        def poll() -> None:
            try:
                future.set_result(self._poll_or_ask(timeout, paused))
            except BaseException as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
                future.set_exception(error)
            self._events.put(None)

        self._jobs.put(poll)
        return future

    def _poll_or_ask(self, timeout: float, paused: set[TopicPartition] | None) -> Polled:
        try:
            return self._reader.poll(timeout, paused)
        except KafkaConnectionError as error:
            # The library tries again for ever, whatever the broker says to it.
            raise ask_whether_refused(self._settings) or error from error

    def _apply(self, event: _Rebalance) -> None:
        try:
            if event.revoked and self._revoked is not None:
                self._revoked()
        finally:
            gone = event.revoked | event.lost
            if event.revoked:
                self._commit()
            self._owned = (self._owned - gone) | event.assigned
            # What goes to another worker comes to it; what comes back here comes again.
            self._turns.keep(self._owned)
            for partition in gone:
                self._topic_ids.pop(partition, None)
                self._uncommitted.pop(partition, None)
            event.answered.set()
        self._standing.assigned(self._owned, event.assigned, gone)

    def _take_over(self, polled: Polled | None) -> None:
        if polled is None:
            return
        self._lag = polled.lag
        self._standing.polled(self._owned, polled)
        for partition, items in polled.items.items():
            if partition not in self._owned or not items:
                continue
            topic_id = items[-1].position.topic_id
            if self._topic_ids.get(partition, topic_id) != topic_id:  # re-created: its offsets begin again
                self._uncommitted.pop(partition, None)
            self._topic_ids[partition] = topic_id
            self._turns.add(partition, items)
        if self._away:
            self._standing.back()
            self._away = False

    def _commit(self) -> None:
        self._uncommitted = {tp: offset for tp, offset in self._uncommitted.items() if tp in self._owned}
        if not self._uncommitted:
            return
        offsets = {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in self._uncommitted.items()}
        try:
            self._reader.consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_S * 1000)
        except CommitFailedError:
            log.warning("partitions went to another worker; their last frames will be seen again and recognised")
            self._uncommitted.clear()
        except RebalanceInProgressError:  # they are committed once it is over
            self._next_commit = time.monotonic() + COMMIT_RETRY_S
        except KafkaError as error:
            log.warning("offsets not committed; after a restart these frames are seen again", error=str(error))
            self._next_commit = time.monotonic() + COMMIT_RETRY_S
        else:
            self._uncommitted.clear()


class _Listener(AsyncConsumerRebalanceListener):  # type: ignore[misc] # untyped library
    """Hears of rebalances on the library's loop, and has them answered by the thread that owns the source.

    The assignor is a cooperative one: what comes and what goes is told, not the whole.
    """

    def __init__(self, reader: TopicReader, events: queue.SimpleQueue[_Rebalance | None]) -> None:
        self._reader = reader
        self._events = events
        self.closing = False

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Say what is read here from now on."""
        self._events.put(_Rebalance(assigned=frozenset(assigned)))

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait until the owner has finished what it had in hand; heartbeats go on meanwhile."""
        if not revoked or self.closing:
            return
        event = _Rebalance(revoked=frozenset(revoked))
        self._events.put(event)
        while not (event.answered.is_set() or self.closing):
            await library.pause_in_loop(self._reader.consumer)

    async def on_partitions_lost(self, lost: set[TopicPartition]) -> None:
        """Say what went to other members while this one was taken for dead: nothing of it can be committed."""
        self._events.put(_Rebalance(lost=frozenset(lost)))
