"""A program of the monitor that ends at a commit point: ``python -m deploy.chaos.doomed POINT HITS SIGNAL ...``.

It is the program itself, in its own process; only the one method is wrapped. With SIGKILL nothing is flushed and no
handler runs, as when the power fails; with SIGSTOP it stands still until it gets SIGCONT.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import Session

from deploy.chaos.points import BY_NAME, CommitPoint


def doom(point: CommitPoint, hits: int, sign: signal.Signals = signal.SIGKILL) -> None:
    """Send this process a signal when it comes to ``point`` for the ``hits``-th time."""
    count = itertools.count(1)  # atomic: the moment may come on any thread

    def strike() -> None:
        if next(count) == hits:
            os.kill(os.getpid(), sign)

    if point.method is None:
        event.listen(Session, "before_commit", lambda _: strike())
        return
    owner, name = find(point.method)
    setattr(owner, name, _wrapped(getattr(owner, name), point, strike))


def find(method: str) -> tuple[type, str]:
    """Return the class and the name of a method, given as ``module:Class.method``."""
    module, _, path = method.partition(":")
    class_name, _, name = path.partition(".")
    return getattr(importlib.import_module(module), class_name), name


def _wrapped(method: Callable[..., Any], point: CommitPoint, strike: Callable[[], None]) -> Callable[..., Any]:
    @functools.wraps(method)
    def wrapper(self: object, *arguments: object, **options: object) -> object:
        result = method(self, *arguments, **options)
        if point.counts(result, arguments):
            strike()
        return result

    return wrapper


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    doom(BY_NAME[sys.argv[1]], int(sys.argv[2]), signal.Signals[sys.argv[3]])
    sys.argv[1:] = sys.argv[4:]
    from monitor.__main__ import main

    main()
