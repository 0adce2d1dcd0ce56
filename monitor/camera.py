"""The camera agent: pictures from a source to the frames topic, until the source ends or somebody stops it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import structlog
from pydantic import ValidationError

from monitor.adapters.camera import Capture, CaptureSource, Encoding, open_source, redact
from monitor.adapters.kafka import FrameSender, prepare_topics
from monitor.settings import KafkaSettings, LimitSettings
from monitor.signals import stopping_on_signals
from schemas.errors import ConfigurationError, ServiceRefusedError
from schemas.messages import FrameEvent, new_frame_id, utc_now

SPOOL_BYTES = 256 * 2**20
# With what a broker that hangs may hold up besides, an agent ends within 15 s of the signal.
FLUSH_S = 5.0
PROGRESS_S = 5.0
WAIT_S = 0.005

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CameraSummary:
    """What an agent did. ``taken`` = ``acknowledged`` + ``unacknowledged`` + ``too_large`` + ``spool_full``.

    Args:
        taken: frames that came from the source.
        acknowledged: frames that the broker has for certain.
        unacknowledged: frames given up when the agent ended while the broker was away, or refused them.
        too_large: frames dropped because they are larger than the topic takes.
        spool_full: frames of a live source dropped because they came while too many waited for the broker.
        seconds: from the first frame to the last acknowledgement.
        refusal: why the broker takes no more, if it said so.
    """

    taken: int
    acknowledged: int
    unacknowledged: int
    too_large: int
    spool_full: int
    seconds: float
    refusal: str | None = None

    @property
    def dropped(self) -> int:
        """Frames that nobody will inspect, though the broker was there."""
        return self.too_large + self.spool_full

    @property
    def problem(self) -> str | None:
        """What a person must know of, in one line; None if the broker has every frame."""
        parts = []
        if self.too_large:
            parts.append(f"{self.too_large} frames were dropped: larger than the topic takes (max.message.bytes)")
        if self.spool_full:
            parts.append(f"{self.spool_full} frames were dropped: too many waited for Kafka")
        if self.unacknowledged:
            why = "Kafka refuses them" if self.refusal else "stopped while Kafka was away"
            parts.append(f"{self.unacknowledged} frames were not sent: {why}. Send them again.")
        return "; ".join([*([self.refusal] if self.refusal else []), *parts]) or None

    def told(self) -> str:
        """Return the account in one line."""
        dropped = f"{self.dropped} dropped ({self.too_large} too large, {self.spool_full} while too many waited)"
        return (
            f"{self.taken} frames taken: {self.acknowledged} acknowledged, {self.unacknowledged} not acknowledged, "
            f"{dropped}"
        )


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
        kafka: the broker and the frames topic, which is created if absent.
        limits: the largest frame, for a topic that is created.
        rate: frames per second; None: as fast as the broker acknowledges, or as a live source delivers.
        loop: begin again at the end of a folder or file; every frame gets a new id.
        limit: after how many frames to end, whatever became of them.
        encoding: how video frames are encoded.
        part_serials: an image file's name without its suffix is the part's serial number.
        lot: the lot of every frame.
        deadline_ms: the milliseconds after capture within which the verdict is of use.
        spool_bytes: how many bytes of frames may wait for the broker. Then files wait, live frames are dropped.
        stop: ends the agent when set; without it, SIGINT and SIGTERM do.

    Raises:
        ConfigurationError: the source cannot be opened, or an id is malformed.
        ServiceUnavailableError: the broker does not answer at start. Later outages are waited out.
        ServiceRefusedError: it refuses this client at start. Later it ends the agent, and the summary says so.
    """
    labels = FrameLabels(camera, lot, deadline_ms)
    _require_valid(labels)
    captures = open_source(source, encoding, rate=rate, part_serials=part_serials)
    topics = prepare_topics(kafka, limits, {kafka.frames_topic: "Write"})
    sender = FrameSender(kafka, spool_bytes, max_message_bytes=topics.max_message_bytes.get(kafka.frames_topic))
    with _stopping(stop) as stopped, contextlib.closing(sender):
        agent = _Agent(captures, sender, labels, stopped, rate)
        log.info("camera agent started", source=redact(source), camera=camera, topic=kafka.frames_topic, rate=rate)
        started = time.monotonic()
        refusal = None
        try:
            agent.stream(loop=loop, limit=limit)
            agent.flush()
        except ServiceRefusedError as error:
            refusal = str(error)
        summary = CameraSummary(
            taken=agent.taken,
            acknowledged=sender.acknowledged,
            unacknowledged=sender.waiting,
            too_large=sender.too_large,
            spool_full=agent.spool_full,
            seconds=time.monotonic() - started,
            refusal=refusal,
        )
    log.info(
        "camera agent ended",
        taken=summary.taken,
        acknowledged=summary.acknowledged,
        unacknowledged=summary.unacknowledged,
        dropped=summary.dropped,
    )
    return summary


@dataclass(slots=True)
class _Agent:
    source: CaptureSource
    sender: FrameSender
    labels: FrameLabels
    stop: threading.Event
    rate: float | None
    spool_full: int = 0
    next_report: float = 0.0

    @property
    def taken(self) -> int:
        return self.sender.taken + self.spool_full

    def stream(self, *, loop: bool, limit: int | None) -> None:
        for capture in self._paced(loop=loop):
            self._send(capture)
            self._report()
            if self.taken == limit:
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
                if not self.spool_full:
                    log.error("Frames are dropped: too many wait for Kafka", waiting=self.sender.waiting)
                self.spool_full += 1
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
                dropped = sender.too_large + self.spool_full
                log.info("frames", taken=self.taken, acknowledged=sender.acknowledged, dropped=dropped)
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
    with stopping_on_signals(stop):
        yield stop
