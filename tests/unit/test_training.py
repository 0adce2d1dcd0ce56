from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from deploy.simulation import LineSettings, SimulatedLine, write_mvtec
from monitor.core.autoencoder import PatchAutoencoder, encoder_hash
from schemas.artifacts import Architecture
from schemas.errors import TrainingError
from tests.unit.small_model import SETTINGS, Parts
from trainer.build import BuildSettings, build
from trainer.bundle import Trained
from trainer.calibrate import CalibrationSettings
from trainer.segmenting import SegmenterSettings
from trainer.training import TrainingSettings, check_not_collapsed, train

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = replace(SETTINGS, steps=12)


class Quiet:
    """A reporter that only remembers which stages there were."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        assert 0 <= done <= total
        assert note is not None
        if name not in self.stages:
            self.stages.append(name)


def weights(autoencoder: PatchAutoencoder) -> dict[str, torch.Tensor]:
    return autoencoder.state_dict()


def attempt(parts: Parts, settings: TrainingSettings) -> PatchAutoencoder:
    """Train though it will not be good enough."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.training.COLLAPSED", 1e9)
        return train(parts.spec, parts.train, parts.validation, ((), (2,)), settings)[0]


def test_a_good_training_beats_the_mean_image_and_is_ready_for_use(trained: Trained, parts: Parts) -> None:
    report = check_not_collapsed(trained.networks.autoencoder, parts.train, parts.validation)
    assert report.rmse < 0.9 * report.rmse_of_mean_image
    assert not trained.networks.autoencoder.training
    assert report.rmse == pytest.approx(trained.training["rmse"])


def test_the_same_seed_gives_the_same_network_and_another_does_not(parts: Parts) -> None:
    first, again, other = (attempt(parts, replace(FEW, seed=seed)) for seed in (3, 3, 4))
    for name, value in weights(first).items():
        assert torch.equal(value, weights(again)[name])
    assert encoder_hash(first) == encoder_hash(again) != encoder_hash(other)


@pytest.mark.parametrize("damage", [0.0, float("nan")])
def test_dead_weights_are_noticed(trained: Trained, parts: Parts, damage: float) -> None:
    dead = PatchAutoencoder(trained.networks.autoencoder.architecture).eval()
    dead.load_state_dict(
        {k: v * damage if v.is_floating_point() else v for k, v in weights(trained.networks.autoencoder).items()}
    )
    with pytest.raises(TrainingError, match="the autoencoder collapsed"):
        check_not_collapsed(dead, parts.train, parts.validation)


def test_a_network_that_shows_the_mean_image_whatever_it_sees_is_noticed(parts: Parts) -> None:
    class Mean(PatchAutoencoder):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(parts.train.mean(axis=0, keepdims=True)).expand_as(frames)

    network = Mean(Architecture(input=parts.spec, widths=(8,)))
    with pytest.raises(TrainingError, match="collapsed"):
        check_not_collapsed(network, parts.train, parts.validation)


def test_an_absurd_learning_rate_is_noticed(parts: Parts) -> None:
    with pytest.raises(TrainingError, match="smaller --learning-rate"):
        train(parts.spec, parts.train, parts.validation, ((),), replace(SETTINGS, steps=40, learning_rate=100.0))


def test_parts_that_hardly_differ_need_no_better_network_than_the_cameras_noise(trained: Trained, parts: Parts) -> None:
    class Perfect(PatchAutoencoder):
        def forward(self, frames: torch.Tensor) -> torch.Tensor:
            return frames + 0.005

    still = np.repeat(parts.train[:1], 20, axis=0)
    network = Perfect(trained.networks.autoencoder.architecture)
    assert check_not_collapsed(network, still, still[:8]).rmse == pytest.approx(0.005, rel=1e-3)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_even_the_fewest_steps_run(parts: Parts, steps: int) -> None:
    told: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.training.COLLAPSED", 1e9)
        train(
            parts.spec,
            parts.train,
            parts.validation,
            ((),),
            replace(SETTINGS, steps=steps),
            lambda step, total, loss: told.append(step if total == steps and loss > 0 else -1),
        )
    assert told == list(range(1, steps + 1))


def photos(folder: Path, count: int = 36) -> Path:
    line = SimulatedLine(LineSettings(size=64, seed=5, shift=3.0, rotation=3.0))
    write_mvtec(line, folder, train=count, test_good=0, test_defects=0)
    return folder


QUICK = BuildSettings(
    size="64",
    bank_images=12,
    training=replace(SETTINGS, steps=120),
    segmenter=SegmenterSettings(steps=20, batch=8, piece=32),
    calibration=CalibrationSettings(trials=1, smoothings=(0.9,), defects=12, false_reject_rate=0.1),
)


def test_a_collapsed_training_saves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(TrainingError):
        build(photos(tmp_path / "data"), out, replace(QUICK, training=FEW), Quiet())
    assert not out.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_of_normals_becomes_a_bundle(tmp_path: Path) -> None:
    out, reporter = tmp_path / "deep" / "bundle", Quiet()
    manifest = build(photos(tmp_path / "data") / "train" / "good", out, QUICK, reporter)
    assert reporter.stages == ["reading images", "training", "learning defects", "calibrating"]
    assert (manifest.data.train_images, manifest.data.validation_images) == (27, 9)
    assert manifest.data.source == "good"
    assert manifest.data.bank_images == 12
    assert manifest.calibration.verdict.normals == 9
    assert sorted(path.name for path in out.iterdir()) == sorted([*manifest.files, "manifest.json"])


@pytest.mark.parametrize("wanted", [2, 3, 5])
def test_the_bank_is_never_larger_than_asked(tmp_path: Path, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.model.find_flips", lambda *_: ((), (1,), (2,), (1, 2)))
    monkeypatch.setattr("trainer.training.COLLAPSED", 1e9)
    settings = replace(QUICK, bank_images=wanted, training=FEW)
    manifest = build(photos(tmp_path / "data"), tmp_path / "bundle", settings, Quiet())
    assert manifest.data.bank_images == wanted
