"""The embedded stack leaves nothing running, however its owner ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import redis

from deploy.local.stack import Stack

OWN_A_STACK = """
import sys, time
from pathlib import Path
from deploy.local.stack import Stack

with Stack(Path(sys.argv[1]), Path(sys.argv[2])) as stack:
    stack.wait_until_ready()
    print("ready", flush=True)
    time.sleep(600)
"""


def descendants(pid: int) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(pid).children(recursive=True)
    return found


def test_a_stack_is_whole_while_it_runs_and_is_gone_afterwards(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Settings for a plant's programs, which share the terminal, are not for these.
    monkeypatch.setenv("PAEDID_DATABASE__URL", "sqlite:////nowhere/plant.db")
    before = {process.pid for process in descendants(os.getpid())}
    with Stack(tmp_path / "stack", bundle) as stack:
        stack.wait_until_ready()
        running = [process for process in descendants(os.getpid()) if process.pid not in before]
        commands = [" ".join(process.cmdline()) for process in running]
        assert len(running) == 4, commands
        for name in ("tansu broker", "valkey-server", "-m monitor --config", "learn"):
            assert any(name in command for command in commands), name
        assert redis.Redis.from_url(stack.settings.redis.url).ping()
        # Nobody beyond this machine is listened to.
        listening = [c.laddr.ip for p in running for c in p.net_connections() if c.status == psutil.CONN_LISTEN]
        assert set(listening) == {"127.0.0.1"}
        stack.check()
    assert [stack.worker.exit_code, stack.learner.exit_code] == [0, 0]
    assert not any(process.is_running() for process in running)


def test_a_stack_is_gone_soon_after_its_owner_was_killed(bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    command = [sys.executable, "-c", OWN_A_STACK, str(folder), str(bundle)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as owner:
        assert owner.stdout is not None
        assert "ready\n" in owner.stdout
        running = descendants(owner.pid)
        assert len(running) == 4
        owner.send_signal(signal.SIGKILL)
    _, left = psutil.wait_procs(running, timeout=30)
    for process in left:
        process.kill()
    assert left == []
    # The programs were asked to end, and ended as they should, although the servers were gone by then.
    for name in ("worker", "learner"):
        assert '"Stopped"' in (folder / f"{name}.log").read_text(), name
