"""The person of the storm: confirms what was flagged, takes some of it back, and repeats what the servers refused."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from time import monotonic
from typing import Final

from deploy.chaos.feed import Kind
from monitor.adapters.review_desk import ReviewDesk
from monitor.errors import StoreUnavailableError
from schemas.errors import OperatorError
from schemas.messages import Verdict

PERIOD_S: Final = 0.5
GOLDEN: Final = 6
RETRACT_EVERY: Final = 4
NAME: Final = "Ada"


class Reviewer:
    """Looks at the newest flagged frames, one at a time.

    Args:
        desk: where she sees and says it.
        kinds: what each frame really shows.
    """

    def __init__(self, desk: ReviewDesk, kinds: Mapping[str, Kind]) -> None:
        self._desk = desk
        self._kinds = kinds
        self._golden = 0
        self._confirmed: list[str] = []
        self._due = 0.0

    def tick(self) -> None:
        """Say one thing, if it is time."""
        if monotonic() < self._due:
            return
        self._due = monotonic() + PERIOD_S
        # The database may be away; a frame whose word was taken back may not be there to take back.
        with contextlib.suppress(StoreUnavailableError, OperatorError):
            self._say()

    def _say(self) -> None:
        if len(self._confirmed) >= RETRACT_EVERY:
            self._desk.retract(self._confirmed[0], NAME, "once more")
            self._confirmed.clear()
            return
        for frame in self._desk.list_flagged(limit=20):
            kind = self._kinds[frame.frame_id]
            if frame.verdict is not Verdict.DEFECT or (kind is Kind.DEFECT and self._golden == GOLDEN):
                continue
            verdict = Verdict.DEFECT if kind is Kind.DEFECT else Verdict.NORMAL
            self._desk.confirm(frame.frame_id, verdict, NAME)
            if verdict is Verdict.DEFECT:
                self._golden += 1
            else:
                self._confirmed.append(frame.frame_id)
            return
