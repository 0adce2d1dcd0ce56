"""What a record becomes on arrival: a frame ready for the device, a dead letter, or a frame we failed on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.core.inspector import Inspector
from monitor.core.view import Placement
from monitor.decoding import decode_frame
from monitor.metrics import STAGE_SECONDS
from monitor.ports import DeadLetter, LogPosition, RawRecord
from monitor.settings import LimitSettings
from schemas.errors import InvalidFrameError, UnregistrableError
from schemas.messages import FrameEvent

log = structlog.get_logger()

# Why a frame was stored as uninspected. Stable: dashboards and the review page select on them.
PAST_DEADLINE: Final = "deadline"
INSPECTION_FAILED: Final = "inspection_failed"
UNREGISTERED: Final = "unregistered"


@dataclass(frozen=True, slots=True)
class DecodedFrame:
    """A frame ready for the device: ``pixels`` (C, H, W) in [0, 1], and where they lie in the camera's frame."""

    position: LogPosition
    event: FrameEvent
    pixels: NDArray[np.float32]
    placement: Placement

    def is_past_deadline(self, now: datetime) -> bool:
        """Return whether the line has stopped waiting for this frame's verdict."""
        if self.event.deadline_ms is None:
            return False
        return now - self.event.captured_at > timedelta(milliseconds=self.event.deadline_ms)


@dataclass(frozen=True, slots=True)
class FailedFrame:
    """A frame without pixels for the device: to be stored as uninspected.

    Its image may be fine: its decoding met a fault of ours, or its part does not lie where the view expects it.
    """

    position: LogPosition
    event: FrameEvent
    reason: str = INSPECTION_FAILED


def take_in(record: RawRecord, inspector: Inspector, limits: LimitSettings) -> DecodedFrame | FailedFrame | DeadLetter:
    """Decode a record and prepare it for the network. Never raises; runs in the decode threads.

    The image is let go here: what waits for its batch is of the network's size, whatever the camera's.
    """
    spec = inspector.manifest.architecture.input
    try:
        with STAGE_SECONDS.labels(stage="decode").time():
            event, image = decode_frame(record, limits, spec.source_size, spec.channels)
            prepared = inspector.prepare(image)
            return DecodedFrame(record.position, event, prepared.pixels, prepared.placement)
    except InvalidFrameError as error:
        return DeadLetter(record, error.reason, error.detail)
    except UnregistrableError as error:
        log.warning("A part does not lie where it should; storing as uninspected", frame=event.frame_id,
                    camera=event.camera, problem=str(error))  # fmt: skip
        return FailedFrame(record.position, event, UNREGISTERED)
    except Exception:
        log.exception("Decoding failed by a fault of ours; the frame will be stored as uninspected", at=record.position)
        return _without_image(record)


def _without_image(record: RawRecord) -> FailedFrame | DeadLetter:
    try:
        return FailedFrame(record.position, FrameEvent.from_record(record.key, record.headers))
    except InvalidFrameError as error:
        return DeadLetter(record, error.reason, error.detail)
