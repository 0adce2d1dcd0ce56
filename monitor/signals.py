"""Ending a program: the first signal asks, the second insists, and whoever does not end in time is ended."""

from __future__ import annotations

import _thread
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

import structlog

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
# Kubernetes and systemd wait longer before they kill; an operator at the line does not.
MOST_STOPPING_S: Final = 14.0
ENDED_LATE: Final = 1  # the exit code

log = structlog.get_logger()


@contextlib.contextmanager
def stopping_on_signals(stop: threading.Event, most_stopping_s: float = MOST_STOPPING_S) -> Iterator[None]:
    """Within, the first SIGINT or SIGTERM sets ``stop``, and the second ends the process.

    A process that has not left the context so long after the first is ended, whatever it waits for. Called on another
    thread than the main one, it leaves signals alone.

    Args:
        stop: set at the first signal.
        most_stopping_s: seconds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()

    def end_late() -> None:
        stop.set()
        if not left.wait(most_stopping_s):
            log.error("Not stopped in time; ending at once. What was not committed will be delivered again",
                      seconds=most_stopping_s)  # fmt: skip
            os._exit(ENDED_LATE)

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        # The system's default, not a handler of ours: it also ends a process that hangs outside of Python.
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # On a thread: this one may have been interrupted inside stop.wait(), holding the lock that stop.set() takes.
        # A bare one: starting a threading.Thread takes locks of its own.
        _thread.start_new_thread(end_late, ())

    before = {each: signal.signal(each, on_signal) for each in SIGNALS}
    try:
        yield
    finally:
        left.set()
        for each, handler in before.items():
            signal.signal(each, handler)
