"""What a record becomes on arrival: a frame ready for the device, a dead letter, or a frame we failed on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.core.view import Placement
from monitor.decoding import decode_image, require_size
from monitor.metrics import STAGE_SECONDS
from monitor.overload import Overload, Pace
from monitor.ports import Clock, DeadLetter, LogPosition, RawRecord
from monitor.post import Post
from monitor.settings import CameraSettings, LimitSettings
from schemas.errors import InvalidFrameError, Reason, UnregistrableError
from schemas.messages import FrameEvent

log = structlog.get_logger()

# Why a frame was stored as uninspected, beside the reasons of monitor.overload. Stable: dashboards select on them.
INSPECTION_FAILED: Final = "inspection_failed"
UNREGISTERED: Final = "unregistered"


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A frame ready for the device.

    Attributes:
        post: the model that it was made ready for, and no other is to inspect it: each sees frames in its own way.
        pixels: (C, H, W) in [0, 1].
        placement: where they lie in the camera's frame.
        newer: how many frames waited behind it when it came.
        shadow: the same frame as its camera's shadow is to see it, if it can be.
    """

    position: LogPosition
    event: FrameEvent
    post: Post
    pixels: NDArray[np.float32]
    placement: Placement
    newer: int = 0
    shadow: DecodedFrame | None = None


@dataclass(frozen=True, slots=True)
class FailedFrame:
    """A frame without pixels for the device: to be stored as uninspected.

    Its image may be fine: there is no time for it, its decoding met a fault of ours, or its part does not lie where
    the view expects it.
    """

    position: LogPosition
    event: FrameEvent
    reason: str = INSPECTION_FAILED


class Door:
    """Decides, by its headers alone, whether a record is to be decoded. Used by one thread, in the order of the log.

    Args:
        limits: how far ahead a capture time may be.
        cameras: which cameras there are, or how many there may be, and what to do when too much comes.
        clock: what capture times are held against.
        pace: how long it takes from here to a verdict.
    """

    def __init__(self, limits: LimitSettings, cameras: CameraSettings, clock: Clock, pace: Pace) -> None:
        self._overload = Overload(cameras, clock)
        self._pace = pace
        self._limits = limits
        self._ahead = timedelta(seconds=limits.max_clock_ahead_s)
        self._named = frozenset(cameras.known)
        self._most = cameras.most
        self._clock = clock
        self._met: set[str] = set()

    def admit(self, record: RawRecord) -> FrameEvent | FailedFrame | DeadLetter:
        """Return what a record says of its frame, or why it is not inspected now, or never can be."""
        try:
            event = self._read(record)
            self._require_in_time(event)
            self._require_known(event.camera)
        except InvalidFrameError as error:
            return DeadLetter(record, error.reason, error.detail)
        reason = self._overload.why_not(event, record.newer, self._pace)
        return event if reason is None else FailedFrame(record.position, event, reason)

    def _read(self, record: RawRecord) -> FrameEvent:
        if record.problem is not None:
            raise InvalidFrameError(Reason.UNREADABLE, f"the message itself cannot be read: {record.problem}")
        if not record.value:
            raise InvalidFrameError(Reason.EMPTY, "the message has no value, so no image")
        # Here as well, for what is let go is not decoded, and its image is kept.
        require_size(record.value, self._limits)
        return FrameEvent.from_record(record.key, record.headers)

    def _require_in_time(self, event: FrameEvent) -> None:
        ahead = event.captured_at - self._clock.now()
        if ahead > self._ahead:
            detail = (
                f"captured {ahead.total_seconds():.0f} s ahead of the worker's clock, limits.max_clock_ahead_s is "
                f"{self._ahead.total_seconds():g}: set both clocks by NTP, or raise the limit"
            )
            raise InvalidFrameError(Reason.CLOCK_AHEAD, detail)

    def _require_known(self, camera: str) -> None:
        if camera in (self._named or self._met):
            return
        if self._named:
            detail = f"cameras.known does not name camera {camera!r}: add it there, or stop whoever sends as it"
            raise InvalidFrameError(Reason.UNKNOWN_CAMERA, detail)
        if len(self._met) >= self._most:
            detail = (
                f"camera {camera!r} is one more than cameras.most, which is {self._most}: raise it, or name the "
                "cameras there are in cameras.known"
            )
            raise InvalidFrameError(Reason.UNKNOWN_CAMERA, detail)
        self._met.add(camera)


def take_in(
    record: RawRecord, admitted: FrameEvent, post: Post, limits: LimitSettings, shadow: Post | None = None
) -> DecodedFrame | FailedFrame | DeadLetter:
    """Decode an admitted record and prepare it for its camera's model. Never raises; runs in the decode threads.

    Then the same for the camera's ``shadow``, which does not see what cannot be made ready for it. The image is let go
    here: what waits for its batch is of the networks' sizes, whatever the camera's.
    """
    frame = _take_in(record, admitted, post, limits)
    if shadow is None or not isinstance(frame, DecodedFrame):
        return frame
    try:
        return replace(frame, shadow=_decode(record, admitted, shadow, limits))
    except Exception as error:  # noqa: BLE001 - whatever it is, the active model has its frame
        if not shadow.said_blind:
            shadow.said_blind = True
            log.warning("The shadow cannot see a frame, nor others like it", frame=admitted.frame_id,
                        camera=admitted.camera, model=shadow.model_id, problem=str(error))  # fmt: skip
        return frame


def _take_in(
    record: RawRecord, admitted: FrameEvent, post: Post, limits: LimitSettings
) -> DecodedFrame | FailedFrame | DeadLetter:
    try:
        with STAGE_SECONDS.labels(stage="decode").time():
            return _decode(record, admitted, post, limits)
    except InvalidFrameError as error:
        return DeadLetter(record, error.reason, error.detail)
    except UnregistrableError as error:
        log.warning("A part does not lie where it should; storing as uninspected", frame=admitted.frame_id,
                    camera=admitted.camera, problem=str(error))  # fmt: skip
        return FailedFrame(record.position, admitted, UNREGISTERED)
    except Exception:
        log.exception("Decoding failed by a fault of ours; the frame will be stored as uninspected", at=record.position)
        return FailedFrame(record.position, admitted)


def _decode(record: RawRecord, admitted: FrameEvent, post: Post, limits: LimitSettings) -> DecodedFrame:
    """Raise InvalidFrameError for what is no image, UnregistrableError for what is not in its place."""
    spec = post.inspector.manifest.architecture.input
    image = decode_image(record.value or b"", limits, spec.source_size, spec.channels)
    prepared = post.inspector.prepare(image)
    return DecodedFrame(record.position, admitted, post, prepared.pixels, prepared.placement, record.newer)
