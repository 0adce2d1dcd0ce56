"""Sends frames without waiting for each, and keeps what the broker has not acknowledged."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Final

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.producer.future import FutureRecordMetadata
from kafka.record.default_records import DefaultRecordBatchBuilder

from monitor.adapters.kafka.connection import MAX_MESSAGE_BYTES
from monitor.adapters.kafka.delivery import TOO_LARGE, Message, discard_producer, make_producer, send
from monitor.adapters.kafka.refusals import refusal
from monitor.adapters.kafka.topic_checks import MAX_MESSAGE, alter_config
from monitor.settings import KafkaSettings
from schemas.errors import ServiceUnavailableError
from schemas.messages import FrameEvent

RECONNECT_S: Final = 0.5
# Handing over a frame waits so long for the topic's metadata; a signal is heard only after that.
MOST_BLOCK_S: Final = 2.0
# Beyond its own timeout, for the client to say so.
GRACE_S: Final = 2.0
# So often a frame over the limit is sent all the same: somebody may have raised the limit.
TRY_LIMIT_S: Final = 60.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Spooled:
    message: Message
    size: int
    future: FutureRecordMetadata | None = None
    handed_over_at: float = 0.0


class FrameSender:
    """Frames on their way to the broker, in order, each kept until it is acknowledged. Owned by one thread.

    While the broker is away the frames wait here, bounded in bytes, and are sent again when it is back; a frame may
    thus arrive twice, under one frame id. ``taken`` = ``acknowledged`` + ``waiting`` + ``too_large``.

    Args:
        settings: the broker and the topic.
        max_bytes: how much may wait; a single larger frame is taken when nothing else waits.
        delivery_timeout_s: how long the client itself tries before the connection is made anew.
        max_message_bytes: the topic's limit, if it is known; larger frames are not sent.

    Raises:
        ServiceUnavailableError: the broker does not answer at start.
        ServiceRefusedError: it refuses this client.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        max_bytes: int,
        delivery_timeout_s: float = 10.0,
        max_message_bytes: int | None = None,
    ) -> None:
        self.taken = self.acknowledged = self.too_large = 0
        self._settings = settings
        self._max_bytes = max_bytes
        self._delivery_timeout_s = delivery_timeout_s
        self._max_message_bytes = max_message_bytes
        self._try_limit_at = time.monotonic() + TRY_LIMIT_S
        self._spool: deque[_Spooled] = deque()
        self._bytes = 0
        self._next_try = 0.0
        self._away = False
        self._producer: KafkaProducer | None = make_producer(settings, delivery_timeout_s, None, MOST_BLOCK_S)

    @property
    def waiting(self) -> int:
        """How many frames the broker has not acknowledged."""
        return len(self._spool)

    def offer(self, event: FrameEvent, image: bytes) -> bool:
        """Take a frame, and send it unless it is larger than the topic allows; or return False: too much waits already.

        Raises:
            ServiceRefusedError: the broker refuses the frames, or this client.
        """
        self.collect()
        if self._spool and self._bytes + len(image) > self._max_bytes:
            return False
        headers = tuple(event.to_headers())
        spooled = _Spooled(Message(self._settings.frames_topic, event.camera.encode(), image, headers), len(image))
        self.taken += 1
        if not self._is_sent(spooled.message):
            self._drop(spooled)
            return True
        self._spool.append(spooled)
        self._bytes += spooled.size
        self._dispatch([spooled])
        return True

    def collect(self) -> None:
        """Let go of what is acknowledged; connect and send again what was not.

        Raises:
            ServiceRefusedError: the broker refuses the frames, or this client.
        """
        while self._spool and (future := self._spool[0].future) is not None and future.is_done:
            if future.succeeded():
                self._acknowledge_first()
            elif isinstance(future.exception, TOO_LARGE):
                self._learn_limit()
            else:
                self._disconnect(future.exception)
        self._give_up_on_silence()
        if self._producer is None:
            self._reconnect()

    def close(self) -> None:
        """Disconnect; what waits is not sent any more."""
        if self._producer is not None:
            discard_producer(self._producer)
            self._producer = None

    def _is_sent(self, message: Message) -> bool:
        if not self._exceeds_limit(message):
            return True
        if time.monotonic() < self._try_limit_at:
            return False
        self._try_limit_at = time.monotonic() + TRY_LIMIT_S
        return True

    def _exceeds_limit(self, message: Message) -> bool:
        """Return whether the topic is known not to take a message, whatever the numbers in it come to."""
        return self._max_message_bytes is not None and _least_bytes(message) > self._max_message_bytes

    def _dispatch(self, frames: list[_Spooled]) -> None:
        for frame in frames:
            if self._producer is None:
                return
            try:
                frame.future = send(self._producer, frame.message)
            except KafkaError as error:
                self._disconnect(error)
            frame.handed_over_at = time.monotonic()

    def _give_up_on_silence(self) -> None:
        # A client whose password is no longer taken tries again for ever, and does not even time out.
        if self._producer is None or not self._spool or self._spool[0].future is None:
            return
        if time.monotonic() - self._spool[0].handed_over_at > self._delivery_timeout_s + GRACE_S:
            self._disconnect(KafkaTimeoutError(f"no answer within {self._delivery_timeout_s:g} s"))

    def _disconnect(self, error: BaseException) -> None:
        self.close()
        for frame in self._spool:
            frame.future = None
        self._next_try = time.monotonic() + RECONNECT_S
        refused = refusal(error, self._settings, "Write")
        if refused is not None:
            raise refused from error
        if not self._away:
            waiting = self.waiting
            log.warning("Kafka does not take frames; they are kept and sent again", waiting=waiting, error=str(error))
        self._away = True

    def _reconnect(self) -> None:
        if time.monotonic() < self._next_try:
            return
        try:
            self._producer = make_producer(self._settings, self._delivery_timeout_s, 0, MOST_BLOCK_S)
        except ServiceUnavailableError:
            self._next_try = time.monotonic() + RECONNECT_S
            return
        self._dispatch(list(self._spool))

    def _acknowledge_first(self) -> None:
        if self._away:
            log.info("Kafka takes frames again; what was kept is sent", waiting=self.waiting)
            self._away = False
        message = self._forget_first().message
        self.acknowledged += 1
        if self._exceeds_limit(message):
            self._max_message_bytes = None  # it was raised; what the topic takes now, the broker says

    def _learn_limit(self) -> None:
        """Drop the first frame, which the broker refused, and send what comes after it with a client of its own.

        A client to which the broker refused one message fails all others, with the error of the first. Of one camera
        the broker takes them in order, so the first that failed is the one.
        """
        first = self._forget_first()
        self._drop(first)
        self._max_message_bytes = min(_least_bytes(first.message) - 1, self._max_message_bytes or MAX_MESSAGE_BYTES)
        self.close()
        for frame in self._spool:
            frame.future = None
        self._next_try = 0.0

    def _drop(self, frame: _Spooled) -> None:
        if not self.too_large:
            mend = alter_config(self._settings, frame.message.topic, f"{MAX_MESSAGE}=<more than the largest frame>")
            allowed = self._max_message_bytes or "less"
            log.error("Frames are dropped: larger than the topic takes", bytes=frame.size, allowed=allowed, mend=mend)
        self.too_large += 1

    def _forget_first(self) -> _Spooled:
        first = self._spool.popleft()
        self._bytes -= first.size
        return first


def _least_bytes(message: Message) -> int:
    """Return what a message takes in its topic, without the numbers whose length depends on where it lies there."""
    record = DefaultRecordBatchBuilder.size_of(message.key, message.value, list(message.headers))
    return int(DefaultRecordBatchBuilder.HEADER_STRUCT.size + record)
