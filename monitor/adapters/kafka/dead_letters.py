"""The dead-letter topic, for people: letters are found in it again, and sent to where they came from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from time import monotonic
from typing import Final

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError, KafkaTimeoutError

from monitor.adapters.kafka import library
from monitor.adapters.kafka.connection import reaching_broker
from monitor.adapters.kafka.delivery import Delivery, Message
from monitor.adapters.kafka.publisher import (
    FIRST_HEADER,
    ID_HEADER,
    OMITTED_HEADER,
)
from monitor.adapters.kafka.refusals import refusal
from monitor.adapters.kafka.rights import Operation
from monitor.adapters.kafka.topics import require_rights
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
        ServiceRefusedError: it refuses this client, or the right to read the topic.
    """

    def __init__(self, settings: KafkaSettings, answer_timeout_s: float = 10.0) -> None:
        self._settings = settings
        self._timeout_s = answer_timeout_s
        require_rights(settings, {settings.dead_topic: "Read"})
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
        found = {}
        with self._answering():
            for dead_id, place in sorted(wanted.items(), key=lambda item: item[1]):
                record = self._read(TopicPartition(place.topic, place.partition), place.offset)
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
        found: dict[str, LogPosition] = {}
        done, deadline = 0, monotonic() + patience_s
        with self._answering():
            topic = self._settings.dead_topic
            self._next = None
            self._consumer.assign([TopicPartition(topic, number) for number in self._partitions(topic)])
            self._consumer.seek_to_beginning()
            while len(found) < len(wanted) and monotonic() < deadline:
                records = self._poll(None)
                if not records:
                    return found, True
                for record in records:
                    dead_id = _kept(record).dead_id
                    if dead_id is not None and dead_id in wanted:
                        found.setdefault(dead_id, self._place(record))
                done += len(records)
                progress(done, done + (self._left() or 0))
        return found, len(found) == len(wanted)

    def replay(self, letters: Sequence[KeptLetter]) -> list[bool]:
        """Send letters to the frames topic as they came, but for the deadline: the verdict is wanted now.

        Returns:
            Whether each was sent; not those that are too large for the topic.

        Raises:
            ServiceUnavailableError, StoreUnavailableError: the broker is away; some may have been sent.
            ServiceRefusedError: it refuses them.
        """
        topic = self._settings.frames_topic
        messages = [Message(topic, letter.key, letter.value, _without_deadline(letter.headers)) for letter in letters]
        with self._answering("Write"):
            sent = self._delivery.deliver(messages)
        return [delivered is not None for delivered in sent]

    def close(self) -> None:
        """Disconnect."""
        if "_delivery" in self.__dict__:
            self._delivery.close()
        self._consumer.close(autocommit=False, timeout_ms=1000)

    @cached_property
    def _delivery(self) -> Delivery:
        return Delivery(self._settings, 3 * self._timeout_s)

    def _partitions(self, topic: str) -> Collection[int]:
        return self._consumer.partitions_for_topic(topic) or ()

    def _read(self, partition: TopicPartition, offset: int) -> ConsumerRecord | None:
        if self._next != (partition, offset):  # what comes next is fetched already
            if partition.partition not in self._partitions(partition.topic):
                return None
            self._consumer.assign([partition])
            self._consumer.seek(partition, offset)
        self._next = None
        for record in self._poll(1):
            self._next = partition, record.offset + 1
            if record.offset == offset:
                return record
        return None

    def _poll(self, most: int | None) -> list[ConsumerRecord]:
        """Return the next messages, none at the end.

        Raises:
            KafkaError: the broker does not answer.
        """
        deadline = monotonic() + self._timeout_s
        while monotonic() < deadline:
            polled = self._consumer.poll(POLL_MS, most) if self._consumer.assignment() else {}
            if polled or self._left() == 0:
                return [record for records in polled.values() for record in records]
        msg = f"no message within {self._timeout_s:g} s"
        raise KafkaTimeoutError(msg)

    def _left(self) -> int | None:
        """Return how many messages come next, or None when that is not known yet."""
        left = 0
        for partition in self._consumer.assignment():
            # Not end_offsets: some brokers count a batch as one message there.
            end, position = self._consumer.highwater(partition), self._consumer.position(partition, timeout_ms=0)
            if end is None or position is None:
                return None
            left += max(0, end - position)
        return left

    def _place(self, record: ConsumerRecord) -> LogPosition:
        return LogPosition(
            record.topic, library.topic_id(self._consumer, record.topic), record.partition, record.offset
        )

    @contextmanager
    def _answering(self, operation: Operation = "Read") -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            refused = refusal(error, self._settings, operation)
            msg = f"Kafka at {self._settings.bootstrap_servers} does not answer: {error}"
            raise refused or StoreUnavailableError(msg) from error


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
