"""The command as people run it: training in a process of its own, the rest by the same ``main`` in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from inspect import signature
from pathlib import Path

import pytest

from deploy.simulation import LineSettings, SimulatedLine, write_mvtec
from monitor.adapters.artifacts import load_bundle
from monitor.core.inspector import Inspector
from trainer.__main__ import main, train
from trainer.benchmark_command import benchmark

ROOT = Path(__file__).parents[2]
# Enough to beat the mean image of these well-shifted parts.
QUICK = ("--size", "32", "--steps", "120", "--learning-rate", "0.01", "--bank-images", "20")


Trainer = Callable[..., subprocess.CompletedProcess[str]]


def trainer(*arguments: str | Path, timeout: float = 110) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trainer", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Trainer:
    """Run a command in this process, which spares it the start."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["paedid-trainer", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(sys.argv, ended.value.code, said.out, said.err)

    return run


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that an operator is told, and nothing else."""
    assert result.returncode == 2, result
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Traceback" not in line
    return line


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 good parts in MVTec layout."""
    folder = tmp_path_factory.mktemp("photos")
    line = SimulatedLine(LineSettings(size=64, seed=5, shift=4.0, rotation=3.0))
    write_mvtec(line, folder, train=30, test_good=2, test_defects=4)
    return folder


def test_a_plain_folder_becomes_a_bundle_that_shows_and_inspects(photos: Path, tmp_path: Path, here: Trainer) -> None:
    out = tmp_path / "models" / "bundle"
    made = trainer("train", photos / "train" / "good", "--out", out, *QUICK)
    assert made.returncode == 0, made.stderr
    assert "trained on 22 normal images of 'good', 32x32, grey; bank of 20; thresholds from 8 others" in made.stdout
    assert "8 normals cannot promise 1.0%" in made.stdout
    assert "training: 120/120" in made.stderr
    assert "calibrating: " in made.stderr
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]

    shown = here("show", out)
    assert shown.returncode == 0
    assert shown.stdout.splitlines() == made.stdout.splitlines()
    assert f"how the thresholds came about: {out / 'report.html'}" in shown.stdout
    assert "of 8 good parts" in (out / "report.html").read_text(encoding="utf-8")

    inspector = Inspector(load_bundle(out))
    line = SimulatedLine(LineSettings(size=64, seed=5, shift=4.0, rotation=3.0))
    frame = inspector.prepare(line.good_part(99).image).pixels
    (found,) = inspector.inspect(frame[None], inspector.new_bank())
    assert found.score > 0
    assert found.mask.shape == (32, 32)

    content = out / "bank.safetensors"
    content.write_bytes(content.read_bytes()[:-1] + b"?")
    assert "bank.safetensors: its SHA-256" in complaint(here("show", out))


def test_the_mvtec_layout_gives_the_same_normals_and_a_collapse_saves_nothing(photos: Path, tmp_path: Path) -> None:
    # Two steps train nothing: the images are read, and the rest is refused.
    result = trainer("train", photos, "--out", tmp_path / "bundle", "--size", "64", "--steps", "2")
    assert result.returncode == 2
    *progress, line = result.stderr.splitlines()
    assert any(told.startswith("reading images: ") and "/60" in told for told in progress)  # each of the 30, twice
    assert line.startswith("error: the autoencoder collapsed")
    assert "--learning-rate" in line
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_told_in_one_line_by_the_process_itself(tmp_path: Path) -> None:
    line = complaint(trainer("train", tmp_path / "missing", "--out", tmp_path / "bundle"))
    assert f"{tmp_path / 'missing'}: no such folder" in line


Arguments = Callable[[Path, Path], list[str | Path]]  # of the photos and of an empty folder
MISTAKES: list[tuple[str, Arguments]] = [
    ("0 images", lambda _, tmp: ["train", tmp, "--out", tmp / "bundle"]),
    ("exists and is not a model bundle", lambda photos, _: ["train", photos, "--out", photos]),
    ("file is not a folder", lambda photos, tmp: ["train", photos, "--out", tmp / "file" / "bundle"]),
    ("--steps", lambda photos, tmp: ["train", photos, "--out", tmp / "bundle", "--steps", "0"]),
    ("--bank-images", lambda photos, tmp: ["train", photos, "--out", tmp / "bundle", "--bank-images", "1"]),
    ("--polarity", lambda photos, tmp: ["train", photos, "--out", tmp / "bundle", "--polarity", "grey"]),
    ("--colour", lambda photos, tmp: ["benchmark", "--data", photos, "--out", tmp / "out", "--colour", "blue"]),
    (
        "--backbone = 'resnet18'",
        lambda photos, tmp: ["benchmark", "--data", photos, "--out", tmp / "out", "--backbone", "resnet18"],
    ),
    (  # Without timm it is this that is told, with it that there is no such network.
        "the backbone timm:no-such-network",
        lambda photos, tmp: ["benchmark", "--data", photos, "--out", tmp / "out", "--backbone", "timm:no-such-network"],
    ),
    ("--size = '100'", lambda photos, tmp: ["train", photos, "--out", tmp / "bundle", "--size", "100"]),
    ("--out", lambda photos, _: ["train", photos]),
    ("no manifest.json", lambda _, tmp: ["show", tmp]),
    ("polish", lambda _, tmp: ["polish", tmp]),
]


@pytest.mark.parametrize(("told", "arguments"), MISTAKES, ids=[told for told, _ in MISTAKES])
def test_what_a_person_must_mend_is_told_in_one_line(
    told: str, arguments: Arguments, photos: Path, tmp_path: Path, here: Trainer
) -> None:
    (tmp_path / "file").write_text("x")
    result = here(*arguments(photos, tmp_path))
    errors = [line for line in result.stderr.splitlines() if not line.startswith("reading images: ")]
    assert result.returncode == 2
    assert result.stdout == ""
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert told in errors[0]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_train_and_benchmark_share_they_ask_for_alike() -> None:
    asked, again = (signature(command).parameters for command in (train, benchmark))
    shared = (asked.keys() & again.keys()) - {"data", "out"}
    assert {"size", "colour", "seed", "roi", "lighting"} <= shared
    for name in shared:
        assert asked[name] == again[name]
