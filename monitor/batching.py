"""Gathers items into batches by number, bytes or age. Pure: no threads, no waiting, time is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from monitor.ports import Clock

T = TypeVar("T")

MAX_BATCH_BYTES = 64 * 2**20
# One batch being inspected from, one gathering behind it: enough to keep decoding busy, and a bound on memory.
BATCHES_HELD = 2


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    item: T
    size: int
    added_at: float


class Batcher(Generic[T]):
    """A queue that says when its oldest items make a batch.

    A batch is ready when it has ``max_frames`` items, or ``max_bytes``, or when its oldest item has waited for
    ``max_age``. ``room`` says how many more items may be added; keep to it, and the queue holds two batches at most.

    Args:
        max_frames: items in a batch, at least 1.
        max_age: seconds an item waits at most for others, above 0.
        clock: read when items are added and asked about.
        max_bytes: bytes in a batch; a single larger item makes a batch of its own.
    """

    def __init__(self, max_frames: int, max_age: float, clock: Clock, max_bytes: int = MAX_BATCH_BYTES) -> None:
        self._max_frames = max_frames
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._clock = clock
        self._waiting: deque[_Waiting[T]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many items may still be added, 0 to ``2 * max_frames``."""
        if self._bytes >= BATCHES_HELD * self._max_bytes:
            return 0
        return max(0, BATCHES_HELD * self._max_frames - len(self._waiting))

    def add(self, item: T, size: int = 0) -> None:
        """Append an item of ``size`` bytes."""
        self._waiting.append(_Waiting(item, size, self._clock.monotonic()))
        self._bytes += size

    def due_in(self) -> float | None:
        """Return the seconds until a batch is ready: 0 when it is, None when nothing waits."""
        if not self._waiting:
            return None
        if len(self._waiting) >= self._max_frames or self._bytes >= self._max_bytes:
            return 0.0
        age = self._clock.monotonic() - self._waiting[0].added_at
        return max(0.0, self._max_age - age)

    def ready(self) -> bool:
        """Return whether a batch should be taken now."""
        return self.due_in() == 0.0

    def take(self) -> list[T]:
        """Remove and return the oldest items, at most one batch of them, ready or not; empty when nothing waits."""
        batch: list[T] = []
        taken_bytes = 0
        while self._waiting and len(batch) < self._max_frames:
            head = self._waiting[0]
            if batch and taken_bytes + head.size > self._max_bytes:
                break
            self._waiting.popleft()
            taken_bytes += head.size
            batch.append(head.item)
        self._bytes -= taken_bytes
        return batch
