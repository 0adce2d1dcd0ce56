"""Messages that the client library cannot parse, such as one with a header's name that is not UTF-8.

The library raises at such a message each time it comes to it, and would never get past it: one broken sender could stop
a line. It is passed over, and accounted for by its place. What the sender put into the same batch behind it, the
library cannot reach either.
"""

from __future__ import annotations

from typing import Final

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError

# A message that was damaged on its way is sound when it is fetched again.
TRIES: Final = 3

log = structlog.get_logger()


class Unreadable:
    """Finds the message at which the library stopped, and gets it past. Owned by the thread that owns the consumer."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self._where: tuple[TopicPartition, int] | None = None
        self._times = 0

    def raise_pending(self) -> None:
        """Raise now what the library came upon after messages that it could return.

        It would raise at its next call, but not while the partition is paused: then it forgets it, and later goes on
        with a partition that has come to its end, for ever.
        """
        fetcher = self._consumer._fetcher  # noqa: SLF001 - nothing public tells
        pending, fetcher._next_in_line_exception_metadata = fetcher._next_in_line_exception_metadata, None  # noqa: SLF001
        if pending is not None:
            raise pending.exception

    def pass_over(self, error: CorruptRecordError) -> tuple[TopicPartition, int] | None:
        """Return the partition and offset of a message that was given up, or None if it is to be fetched again.

        Raises:
            CorruptRecordError: it cannot be told which message it was.
        """
        # Neither the error nor any public method tells of which partition it is.
        records = self._consumer._fetcher._next_partition_records  # noqa: SLF001
        if not records:
            raise error
        partition: TopicPartition = records.topic_partition
        offset = self._consumer.position(partition, timeout_ms=0)
        if offset is None:
            raise error
        self._times = self._times + 1 if self._where == (partition, offset) else 1
        self._where = partition, offset
        given_up = self._times >= TRIES
        # Else the library would go on with them: they have come to their end, which it would not notice, for ever.
        records.drain()
        self._consumer.seek(partition, offset + given_up)
        if not given_up:
            return None
        log.error(
            "A message cannot be read; it becomes a dead letter without its bytes",
            partition=partition.partition,
            offset=offset,
            error=str(error),
        )
        return self._where
