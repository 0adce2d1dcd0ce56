"""The benchmarks of learning run on any model of the simulated line, and tell the same twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.bench import __main__ as command
from deploy.bench import drift, eviction, poison, size
from deploy.bench.drift import run_drift
from deploy.bench.eviction import policies, run_eviction, streams
from deploy.bench.learning import Figures, mean, rate
from deploy.bench.poison import run_poison
from deploy.bench.size import run_size
from monitor.core.inspector import Inspector

FEW = 8


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (drift, poison, size):
        monkeypatch.setattr(module, "EVALUATED", FEW)
    monkeypatch.setattr(poison, "GOLDEN", 1)
    monkeypatch.setattr(size, "CHECKPOINTS", (0, 4))
    monkeypatch.setattr(size, "REPEATS", 1)
    monkeypatch.setattr(eviction, "BUDGETS", (50_000,))


def ignore(_: int) -> None: ...


def looks_fine(picture: NDArray[np.uint8]) -> bool:
    return picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[1] > 900 and len(np.unique(picture)) > 5


def test_drift_compares_both_banks_and_tells_the_same_twice(inspector: Inspector) -> None:
    figures, picture = run_drift(inspector, -0.4, 48, 5, ignore)
    assert looks_fine(picture)
    end = figures["end"]
    assert isinstance(end, dict)
    assert set(end) == {"frozen", "online"}
    assert figures["confirmed"] != 0
    assert json.loads(json.dumps(figures)) == json.loads(json.dumps(run_drift(inspector, -0.4, 48, 5, ignore)[0]))


def test_an_attack_is_run_with_and_without_the_gate(inspector: Inspector) -> None:
    figures, picture = run_poison(inspector, 20, 5, ignore)
    assert looks_fine(picture)
    runs = {
        "clean",
        *(f"{attack}, {gate}" for attack in ("every kind", "missing spots") for gate in ("gate", "no gate")),
    }
    assert runs <= set(figures)
    attacked: Figures = figures["missing spots, no gate"]  # type: ignore[assignment]
    assert attacked["poison_given"] == {"missing_spot": 2}
    assert attacked["poison_refused"] == {}


def test_every_policy_keeps_to_its_budget(inspector: Inspector) -> None:
    figures, picture = run_eviction(inspector, 32, 5, ignore)
    assert looks_fine(picture)
    runs = [found for found in figures.values() if isinstance(found, dict)]
    assert len(runs) == len(streams(5)) * len(policies())
    assert all(found["bytes"] <= 50_000 for found in runs)


def test_size_counts_entries_of_both_banks_at_each_checkpoint(inspector: Inspector) -> None:
    figures, picture = run_size(inspector, 12, 5, ignore)
    assert looks_fine(picture)
    rows = figures["rows"]
    assert isinstance(rows, list)
    assert [row["confirmed"] for row in rows] == [0, 4, 12]
    assert [row["whole"]["entries"] for row in rows] == [0, 4, 12]
    assert all(row["compact"]["bytes"] <= row["whole"]["bytes"] for row in rows)


def test_shares_and_means_come_with_their_intervals() -> None:
    found = rate([True, False, False, False])
    assert found["low"] < found["rate"] == 0.25 < found["high"]
    assert mean(np.array([0.5, 0.5]))["low"] == 0.5


def test_the_command_writes_figures_and_a_picture(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_load", lambda bundle: inspector)  # noqa: ARG005
    monkeypatch.setattr(
        sys, "argv", ["bench", "poison", "--bundle", "b", "--out", str(tmp_path), "--confirmations", "10"]
    )
    assert command.run_app(command.app) == 0
    assert json.loads((tmp_path / "poison.json").read_text()) == json.loads(capsys.readouterr().out)
    assert cv2.imread(str(tmp_path / "poison.png")) is not None


def test_a_missing_bundle_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "drift", "--bundle", str(tmp_path / "none"), "--out", str(tmp_path)])
    assert command.run_app(command.app) == 2
    assert "no manifest.json there" in capsys.readouterr().err
