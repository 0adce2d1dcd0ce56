"""Starts subprocesses that do not outlive this one, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

# Run by a bare interpreter that then becomes the program. Linux signals the program when its parent dies, so that none
# outlives a killed one; the parent is compared because it may have died before the kernel was asked. (No preexec_fn:
# it can deadlock in a process with threads.)
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, int(sys.argv[2]))  # PR_SET_PDEATHSIG
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent is gone")
os.execv(sys.argv[3], sys.argv[3:])
"""


def launch(
    command: Sequence[str],
    log_file: Path,
    *,
    on_parent_death: signal.Signals,
    cwd: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that a Ctrl-C in the terminal reaches its owner first.

    On Linux it gets a signal when the *thread* that called this dies: call from one that lives as long as the program
    should.

    Args:
        command: the program, by its full path, and its arguments.
        log_file: what it prints is appended here.
        on_parent_death: the signal.
        cwd: where it runs; default: here.
        environment: default: ours.
    """
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), str(int(on_parent_death))]
    with log_file.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - the callers start what this project ships
            [*launcher, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=environment,
            start_new_session=True,
        )
