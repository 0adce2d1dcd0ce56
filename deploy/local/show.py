"""The running demo: what is streamed is read back from the database, judged, shown, and taught from."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from deploy.local.feed import Feed
from deploy.local.live import LiveView
from deploy.local.operator import Operator
from deploy.local.parts import DemoPart
from deploy.local.scoreboard import Judged, Scoreboard
from deploy.local.stack import Stack
from schemas.errors import OperatorError

TICK_S = 0.05
STALLED_S = 60.0
QUIET_S = 20.0  # without a false flag for so long, there is nothing more to teach
ORDINARY_AFTER_S = 10.0
IDLE_RATE = 2.0  # parts a second once the story is told: the embedded broker keeps in memory all it was sent
SAMPLES_OF_A_KIND = 2


@dataclass
class Show:
    """One demo while it runs.

    Attributes:
        samples: some parts of each kind, for the contact sheet.
    """

    stack: Stack
    board: Scoreboard
    feed: Feed
    operator: Operator
    view: LiveView
    samples: list[DemoPart] = field(default_factory=list)
    _progress_at: float = field(default_factory=time.monotonic)
    _interrupted: bool = False

    def measure(self, count: int) -> None:
        """Watch until the first ``count`` parts are all accounted for."""
        # No more than these: the parts that follow are not those the figures are of.
        while (left := count - self.board.settled - self.board.dead_lettered) > 0:
            for judged in self._watch(left):
                self._keep_sample(judged.part)
        self.board.measuring = False

    def teach(self) -> None:
        """Let the operator confirm good parts that are falsely flagged, until no more come or enough were taught."""
        quiet_since = time.monotonic()
        ordinary: Judged | None = None
        while not self.operator.done and time.monotonic() - quiet_since < QUIET_S:
            lessons = len(self.operator.lessons)
            for judged in self._watch():
                self.operator.look_at(judged)
                ordinary = max((ordinary, judged), key=_oddness) if judged.part.good else ordinary
            self.operator.tick()
            # A line may flag no good part at all: then the oddest one shows what a click does.
            if not lessons and ordinary and time.monotonic() - quiet_since > ORDINARY_AFTER_S:
                self.operator.confirm(ordinary)
            if len(self.operator.lessons) > lessons or self.operator.busy:
                quiet_since = time.monotonic()

    def linger(self) -> None:
        """Let the line go on, slowly, until Ctrl-C."""
        self.feed.rate = min(self.feed.rate or IDLE_RATE, IDLE_RATE)
        while True:
            self._watch()

    def drain(self) -> None:
        """Stop sending, and wait until everything sent is accounted for."""
        self.feed.stop()
        self._progress_at = time.monotonic()
        while self.board.settled + self.board.dead_lettered < self.feed.count:
            self._watch()

    @contextmanager
    def heeding_ctrl_c(self) -> Iterator[None]:
        """Within, the first Ctrl-C waits for the end of a look, so that no frame is half counted; a second does not."""

        def on_interrupt(_number: int, _frame: FrameType | None) -> None:
            signal.signal(signal.SIGINT, before)
            self._interrupted = True

        before = signal.signal(signal.SIGINT, on_interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
            self._interrupted = False

    def _watch(self, most: int | None = None) -> list[Judged]:
        """Read what was stored since the last look, at most so many frames.

        Raises:
            OperatorError: a program ended, the camera cannot send, or nothing was stored for long.
            KeyboardInterrupt: see ``heeding_ctrl_c``.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        time.sleep(TICK_S)
        self.stack.check()
        if self.feed.error is not None:
            msg = f"the demo's camera could not send: {self.feed.error}"
            raise OperatorError(msg)
        found = list(self.board.read(self.feed.sent, most))
        now = time.monotonic()
        if found:
            self._progress_at = now
        elif now - self._progress_at > STALLED_S:
            msg = f"nothing was stored for {STALLED_S:.0f} s; the logs in {self.stack.directory} may tell why"
            raise OperatorError(msg)
        for judged in found:
            self.feed.done(judged.frame_id)
        self.view.draw()
        return found

    def _keep_sample(self, part: DemoPart) -> None:
        if sum(sample.defect == part.defect for sample in self.samples) < SAMPLES_OF_A_KIND:
            self.samples.append(part)


def _oddness(judged: Judged | None) -> float:
    return -1.0 if judged is None or judged.score is None else judged.score
