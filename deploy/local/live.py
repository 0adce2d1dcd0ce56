"""The live table of the demo."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deploy.local.feed import Feed
from deploy.local.operator import Lesson, Operator
from deploy.local.scoreboard import Scoreboard

LOG_EVERY_S = 5.0
RECENT = 100


class LiveView:
    """Draws the state of the line: a table on a terminal, a line now and then in a log."""

    def __init__(self, console: Console, feed: Feed, board: Scoreboard, operator: Operator) -> None:
        self._console = console
        self._feed, self._board, self._operator = feed, board, operator
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._due = 0.0
        self._told = 0

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.draw()
        if self._live:
            self._live.stop()
        else:
            self._console.print(self._line())

    def draw(self) -> None:
        """Show how things stand."""
        if self._live:
            self._live.update(Group(self._table(), *map(describe, self._operator.lessons[-5:])), refresh=True)
            return
        for lesson in self._operator.lessons[self._told :]:
            if not lesson.open:
                self._console.print(describe(lesson))
                self._told += 1
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + LOG_EVERY_S
            self._console.print(self._line())

    def _table(self) -> Table:
        table = Table(title="PAEDID line monitor", title_justify="left", min_width=60)
        for name in self._facts():
            table.add_column(name, justify="right")
        table.add_row(*self._facts().values())
        return table

    def _line(self) -> Text:
        return Text("  ".join(f"{name} {value}" for name, value in self._facts().items()))

    def _facts(self) -> dict[str, str]:
        board = self._board
        p50, p95 = board.latency_ms(0.5), board.latency_ms(0.95)
        dice = board.dice_mean()
        return {
            "sent": str(self._feed.count),
            "stored": str(board.inspected),
            "flagged": str(board.flagged),
            "fps": f"{board.fps(RECENT):.1f}",
            "latency ms p50/p95": "-" if p50 is None or p95 is None else f"{p50:.0f}/{p95:.0f}",
            "Dice": "-" if dice is None else f"{dice:.3f}",
            "false flags": str(board.false_flags),
            "missed": str(board.missed),
            "bank version": "-" if board.version is None else str(board.version),
        }


def describe(lesson: Lesson) -> Text:
    """Tell the story of one click."""
    part = f"{lesson.part.serial}" + (f" ({lesson.part.variant})" if lesson.part.variant else "")
    was = "was falsely flagged" if lesson.flagged else "passed already"
    text = f"{part} is good and {was} (score {lesson.score or 0:.1f}); confirmed normal: {lesson.outcome}"
    if lesson.feedback_seconds is not None:
        text += f", the worker follows bank version {lesson.bank_version} after {lesson.feedback_seconds:.2f} s"
    if lesson.passed is not None:
        text += f"; sent again: {'passes' if lesson.passed else 'flagged again'} (score {lesson.score_after or 0:.1f})"
    return Text(text, style="green" if lesson.passed else "yellow")
