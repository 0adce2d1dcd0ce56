"""Fairness between partitions, and so between cameras: the backlog of one does not keep the others waiting."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

P = TypeVar("P")
T = TypeVar("T")


class Turns(Generic[P, T]):
    """What was fetched of each partition, handed out in turns: whoever has had least, and wants least, comes first.

    A turn is as much as is asked for at once, so that a batch is mostly of one camera, which is inspected fastest.
    Whoever sends less than its share waits for one turn of another at most: self-clocked fair queueing (Golestani
    1994), where an account says how far each one's service has come. Pure: it holds what it is given, and whoever
    fetches sees to it that this stays little.
    """

    def __init__(self) -> None:
        self._queues: defaultdict[P, deque[T]] = defaultdict(deque)
        self._account: dict[P, int] = {}
        self._now = 0  # how far the service of those who wait has come

    def add(self, partition: P, items: Iterable[T]) -> None:
        """Append what was fetched of a partition."""
        queue = self._queues[partition]
        if not queue:  # what it did not claim while it had nothing to say is not made up for
            self._account[partition] = max(self._account.get(partition, 0), self._now)
        queue.extend(items)

    def waiting(self, partition: P) -> int:
        """Return how many items of a partition have not been handed out."""
        return len(self._queues[partition])

    def take(self, most: int) -> list[T]:
        """Remove and return at most ``most`` items, those of a partition in order."""
        taken: list[T] = []
        while len(taken) < most and any(self._queues.values()):
            partition, queue = min(
                ((each, queue) for each, queue in self._queues.items() if queue),
                key=lambda each: self._account[each[0]] + min(most, len(each[1])),
            )
            turn = [queue.popleft() for _ in range(min(most - len(taken), len(queue)))]
            self._now = max(self._now, self._account[partition])
            self._account[partition] += len(turn)
            taken += turn
        return taken

    def keep(self, partitions: Collection[P]) -> None:
        """Drop what was fetched of other partitions."""
        for gone in self._queues.keys() - set(partitions):
            del self._queues[gone]
            self._account.pop(gone, None)
