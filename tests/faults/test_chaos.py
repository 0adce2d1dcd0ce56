"""A short storm: 'make chaos' is a long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 7


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_whatever_is_killed_every_frame_comes_to_one_end_and_the_bank_is_what_was_taught(
    bundle: Path, tmp_path: Path, database: str
) -> None:
    options = ["--kills", KILLS, "--frames", 200, "--seed", 1, "--database", database, "--bundle", bundle]
    command = [sys.executable, "-m", "deploy.chaos", "storm", *map(str, options), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["sent"] == figures["stored"] + figures["uninspected"] + figures["dead_lettered"] >= 200
    assert (figures["missing"], figures["duplicates"], figures["wrong"], figures["crashes"]) == (0, 0, 0, 0)
    assert figures["bank_consistent"] is True
    assert figures["kills"] >= KILLS
    assert done.returncode == 0, done.stderr
