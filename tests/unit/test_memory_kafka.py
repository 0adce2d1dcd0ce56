"""The in-memory frame source keeps the promises of a Kafka consumer."""

from __future__ import annotations

import threading
import time

from monitor.adapters.memory import MemoryFrameSource, MemoryPublisher
from monitor.ports import LogPosition, OutboxMessage, RawRecord


def record(offset: int, partition: int = 0) -> RawRecord:
    return RawRecord(LogPosition("frames", "topic-1", partition, offset), b"cam", (), b"image")


RECORDS = [record(0), record(0, partition=1), record(1), record(2)]


def test_records_are_polled_in_order_and_once() -> None:
    source = MemoryFrameSource(RECORDS)
    assert source.poll(0, 3) == tuple(RECORDS[:3])
    assert source.lag() == 1
    assert source.poll(0, 3) == tuple(RECORDS[3:])
    assert source.poll(0, 3) == ()


def test_what_was_not_committed_comes_again_after_a_crash() -> None:
    source = MemoryFrameSource(RECORDS)
    source.poll(0, 4)
    source.commit([RECORDS[2].position])
    assert (source.committed("topic-1", 0), source.committed("topic-1", 1)) == (2, 0)
    source.restart()
    assert source.poll(0, 10) == (RECORDS[1], RECORDS[3])


def test_offsets_may_be_committed_while_partitions_are_taken_away() -> None:
    source = MemoryFrameSource(RECORDS)
    polled = source.poll(0, 4)
    source.on_revoked(lambda: source.commit(r.position for r in polled))
    source.revoke()
    assert source.poll(0, 10) == ()


def test_a_paused_source_fetches_nothing_until_it_is_resumed() -> None:
    source = MemoryFrameSource(RECORDS)
    source.pause()
    assert source.poll(0.01, 10) == ()
    source.resume()
    assert len(source.poll(0, 10)) == 4


def test_a_poll_returns_as_soon_as_a_record_arrives() -> None:
    source = MemoryFrameSource()
    threading.Timer(0.05, source.append, [record(0)]).start()
    started = time.monotonic()
    assert source.poll(10, 1) == (record(0),)
    assert time.monotonic() - started < 5


def test_a_publisher_keeps_what_it_sent() -> None:
    message = OutboxMessage(1, "inspections", "cam", (), b"{}")
    publisher = MemoryPublisher()
    publisher.events([message])
    assert publisher.sent_events == [message]
