"""Time, passed in: the system's, and one that tests turn by hand."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds that never go back, from an arbitrary start."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for ``seconds``."""
        time.sleep(seconds)


class FakeClock:
    """A clock that stands still until someone moves it; ``sleep`` moves it and returns at once.

    Args:
        start: what ``now`` says at first.
    """

    def __init__(self, start: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> None:
        self._start = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        """Return the start plus what has been moved since."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Return the seconds moved since the start."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Move on by ``seconds``."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``; never back."""
        self._elapsed += max(0.0, seconds)
