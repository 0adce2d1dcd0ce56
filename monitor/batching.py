"""Gathers items into batches by number, bytes or age, as large as they are quick. Pure: time is passed in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import Final, Generic, TypeVar

from monitor.ports import Clock

T = TypeVar("T")

MAX_BATCH_BYTES = 64 * 2**20
# One batch being inspected from, one gathering behind it: enough to keep decoding busy, and a bound on memory.
BATCHES_HELD = 2
# Of those that cost next to nothing; more would make one transaction long.
MAX_LIGHT = 256
# By so many batches is judged how long an item takes: a single slow one changes nothing.
REMEMBERED: Final = 5


class BatchSize:
    """How many items make a batch: as many as are done in the time that a batch may take.

    What waits for its turn waits for whole batches, so their length in seconds decides how late results are. Where a
    batch costs more than its items do, larger ones take less for each item, and the size settles where both agree.

    Args:
        most: items in a batch at most, at least 1.
        seconds: what a batch may take, above 0.

    Attributes:
        items: how many are to make the next batch, 1 to ``most``; ``most`` while nothing was observed.
    """

    def __init__(self, most: int, seconds: float) -> None:
        self.items = most
        self._most = most
        self._seconds = seconds
        self._each: deque[float] = deque(maxlen=REMEMBERED)

    def observe(self, items: int, seconds: float) -> None:
        """Learn how long a batch of so many items took; at least 1."""
        self._each.append(seconds / items)
        each = median(self._each)
        self.items = self._most if each * self._most <= self._seconds else max(1, int(self._seconds / each))


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    item: T
    size: int
    light: bool
    added_at: float


class Batcher(Generic[T]):
    """A queue that says when its oldest items make a batch.

    A batch is ready when it has ``size.items``, or ``max_bytes``, or when its oldest item has waited for ``max_age``.
    ``room`` says how many more items may be added; keep to it, and the queue holds two batches at most.
    Items that are ``light`` cost next to nothing and do not count: `MAX_LIGHT` of them make a batch as well.

    Args:
        size: how many items make a batch.
        max_age: seconds an item waits at most for others, above 0.
        clock: read when items are added and asked about.
        max_bytes: bytes in a batch; a single larger item makes a batch of its own.
    """

    def __init__(self, size: BatchSize, max_age: float, clock: Clock, max_bytes: int = MAX_BATCH_BYTES) -> None:
        self._size = size
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._clock = clock
        self._waiting: deque[_Waiting[T]] = deque()
        self._bytes = 0
        self._light = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def room(self) -> int:
        """How many items may still be added, at most two batches."""
        if self._bytes >= BATCHES_HELD * self._max_bytes or self._light >= BATCHES_HELD * MAX_LIGHT:
            return 0
        return max(0, BATCHES_HELD * self._size.items - self._heavy)

    def add(self, item: T, size: int = 0, *, light: bool = False) -> None:
        """Append an item of ``size`` bytes."""
        self._waiting.append(_Waiting(item, size, light, self._clock.monotonic()))
        self._bytes += size
        self._light += light

    def due_in(self) -> float | None:
        """Return the seconds until a batch is ready: 0 when it is, None when nothing waits."""
        if not self._waiting:
            return None
        if self._heavy >= self._size.items or self._light >= MAX_LIGHT or self._bytes >= self._max_bytes:
            return 0.0
        age = self._clock.monotonic() - self._waiting[0].added_at
        return max(0.0, self._max_age - age)

    def ready(self) -> bool:
        """Return whether a batch should be taken now."""
        return self.due_in() == 0.0

    def take(self) -> list[T]:
        """Remove and return the oldest items, at most one batch of them, ready or not; empty when nothing waits."""
        batch: list[T] = []
        most = self._size.items
        taken_bytes = light = 0
        while self._waiting:
            head = self._waiting[0]
            full = light == MAX_LIGHT if head.light else len(batch) - light == most
            if full or (batch and taken_bytes + head.size > self._max_bytes):
                break
            self._waiting.popleft()
            taken_bytes += head.size
            light += head.light
            batch.append(head.item)
        self._bytes -= taken_bytes
        self._light -= light
        return batch

    @property
    def _heavy(self) -> int:
        return len(self._waiting) - self._light
