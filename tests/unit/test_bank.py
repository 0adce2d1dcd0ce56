from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import trainer.bank as module
from monitor.core import per_frame
from monitor.core.inspector import Inspector, empty_bank
from monitor.core.memory_bank import row_bytes
from monitor.core.scoring import Witnesses
from schemas.artifacts import Architecture, InputSpec
from tests.unit.small_model import SETTINGS, Parts
from tests.unit.test_training import FEW, QUICK, Quiet, photos
from trainer.__main__ import describe
from trainer.bank import BANK_BYTES, Encoded, affordable, build_bank, entries_of, witnesses_of
from trainer.build import build
from trainer.bundle import Trained


def architecture_of(height: int, width: int) -> Architecture:
    return Architecture(input=InputSpec(height=height, width=width, channels=1), widths=(16, 32, 64, 128))


def test_a_slot_takes_what_the_bank_allocates_for_it() -> None:
    architecture = architecture_of(64, 96)
    shape = architecture.entry_shape
    bank = empty_bank(architecture, 7)
    held = sum(tensor.nbytes for tensor in (bank._features, bank._units, bank._known, bank._slots))
    assert held == 7 * row_bytes(shape, shape[2] - architecture.latent_shape[2])


@pytest.mark.parametrize(("size", "kept"), [(128, 1000), (256, 1000), (448, 1000), (768, 360), (2048, 50)])
def test_a_bank_is_never_larger_than_its_budget(size: int, kept: int) -> None:
    architecture = architecture_of(size, size)
    assert affordable(architecture, 1000) == kept
    assert kept * row_bytes(architecture.entry_shape, 65) <= BANK_BYTES
    assert affordable(architecture, 3) == 3


def test_two_normals_are_kept_however_large_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BANK_BYTES", 1)
    assert affordable(architecture_of(128, 128), 1000) == 2


def test_the_trainer_says_how_many_normals_did_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.training.COLLAPSED", 1e9)
    monkeypatch.setattr("trainer.model.find_flips", lambda *_: ((), (2,)))
    data, wanted = photos(tmp_path / "data"), replace(QUICK, training=FEW, bank_images=50)
    manifest = build(data, tmp_path / "bundle", wanted, Quiet())
    assert manifest.data.bank_images == 50
    assert "not_in_bank" not in manifest.training
    describe(manifest, tmp_path / "bundle")
    assert "left out of the bank" not in capsys.readouterr().out
    spec = InputSpec(height=64, width=64, channels=1)
    small = Architecture(input=spec, widths=SETTINGS.widths)
    shape = small.entry_shape
    room = 9 * row_bytes(shape, shape[2] - small.latent_shape[2])
    monkeypatch.setattr(module, "BANK_BYTES", room)
    manifest = build(data, tmp_path / "bundle", wanted, Quiet())
    assert manifest.data.bank_images == 9
    assert manifest.training["not_in_bank"] == 41
    describe(manifest, tmp_path / "bundle")
    assert "41 more normals were left out of the bank" in capsys.readouterr().out


def test_what_is_explained_few_at_once_is_the_same_as_all_at_once(
    trained: Trained, parts: Parts, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = trained.calibrated.calibration
    normals = Encoded.of(trained.networks, parts.train[:7], suspect_too=False)
    frames = Encoded.of(trained.networks, parts.defective)

    def results() -> tuple[np.ndarray, Witnesses, list[float]]:
        bank = build_bank(trained.networks, normals, calibration, calibration.polarity)
        maps = witnesses_of(trained.networks, frames, bank, calibration, calibration.polarity)
        scores = [found.score for found in inspector.inspect(parts.defective, bank)]
        return entries_of(bank), maps, scores

    together = results()
    monkeypatch.setattr(per_frame, "PIXELS_AT_ONCE", 3 * 64 * 64)
    apart = results()
    np.testing.assert_array_equal(apart[0], together[0])
    for name in ("excess", "detail", "suspicion"):
        assert torch.equal(getattr(apart[1], name), getattr(together[1], name))
    assert apart[2] == together[2]


@pytest.mark.parametrize(("size", "sizes"), [(128, [64, 6]), (512, [4, 4, 4]), (2048, [1, 1])])
def test_the_frames_taken_together_are_bounded_by_their_pixels(size: int, sizes: list[int]) -> None:
    frames = torch.zeros(1, 1, size, size).expand(sum(sizes), 1, size, size)
    numbers = torch.arange(sum(sizes))
    assert [len(numbers[few]) for few in per_frame.few_at_once(frames)] == sizes
