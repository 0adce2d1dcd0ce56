from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from monitor.core.inspector import Inspector
from schemas.artifacts import Polarity
from tests.unit.small_model import Parts
from trainer.bank import build_bank, entries_of
from trainer.bundle import Trained
from trainer.calibrate import Calibrated, CalibrationSettings, calibrate
from trainer.metrics import auroc, mean_dice
from trainer.thresholds import MIN_AREAS

QUICK = CalibrationSettings(lambdas=(3e-4,), smoothings=(0.0, 0.9), defects=16, false_reject_rate=0.1)


def recalibrate(trained: Trained, parts: Parts, settings: CalibrationSettings) -> Calibrated:
    return calibrate(trained.networks, parts.train, parts.validation, settings)


def entries_equal(left: Calibrated, right: Calibrated) -> bool:
    return np.array_equal(entries_of(left.bank), entries_of(right.bank))


def test_every_threshold_is_finite_and_within_what_was_searched(trained: Trained, parts: Parts) -> None:
    found = trained.calibrated.calibration
    assert found.alpha == 0.3
    assert found.lam in {1e-4, 3e-4}
    assert found.smoothing in {0.0, 0.9}
    assert found.min_area in MIN_AREAS
    assert found.score_pixels in {max(1, round(n / 4)) for n in (10, 30, 100, 300)}
    assert math.isfinite(found.mask_threshold)
    assert found.mask_threshold > 0
    assert math.isfinite(found.verdict.threshold)
    assert found.verdict.threshold > 0
    assert found.verdict.normals == len(parts.validation)
    spread = trained.calibrated.normality.spread
    assert spread.shape == (64, 64)
    assert (spread > 0).all()


def test_synthetic_defects_are_found_better_than_by_chance(trained: Trained) -> None:
    found = trained.calibrated.calibration
    # The best of all blind masks, the whole frame, would have a Dice of about 0.02.
    assert found.synthetic_dice > 0.4
    assert found.verdict.synthetic_detected > 2 * found.verdict.above / found.verdict.normals


def test_no_more_validation_normals_are_flagged_than_wanted(trained: Trained) -> None:
    verdict = trained.calibrated.calibration.verdict
    assert verdict.wanted_false_reject_rate == 0.1
    assert verdict.above <= 0.1 * verdict.normals
    assert verdict.false_reject_low <= verdict.above / verdict.normals <= verdict.false_reject_high


def test_the_thresholds_hold_on_real_defects_that_calibration_never_saw(inspector: Inspector, parts: Parts) -> None:
    bank = inspector.new_bank()
    good, found = inspector.inspect(parts.fresh, bank), inspector.inspect(parts.defective, bank)
    scores = [np.array([inspection.score for inspection in each]) for each in (good, found)]
    assert auroc(*scores) > 0.7
    dice = mean_dice(np.stack([inspection.mask for inspection in found]), parts.truth)
    assert dice > 0.1  # the whole frame would have 0.02
    assert np.mean([inspection.flagged for inspection in good]) <= 0.35


def test_the_candidate_with_the_best_dice_is_chosen(trained: Trained, parts: Parts) -> None:
    alone = [recalibrate(trained, parts, replace(QUICK, lambdas=(lam,))).calibration for lam in (1e2, 3e-4, 1e3)]
    assert recalibrate(trained, parts, replace(QUICK, lambdas=(1e2, 3e-4, 1e3))).calibration == alone[1]
    assert alone[1].synthetic_dice > max(alone[0].synthetic_dice, alone[2].synthetic_dice)


def test_the_same_seed_calibrates_alike(trained: Trained, parts: Parts) -> None:
    first, again, other = (recalibrate(trained, parts, replace(QUICK, seed=seed)) for seed in (1, 1, 2))
    assert first.calibration == again.calibration != other.calibration
    assert torch.equal(first.normality.spread, again.normality.spread)
    assert entries_equal(first, again)


def test_a_lower_false_reject_rate_raises_the_threshold_and_changes_nothing_else(
    trained: Trained, parts: Parts
) -> None:
    lenient, strict = (
        recalibrate(trained, parts, replace(QUICK, false_reject_rate=rate)).calibration for rate in (0.3, 0.01)
    )
    assert strict.verdict.threshold > lenient.verdict.threshold
    assert strict.model_copy(update={"verdict": lenient.verdict}) == lenient


def test_polarity_is_the_users_to_say(trained: Trained, parts: Parts) -> None:
    found = {polarity: recalibrate(trained, parts, replace(QUICK, polarity=polarity)) for polarity in Polarity}
    for polarity, calibrated in found.items():
        assert calibrated.calibration.polarity is polarity
    assert not entries_equal(found[Polarity.DARK], found[Polarity.BRIGHT])
    # Half of the synthetic defects are of the other polarity.
    assert found[Polarity.BOTH].calibration.synthetic_dice > found[Polarity.DARK].calibration.synthetic_dice


def test_progress_tells_of_every_candidate(trained: Trained, parts: Parts) -> None:
    told: list[tuple[int, int]] = []
    calibrate(
        trained.networks,
        parts.train[:4],
        parts.validation[:4],
        replace(QUICK, lambdas=(1e-4, 3e-4), defects=4),
        lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 2), (2, 2)]


def test_normals_without_any_residual_still_give_a_bundle(trained: Trained, parts: Parts) -> None:
    # At so large a lambda nothing is a defect, so that every anomaly is zero.
    found = recalibrate(trained, parts, replace(QUICK, lambdas=(1e3,), smoothings=(0.0,))).calibration
    assert found.mask_threshold > 0
    assert found.synthetic_dice < 0.1


def test_the_bank_keeps_each_normals_features_and_its_residual_against_the_others(
    trained: Trained, parts: Parts
) -> None:
    bank = build_bank(trained.networks, parts.train[:6], trained.calibrated.calibration, Polarity.BOTH)
    assert len(bank) == bank.capacity == 6
    with torch.inference_mode():
        features = trained.networks.autoencoder.encode(torch.from_numpy(parts.train[:6]))
        found = bank.query(features)
    assert (found.slot == torch.arange(6)[:, None, None]).all()
    assert found.score.max() < 1e-4
    # Held against itself, a normal would have left less.
    assert found.known.mean() > 0
    fewer = build_bank(trained.networks, parts.train[:2], trained.calibrated.calibration, Polarity.BOTH)
    with torch.inference_mode():
        assert fewer.query(features[:2]).known.mean() > found.known[:2].mean()


def test_a_bank_of_one_normal_has_no_others_to_be_held_against(trained: Trained, parts: Parts) -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        build_bank(trained.networks, parts.train[:1], trained.calibrated.calibration, Polarity.BOTH)
