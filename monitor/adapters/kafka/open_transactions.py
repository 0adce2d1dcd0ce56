"""Tells of partitions whose messages cannot be read yet, because a producer left a transaction open before them."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Final

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from monitor.adapters.kafka import library

# A transaction is open for a moment as a matter of course; one that is open for longer holds up a line.
LOOK_EVERY_S: Final = 10.0
ANSWER_S: Final = 2.0

log = structlog.get_logger()


class OpenTransactions:
    """Looks every ten seconds for partitions that stand still although the log goes on. Owned by the consumer's thread.

    Args:
        consumer: one that reads what was committed, and nothing else.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._due = time.monotonic() + LOOK_EVERY_S
        self._seen: dict[TopicPartition, int] = {}
        self._told: set[TopicPartition] = set()

    def look(self, arrived: Collection[TopicPartition]) -> None:
        """Tell, once each, which partitions are held up, and which no more.

        Args:
            arrived: the partitions of which something just arrived.
        """
        for partition in self._told & set(arrived):
            self._told.discard(partition)
            log.info("The transaction has ended; its partition is read again", topic=partition.topic,
                     partition=partition.partition)  # fmt: skip
        if time.monotonic() < self._due:
            return
        self._due = time.monotonic() + LOOK_EVERY_S
        before, self._seen = self._seen, self._standing()
        stuck = [tp for tp, at in self._seen.items() if before.get(tp) == at and tp not in self._told]
        if stuck:
            self._tell(stuck)

    def _standing(self) -> dict[TopicPartition, int]:
        """Return the position of each partition that has more to read."""
        found: dict[TopicPartition, int] = {}
        for partition in self._consumer.assignment() - self._consumer.paused():
            position, end = library.position(self._consumer, partition), self._consumer.highwater(partition)
            if position is not None and end is not None and position < end:
                found[partition] = position
        return found

    def _tell(self, stuck: list[TopicPartition]) -> None:
        try:
            # For who reads what was committed, a partition ends before its first open transaction.
            ends = self._consumer.end_offsets(stuck, timeout_ms=ANSWER_S * 1000)
        except KafkaError:
            return
        for partition in stuck:
            if ends.get(partition) == self._seen[partition]:
                self._told.add(partition)
                log.warning(
                    "An open transaction of a producer holds up a partition: its frames are inspected once that "
                    "commits, aborts, or is ended by the broker (transaction.max.timeout.ms)",
                    topic=partition.topic, partition=partition.partition, offset=self._seen[partition],
                )  # fmt: skip
