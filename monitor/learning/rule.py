"""The rule: frames that are beyond doubt confirmed without a person, a few a day, so that a bank follows a slow drift.

Off by default. A frame is confirmed by the rule if it scored under a strict threshold, nobody reviewed it, its camera
has been without drift for a while, it is in the sample, and the camera's share of the day is not used up. What it
teaches goes the way of every review: past the gate, into the history as the rule's word, and it can be taken back.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from monitor.ports import Clock
from monitor.settings import RuleSettings

LOOK_EVERY_S: Final = 2.0
AT_ONCE: Final = 200

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class CalmFrame:
    """A frame that was found normal, far under its threshold. ``number`` grows with the order of storing."""

    number: int
    frame_id: str
    camera: str
    score: float
    threshold: float


class RuleStore(Protocol):
    """The database, as the rule sees it."""

    def newest(self) -> int:
        """Return the number of the newest inspection, 0 without any."""

    def calm_frames(self, model_id: str, after: int, share: float, limit: int) -> Sequence[CalmFrame]:
        """Return frames stored after ``after`` with kept images, unreviewed, under ``share`` of their threshold."""

    def confirmed_since(self, camera: str, since: datetime) -> int:
        """Return how many of a camera's frames the rule has confirmed since then."""

    def confirm(self, frame_id: str, note: str) -> bool:
        """Store the rule's word on a frame; False if there is a word on it already."""


class Rule:
    """Gives the rule's word. Looks at what is stored from now on: what was before it was turned on stays unsaid.

    Args:
        store: the database.
        model_id: whose frames.
        settings: the rule's.
        quiet_since: since when a camera is known to be without drift; None: it drifts, or nobody knows.
        clock: time.
    """

    def __init__(
        self,
        store: RuleStore,
        model_id: str,
        settings: RuleSettings,
        quiet_since: Callable[[str], datetime | None],
        clock: Clock,
    ) -> None:
        self._store = store
        self._model_id = model_id
        self._settings = settings
        self._quiet_since = quiet_since
        self._clock = clock
        self._after: int | None = None
        self._next_look = clock.monotonic()

    def __call__(self) -> None:
        """Confirm what the rule says, at most every ``LOOK_EVERY_S`` seconds.

        Raises:
            StoreUnavailableError: the database is away; the frames are looked at later.
        """
        if not self._settings.enabled or self._clock.monotonic() < self._next_look:
            return
        self._next_look = self._clock.monotonic() + LOOK_EVERY_S
        if self._after is None:
            self._after = self._store.newest()
        for frame in self._store.calm_frames(self._model_id, self._after, self._settings.score_share, AT_ONCE):
            self._after = frame.number
            if self._is_drawn(frame.frame_id) and self._is_quiet(frame.camera) and not self._is_used_up(frame.camera):
                note = f"score {frame.score:.2f}, under {self._settings.score_share:g} of {frame.threshold:.2f}"
                if self._store.confirm(frame.frame_id, note):
                    log.info("Confirmed by rule: %s", note, frame=frame.frame_id, camera=frame.camera)

    def _is_drawn(self, frame_id: str) -> bool:
        """Return whether a frame is in the sample; its id alone decides, so that every learner decides alike."""
        digest = hashlib.sha256(b"rule " + frame_id.encode()).digest()
        return int.from_bytes(digest[:8]) < self._settings.sample * 2**64

    def _is_quiet(self, camera: str) -> bool:
        since = self._quiet_since(camera)
        return since is not None and self._clock.now() - since >= timedelta(minutes=self._settings.quiet_minutes)

    def _is_used_up(self, camera: str) -> bool:
        day = self._clock.now() - timedelta(days=1)
        return self._store.confirmed_since(camera, day) >= self._settings.daily_cap
