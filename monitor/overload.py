"""When more frames come than can be inspected: which of them are let go, uninspected, and never silently."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import Final

from monitor.ports import Clock
from monitor.settings import CameraSettings
from schemas.messages import FrameEvent

# Why a frame was stored as uninspected. Stable: dashboards and the review page select on them.
PAST_DEADLINE: Final = "deadline"
SKIPPED: Final = "skipped"

REMEMBERED: Final = 64


class Pace:
    """How long something takes at most, going by the last times.

    Before anything was observed, no time is expected: the first frames are tried. The first time of all is not counted,
    for then everything is slow.
    """

    def __init__(self) -> None:
        self._last: deque[float] = deque(maxlen=REMEMBERED)
        self._warm = False

    def observe(self, seconds: float) -> None:
        """Learn how long it took."""
        if self._warm:
            self._last.append(seconds)
        self._warm = True

    def forget(self) -> None:
        """Expect less: frames were let go and none was tried. A single outage is thus forgotten at once."""
        if self._last:
            self._last.remove(max(self._last))

    @property
    def slowest(self) -> timedelta:
        """How long it took at most."""
        return timedelta(seconds=max(self._last, default=0.0))


class Overload:
    """Says which frames are not to be inspected: by the policy of their camera (``cameras.overload``).

    Args:
        cameras: the policies.
        clock: what capture times are held against.
    """

    def __init__(self, cameras: CameraSettings, clock: Clock) -> None:
        self._cameras = cameras
        self._clock = clock

    def why_not(self, event: FrameEvent, newer: int, pace: Pace) -> str | None:
        """Return why a frame is not to be inspected, if so.

        Args:
            event: of the frame.
            newer: how many frames waited behind it when it came. While none does there is no overload, and a frame is
                tried until its deadline has passed.
            pace: how long it will take until it has a verdict.
        """
        policy = self._cameras.overload_at(event.camera)
        if policy == "skip-oldest" and newer >= self._cameras.most_waiting:
            return SKIPPED
        if policy == "deadline" and event.deadline_ms is not None:
            age = self._clock.now() - event.captured_at
            if age + (pace.slowest if newer else timedelta()) > timedelta(milliseconds=event.deadline_ms):
                return PAST_DEADLINE
        return None
