"""A worker that stood still past its session, and was taken for dead, and wakes with a batch in hand."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from deploy.local.programs import Program
from tests.faults.line import Line, MakeLine, Message, good_png, wait_until
from tests.faults.operated import said

FRAMES = 40
# In the middle of a transaction, whose locks PostgreSQL takes from it. SQLite's stay with it until it wakes.
POINTS = [
    ("sqlite", "batch inspected"),
    ("postgresql", "batch in transaction"),
]


def contents(line: Line) -> list[list[Any]]:
    """Return all rows that a worker writes."""
    tables = ("inspections", "dead_letters", "outbox", "regions")
    return [line.query(f"SELECT * FROM {table} ORDER BY id") for table in tables]


def frames(count: int) -> list[Message]:
    cameras = ("north", "east", "south", "west")
    images = [good_png(number) for number in range(count)]
    broken = count // 2
    return [
        Message.of(b"broken" if number == broken else image, cameras[number % len(cameras)])
        for number, image in enumerate(images)
    ]


@pytest.mark.parametrize(("database_url", "point"), POINTS, indirect=["database_url"])
def test_the_stale_batch_of_a_worker_that_was_taken_for_dead_changes_nothing(
    make_line: MakeLine, database_url: str, point: str
) -> None:
    line = make_line(database_url, batch={"max_frames": 8})
    line.send(frames(FRAMES))
    arguments = [point, "2", "SIGSTOP", "--config", str(line.config), "run"]
    zombie = Program("zombie", arguments, line.directory, "deploy.chaos.doomed")
    with ExitStack() as running:
        running.enter_context(zombie)
        wait_until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_STOPPED, programs=[zombie])
        try:
            successor = running.enter_context(line.program("successor", "run"))
            wait_until(lambda: line.settled() == FRAMES, programs=[successor])
            wait_until(lambda: line.count("outbox WHERE published_at IS NULL") == 0)
            before = contents(line)
        finally:
            os.kill(zombie.pid or 0, signal.SIGCONT)
        wait_until(lambda: said(zombie, "partitions went to another worker"), programs=[zombie, successor])
        assert contents(line) == before
        assert line.settled() == FRAMES

        line.send(frames(FRAMES))
        wait_until(lambda: line.settled() == 2 * FRAMES, programs=[zombie, successor])
    assert contents(line)[0][: len(before[0])] == before[0]
    assert (zombie.exit_code, successor.exit_code) == (0, 0)
