"""Fairness between partitions, and so between cameras: the backlog of one does not keep the others waiting."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

P = TypeVar("P")
T = TypeVar("T")


class Turns(Generic[P, T]):
    """What was fetched of each partition, handed out in turns: whoever had none for the longest time comes first.

    A turn is as much as is asked for at once, so that a batch is mostly of one camera, which is inspected fastest.
    Pure: it holds what it is given, and whoever fetches sees to it that this stays little.
    """

    def __init__(self) -> None:
        self._queues: defaultdict[P, deque[T]] = defaultdict(deque)
        self._last_turn: dict[P, int] = {}
        self._turns = itertools.count(1)

    def add(self, partition: P, items: Iterable[T]) -> None:
        """Append what was fetched of a partition."""
        self._queues[partition].extend(items)

    def waiting(self, partition: P) -> int:
        """Return how many items of a partition have not been handed out."""
        return len(self._queues[partition])

    def take(self, most: int) -> list[T]:
        """Remove and return at most ``most`` items, those of a partition in order."""
        taken: list[T] = []
        for partition in sorted(self._queues, key=lambda each: self._last_turn.get(each, 0)):
            queue = self._queues[partition]
            if queue and len(taken) < most:
                taken += (queue.popleft() for _ in range(min(most - len(taken), len(queue))))
                self._last_turn[partition] = next(self._turns)
        return taken

    def keep(self, partitions: Collection[P]) -> None:
        """Drop what was fetched of other partitions."""
        for gone in self._queues.keys() - set(partitions):
            del self._queues[gone]
            self._last_turn.pop(gone, None)
