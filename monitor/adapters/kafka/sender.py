"""Sends frames without waiting for each, and keeps what the broker has not acknowledged."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.producer.future import FutureRecordMetadata

from monitor.adapters.kafka.publisher import TOO_LARGE, Message, discard_producer, make_producer, send
from monitor.settings import KafkaSettings
from schemas.errors import ServiceUnavailableError
from schemas.messages import FrameEvent

RECONNECT_S = 0.5

log = structlog.get_logger()


@dataclass(slots=True)
class _Spooled:
    message: Message
    size: int
    future: FutureRecordMetadata | None = None


class FrameSender:
    """Frames on their way to the broker, in order, each kept until it is acknowledged. Owned by one thread.

    While the broker is away the frames wait here, bounded in bytes, and are sent again when it is back; a frame may
    thus arrive twice, under one frame id.

    Args:
        settings: the broker and the topic.
        max_bytes: how much may wait; a single larger frame is taken when nothing else waits.
        delivery_timeout_s: how long the client itself tries before the connection is made anew.

    Raises:
        ServiceUnavailableError: the broker does not answer at start.
    """

    def __init__(self, settings: KafkaSettings, max_bytes: int, delivery_timeout_s: float = 10.0) -> None:
        self.sent = self.acknowledged = self.refused = 0
        self._settings = settings
        self._max_bytes = max_bytes
        self._delivery_timeout_s = delivery_timeout_s
        self._spool: deque[_Spooled] = deque()
        self._bytes = 0
        self._next_try = 0.0
        self._producer: KafkaProducer | None = make_producer(settings, delivery_timeout_s, None)

    @property
    def waiting(self) -> int:
        """How many frames the broker has not acknowledged."""
        return len(self._spool)

    def offer(self, event: FrameEvent, image: bytes) -> bool:
        """Take a frame and send it, or return False when too much waits already."""
        self.collect()
        if self._spool and self._bytes + len(image) > self._max_bytes:
            return False
        headers = tuple(event.to_headers())
        spooled = _Spooled(Message(self._settings.frames_topic, event.camera.encode(), image, headers), len(image))
        self._spool.append(spooled)
        self._bytes += spooled.size
        self.sent += 1
        self._dispatch([spooled])
        return True

    def collect(self) -> None:
        """Let go of what is acknowledged; connect and send again what was not."""
        while self._spool and (future := self._spool[0].future) is not None and future.is_done:
            if future.succeeded():
                self.acknowledged += 1
                self._forget_first()
            elif isinstance(future.exception, TOO_LARGE):
                self._refuse_first()
            else:
                self._disconnect(future.exception)
        if self._producer is None:
            self._reconnect()

    def close(self) -> None:
        """Disconnect; what waits is not sent any more."""
        if self._producer is not None:
            discard_producer(self._producer)
            self._producer = None

    def _dispatch(self, frames: list[_Spooled]) -> None:
        for frame in frames:
            if self._producer is None:
                return
            try:
                frame.future = send(self._producer, frame.message)
            except KafkaError as error:
                self._disconnect(error)

    def _disconnect(self, error: BaseException) -> None:
        log.warning("Kafka does not take frames; they are kept and sent again", waiting=self.waiting, error=str(error))
        self.close()
        for frame in self._spool:
            frame.future = None
        self._next_try = time.monotonic() + RECONNECT_S

    def _reconnect(self) -> None:
        if time.monotonic() < self._next_try:
            return
        try:
            self._producer = make_producer(self._settings, self._delivery_timeout_s, 0)
        except ServiceUnavailableError:
            self._next_try = time.monotonic() + RECONNECT_S
            return
        log.info("Kafka is back; sending what was kept", waiting=self.waiting)
        self._dispatch(list(self._spool))

    def _refuse_first(self) -> None:
        self.refused += 1
        size = self._spool[0].size
        log.error("frame dropped: larger than the topic allows; raise its max.message.bytes", bytes=size)
        self._forget_first()

    def _forget_first(self) -> None:
        self._bytes -= self._spool.popleft().size
