"""Producers, and the delivery of messages with a producer that is made anew where one failed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.producer.future import FutureRecordMetadata, RecordMetadata

from monitor.adapters.kafka import library
from monitor.adapters.kafka.connection import MAX_MESSAGE_BYTES, reaching_broker
from monitor.ports import LogPosition
from monitor.settings import KafkaSettings

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Delivered:
    """A message that the broker has. ``place``: where it lies; None where the broker did not say."""

    place: LogPosition | None


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


def send(producer: KafkaProducer, message: Message) -> FutureRecordMetadata:
    """Hand a message to the producer's thread; the future tells of its acknowledgement."""
    return producer.send(message.topic, message.value, key=message.key, headers=list(message.headers))


def discard_producer(producer: KafkaProducer) -> None:
    """Close a producer at once; what it still had to send fails."""
    library.discard_pending_sends(producer)
    with contextlib.suppress(KafkaError):
        producer.close(timeout=1)


class Delivery:
    """Sends messages and waits for the broker to have them. Owned by one thread.

    A producer to which the broker refused one message is of no more use: an idempotent one then fails all others, with
    the error of the first. Nor may one recover from a broker that forgot it. So it is made anew after each error.

    Args:
        settings: the broker.
        timeout_s: how long a message may wait for its acknowledgement.

    Raises:
        ServiceUnavailableError: the broker does not answer within ``kafka.connect_timeout_s``.
        ServiceRefusedError: it refuses this client.
    """

    def __init__(self, settings: KafkaSettings, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._producer: KafkaProducer | None = make_producer(settings, timeout_s, None)

    def deliver(self, messages: Sequence[Message]) -> list[Delivered | None]:
        """Send messages, in order; return None for those that are too large for their topic.

        Raises:
            KafkaError, ServiceUnavailableError: the broker did not acknowledge all others; some may have been sent.
            ServiceRefusedError: it refuses this client.
        """
        try:
            delivered = self._together(messages)
            # Which one was too large, the errors do not tell; each by itself, they do.
            return [found or self._alone(message) for found, message in zip(delivered, messages, strict=True)]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect; the next delivery connects anew."""
        producer, self._producer = self._producer, None
        if producer is not None:
            discard_producer(producer)

    def _together(self, messages: Sequence[Message]) -> list[Delivered | None]:
        producer, deadline = self._connected(), monotonic() + self._timeout_s
        futures: list[FutureRecordMetadata | None] = []
        for message in messages:
            try:
                futures.append(send(producer, message))
            except TOO_LARGE:
                futures.append(None)
        delivered = [None if future is None else _acknowledged(producer, future, deadline) for future in futures]
        if None in delivered:
            self.close()
        return delivered

    def _alone(self, message: Message) -> Delivered | None:
        (delivered,) = self._together([message])
        return delivered

    def _connected(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = make_producer(self._settings, self._timeout_s, 0)
        return self._producer


def _acknowledged(producer: KafkaProducer, future: FutureRecordMetadata, deadline: float) -> Delivered | None:
    try:
        metadata: RecordMetadata = future.get(timeout=max(0.001, deadline - monotonic()))
    except TOO_LARGE:
        return None
    # -1: an idempotent producer that sends again is told "I have it", and not where.
    if metadata.offset < 0:
        return Delivered(None)
    topic_id = library.topic_id(producer, metadata.topic)
    return Delivered(LogPosition(metadata.topic, topic_id, metadata.partition, metadata.offset))
