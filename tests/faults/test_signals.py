"""SIGINT and SIGTERM: each program finishes what it has in hand, tells Kafka, and leaves with exit code 0."""

from __future__ import annotations

import os
import signal
import urllib.request
from pathlib import Path

from deploy.local.programs import Program
from deploy.local.servers import free_port
from tests.faults.line import MakeLine, good_png, wait_until


def send_signal(program: Program, number: signal.Signals) -> None:
    assert program.pid is not None
    os.kill(program.pid, number)
    wait_until(lambda: program.exit_code is not None, 20)


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(name)))


def test_stopped_in_mid_stream_a_worker_leaves_nothing_to_its_successor(
    make_line: MakeLine, tmp_path: Path, sqlite_url: str
) -> None:
    port = free_port()
    line = make_line(sqlite_url, metrics={"port": port})
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(20):
        (pictures / f"{number}.png").write_bytes(good_png(number))
    options = ["--camera", "press-1", "--rate", "150", "--loop", "--deadline-ms", "60000"]
    with line.program("camera", "camera", str(pictures), *options) as camera:
        first = line.program("first", "run")
        second = line.program("second", "run")
        before = 0
        for worker, number in ((first, signal.SIGINT), (second, signal.SIGTERM)):
            with worker:
                wait_until(lambda: line.settled() >= before + 40, programs=[worker, camera])  # noqa: B023
                if worker is second:
                    assert metric(port, "paedid_repeated_frames_total") == 0
                send_signal(worker, number)
            assert worker.exit_code == 0
            before = line.settled()
            # Everything taken is stored, and everything stored is committed.
            assert line.committed() == before
            assert line.count("outbox WHERE published_at IS NULL") == 0
            assert b'"Stopped"' in worker.log_file.read_bytes()
        send_signal(camera, signal.SIGINT)
    assert camera.exit_code == 0
    offsets = [offset for (offset,) in line.query('SELECT "offset" FROM inspections ORDER BY "offset"')]
    assert offsets == list(range(len(offsets)))
    assert all(b"Traceback" not in program.log_file.read_bytes() for program in (first, second, camera))
