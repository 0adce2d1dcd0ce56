"""A short storm: 'make chaos' is a long one, and takes SQLite as well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

KILLS = 3


@pytest.mark.timeout(300)
def test_whatever_is_killed_every_frame_comes_to_one_end_and_the_bank_is_what_was_taught(
    bundle: Path, tmp_path: Path
) -> None:
    options = ["--kills", KILLS, "--frames", 200, "--seed", 1, "--database", "postgresql", "--bundle", bundle]
    command = [sys.executable, "-m", "deploy.chaos", "storm", *map(str, options), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["sent"] == figures["stored"] + figures["uninspected"] + figures["dead_lettered"] >= 200
    assert (figures["missing"], figures["duplicates"], figures["wrong"], figures["crashes"]) == (0, 0, 0, 0)
    assert figures["bank_consistent"] is True
    assert figures["kills"] >= KILLS
    assert done.returncode == 0, done.stderr
