"""The demo's camera: sends parts to Kafka as fast as they are inspected, or at a rate, and remembers the truth."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from deploy.local.parts import DemoPart
from monitor.adapters.kafka.delivery import Message, discard_producer, make_producer, send
from monitor.settings import KafkaSettings
from schemas.messages import FrameEvent, new_frame_id, utc_now

IN_FLIGHT = 24  # frames sent and not yet inspected: enough to fill batches, few enough for short latencies
DELIVERY_TIMEOUT_S = 30.0


class Feed:
    """Sends parts from a thread of its own.

    ``sent`` maps the ids of frames under way to their parts; whoever has judged a frame calls ``done``.

    Args:
        settings: the broker.
        camera: the camera's id.
        parts: what to send; may be endless.
        rate: parts a second; None: as fast as they are inspected.
    """

    def __init__(self, settings: KafkaSettings, camera: str, parts: Iterator[DemoPart], rate: float | None) -> None:
        self.sent: dict[str, DemoPart] = {}
        self.count = 0
        self.rate = rate
        self.finished = threading.Event()
        self.error: BaseException | None = None
        self._settings = settings
        self._camera = camera
        self._parts = parts
        self._again: deque[tuple[DemoPart, Callable[[str], None]]] = deque()
        self._stop = threading.Event()
        self._room = threading.Semaphore(IN_FLIGHT)
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send nothing more."""
        self._stop.set()
        self._room.release()
        self._thread.join()

    def done(self, frame_id: str) -> None:
        """Forget a frame that was judged, and so make room for another."""
        if self.sent.pop(frame_id, None) is not None:
            self._room.release()

    def send_again(self, part: DemoPart, on_sent: Callable[[str], None]) -> None:
        """Send a part once more, next; ``on_sent`` is called with its new frame id."""
        self._again.append((part, on_sent))

    def _run(self) -> None:
        producer = None
        try:
            producer = make_producer(self._settings, DELIVERY_TIMEOUT_S, None)
            for part, on_sent in self._next_parts():
                event = FrameEvent(
                    frame_id=new_frame_id(),
                    camera=self._camera,
                    captured_at=utc_now(),
                    content_type=part.content_type,
                    part_serial=part.serial,
                )
                self.sent[event.frame_id] = part
                if on_sent:
                    on_sent(event.frame_id)
                headers = tuple(event.to_headers())
                message = Message(self._settings.frames_topic, self._camera.encode(), part.content, headers)
                send(producer, message).get(timeout=DELIVERY_TIMEOUT_S)
                self.count += 1
        except Exception as error:  # noqa: BLE001 - told on the main thread, which watches `error`
            self.error = error
        finally:
            self.finished.set()
            if producer is not None:
                discard_producer(producer)

    def _next_parts(self) -> Iterator[tuple[DemoPart, Callable[[str], None] | None]]:
        """Yield parts when it is time for them: those to be sent again first."""
        due = time.monotonic()
        while not self._stop.is_set():
            self._room.acquire()
            if self.rate is not None:
                self._stop.wait(max(0.0, due - time.monotonic()))
                due = max(due, time.monotonic() - 1.0) + 1.0 / self.rate
            if self._stop.is_set():
                return
            if self._again:
                yield self._again.popleft()
                continue
            part = next(self._parts, None)
            if part is None:
                return
            yield part, None
