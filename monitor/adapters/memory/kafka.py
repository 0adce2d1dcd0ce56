"""The in-memory twins of the frame source and the publisher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from threading import Condition

from monitor.ports import DeadLetter, LogPosition, OutboxMessage, RawRecord


class MemoryFrameSource:
    """The ``FrameSource`` port over a list of records.

    Args:
        records: what the log holds at the beginning.
    """

    def __init__(self, records: Iterable[RawRecord] = ()) -> None:
        self._records = list(records)
        self._next = 0
        self._committed: dict[tuple[str, int], int] = {}
        self._paused = False
        self._callbacks: list[Callable[[], None]] = []
        self._arrived = Condition()

    def append(self, record: RawRecord) -> None:
        """Add a record to the log's end, from any thread."""
        with self._arrived:
            self._records.append(record)
            self._arrived.notify()

    def poll(self, timeout: float, max_records: int) -> Sequence[RawRecord]:
        """Return at most ``max_records`` new messages, waiting up to ``timeout`` seconds for the first."""
        with self._arrived:
            self._arrived.wait_for(lambda: not self._paused and self._next < len(self._records), timeout)
            if self._paused:
                return ()
            polled = self._records[self._next : self._next + max_records]
            self._next += len(polled)
            return tuple(polled)

    def commit(self, positions: Iterable[LogPosition]) -> None:
        """Mark everything up to and including ``positions`` as done, partition by partition."""
        for position in positions:
            partition = (position.topic_id, position.partition)
            self._committed[partition] = max(self._committed.get(partition, 0), position.offset + 1)

    def committed(self, topic_id: str, partition: int) -> int:
        """Return the offset at which another worker would go on."""
        return self._committed.get((topic_id, partition), 0)

    def restart(self) -> None:
        """Go on as after a crash: with what was not committed, in the log's order."""
        with self._arrived:
            done = [record for record in self._records if self._is_committed(record.position)]
            self._records = [record for record in self._records if not self._is_committed(record.position)]
            self._records[:0] = done
            self._next = len(done)
            self._paused = False

    def revoke(self) -> None:
        """Take the partitions away, as the group does when another worker joins: call back, then restart."""
        for callback in self._callbacks:
            callback()
        self.restart()

    def pause(self) -> None:
        """Fetch nothing until ``resume``."""
        self._paused = True

    def resume(self) -> None:
        """Fetch again."""
        with self._arrived:
            self._paused = False
            self._arrived.notify()

    def on_revoked(self, callback: Callable[[], None]) -> None:
        """Call back in ``revoke``, while offsets may still be committed."""
        self._callbacks.append(callback)

    def lag(self) -> int | None:
        """Return how many messages wait."""
        return len(self._records) - self._next

    def ready(self) -> bool:
        """Return that frames can arrive."""
        return True

    def close(self) -> None:
        """Leave the group. Commits nothing."""

    def _is_committed(self, position: LogPosition) -> bool:
        return position.offset < self.committed(position.topic_id, position.partition)


class MemoryPublisher:
    """The ``Publisher`` port: what was sent lies in ``sent_letters`` and ``sent_events``."""

    def __init__(self) -> None:
        self.sent_letters: list[DeadLetter] = []
        self.sent_events: list[OutboxMessage] = []

    def dead_letters(self, letters: Sequence[DeadLetter]) -> Sequence[LogPosition]:
        """Keep the letters; each one's offset is its index in ``sent_letters``."""
        first = len(self.sent_letters)
        self.sent_letters.extend(letters)
        return [LogPosition("frames.dead", "", 0, offset) for offset in range(first, len(self.sent_letters))]

    def events(self, messages: Sequence[OutboxMessage]) -> None:
        """Keep the messages."""
        self.sent_events.extend(messages)

    def close(self) -> None:
        """Do nothing."""
