"""``python -m deploy.local demo``, with a small model: it ends by itself, its figures hold, and it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from deploy.simulation import SimulatedLine, write_mvtec
from tests.faults.line import LINE

FIGURES = {
    "frames_sent", "stored", "dead_lettered", "uninspected", "flagged", "dice_mean", "image_auroc",
    "bank_version_start", "bank_version_end", "feedback_seconds", "fps", "latency_ms_p50", "latency_ms_p95",
    "train_seconds",
}  # fmt: skip

# The demo itself, but with small pictures, a small model (trained before, where one is given), and less patience.
DEMO = """
import functools, shutil, sys
from deploy.local import demo, show, story
from deploy.local.__main__ import app
from schemas.commands import run_app
from deploy.local.quick import QUICK_BUILD, SIZE

build, trained = demo.build, sys.argv.pop(1)
story.SIMULATED_NORMALS = 48
story.LineSettings = functools.partial(story.LineSettings, size=SIZE)
show.ORDINARY_AFTER_S = 1.0
demo.build = lambda data, out, settings, reporter: (
    shutil.copytree(trained, out) if trained else build(data, out, QUICK_BUILD, reporter)
)
sys.exit(run_app(app))
"""


@contextmanager
def demo(out: Path, bundle: Path | None, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo; whatever it starts must be gone when it ends.

    Args:
        out: its folder.
        bundle: spares it the training.
        arguments: more options.
    """
    options = ["--out", str(out), "--report", str(out / "report.json"), "--seed", str(LINE.settings.seed), *arguments]
    command = [sys.executable, "-c", DEMO, str(bundle or ""), "demo", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.kill()
    left = [each.info for each in psutil.process_iter(["cmdline"]) if str(out) in " ".join(each.info["cmdline"] or ())]
    assert left == []


def finish(process: subprocess.Popen[str], out: Path) -> dict[str, Any]:
    """Wait for the end of a demo and return its report, whose accounts must hold."""
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    assert report["frames_sent"] == report["stored"] + report["dead_lettered"] + report["uninspected"]
    assert rows(out, "inspections") + rows(out, "dead_letters") == report["frames_sent"]
    return report


def rows(out: Path, table: str) -> int:
    """Return how many rows a demo's table has; 0 before there is one."""
    database = next(out.glob("run-*/stack/monitor.db"), None)
    if database is None:
        return 0
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def check_story(report: dict[str, Any], out: Path, measured: int) -> None:
    assert report.keys() >= FIGURES
    assert report["measured"] == measured
    assert report["frames_sent"] >= measured
    assert report["bank_version_end"] > report["bank_version_start"]
    assert report["lessons"] == 1
    for name in ("feedback_seconds", "fps", "latency_ms_p50", "latency_ms_p95", "train_seconds"):
        assert report[name] > 0, name
    for name in ("dice_mean", "image_auroc"):
        assert 0 <= report[name] <= 1, name
    sheet = next(out.glob("run-*/contact-sheet.png")).read_bytes()
    assert sheet.startswith(b"\x89PNG")


def test_the_demo_of_a_simulated_line_tells_its_story_and_ends(tmp_path: Path) -> None:
    with demo(tmp_path, None, "--exit", "--frames", "40", "--lessons", "1") as process:
        report = finish(process, tmp_path)
    check_story(report, tmp_path, 40)


def test_the_demo_of_a_data_set_tells_its_story_and_ends(tmp_path: Path, bundle: Path) -> None:
    data = tmp_path / "data"
    # The good parts of the test carry a stamp that training has not seen: a click has something to teach.
    line = SimulatedLine(replace(LINE.settings, novelty_from=48, novelty_rate=1.0))
    write_mvtec(line, data, train=48, test_good=6, test_defects=8)
    with demo(tmp_path / "out", bundle, "--data", str(data), "--exit", "--lessons", "1") as process:
        report = finish(process, tmp_path / "out")
    check_story(report, tmp_path / "out", 14)


def test_a_ctrl_c_ends_the_demo_with_accounts_that_hold(tmp_path: Path, bundle: Path) -> None:
    with demo(tmp_path, bundle, "--frames", "100000") as process:
        deadline = time.monotonic() + 60
        while rows(tmp_path, "inspections") < 50:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGINT)
        report = finish(process, tmp_path)
    assert 50 <= report["frames_sent"] < 100_000
