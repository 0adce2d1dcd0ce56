"""SIGINT and SIGTERM: the first asks a program to finish what it has in hand, the second ends it."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Within, the first SIGINT or SIGTERM sets ``stop``, and the second ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        # The system's default, not a handler of ours: it also ends a process that hangs outside of Python.
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # On a thread: this one may have been interrupted inside stop.wait(), holding the lock that stop.set() takes.
        # A bare one: starting a threading.Thread takes locks of its own.
        _thread.start_new_thread(stop.set, ())

    before = {each: signal.signal(each, on_signal) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
