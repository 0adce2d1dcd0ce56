"""Sends to Kafka and returns once the broker has everything."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.producer.future import FutureRecordMetadata, RecordMetadata

from monitor.adapters.kafka.connection import MAX_MESSAGE_BYTES, reaching_broker
from monitor.adapters.kafka.refusals import refusal
from monitor.errors import StoreUnavailableError
from monitor.ports import DeadLetter, LogPosition, OutboxMessage
from monitor.settings import KafkaSettings
from schemas.errors import ServiceUnavailableError

# Of the headers that tell of a message's death, which follow its own.
FIRST_HEADER: Final = "dead_reason"
ID_HEADER: Final = "dead_id"
OMITTED_HEADER: Final = "dead_value_omitted"
TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def make_producer(
    settings: KafkaSettings,
    delivery_timeout_s: float,
    connect_timeout_s: float | None,
    most_block_s: float | None = None,
) -> KafkaProducer:
    """Return an idempotent producer.

    Args:
        settings: the broker.
        delivery_timeout_s: after so long it gives up on a message.
        connect_timeout_s: how long to wait for the broker; None: as the settings say.
        most_block_s: how long handing over a message may take, while the topic is not known; default: as delivery.

    Raises:
        ServiceUnavailableError: the broker does not answer.
        ServiceRefusedError: it refuses this client.
    """
    milliseconds = max(1, round(delivery_timeout_s * 1000))
    block_ms = milliseconds if most_block_s is None else max(1, round(most_block_s * 1000))
    with reaching_broker(settings, connect_timeout_s) as options:
        return KafkaProducer(
            **options,
            metrics_enabled=False,
            acks="all",
            enable_idempotence=True,
            delivery_timeout_ms=milliseconds,
            request_timeout_ms=milliseconds,
            max_block_ms=block_ms,
            max_request_size=MAX_MESSAGE_BYTES,
        )


class KafkaPublisher:
    """The :class:`~monitor.ports.Publisher` for Kafka: at least once, so each message carries an id to drop repeats by.

    Args:
        settings: the broker and the topics.
        delivery_timeout_s: how long a message may wait for its acknowledgement.

    Raises:
        ServiceUnavailableError: the broker does not answer at start.
        ServiceRefusedError: it refuses this client.
    """

    def __init__(self, settings: KafkaSettings, delivery_timeout_s: float = 10.0) -> None:
        self._settings = settings
        self._delivery_timeout_s = delivery_timeout_s
        self._producer: KafkaProducer | None = make_producer(settings, delivery_timeout_s, None)

    def dead_letters(self, letters: Sequence[DeadLetter]) -> Sequence[LogPosition | None]:
        """Send the original bytes, key and headers, and the reason, to the dead-letter topic.

        Returns:
            Where each of them lies there; None where the broker did not say.

        Raises:
            StoreUnavailableError: the broker did not acknowledge all of them; send all again later.
            ServiceRefusedError: it refuses them, or this client; a person must act, and then send all again.
        """
        return self._send([_dead_message(letter, self._settings.dead_topic) for letter in letters])

    def events(self, messages: Sequence[OutboxMessage]) -> None:
        """Send outbox messages to their topics.

        Raises:
            StoreUnavailableError: the broker did not acknowledge all of them; send all again later.
            ServiceRefusedError: it refuses them, or this client; a person must act, and then send all again.
        """
        self._send(
            [
                Message(m.topic, m.key.encode(), m.payload, tuple((name, text.encode()) for name, text in m.headers))
                for m in messages
            ]
        )

    def close(self) -> None:
        """Disconnect. Nothing is left to flush: every call waited for its acknowledgements."""
        self._discard()

    def _send(self, messages: Sequence[Message]) -> list[LogPosition | None]:
        if not messages:
            return []
        try:
            producer = self._producer or make_producer(self._settings, self._delivery_timeout_s, 0)
            self._producer = producer
            sent = send_and_wait(producer, messages, self._delivery_timeout_s)
            refused = [number for number, metadata in enumerate(sent) if metadata is None]
            # Stripped, they fit; what the broker refused stays readable where it came from.
            stripped = [_without_value(messages[number]) for number in refused]
            again = send_and_wait(producer, stripped, self._delivery_timeout_s)
            for number, metadata in zip(refused, again, strict=True):
                sent[number] = metadata
            return [_place(producer, metadata) for metadata in sent]
        except (KafkaError, ServiceUnavailableError) as error:
            # A new producer next time: an idempotent one may never recover from a broker that forgot it.
            self._discard()
            mended_by_hand = refusal(error, self._settings, "Write")
            raise mended_by_hand or StoreUnavailableError(f"Kafka did not acknowledge: {error}") from error

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            discard_producer(producer)


def send(producer: KafkaProducer, message: Message) -> FutureRecordMetadata:
    """Hand a message to the producer's thread; the future tells of its acknowledgement."""
    return producer.send(message.topic, message.value, key=message.key, headers=list(message.headers))


def send_and_wait(
    producer: KafkaProducer, messages: Sequence[Message], timeout_s: float
) -> list[RecordMetadata | None]:
    """Send messages and return where each went; None for those that are too large for the broker.

    Raises:
        KafkaError: the broker did not acknowledge all others within ``timeout_s``.
    """
    deadline = monotonic() + timeout_s
    futures: list[FutureRecordMetadata | None] = []
    for message in messages:
        try:
            futures.append(send(producer, message))
        except TOO_LARGE:
            futures.append(None)
    return [None if future is None else _acknowledged(future, deadline) for future in futures]


def _acknowledged(future: FutureRecordMetadata, deadline: float) -> RecordMetadata | None:
    try:
        return future.get(timeout=max(0.001, deadline - monotonic()))
    except TOO_LARGE:
        return None


def discard_producer(producer: KafkaProducer) -> None:
    """Close a producer at once; what it still had to send fails."""
    # close() waits for the messages first, and without a broker it would raise and leave its thread sending them.
    producer._sender.force_close()  # noqa: SLF001
    with contextlib.suppress(KafkaError):
        producer.close(timeout=1)


def dead_id(position: LogPosition) -> str:
    """Return the ``dead_id`` of the letter that a message at this place became."""
    return f"{position.topic_id}/{position.partition}/{position.offset}"


def _place(producer: KafkaProducer, metadata: RecordMetadata | None) -> LogPosition | None:
    # -1: an idempotent producer that sends again is told "I have it", and not where.
    if metadata is None or metadata.offset < 0:
        return None
    topic_id = str(producer._metadata.topic_id(metadata.topic) or "")  # noqa: SLF001 - kept nowhere else
    return LogPosition(metadata.topic, topic_id, metadata.partition, metadata.offset)


def _dead_message(letter: DeadLetter, topic: str) -> Message:
    record, position = letter.record, letter.record.position
    reasons = {
        FIRST_HEADER: letter.reason.value,
        "dead_detail": letter.detail,
        "dead_topic": position.topic,
        "dead_partition": str(position.partition),
        "dead_offset": str(position.offset),
        ID_HEADER: dead_id(position),
    }
    headers = (*record.headers, *((name, text.encode()) for name, text in reasons.items()))
    # kafka-python refuses a message with neither key nor value.
    value = b"" if record.key is None and record.value is None else record.value
    return Message(topic, record.key, value, headers)


def _without_value(message: Message) -> Message:
    size = len(message.value or b"")
    log.error("message too large for its topic; sent without its value", topic=message.topic, bytes=size)
    return replace(message, value=None, headers=(*message.headers, (OMITTED_HEADER, str(size).encode())))
