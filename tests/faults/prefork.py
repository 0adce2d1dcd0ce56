"""Runs our programs in forks of a process that has imported torch and the rest: each saves seconds, and is itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Self

# One task a line on stdin: a program, its arguments, its environment, and where its output goes. Answers exit codes.
_SERVER = """
import gc, json, os, runpy, sys, traceback
import monitor.camera, monitor.review_commands, monitor.wiring, monitor.worker, trainer.build, trainer.progress

gc.freeze()
for line in sys.stdin:
    task = json.loads(line)
    child = os.fork()
    if child == 0:
        for number, path in enumerate((os.devnull, task["stdout"], task["stderr"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        os.environ.update(task["environment"])
        sys.argv = [task["program"], *task["arguments"]]
        code = 1
        try:
            runpy.run_module(task["program"], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # without tearing all of torch down
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Prefork:
    """A context manager whose ``run`` is as ``python -m PROGRAM ARGUMENTS``."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def run(self, program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> CompletedProcess[str]:
        assert self._process.stdin
        assert self._process.stdout
        with tempfile.TemporaryDirectory() as folder:
            outputs = {name: str(Path(folder, name)) for name in ("stdout", "stderr")}
            task = {"program": program, "arguments": arguments, "environment": dict(environment or {})} | outputs
            self._process.stdin.write(json.dumps(task) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
            said = {name: Path(path).read_text(encoding="utf-8") for name, path in outputs.items()}
        return CompletedProcess([program, *arguments], code, said["stdout"], said["stderr"])

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
