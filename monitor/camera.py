"""The camera agent: pictures from a source to the frames topic, until the source ends or somebody stops it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from monitor.adapters.camera import Capture, CaptureSource, Encoding, open_source, redact
from monitor.adapters.kafka import FrameSender, ensure_topics
from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import ConfigurationError
from schemas.messages import FrameEvent, new_frame_id, utc_now

SPOOL_BYTES = 256 * 2**20
FLUSH_S = 10.0
PROGRESS_S = 5.0
WAIT_S = 0.005

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CameraSummary:
    """What an agent did. ``sent`` = ``acknowledged`` + ``refused`` + ``unacknowledged``; ``dropped`` were never sent.

    Args:
        sent: frames handed to Kafka.
        acknowledged: frames that the broker has for certain.
        refused: frames larger than the topic allows.
        unacknowledged: frames given up when the agent was stopped while the broker was away.
        dropped: frames of a live source that came while too many waited for the broker.
        seconds: from the first frame to the last acknowledgement.
    """

    sent: int
    acknowledged: int
    refused: int
    unacknowledged: int
    dropped: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FrameLabels:
    """What every frame of an agent says of itself."""

    camera: str
    lot: str | None = None
    deadline_ms: int | None = None

    def event(self, capture: Capture) -> FrameEvent:
        """Return the metadata of a picture taken now."""
        return FrameEvent(
            frame_id=new_frame_id(),
            camera=self.camera,
            captured_at=utc_now(),
            content_type=capture.content_type,
            part_serial=capture.part_serial,
            lot=self.lot,
            deadline_ms=self.deadline_ms,
        )


def run_camera(
    source: str,
    camera: str,
    kafka: KafkaSettings,
    limits: LimitSettings,
    *,
    rate: float | None = None,
    loop: bool = False,
    limit: int | None = None,
    encoding: Encoding = "png",
    part_serials: bool = True,
    lot: str | None = None,
    deadline_ms: int | None = None,
    spool_bytes: int = SPOOL_BYTES,
    stop: threading.Event | None = None,
) -> CameraSummary:
    """Send a source's pictures until it ends, ``limit`` is reached, or SIGINT, SIGTERM or ``stop`` ask to end.

    Args:
        source: a folder of images, a video file, an OpenCV URL (RTSP, HTTP) or a device's number.
        camera: the camera's id, the key of every message.
        kafka: the broker and the topics, which are created if absent.
        limits: the largest frame, for topics that are created.
        rate: frames per second; None: as fast as the broker acknowledges, or as a live source delivers.
        loop: begin again at the end of a folder or file; every frame gets a new id.
        limit: how many frames to send at most.
        encoding: how video frames are encoded.
        part_serials: an image file's name without its suffix is the part's serial number.
        lot: the lot of every frame.
        deadline_ms: the milliseconds after capture within which the verdict is of use.
        spool_bytes: how many bytes of frames may wait for the broker. Then files wait, live frames are dropped.
        stop: ends the agent when set; without it, SIGINT and SIGTERM do.

    Raises:
        ConfigurationError: the source cannot be opened, or an id is malformed.
        ServiceUnavailableError: the broker does not answer at start. Later outages are waited out.
    """
    labels = FrameLabels(camera, lot, deadline_ms)
    _require_valid(labels)
    captures = open_source(source, encoding, rate=rate, part_serials=part_serials)
    ensure_topics(kafka, limits)
    sender = FrameSender(kafka, spool_bytes)
    with _stopping(stop) as stopped, contextlib.closing(sender):
        agent = _Agent(captures, sender, labels, stopped, rate)
        log.info("camera agent started", source=redact(source), camera=camera, topic=kafka.frames_topic, rate=rate)
        started = time.monotonic()
        agent.stream(loop=loop, limit=limit)
        agent.flush()
        summary = CameraSummary(
            sent=sender.sent,
            acknowledged=sender.acknowledged,
            refused=sender.refused,
            unacknowledged=sender.waiting,
            dropped=agent.dropped,
            seconds=time.monotonic() - started,
        )
    if summary.unacknowledged:
        log.error("stopped while Kafka was away; these frames will not be inspected", frames=summary.unacknowledged)
    log.info("camera agent ended", sent=summary.sent, acknowledged=summary.acknowledged, dropped=summary.dropped)
    return summary


@dataclass(slots=True)
class _Agent:
    source: CaptureSource
    sender: FrameSender
    labels: FrameLabels
    stop: threading.Event
    rate: float | None
    dropped: int = 0
    next_report: float = 0.0

    def stream(self, *, loop: bool, limit: int | None) -> None:
        for capture in self._paced(loop=loop):
            self._send(capture)
            self._report()
            if self.sender.sent == limit:
                return

    def _paced(self, *, loop: bool) -> Iterator[Capture]:
        """Yield captures, no more than ``rate`` a second; a live source keeps to it by itself."""
        period = 1 / self.rate if self.rate and not self.source.live else 0.0
        due = time.monotonic()
        again = True
        while again and not self.stop.is_set():
            again = False
            for capture in self.source.captures(self.stop):
                if self.stop.wait(max(0.0, due - time.monotonic())):
                    return
                due = max(due + period, time.monotonic())
                yield capture
                again = loop  # not for a source that has nothing to give

    def _send(self, capture: Capture) -> None:
        event = self.labels.event(capture)
        while not self.sender.offer(event, capture.data):
            if self.source.live:
                # The next frame is worth more than this one: waiting would only make all of them late.
                self.dropped += 1
                return
            if self.stop.wait(WAIT_S):
                return

    def flush(self) -> None:
        """Wait for the acknowledgements; once asked to stop, no longer than ``FLUSH_S``."""
        deadline = None
        while self.sender.waiting:
            self.sender.collect()
            self._report()
            if self.stop.is_set():
                deadline = deadline or time.monotonic() + FLUSH_S
                if time.monotonic() >= deadline:
                    return
            time.sleep(WAIT_S)

    def _report(self) -> None:
        now = time.monotonic()
        if now >= self.next_report:
            sender = self.sender
            if self.next_report:
                log.info("frames", sent=sender.sent, acknowledged=sender.acknowledged, dropped=self.dropped)
            self.next_report = now + PROGRESS_S


def _require_valid(labels: FrameLabels) -> None:
    try:
        labels.event(Capture(b"", "image/png"))
    except ValidationError as error:
        first = error.errors()[0]
        remedy = "Use letters, digits, '.', '_', ':' and '-' in ids."
        raise ConfigurationError(str(first["loc"][0]), first["input"], first["msg"], remedy) from None


@contextlib.contextmanager
def _stopping(stop: threading.Event | None) -> Iterator[threading.Event]:
    """Give the event that ends the agent: the caller's, or one that SIGINT and SIGTERM set."""
    if stop is not None:
        yield stop
        return
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in signals}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
