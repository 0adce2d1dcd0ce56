"""Redis in trouble under a running line: inspection goes on, and what people say meanwhile is learnt afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from deploy.local.programs import Program
from deploy.local.servers import HOST, ValkeyServer
from tests.faults.line import MakeLine, Message, good_png
from tests.faults.operated import Operated, moment, said, sayings
from tests.faults.slow_link import SlowLink

SLOW_S = 0.1

MakeOperated = Callable[..., Operated]


@pytest.fixture
def operated(make_line: MakeLine, sqlite_url: str, tmp_path: Path) -> MakeOperated:
    """Make a line whose programs give Redis up soon, and all of whose frames may be clicked."""

    def make(port: int, timeout_s: float) -> Operated:
        line = make_line(
            sqlite_url,
            kind=Operated,
            redis={"url": f"redis://{HOST}:{port}/0", "timeout_s": timeout_s},
            images={"url": str(tmp_path / "images"), "keep": "all"},
        )
        assert isinstance(line, Operated)
        return line

    return make


def outcomes(line: Operated, *clicks: str) -> set[str]:
    return {line.review(click).outcome for click in clicks}


@contextmanager
def suspended(program: Program) -> Iterator[None]:
    """Within, the program is there and does nothing."""
    assert program.pid is not None
    os.kill(program.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(program.pid, signal.SIGCONT)


def frames_per_second(line: Operated, frames: int = 40) -> float:
    """Send frames all at once; return how fast they are inspected."""
    messages = [Message.of(good_png(number)) for number in range(frames)]
    started = time.monotonic()
    line.send(messages)
    line.inspect_more(frames)
    return frames / (time.monotonic() - started)


def test_while_redis_is_stopped_inspection_goes_on_and_clicks_wait(
    operated: MakeOperated, embedded_valkey: ValkeyServer
) -> None:
    line = operated(embedded_valkey.port, timeout_s=0.5)
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner):
        taught = line.teach()
        embedded_valkey.stop()
        line.wait(lambda: said(worker, f"Redis unreachable; inspecting with bank version {taught}"))
        stopped = datetime.now(UTC)
        clicks = [line.click() for _ in range(3)]
        line.wait(lambda: said(learner, "Learning pauses: a server is away; reviews are kept and wait"))
        line.inspect_more()
        assert outcomes(line, *clicks) == {"pending"}
        assert set(line.versions_between(stopped, datetime.now(UTC))) == {taught}
        embedded_valkey.start()
        assert line.learnt(*clicks) == taught + len(clicks)
        line.follow(taught + len(clicks))
    assert said(worker, "Redis is back; following the banks again")
    assert said(learner, "Learning again; reviews given meanwhile come first")


def test_a_redis_that_comes_back_empty_gets_the_same_bank_from_the_database(
    operated: MakeOperated, embedded_valkey: ValkeyServer
) -> None:
    line = operated(embedded_valkey.port, timeout_s=0.5)
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner):
        clicks = [line.click() for _ in range(3)]
        taught = line.learnt(*clicks)
        line.follow(taught)
        before = line.bank()
        assert before[0] == taught
        with suspended(learner):  # who would have it back in no time
            embedded_valkey.stop()
            shutil.rmtree(embedded_valkey.directory)
            embedded_valkey.start()
            emptied = datetime.now(UTC)
            line.wait(lambda: said(worker, f"Redis has lost the bank; inspecting with version {taught} until"))
            line.inspect_more()
            assert set(line.versions_between(emptied, datetime.now(UTC))) == {taught}
        line.follow(taught + 1)
        assert said(learner, "Redis had lost edits of the bank; restored it as version")
        version, slots = line.bank()
        assert version > taught
        assert slots == before[1]
        assert line.teach() == version + 1
    assert line.count("bank_entries WHERE version_removed IS NULL") == len(clicks) + 1


def test_a_full_redis_is_told_with_its_remedy_and_loses_no_click(
    operated: MakeOperated, embedded_valkey: ValkeyServer
) -> None:
    line = operated(embedded_valkey.port, timeout_s=0.5)
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner), redis.Redis.from_url(embedded_valkey.url) as server:
        taught = line.teach()
        slots = line.bank()[1]
        server.config_set("maxmemory", 1)
        clicks = [line.click() for _ in range(2)]
        line.wait(lambda: said(learner, "Learning pauses"))
        [pause] = sayings(learner, "Learning pauses")
        assert "Raise its maxmemory" in pause["error"]
        line.inspect_more()
        assert outcomes(line, *clicks) == {"pending"}
        assert line.bank() == (taught, slots)
        # The worker only reads, which a full Redis allows.
        assert (line.version(), said(worker, "Redis unreachable")) == (taught, False)
        server.config_set("maxmemory", "1gb")
        assert line.learnt(*clicks) == taught + len(clicks)
        line.follow(taught + len(clicks))
        assert slots.items() < line.bank()[1].items()


def test_a_redis_that_hangs_is_given_up_and_found_again(operated: MakeOperated, embedded_valkey: ValkeyServer) -> None:
    line = operated(embedded_valkey.port, timeout_s=0.2)
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner), redis.Redis.from_url(embedded_valkey.url) as server:
        taught = line.teach()
        start, hang = datetime.now(UTC), timedelta(seconds=4)
        server.execute_command("CLIENT", "PAUSE", int(hang.total_seconds() * 1000), "ALL")
        click = line.click()
        line.wait(lambda: said(worker, f"Redis unreachable; inspecting with bank version {taught}"))
        assert line.learnt(click) == taught + 1
        line.follow(taught + 1)
        assert moment(line.review(click).applied_at) > start + hang
        versions = line.versions_between(start, start + hang)
    assert set(versions) == {taught}
    # 80 are sent in that time.
    assert len(versions) > 20
    print(f"{len(versions)} frames inspected while Redis hung for {hang}")  # noqa: T201 - shown by pytest -rP


def test_a_slow_redis_is_followed_slowly_and_one_that_is_too_slow_given_up_until_it_is_faster(
    operated: MakeOperated, embedded_valkey: ValkeyServer
) -> None:
    with SlowLink(embedded_valkey.port, delay_s=SLOW_S) as link:
        line = operated(link.port, timeout_s=3 * SLOW_S)
        worker, learner = line.program("worker", "run"), line.program("learner", "learn")
        with line.operating(worker, learner):
            taught = line.teach()
            slow = frames_per_second(line)
            assert not said(worker, "Redis unreachable")
            link.delay_s = 10 * SLOW_S
            line.wait(lambda: said(worker, f"Redis unreachable; inspecting with bank version {taught}"))
            slowed = datetime.now(UTC)
            click = line.click()
            line.inspect_more()
            assert outcomes(line, click) == {"pending"}
            assert set(line.versions_between(slowed, datetime.now(UTC))) == {taught}
            link.delay_s = 0.0
            assert line.learnt(click) == taught + 1
            line.follow(taught + 1)
            fast = frames_per_second(line)
    print(f"{slow:.0f} frames/s with answers after {SLOW_S} s, {fast:.0f} without delay")  # noqa: T201 - shown by pytest -rP
