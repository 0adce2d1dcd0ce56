"""A line in operation: a worker, a learner, frames flowing, and an operator who clicks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from deploy.local.programs import Program
from monitor.adapters.database import connect
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.review_desk import ReviewDesk
from monitor.ports import BankKey
from schemas.messages import Verdict
from tests.faults.line import LINE, Line, Message, good_png, png, wait_until
from tests.faults.prefork import Prefork

FLOW_S = 0.05
CAMERA = "press-1"


class Operated(Line):
    """A line with programs that are to go on, frames flowing, and an operator. It knows every frame it was sent."""

    programs: tuple[Program, ...] = ()
    clicks = 0

    def __init__(self, directory: Path, sections: dict[str, dict[str, Any]]) -> None:
        super().__init__(directory, sections)
        self.sent: list[str] = []

    def send(self, messages: Iterable[Message]) -> int:
        """Send messages and remember them."""
        messages = list(messages)
        self.sent.extend(message.frame_id for message in messages)
        return super().send(messages)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds; fail at once if one of the programs has ended."""
        wait_until(condition, programs=self.programs)

    @contextmanager
    def flowing(self, cameras: Sequence[str] = (CAMERA,)) -> Iterator[None]:
        """Within, good parts pass the cameras all the time; no two of a camera look the same."""
        stop = threading.Event()

        def flow() -> None:
            number = 0
            while not stop.wait(FLOW_S):
                self.send([Message.of(good_png(1000 + number), camera) for camera in cameras])
                number += 1

        thread = threading.Thread(target=flow)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @contextmanager
    def operating(self, *programs: Program, cameras: Sequence[str] = (CAMERA,)) -> Iterator[None]:
        """Within, programs run and frames flow. In the end, every frame was inspected, once, and nothing crashed."""
        with ExitStack() as stack:
            self.programs = programs
            for program in programs:
                stack.enter_context(program)
            self.wait(lambda: all(said(program, "Inspecting") or said(program, "Learning") for program in programs))
            with self.flowing(cameras):
                yield
            self.wait(lambda: self.settled() >= len(self.sent))
        # Those that a test killed it took from the list.
        assert [program.exit_code for program in self.programs] == [0] * len(self.programs)
        assert all(b"Traceback" not in program.log_file.read_bytes() for program in programs)
        self.check_accounts()

    def check_accounts(self) -> None:
        """Assert that what was sent is what is stored, with a verdict."""
        stored = self.query("SELECT frame_id, verdict FROM inspections")
        assert sorted(row.frame_id for row in stored) == sorted(self.sent)
        assert {row.verdict for row in stored} <= {"normal", "defect"}
        assert self.count("dead_letters") == 0

    def version(self, camera: str = CAMERA) -> int:
        """Return the bank version that the camera's newest frame was inspected with; -1 before there is one."""
        newest = "SELECT bank_version FROM inspections WHERE camera = :camera ORDER BY id DESC LIMIT 1"
        rows = self.query(newest, camera=camera)
        return int(rows[0].bank_version) if rows else -1

    def follow(self, version: int, camera: str = CAMERA) -> None:
        """Wait until the camera's frames are inspected with this bank version or a newer one."""
        self.wait(lambda: self.version(camera) >= version)

    def inspect_more(self, frames: int = 20) -> None:
        """Wait until so many more frames are inspected."""
        wanted = self.count("inspections") + frames
        self.wait(lambda: self.count("inspections") >= wanted)

    def versions_between(self, start: datetime, end: datetime, camera: str = CAMERA) -> list[int]:
        """Return the bank versions of the camera's frames inspected in this time."""
        inspected = "SELECT inspected_at, bank_version FROM inspections WHERE camera = :camera ORDER BY id"
        rows = self.query(inspected, camera=camera)
        return [int(row.bank_version) for row in rows if start < moment(row.inspected_at) < end]

    def click(self, camera: str = CAMERA) -> str:
        """Send a part that is like no other and confirm it as normal, as the review command does; return its id."""
        self.clicks += 1
        message = Message.of(odd_png(self.clicks), camera)
        self.send([message])
        self.wait(lambda: self.verdict(message.frame_id) is not None)
        self._desk.confirm(message.frame_id, Verdict.NORMAL, "Ada")
        return message.frame_id

    def review(self, frame_id: str) -> Any:  # noqa: ANN401 - a row
        """Return what became of a click."""
        [row] = self.query("SELECT * FROM reviews WHERE frame_id = :id", id=frame_id)
        return row

    def learnt(self, *frame_ids: str) -> int:
        """Wait until the clicks are learnt; return the bank version that holds them all."""
        self.wait(lambda: all(self.review(frame_id).outcome != "pending" for frame_id in frame_ids))
        rows = [self.review(frame_id) for frame_id in frame_ids]
        assert {row.outcome for row in rows} == {"added"}
        return max(int(row.bank_version) for row in rows)

    def teach(self, camera: str = CAMERA) -> int:
        """Click once, and wait until frames are inspected with the bank version that holds it."""
        version = self.learnt(self.click(camera))
        self.follow(version, camera)
        return version

    def bank(self, camera: str = CAMERA) -> tuple[int, dict[int, bytes]]:
        """Return the bank's version, and the bytes in each of its slots."""
        store = RedisBankStore(self.settings.redis.model_copy(update={"timeout_s": 5.0}))
        try:
            [(model_id,)] = self.query("SELECT DISTINCT model_id FROM inspections")
            changes = store.changes(BankKey(camera, model_id), None)
        finally:
            store.close()
        return changes.version, {c.slot: c.features.tobytes() for c in changes.slots if c.features is not None}

    @cached_property
    def _desk(self) -> ReviewDesk:
        engine = connect(self.settings.database)
        self._closing.callback(engine.dispose)
        return ReviewDesk(engine)


class Commanded(Operated):
    """A line whose operator uses the commands, in forks: tests of it use the fixture ``forks``."""

    forks: Prefork

    def run(self, *arguments: str) -> CompletedProcess[str]:
        """Run a command of paedid-monitor to its end."""
        return self.forks.run("monitor", "--config", str(self.config), *arguments)


def odd_png(number: int) -> bytes:
    """Return a good part with a black square where no other number has it."""
    image = LINE.good_part(5000 + number).image.copy()
    row, column = 8 * (number // 7 % 7), 8 * (number % 7)
    image[row : row + 9, column : column + 9] = 0
    return png(image)


def said(program: Program, event: str) -> bool:
    """Return whether a program has logged a message that begins so."""
    return bool(sayings(program, event))


def sayings(program: Program, event: str) -> list[dict[str, Any]]:
    """Return what a program has logged in messages that begin so."""
    lines = program.log_file.read_text(encoding="utf-8").splitlines(keepends=True)
    # The last line may be half written, and a crash is no JSON.
    entries = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]
    return [entry for entry in entries if entry["event"].startswith(event)]


def feedback_seconds(line: Line, clicked: Line, frame_id: str) -> float:
    """Return the time from a click to the first frame that ``line`` inspected with what it taught."""
    [row] = clicked.query("SELECT created_at, bank_version FROM reviews WHERE frame_id = :id", id=frame_id)
    [first] = line.query("SELECT min(inspected_at) AS at FROM inspections WHERE bank_version >= :v", v=row.bank_version)
    return (moment(first.at) - moment(row.created_at)).total_seconds()


def moment(stored: str) -> datetime:
    """Return a time as SQLite keeps it."""
    return datetime.fromisoformat(stored).replace(tzinfo=UTC)
