"""Sends to Kafka and returns once the broker has everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import structlog
from kafka.errors import KafkaError

from monitor.adapters.kafka.delivery import Delivery, Message
from monitor.adapters.kafka.refusals import refusal
from monitor.errors import StoreUnavailableError
from monitor.ports import DeadLetter, LogPosition, OutboxMessage
from monitor.settings import KafkaSettings
from schemas.errors import ServiceUnavailableError

# Of the headers that tell of a message's death, which follow its own.
FIRST_HEADER: Final = "dead_reason"
ID_HEADER: Final = "dead_id"
OMITTED_HEADER: Final = "dead_value_omitted"

log = structlog.get_logger()


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
        self._delivery = Delivery(settings, delivery_timeout_s)

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
        self._delivery.close()

    def _send(self, messages: Sequence[Message]) -> list[LogPosition | None]:
        if not messages:
            return []
        try:
            sent = self._delivery.deliver(messages)
            refused = [number for number, delivered in enumerate(sent) if delivered is None]
            # Stripped, they fit; what the broker refused stays readable where it came from.
            again = self._delivery.deliver([_without_value(messages[number]) for number in refused]) if refused else ()
        except (KafkaError, ServiceUnavailableError) as error:
            mended_by_hand = refusal(error, self._settings, "Write")
            raise mended_by_hand or StoreUnavailableError(f"Kafka did not acknowledge: {error}") from error
        for number, delivered in zip(refused, again, strict=True):
            if delivered is None:
                log.error(
                    "message too large for its topic without its value, too; given up", topic=messages[number].topic
                )
            sent[number] = delivered
        return [None if delivered is None else delivered.place for delivered in sent]


def dead_id(position: LogPosition) -> str:
    """Return the ``dead_id`` of the letter that a message at this place became."""
    return f"{position.topic_id}/{position.partition}/{position.offset}"


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
