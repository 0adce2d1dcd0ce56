"""An operator's click, end to end: the bank learns it, the worker follows, and both outlive the loss of Redis."""

from __future__ import annotations

import re
from collections.abc import Iterable

import redis

from deploy.local.servers import ValkeyServer
from deploy.simulation import Part
from tests.faults.line import LINE, STAMPED, MakeLine, Message, png
from tests.faults.operated import Operated, feedback_seconds, said


class Inspected(Operated):
    """A line whose operator looks at single parts, at the command line."""

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

    def confirm(self, frame_id: str) -> str:
        """Confirm a frame as normal at the command line; return what was said."""
        done = self.run("review", "confirm", frame_id, "normal", "--reviewer", "Ada")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def teach_frame(self, frame_id: str) -> int:
        """Confirm a frame that is new to the bank; return the bank version that holds it."""
        said = self.confirm(frame_id)
        found = re.fullmatch(rf"{frame_id}: normal, added \(bank version (\d+)\)\. .*\n", said)
        assert found, said
        return int(found[1])


def test_a_click_is_learnt_followed_and_survives_the_loss_of_redis(
    make_line: MakeLine, sqlite_url: str, embedded_valkey: ValkeyServer
) -> None:
    line = make_line(sqlite_url, kind=Inspected, redis={"url": embedded_valkey.url})
    assert isinstance(line, Inspected)
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner), redis.Redis.from_url(embedded_valkey.url) as bank:
        # A good part with a harmless stamp is flagged; later, a part with a blemish that the operator lets pass.
        first_id, first = line.find_flagged(STAMPED.good_part(index) for index in range(6))
        _, second = line.find_flagged(LINE.defective_part(index, "crack") for index in range(3))
        start = line.version()

        version = line.teach_frame(first_id)
        assert version > start
        line.follow(version)
        print(f"feedback after {feedback_seconds(line, line, first_id):.2f} s")  # noqa: T201 - shown by pytest -rP
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
