"""The dead-letter topic, for people: letters are found in it again, and sent to where they came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from monitor.adapters.kafka.connection import reaching_broker
from monitor.adapters.kafka.publisher import (
    FIRST_HEADER,
    ID_HEADER,
    OMITTED_HEADER,
    Message,
    discard_producer,
    make_producer,
    send_and_wait,
)
from monitor.errors import StoreUnavailableError
from monitor.ports import LogPosition
from monitor.settings import KafkaSettings
from schemas.messages import Headers

POLL_MS: Final = 200
DEADLINE_HEADER: Final = "ce_deadlinems"


@dataclass(frozen=True, slots=True)
class KeptLetter:
    """A message as it came, taken out of the dead letters.

    Attributes:
        headers: as they came, without those that tell of its death.
        dead_id: the place where it came from, as those tell.
        value_omitted: the value was too large for the dead-letter topic, and is not here.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    dead_id: str | None
    value_omitted: bool

    @property
    def has_deadline(self) -> bool:
        """Whether its verdict was wanted by a time, which a replay can only miss."""
        return any(name.lower() == DEADLINE_HEADER for name, _ in self.headers)


class DeadLetterTopic:
    """Reads the dead-letter topic, and sends letters to the frames topic again. Owned by one thread.

    Args:
        settings: the broker and the topics.
        answer_timeout_s: how long the broker may take for one answer.

    Raises:
        ServiceUnavailableError: the broker does not answer at start.
    """

    def __init__(self, settings: KafkaSettings, answer_timeout_s: float = 10.0) -> None:
        self._settings = settings
        self._timeout_s = answer_timeout_s
        with reaching_broker(settings) as options:
            self._consumer = KafkaConsumer(
                **options,
                group_id=None,
                metrics_enabled=False,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                allow_auto_create_topics=False,
            )
        self._next: tuple[TopicPartition, int] | None = None

    def fetch(self, wanted: Mapping[str, LogPosition]) -> dict[str, KeptLetter]:
        """Return the letters that lie where they are looked for; whatever else lies there is left out.

        Args:
            wanted: by ``dead_id``, the places in the dead-letter topic.

        Raises:
            StoreUnavailableError: the broker went away.
        """
        with self._answering():
            partitions = {TopicPartition(place.topic, place.partition) for place in wanted.values()}
            ranges = self._ranges(partitions)
            found = {}
            for dead_id, place in sorted(wanted.items(), key=lambda item: item[1]):
                partition = TopicPartition(place.topic, place.partition)
                record = self._read(partition, place.offset) if place.offset in ranges[partition] else None
                letter = None if record is None else _kept(record)
                if letter is not None and letter.dead_id == dead_id:
                    found[dead_id] = letter
            return found

    def locate(
        self, wanted: Collection[str], patience_s: float, progress: Callable[[int, int], None]
    ) -> tuple[dict[str, LogPosition], bool]:
        """Search the topic from its start for letters, all in one pass.

        Args:
            wanted: their ``dead_id``.
            patience_s: how long to search, in seconds.
            progress: told how many messages were looked at, and how many there are.

        Returns:
            Where those lie that were found, and whether the search came to its end.

        Raises:
            StoreUnavailableError: the broker went away.
        """
        with self._answering():
            topic = self._settings.dead_topic
            ranges = self._ranges({TopicPartition(topic, n) for n in self._consumer.partitions_for_topic(topic)})
            left = {partition: offsets for partition, offsets in ranges.items() if offsets}
            self._assign(left)
            total, done = sum(len(offsets) for offsets in left.values()), 0
            found: dict[str, LogPosition] = {}
            deadline = monotonic() + patience_s
            while left and len(found) < len(wanted):
                if monotonic() >= deadline:
                    return found, False
                polled = self._poll(None)
                for partition, records in (polled or {}).items():
                    done += len(records)
                    for record in records:
                        dead_id = _kept(record).dead_id
                        if dead_id is not None and dead_id in wanted:
                            found.setdefault(dead_id, self._place(record))
                    if records[-1].offset + 1 >= ranges[partition].stop:
                        left.pop(partition, None)
                progress(min(done, total), total)
                if not polled:
                    break
            return found, True

    def replay(self, letters: Sequence[KeptLetter]) -> list[bool]:
        """Send letters to the frames topic as they came, but for the deadline: the verdict is wanted now.

        Returns:
            Whether each was sent; not those that are too large for the topic.

        Raises:
            ServiceUnavailableError, StoreUnavailableError: the broker is away; some may have been sent.
        """
        topic = self._settings.frames_topic
        messages = [Message(topic, letter.key, letter.value, _without_deadline(letter.headers)) for letter in letters]
        with self._answering():
            sent = send_and_wait(self._producer, messages, 3 * self._timeout_s)
        return [metadata is not None for metadata in sent]

    def close(self) -> None:
        """Disconnect."""
        if "_producer" in self.__dict__:
            discard_producer(self._producer)
        self._consumer.close(autocommit=False, timeout_ms=1000)

    @cached_property
    def _producer(self) -> KafkaProducer:
        return make_producer(self._settings, 3 * self._timeout_s, None)

    def _ranges(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, range]:
        """Return the offsets that each partition holds; none where there is no such partition."""
        there = [tp for tp in partitions if tp.partition in self._consumer.partitions_for_topic(tp.topic)]
        milliseconds = round(self._timeout_s * 1000)
        firsts = self._consumer.beginning_offsets(there, milliseconds) if there else {}
        ends = self._consumer.end_offsets(there, milliseconds) if there else {}
        return {tp: range(firsts.get(tp, 0), ends.get(tp, 0)) for tp in partitions}

    def _assign(self, offsets: Mapping[TopicPartition, range]) -> None:
        self._next = None
        self._consumer.assign(list(offsets))
        for partition, held in offsets.items():
            self._consumer.seek(partition, held.start)

    def _read(self, partition: TopicPartition, offset: int) -> ConsumerRecord | None:
        if self._next != (partition, offset):  # what comes next is fetched already
            self._assign({partition: range(offset, offset + 1)})
        polled = self._poll(1)
        if not polled:
            return None
        [record] = polled[partition]
        self._next = partition, record.offset + 1
        return record if record.offset == offset else None

    def _poll(self, most: int | None) -> dict[TopicPartition, list[ConsumerRecord]] | None:
        """Return the next messages, or None if the broker is there and has none.

        Raises:
            KafkaError: it does not answer.
        """
        deadline = monotonic() + self._timeout_s
        while monotonic() < deadline:
            polled: dict[TopicPartition, list[ConsumerRecord]] = self._consumer.poll(POLL_MS, most)
            if polled:
                return polled
        self._consumer.end_offsets(list(self._consumer.assignment()), round(self._timeout_s * 1000))
        return None

    def _place(self, record: ConsumerRecord) -> LogPosition:
        topic_id = str(self._consumer._cluster.topic_id(record.topic) or "")  # noqa: SLF001 - kept nowhere else
        return LogPosition(record.topic, topic_id, record.partition, record.offset)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            msg = f"Kafka at {self._settings.bootstrap_servers} does not answer: {error}"
            raise StoreUnavailableError(msg) from error


def _kept(record: ConsumerRecord) -> KeptLetter:
    headers = tuple((name, value or b"") for name, value in record.headers)
    # Ours come last; a message that was itself taken from dead letters has such headers before them.
    firsts = [number for number, (name, _) in enumerate(headers) if name == FIRST_HEADER]
    ours = firsts[-1] if firsts else len(headers)
    told = dict(headers[ours:])
    dead_id = told[ID_HEADER].decode(errors="replace") if ID_HEADER in told else None
    return KeptLetter(record.key, record.value, headers[:ours], dead_id, OMITTED_HEADER in told)


def _without_deadline(headers: Headers) -> Headers:
    return tuple((name, value) for name, value in headers if name.lower() != DEADLINE_HEADER)
