"""Reads a topic as one member of a consumer group: joins, positions, and what the broker says instead of messages."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.base import MemberState
from kafka.errors import (
    FencedInstanceIdError,
    KafkaConnectionError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from monitor.adapters.kafka import library
from monitor.adapters.kafka.connection import reaching_broker
from monitor.adapters.kafka.library_records import MOST_IN_BATCH, Fetches, UnreadableRecord
from monitor.adapters.kafka.standstill import Standstill
from monitor.ports import LogGap, LogPosition, RawRecord
from monitor.settings import KafkaSettings

METADATA_TIMEOUT_S: Final = 3.0
METADATA_MAX_AGE_S: Final = 30.0
# How long the broker may hold a fetch that finds nothing. kafka-python has one fetch in flight per broker: while one
# for idle cameras is held, the busy one gets nothing (the default of 500 ms: 130 frames/s of 78 kB instead of 1300).
FETCH_WAIT_MS: Final = 20
# Little at a time, for what was fetched grows old: how many newer frames wait, it knows as of the fetch. A larger frame
# comes all the same, by itself.
FETCH_BYTES: Final = 2**20
# What a batch may unpack to: a producer's batch has at most what the topic allows, so this is for broken ones.
MOST_BATCH_BYTES: Final = 2**28
JOIN_POLL_MS: Final = 1000
# A leader moves to another broker within a moment.
UNCONNECTED_S: Final = 2.0
ALL: Final = 2**31 - 1  # records of a poll: whatever was fetched, which is bounded in bytes
# Of what a broker cannot read; the rest of it is found by the next look.
MOST_AT_ONCE: Final = 10_000
# A batch that was damaged on its way is sound when it is fetched again.
TRIES: Final = 3

Item: TypeAlias = RawRecord | LogGap
Fetched: TypeAlias = dict[TopicPartition, list[ConsumerRecord | UnreadableRecord]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll found.

    Attributes:
        items: by partition, in the order of the log.
        lag: about how many messages wait at the broker; None while that is not known.
        joined: the group has given this member its partitions, perhaps none.
        partitions: how many the topic has, as far as is known.
    """

    items: dict[TopicPartition, list[Item]] = field(default_factory=dict)
    lag: int | None = None
    joined: bool = False
    partitions: int = 0


class TopicReader:
    """A member of a group that reads one topic. All methods but ``commit`` are called by one thread.

    Args:
        settings: the broker, the group and the topic.

    Raises:
        ServiceUnavailableError: the broker does not answer at start.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self.topic = settings.frames_topic
        with reaching_broker(settings) as options:
            self.consumer = KafkaConsumer(
                **options,
                group_id=settings.group,
                group_instance_id=settings.group_instance_id,
                partition_assignment_strategy=(CooperativeStickyAssignor,),
                isolation_level="read_committed",
                metrics_enabled=False,
                enable_auto_commit=False,
                # Positions that are not in the log are told of here, not passed over.
                auto_offset_reset="none",
                session_timeout_ms=settings.session_ms,
                heartbeat_interval_ms=settings.heartbeat_interval_ms,
                metadata_max_age_ms=round(METADATA_MAX_AGE_S * 1000),
                fetch_max_wait_ms=FETCH_WAIT_MS,
                fetch_max_bytes=FETCH_BYTES,
                max_partition_fetch_bytes=FETCH_BYTES,
            )
        self._connected_at = time.monotonic()
        self._fetches = Fetches(self.consumer, MOST_BATCH_BYTES)
        self._standstill = Standstill(
            self.consumer,
            lambda: KafkaConsumer(**options, group_id=None, metrics_enabled=False, isolation_level="read_committed"),
        )
        self._topic_ids: dict[TopicPartition, str] = {}
        self._next_offsets: dict[TopicPartition, int] = {}
        self._faults: dict[TopicPartition, tuple[int, int]] = {}
        self._damaged: dict[TopicPartition, int] = {}

    def subscribe(self, listener: AsyncConsumerRebalanceListener, timeout_s: float) -> None:
        """Become a member of the group with the first poll.

        Args:
            listener: hears what is assigned and revoked, on the library's loop.
            timeout_s: how long to wait for the topic's metadata.
        """
        # A leader that assigns before it knows the topic assigns nothing; one that hears of the topic after it has
        # assigned joins again. So the metadata come first, and again for the one that is subscribed by then.
        library.know_topic(self.consumer, self.topic, timeout_s)
        self.consumer.subscribe([self.topic], listener=listener)
        library.refresh_metadata(self.consumer, timeout_s)

    def poll(self, timeout_s: float, paused: Collection[TopicPartition] | None) -> Polled:
        """Return what arrived, waiting up to ``timeout_s`` for the first; while the group joins, until that is done.

        Args:
            timeout_s: seconds.
            paused: partitions to fetch nothing of; None: all.

        Raises:
            KafkaError: the broker is away, or refuses.
        """
        self._pause(paused)
        unfinished = library.keep_join(self.consumer)
        try:
            fetched: Fetched = self.consumer.poll(JOIN_POLL_MS if unfinished else round(timeout_s * 1000), ALL)
        except NoOffsetForPartitionError as error:
            fetched = {}
            # Nothing was ever committed: begin where the log begins.
            self.consumer.seek_to_beginning(*(error.args[0] & self.consumer.assignment()))
        except LogTruncationError as error:
            fetched = {}
            self._go_back(error)
        # From here on nothing may be raised where messages came: for the library they are read, and would be skipped.
        if not fetched:
            self._require_membership()
        else:
            self._connected_at = time.monotonic()
        self._forget_unassigned()
        items = {partition: list(found) for partition, found in self._read(fetched)}
        with contextlib.suppress(KafkaError):  # it goes on next time: what was not dealt with is met again
            for partition, stand_ins in self._stand_ins(items):
                items.setdefault(partition, []).extend(stand_ins)
        joined = not unfinished and self.consumer.group_metadata().state is MemberState.STABLE
        return Polled(items, self._lag(), joined, library.partition_count(self.consumer, self.topic))

    def close(self, timeout_s: float) -> None:
        """Leave the group, unless the member is a static one, and disconnect. Commits nothing.

        Raises:
            KafkaError: the broker was not told.
        """
        self.consumer.close(autocommit=False, timeout_ms=timeout_s * 1000)

    def _require_membership(self) -> None:
        """Raise where the library does not: polls just find nothing.

        Raises:
            KafkaConnectionError: for some time it has not been connected to any broker; it tries again.
            FencedInstanceIdError: another member took this one's place.
        """
        now = time.monotonic()
        if library.is_connected(self.consumer):
            self._connected_at = now
        elif now - self._connected_at > UNCONNECTED_S:
            msg = "no broker can be connected to"
            raise KafkaConnectionError(msg)
        if library.is_fenced(self.consumer):
            raise FencedInstanceIdError

    def _pause(self, paused: Collection[TopicPartition] | None) -> None:
        owned = self.consumer.assignment()
        wanted = owned if paused is None else owned & set(paused)
        self.consumer.pause(*wanted)
        self.consumer.resume(*(self.consumer.paused() & owned) - wanted)

    def _forget_unassigned(self) -> None:
        owned = self.consumer.assignment()
        for known in (self._topic_ids, self._next_offsets, self._faults, self._damaged):
            for partition in known.keys() - owned:
                del known[partition]

    def _read(self, fetched: Fetched) -> Iterator[tuple[TopicPartition, list[Item]]]:
        """Yield each partition's messages, labelled with the id of the topic that they really come from.

        A broker that lost everything re-creates the topic, and its offsets start again at 0: under the old topic's id
        new frames would look like those stored before, and be dropped.
        """
        went_back = any(records[0].offset < self._next_offsets.get(tp, 0) for tp, records in fetched.items())
        known = all(tp in self._topic_ids for tp in fetched)
        if fetched and (went_back or not known) and not library.refresh_metadata(self.consumer, METADATA_TIMEOUT_S):
            for partition, records in fetched.items():
                self.consumer.seek(partition, records[0].offset)
            return
        for partition, found in fetched.items():
            topic_id = library.topic_id(self.consumer, partition.topic)
            if self._topic_ids.setdefault(partition, topic_id) != topic_id:
                log.warning("topic was re-created; reading it from its start", topic=partition.topic, topic_id=topic_id)
                self._topic_ids[partition] = topic_id
                self._next_offsets.pop(partition, None)
                self.consumer.seek_to_beginning(partition)
                continue
            records = [*self._hidden(partition, found[0].offset), *found]
            self._next_offsets[partition] = records[-1].offset + 1
            self._faults.pop(partition, None)
            end = self.consumer.highwater(partition) or 0
            unreadable = [record for record in records if isinstance(record, UnreadableRecord)]
            if unreadable:
                if unreadable[-1] is records[-1]:
                    self._damaged[partition] = records[-1].offset + 1
                self._tell_unreadable(partition, unreadable[0].offset, len(unreadable), unreadable[0].problem)
            yield partition, [_raw(record, topic_id, max(0, end - record.offset - 1)) for record in records]

    def _hidden(self, partition: TopicPartition, first: int) -> Iterator[UnreadableRecord]:
        """Yield what stands for messages that a damaged batch hides from the broker itself, which passes over them."""
        expected = self._damaged.pop(partition, first)
        for offset in range(expected, min(first, expected + MOST_IN_BATCH)):
            yield UnreadableRecord(partition.topic, partition.partition, offset, "it lies in or behind a damaged batch")

    def _stand_ins(self, arrived: Collection[TopicPartition]) -> Iterator[tuple[TopicPartition, list[Item]]]:
        """Yield what stands in the place of messages that cannot be had.

        Raises:
            KafkaError: the broker does not tell what it must.
        """
        yield from self._explain_errors()
        for partition, first, last in self._standstill.look(arrived):
            last_of_these = min(last, first + MOST_AT_ONCE - 1)
            yield partition, self._pass_over(partition, first, last_of_these, "its broker cannot read it")

    def _explain_errors(self) -> Iterator[tuple[TopicPartition, list[Item]]]:
        """Yield what stands for messages that the broker did not give, and go on behind them."""
        for partition, offset, error in self._fetches.take_errors():
            if partition not in self.consumer.assignment() or library.position(self.consumer, partition) != offset:
                continue
            if isinstance(error, OffsetOutOfRangeError):
                gap = self._reset(partition, offset)
                if gap is not None:
                    yield partition, [gap]
            elif self._given_up(partition, offset):
                yield partition, self._pass_over(partition, offset, offset, str(error))

    def _pass_over(self, partition: TopicPartition, first: int, last: int, problem: str) -> list[Item]:
        """Go on behind messages that cannot be had, and return what stands in their places."""
        self.consumer.seek(partition, last + 1)
        self._damaged[partition] = last + 1
        self._tell_unreadable(partition, first, last - first + 1, problem)
        places = (self._place(partition, offset) for offset in range(first, last + 1))
        return [RawRecord(place, None, (), None, problem=problem) for place in places]

    def _tell_unreadable(self, partition: TopicPartition, first: int, messages: int, problem: str) -> None:
        log.error("Messages cannot be read; each becomes a dead letter without its bytes", topic=self.topic,
                  partition=partition.partition, first_offset=first, messages=messages, problem=problem)  # fmt: skip

    def _given_up(self, partition: TopicPartition, offset: int) -> bool:
        """Return whether fetching this offset failed often enough; behind one that was given up, once is enough."""
        expected, times = self._faults.get(partition, (offset, 0))
        times = times + 1 if expected == offset else 1
        given_up = times >= TRIES
        self._faults[partition] = (offset + 1, times) if given_up else (offset, times)
        return given_up

    def _reset(self, partition: TopicPartition, offset: int) -> LogGap | None:
        """Go on where the log begins; return what it no longer has of what was to be read, if anything.

        Raises:
            KafkaError: the broker does not tell where it begins; the next fetch asks again.
        """
        first = self.consumer.beginning_offsets([partition], timeout_ms=METADATA_TIMEOUT_S * 1000)[partition]
        place = self._place(partition, offset)
        self.consumer.seek(partition, first)
        self._next_offsets.pop(partition, None)
        if offset >= first:
            log.warning("The log ends before the offset that comes next; reading it from its start, frames that were "
                        "stored are recognised", topic=self.topic, partition=partition.partition, next_offset=offset,
                        first_offset=first)  # fmt: skip
            return None
        log.error("Messages were deleted by the topic's retention before they were read: they are lost. Give it a "
                  "longer retention.ms or more room (retention.bytes), or more workers", topic=self.topic,
                  partition=partition.partition, first_offset=offset, last_offset=first - 1,
                  messages=first - offset)  # fmt: skip
        return LogGap(place, first - offset)

    def _go_back(self, error: LogTruncationError) -> None:
        """Go back to where a log that lost its end differs from the one that was read."""
        log.warning("The log lost messages that were read; reading again from where it differs", problem=str(error))
        for partition, diverging in error.divergent_offsets.items():
            if partition not in self.consumer.assignment():
                continue
            if diverging is None:
                self.consumer.seek_to_beginning(partition)
            else:
                self.consumer.seek(partition, diverging.offset)

    def _place(self, partition: TopicPartition, offset: int) -> LogPosition:
        topic_id = self._topic_ids.setdefault(partition, library.topic_id(self.consumer, partition.topic))
        return LogPosition(partition.topic, topic_id, partition.partition, offset)

    def _lag(self) -> int | None:
        waiting = None
        for partition in self.consumer.assignment():
            end, position = self.consumer.highwater(partition), library.position(self.consumer, partition)
            if end is not None and position is not None:
                waiting = (waiting or 0) + max(0, end - position)
        return waiting


def _raw(record: ConsumerRecord | UnreadableRecord, topic_id: str, newer: int) -> RawRecord:
    position = LogPosition(record.topic, topic_id, record.partition, record.offset)
    if isinstance(record, UnreadableRecord):
        return RawRecord(position, None, (), None, newer, record.problem)
    headers = tuple((name, value or b"") for name, value in record.headers)
    return RawRecord(position, record.key, headers, record.value, newer)
