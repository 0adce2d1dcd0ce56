"""An operator's click, end to end: the bank learns it, the worker follows, and both outlive the loss of Redis."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime

import redis

from deploy.local.programs import Program
from deploy.local.servers import ValkeyServer
from deploy.simulation import Part
from tests.faults.line import LINE, STAMPED, Line, MakeLine, Message, good_png, png, wait_until

FLOW_S = 0.05


class Operated(Line):
    """A line with a worker and a learner, frames flowing, and an operator."""

    programs: tuple[Program, ...] = ()

    @contextmanager
    def flowing(self) -> Iterator[None]:
        """Within, good parts pass the camera all the time."""
        stop = threading.Event()

        def flow() -> None:
            number = 0
            while not stop.wait(FLOW_S):
                self.send([Message.of(good_png(1000 + number % 20))])
                number += 1

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def wait(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, programs=self.programs)

    def inspect(self, content: bytes) -> tuple[str, str, float]:
        """Send a part; return its frame id, its verdict and its score."""
        message = Message.of(content)
        self.send([message])
        self.wait(lambda: self.verdict(message.frame_id) is not None)
        [row] = self.query("SELECT verdict, score FROM inspections WHERE frame_id = :id", id=message.frame_id)
        return message.frame_id, row.verdict, row.score

    def find_flagged(self, parts: Iterable[Part]) -> tuple[str, bytes]:
        """Send parts; return the one that stands out most, which must have been flagged."""
        found = [(*self.inspect(content), content) for content in (png(part.image) for part in parts)]
        frame_id, verdict, _, content = max(found, key=lambda each: each[2])
        assert verdict == "defect"
        return frame_id, content

    def version(self) -> int:
        """Return the bank version that the newest frame was inspected with."""
        [row] = self.query("SELECT bank_version FROM inspections ORDER BY id DESC LIMIT 1")
        return int(row.bank_version)

    def confirm(self, frame_id: str) -> str:
        """Confirm a frame as normal at the command line; return what was said."""
        done = self.run("review", "confirm", frame_id, "normal", "--reviewer", "Ada")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def teach(self, frame_id: str) -> int:
        """Confirm a frame that is new to the bank; return the bank version that holds it."""
        said = self.confirm(frame_id)
        found = re.fullmatch(rf"{frame_id}: normal, added \(bank version (\d+)\)\. .*\n", said)
        assert found, said
        return int(found[1])

    def follow(self, version: int) -> None:
        """Wait until frames are inspected with this bank version."""
        self.wait(lambda: self.version() >= version)


def said(program: Program, event: str) -> bool:
    """Return whether a program has logged a message that begins so."""
    lines = program.log_file.read_text().splitlines()
    return any(json.loads(line)["event"].startswith(event) for line in lines)


def test_a_click_is_learnt_followed_and_survives_the_loss_of_redis(
    make_line: MakeLine, sqlite_url: str, embedded_valkey: ValkeyServer
) -> None:
    line = make_line(sqlite_url, kind=Operated, redis={"url": embedded_valkey.url})
    assert isinstance(line, Operated)
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with worker, learner, line.flowing(), redis.Redis.from_url(embedded_valkey.url) as bank:
        line.programs = worker, learner
        line.wait(lambda: said(worker, "Inspecting") and said(learner, "Learning"))

        # A good part with a harmless stamp is flagged; later, a part with a blemish that the operator lets pass.
        first_id, first = line.find_flagged(STAMPED.good_part(index) for index in range(6))
        _, second = line.find_flagged(LINE.defective_part(index, "crack") for index in range(3))
        start = line.version()

        version = line.teach(first_id)
        assert version > start
        line.follow(version)
        print(f"feedback after {feedback_seconds(line, first_id):.2f} s")  # noqa: T201 - shown by pytest -rP
        assert line.inspect(first)[1] == "normal"

        assert "added" in line.confirm(first_id)  # said again, it is the same word
        assert line.inspect(first)[1] == "normal"
        assert line.version() == version
        assert line.count("bank_entries") == 1

        bank.flushall()
        line.wait(lambda: line.version() > version)
        assert said(learner, "Redis had lost edits of the bank; restored it")
        assert line.inspect(first)[1] == "normal"
        assert not said(worker, "Redis unreachable")

        embedded_valkey.stop()
        before = line.version()
        assert line.inspect(first)[1] == "normal"
        line.wait(lambda: said(worker, f"Redis unreachable; inspecting with bank version {before}"))
        flagged, verdict, _ = line.inspect(second)
        assert (verdict, line.version()) == ("defect", before)
        assert "has not dealt with it yet" in line.confirm(flagged)

        embedded_valkey.start()
        line.wait(lambda: said(worker, "Redis is back; following the banks again"))
        line.follow(before + 1)
        assert line.inspect(second)[1] == "normal"
        assert line.inspect(first)[1] == "normal"
        assert line.count("bank_entries WHERE version_removed IS NULL") == 2
    assert [worker.exit_code, learner.exit_code] == [0, 0]
    for program in (worker, learner):
        assert b"Traceback" not in program.log_file.read_bytes()


def feedback_seconds(line: Line, frame_id: str) -> float:
    """Return the time from a review to the first frame inspected with what it taught."""
    [row] = line.query("SELECT created_at, bank_version FROM reviews WHERE frame_id = :id", id=frame_id)
    [first] = line.query("SELECT min(inspected_at) AS at FROM inspections WHERE bank_version >= :v", v=row.bank_version)
    return (datetime.fromisoformat(first.at) - datetime.fromisoformat(row.created_at)).total_seconds()
