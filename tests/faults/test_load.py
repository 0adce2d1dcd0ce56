"""A short overload: 'make load' is a long one, and reports how late and in what memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(300)
def test_under_overload_every_frame_is_accounted_for_and_what_was_let_go_says_why(bundle: Path, tmp_path: Path) -> None:
    options = ["--seconds", "2", "--rate", "900", "--bundle", str(bundle), "--out", str(tmp_path)]
    command = [sys.executable, "-m", "deploy.chaos", "load", *options, "--policy", "skip-oldest"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["sent"] == figures["stored"] + figures["uninspected"]
    assert (figures["missing"], figures["duplicates"], figures["dead_lettered"]) == (0, 0, 0)
    assert figures["reasons"] == {"skipped": figures["uninspected"]}
    assert figures["uninspected"] > 0
    assert figures["quiet_camera"]["stored"] == figures["quiet_camera"]["sent"] > 0
