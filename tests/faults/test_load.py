"""A short overload: 'make load' is a long one, and reports how late and in what memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

POLICIES = ("skip-oldest", "deadline")


def test_under_overload_every_frame_is_accounted_for_and_what_was_let_go_says_why(bundle: Path, tmp_path: Path) -> None:
    options = ["--seconds", "4", "--factor", "3", "--burst", "150", "--bundle", str(bundle), "--out", str(tmp_path)]
    policies = [word for policy in POLICIES for word in ("--policy", policy)]
    command = [sys.executable, "-m", "deploy.chaos", "load", *options, *policies]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["policy"] for each in figures] == list(POLICIES)
    for each in figures:
        assert each["sent"] == each["stored"] + each["uninspected"] > 0
        assert (each["missing"], each["duplicates"], each["dead_lettered"]) == (0, 0, 0)
        assert set(each["reasons"]) <= {"skipped" if each["policy"] == "skip-oldest" else "deadline"}
    assert figures[0]["uninspected"] > 0
