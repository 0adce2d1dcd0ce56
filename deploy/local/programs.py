"""The monitor's own programs as subprocesses of the embedded stack, stopped as an operator would: SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from deploy.local.launcher import launch
from monitor.settings import PREFIX
from schemas.errors import OperatorError

STOP_TIMEOUT_S = 20.0
LOG_TAIL_BYTES = 2000


class Program:
    """One ``paedid-monitor`` command, running.

    Args:
        name: names its log file.
        arguments: of ``paedid-monitor``.
        directory: where its log goes.
        module: what Python runs: a module that takes these arguments.
    """

    def __init__(self, name: str, arguments: list[str], directory: Path, module: str = "monitor") -> None:
        self.name = name
        self._module = module
        self.log_file = directory / f"{name}.log"
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended, negative for a signal; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> Self:
        """Start it, in a session of its own, so that a Ctrl-C in the terminal reaches its owner first.

        It takes its settings from its arguments alone, none from the environment.
        On Linux it is asked to end when the *thread* that started it dies.
        """
        # Without settings meant for other programs: a plant's database must not get the demo's frames.
        environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        environment |= {"OMP_WAIT_POLICY": "PASSIVE", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", self._module, *self._arguments]
        # Asked to end rather than killed: what the worker has in hand, it still stores.
        self._process = launch(command, self.log_file, on_parent_death=signal.SIGTERM, environment=environment)
        return self

    def check(self) -> None:
        """Raise OperatorError, with the end of its log, if it ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            tail = self.log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
            msg = f"the {self.name} ended with code {self._process.returncode}; the end of {self.log_file}: {tail}"
            raise OperatorError(msg)

    def stop(self) -> None:
        """Let it finish what it has in hand; kill it if that takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Kill it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
