"""Partitions that stand still although their log goes on: held up by an open transaction, or unreadable on the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from typing import Final

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from monitor.adapters.kafka import library
from monitor.adapters.kafka.library_records import Fetches

# A transaction is open for a moment as a matter of course; one that is open for longer holds up a line.
LOOK_EVERY_S: Final = 10.0
ANSWER_S: Final = 2.0
PROBE_S: Final = 1.0
PROBE_BATCH_BYTES: Final = 2**28

log = structlog.get_logger()


class Standstill:
    """Looks every ten seconds for partitions that stand still. Owned by the consumer's thread.

    Args:
        consumer: one that reads what was committed, and nothing else.
        another: makes a consumer of no group, for a look at what lies further on in a log.
    """

    def __init__(self, consumer: KafkaConsumer, another: Callable[[], KafkaConsumer]) -> None:
        self._consumer = consumer
        self._another = another
        self._due = time.monotonic() + LOOK_EVERY_S
        self._seen: dict[TopicPartition, int] = {}
        self._told: set[TopicPartition] = set()

    def look(self, arrived: Collection[TopicPartition]) -> Iterator[tuple[TopicPartition, int, int]]:
        """Tell, once each, which partitions are held up, and which no more.

        Args:
            arrived: the partitions of which something just arrived.

        Yields:
            Partition, and the first and the last offset that its broker cannot read; behind them it can.
        """
        for partition in self._told & set(arrived):
            self._told.discard(partition)
            log.info("A partition that stood still is read again", topic=partition.topic, partition=partition.partition)
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LOOK_EVERY_S
        before, self._seen = self._seen, self._standing()
        stuck = [partition for partition, at in self._seen.items() if before.get(partition) == at]
        if not stuck:
            return
        try:
            # For who reads what was committed, a partition ends before its first open transaction.
            ends = self._consumer.end_offsets(stuck, timeout_ms=ANSWER_S * 1000)
            for partition in stuck:
                yield from self._explain(partition, self._seen[partition], ends.get(partition, 0))
        except KafkaError:  # an outage, of which the next poll tells
            return

    def _standing(self) -> dict[TopicPartition, int]:
        """Return the position of each partition that has more to read."""
        found: dict[TopicPartition, int] = {}
        for partition in self._consumer.assignment() - self._consumer.paused():
            position, end = library.position(self._consumer, partition), self._consumer.highwater(partition)
            if position is not None and end is not None and position < end:
                found[partition] = position
        return found

    def _explain(self, partition: TopicPartition, at: int, end: int) -> Iterator[tuple[TopicPartition, int, int]]:
        if end == at:
            self._tell(
                partition, at,
                "An open transaction of a producer holds up a partition: its frames are inspected once that commits, "
                "aborts, or is ended by the broker (transaction.max.timeout.ms)",
            )  # fmt: skip
        elif end > at:
            readable = self._first_readable(partition, at, end)
            if readable is None:
                self._tell(
                    partition, at,
                    "A partition stands still: its broker gives no message at this offset, nor behind it. Look at the "
                    "broker's log and disk",
                )  # fmt: skip
            elif readable > at:
                yield partition, at, readable - 1

    def _tell(self, partition: TopicPartition, at: int, words: str) -> None:
        if partition not in self._told:
            self._told.add(partition)
            log.warning(words, topic=partition.topic, partition=partition.partition, offset=at)

    def _first_readable(self, partition: TopicPartition, at: int, end: int) -> int | None:
        """Return the first offset from ``at`` on that the broker gives a message at, or None if there is none."""
        with closing(self._another()) as probe:
            Fetches(probe, PROBE_BATCH_BYTES)
            probe.assign([partition])
            # A broker that cannot read a batch finds what its index names behind it, a few kilobytes further on.
            step, readable = 1, _fetch(probe, partition, at)
            while readable is None and at + step < end:
                readable, step = _fetch(probe, partition, at + step), 2 * step
            if readable is None:
                readable = _fetch(probe, partition, end - 1)
            unreadable = at
            while readable is not None and readable - unreadable > 1:
                middle = (unreadable + readable) // 2
                found = _fetch(probe, partition, middle)
                unreadable, readable = (middle, readable) if found is None else (unreadable, min(middle, found))
        return readable


def _fetch(probe: KafkaConsumer, partition: TopicPartition, offset: int) -> int | None:
    """Return the offset of the first message from ``offset`` on, or None if none comes."""
    probe.seek(partition, offset)
    deadline = time.monotonic() + PROBE_S
    while time.monotonic() < deadline:
        for records in probe.poll(100, 1).values():
            return int(records[0].offset)
    return None
