"""Frames from Kafka, as one member of a consumer group."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import CommitFailedError, CorruptRecordError, KafkaError
from kafka.structs import OffsetAndMetadata

from monitor.adapters.kafka.connection import reaching_broker
from monitor.adapters.kafka.turns import Turns
from monitor.adapters.kafka.unreadable import Unreadable
from monitor.ports import LogPosition, RawRecord
from monitor.settings import KafkaSettings

COMMIT_TIMEOUT_S = 3.0
COMMIT_RETRY_S = 1.0
METADATA_TIMEOUT_S = 3.0
METADATA_MAX_AGE_S = 30.0
# How long the broker may hold a fetch that finds nothing. kafka-python has one fetch in flight per broker: while one
# for idle cameras is held, the busy one gets nothing (the default of 500 ms: 130 frames/s of 78 kB instead of 1300).
FETCH_WAIT_MS = 20
# Little at a time, for what was fetched grows old: how many newer frames wait, it knows as of the fetch. A larger frame
# comes all the same, by itself.
FETCH_BYTES = 2**20
ALL = 2**31 - 1  # records of a poll: whatever was fetched, which is bounded in bytes

Fetched: TypeAlias = dict[TopicPartition, list[ConsumerRecord]]

log = structlog.get_logger()


class KafkaSource:
    """The :class:`~monitor.ports.FrameSource` for Kafka: manual commits, from the earliest message on.

    All methods are called from one thread, and so is the callback of :meth:`on_revoked`. The library is polled in a
    thread of its own, because it runs rebalances inside its poll, on a loop that must not be blocked.

    Partitions take turns. The library would hand out all that it has fetched of one before it comes to the next: of
    small frames thousands, while another camera's pass their deadline. So what it has is taken at once, and a partition
    is paused until its share has been handed out: at most two fetches of each wait, one here and one in the library.

    Args:
        settings: the broker, the group and the topic.

    Raises:
        ServiceUnavailableError: the broker does not answer at start.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        with reaching_broker(settings) as options:
            self._consumer = KafkaConsumer(
                **options,
                group_id=settings.group,
                metrics_enabled=False,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                session_timeout_ms=settings.session_timeout_ms,
                heartbeat_interval_ms=settings.heartbeat_interval_ms,
                metadata_max_age_ms=round(METADATA_MAX_AGE_S * 1000),
                fetch_max_wait_ms=FETCH_WAIT_MS,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=FETCH_BYTES,
            )
        self._unreadable = Unreadable(self._consumer)
        self._turns: Turns[TopicPartition, RawRecord] = Turns()
        self._poller = ThreadPoolExecutor(1, thread_name_prefix="kafka-poll")
        self._polling: Future[Fetched] | None = None
        self._rebalances = _Rebalances(self)
        self._topic_ids: dict[TopicPartition, str] = {}
        self._next_offsets: dict[TopicPartition, int] = {}
        self._uncommitted: dict[TopicPartition, int] = {}
        self._next_commit = 0.0
        self._paused = False
        self._revoked: Callable[[], None] | None = None
        self._away = False
        self._consumer.subscribe([settings.frames_topic], listener=self._rebalances)

    def poll(self, timeout: float, max_records: int) -> Sequence[RawRecord]:
        """Return at most ``max_records`` new messages, waiting up to ``timeout`` seconds for the first.

        An outage of the broker is waited out: nothing arrives until it is back.
        """
        started = time.monotonic()
        if self._uncommitted and started >= self._next_commit:
            self._commit()
        try:
            self._fetch(timeout)
        except KafkaError as error:
            if not self._away:
                log.warning("Kafka unreachable; no frames arrive until it is back", error=str(error))
            self._away = True
            time.sleep(max(0.0, min(timeout, 1.0) - (time.monotonic() - started)))
        return [] if self._paused else self._turns.take(max_records)

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
        self._consumer.pause(*self._consumer.assignment())

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
        waiting = None
        for partition in self._consumer.assignment():
            with contextlib.suppress(KafkaError):
                end, position = self._consumer.highwater(partition), self._consumer.position(partition, timeout_ms=0)
                if end is not None and position is not None:
                    waiting = (waiting or 0) + max(0, end - position) + self._turns.waiting(partition)
        return waiting

    def close(self) -> None:
        """Leave the group. Commits nothing."""
        self._rebalances.closing = True
        try:
            self._consumer.close(autocommit=False, timeout_ms=COMMIT_TIMEOUT_S * 1000)
        except KafkaError as error:
            log.warning("left without telling Kafka; others take over after the session timeout", error=str(error))
        self._poller.shutdown()

    def _fetch(self, timeout: float) -> None:
        """Take what the library has, waiting up to ``timeout`` for it if nothing waits here."""
        try:
            self._take_over(self._poll_library(timeout))
            self._unreadable.raise_pending()
        except CorruptRecordError as error:
            self._pass_over(error)

    def _take_over(self, fetched: Fetched) -> None:
        # What went to another worker comes to it; what came back here comes again.
        self._turns.keep(self._consumer.assignment())
        for partition, records in self._trusted(fetched):
            self._turns.add(partition, records)
        if fetched and self._away:
            log.info("Kafka is back; frames arrive again")
            self._away = False

    def _poll_library(self, timeout: float) -> Fetched:
        # A poll that an exception interrupted goes on; its messages count as delivered to the library, so take them.
        if self._polling is None:
            if self._hold_back() and not self._paused:
                timeout = 0.0
            self._polling = self._poller.submit(self._consumer.poll, round(timeout * 1000), ALL)
            self._polling.add_done_callback(lambda _: self._rebalances.requests.put(None))
        polling = self._polling
        while (request := self._rebalances.requests.get()) is not None:
            try:
                if self._revoked is not None:
                    self._revoked()
            finally:
                request.set()
        self._polling = None
        return polling.result()

    def _hold_back(self) -> set[TopicPartition]:
        """Pause the partitions of which something waits here, and no others unless all are paused; return them."""
        held = {partition for partition in self._consumer.assignment() if self._turns.waiting(partition)}
        self._consumer.pause(*held)
        if not self._paused:
            self._consumer.resume(*self._consumer.paused() - held)
        return held

    def _trusted(self, fetched: Fetched) -> Iterator[tuple[TopicPartition, list[RawRecord]]]:
        """Yield each partition's records, labelled with the id of the topic that they really come from.

        A broker that lost everything re-creates the topic, and its offsets start again at 0: under the old topic's id
        new frames would look like those stored before, and be dropped.
        """
        went_back = any(records[0].offset < self._next_offsets.get(tp, 0) for tp, records in fetched.items())
        known = all(tp in self._topic_ids for tp in fetched)
        if fetched and (went_back or not known) and not self._refresh_metadata():
            for partition, records in fetched.items():
                self._consumer.seek(partition, records[0].offset)
            return
        for partition, records in fetched.items():
            topic_id = self._topic_id(partition)
            if self._topic_ids.setdefault(partition, topic_id) != topic_id:
                log.warning("topic was re-created; reading it from its start", topic=partition.topic, topic_id=topic_id)
                self._topic_ids[partition] = topic_id
                self._next_offsets.pop(partition, None)
                self._uncommitted.pop(partition, None)
                self._consumer.seek_to_beginning(partition)
                continue
            self._next_offsets[partition] = records[-1].offset + 1
            end = self._consumer.highwater(partition) or 0
            yield partition, [_raw(record, topic_id, max(0, end - record.offset - 1)) for record in records]

    def _pass_over(self, error: CorruptRecordError) -> None:
        """Put something in place of a message that cannot be read, once it is given up."""
        given_up = self._unreadable.pass_over(error)
        if given_up is None:
            return
        partition, offset = given_up
        self._topic_ids.setdefault(partition, self._topic_id(partition))
        self._next_offsets[partition] = offset + 1
        place = LogPosition(partition.topic, self._topic_ids[partition], partition.partition, offset)
        self._turns.add(partition, [RawRecord(place, None, (), None, problem=str(error))])

    def _topic_id(self, partition: TopicPartition) -> str:
        return str(self._consumer._cluster.topic_id(partition.topic) or "")  # noqa: SLF001 - kept nowhere else

    def _refresh_metadata(self) -> bool:
        update = self._consumer._cluster.request_update()  # noqa: SLF001 - topics() does this without a timeout
        arrived = threading.Event()
        update.add_both(lambda _: arrived.set())
        return arrived.wait(METADATA_TIMEOUT_S) and bool(update.succeeded())

    def _commit(self) -> None:
        owned = self._consumer.assignment()
        self._uncommitted = {tp: offset for tp, offset in self._uncommitted.items() if tp in owned}
        offsets = {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in self._uncommitted.items()}
        try:
            self._consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_S * 1000)
        except CommitFailedError:
            log.warning("partitions went to another worker; their last frames will be seen again and recognised")
            self._uncommitted.clear()
        except KafkaError as error:
            log.warning("offsets not committed; after a restart these frames are seen again", error=str(error))
            self._next_commit = time.monotonic() + COMMIT_RETRY_S
        else:
            self._uncommitted.clear()


class _Rebalances(AsyncConsumerRebalanceListener):  # type: ignore[misc] # untyped library
    """Hears of rebalances on the library's loop, and has them answered by the thread that owns the source."""

    def __init__(self, source: KafkaSource) -> None:
        self._source = source
        self.requests: queue.SimpleQueue[threading.Event | None] = queue.SimpleQueue()
        self.closing = False

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait until the owner has finished what it had in hand; heartbeats go on meanwhile."""
        if not revoked or self.closing:
            return
        answered = threading.Event()
        self.requests.put(answered)
        while not (answered.is_set() or self.closing):
            await self._source._consumer._net.sleep(0.005)  # noqa: SLF001 - the library's loop has no other

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Forget what was known of partitions that went; a paused source stays paused."""
        source = self._source
        source._topic_ids = {tp: known for tp, known in source._topic_ids.items() if tp in assigned}  # noqa: SLF001
        source._next_offsets = {tp: n for tp, n in source._next_offsets.items() if tp in assigned}  # noqa: SLF001
        if source._paused:  # noqa: SLF001
            source._consumer.pause(*assigned)  # noqa: SLF001
        log.info("partitions assigned", partitions=sorted(tp.partition for tp in assigned))


def _raw(record: ConsumerRecord, topic_id: str, newer: int) -> RawRecord:
    return RawRecord(
        position=LogPosition(record.topic, topic_id, record.partition, record.offset),
        key=record.key,
        headers=tuple((name, value or b"") for name, value in record.headers),
        value=record.value,
        newer=newer,
    )
