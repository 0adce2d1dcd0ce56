from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from monitor.core.inspector import Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.core.scoring import SILENCE
from schemas.artifacts import Polarity
from tests.unit.small_model import Parts
from trainer.bank import Encoded, build_bank, entries_of
from trainer.bundle import Trained
from trainer.calibrate import RELATIVES, Calibrated, CalibrationSettings, _choose_rule, calibrate
from trainer.metrics import auroc, mean_dice
from trainer.thresholds import MIN_AREAS, best_level

QUICK = CalibrationSettings(
    alpha=(0.3, 0.3), lam=(3e-4, 3e-4), smoothings=(0.0, 0.9), defects=16, false_reject_rate=0.1
)


def recalibrate(trained: Trained, parts: Parts, settings: CalibrationSettings) -> Calibrated:
    return calibrate(trained.networks, parts.train, parts.validation, settings)


def bank_of(trained: Trained, normals: np.ndarray) -> MemoryBank:
    encoded = Encoded.of(trained.networks, normals, suspect_too=False)
    return build_bank(trained.networks, encoded, trained.calibrated.calibration, Polarity.BOTH)


def entries_equal(left: Calibrated, right: Calibrated) -> bool:
    return np.array_equal(entries_of(left.bank), entries_of(right.bank))


def test_every_threshold_is_finite_and_within_what_was_searched(trained: Trained, parts: Parts) -> None:
    found = trained.calibrated.calibration
    assert found.alpha == 0.3
    assert 1e-4 <= found.lam <= 3e-4
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
    found = recalibrate(trained, parts, replace(QUICK, alpha=(0.0, 0.6), lam=(1e-5, 1e-1), trials=9))
    assert found.report is not None
    tried = found.report.candidates
    best = max(tried, key=lambda each: each.dice)
    chosen = found.calibration
    assert {"α": chosen.alpha, "λ": chosen.lam, "smoothing": chosen.smoothing} == best.parameters
    assert best.dice > min(each.dice for each in tried)
    assert {each.parameters["smoothing"] for each in tried} <= set(QUICK.smoothings)
    # What was searched, from the middle outwards: both ways along both.
    pairs = [(each.parameters["α"], each.parameters["λ"]) for each in tried]
    assert len(set(pairs)) == len(pairs) >= 9
    assert pairs[0] == pytest.approx((0.3, 1e-3))
    assert min(alpha for alpha, _ in pairs) < 0.3 < max(alpha for alpha, _ in pairs)
    assert min(lam for _, lam in pairs) < 1e-3 < max(lam for _, lam in pairs)
    assert all(0.0 <= alpha <= 0.6 and 1e-5 <= lam <= 1e-1 for alpha, lam in pairs)


def test_a_search_over_one_number_leaves_the_other_alone(trained: Trained, parts: Parts) -> None:
    found = recalibrate(trained, parts, replace(QUICK, lam=(1e-4, 1e-3), trials=3))
    assert found.report is not None
    assert {each.parameters["α"] for each in found.report.candidates} == {0.3}
    assert len({each.parameters["λ"] for each in found.report.candidates}) >= 3


def test_of_levels_that_are_as_good_the_highest_is_chosen() -> None:
    truth = np.zeros((1, 8, 8), np.bool_)
    truth[0, 2:6, 2:6] = True
    maps = np.where(truth, 9.0, 1.0).astype(np.float32)
    maps[0, 2, 2] = 3.0  # missed by a high level, at the cost of 1/31 of Dice
    level, dice = best_level(maps, truth)
    assert 1.0 <= level < 3.0
    assert dice == 1.0
    assert 3.0 <= best_level(maps, truth, tolerance=0.04)[0] < 9.0
    assert best_level(maps, truth, least=20.0) == (20.0, 0.0)


def test_the_rule_of_the_mask_is_the_best_of_those_that_were_tried(trained: Trained) -> None:
    found = trained.calibrated.calibration
    assert found.relative_level in RELATIVES
    maps = np.zeros((2, 64, 64), np.float32)
    truth = np.zeros((2, 64, 64), np.bool_)
    truth[:, 8:16, 8:16] = True
    maps[truth] = 9.0
    maps[0, 20:30, 20:30] = 5.0  # beside a defect of 500 in the first frame, a halo as odd as ...
    maps[0][truth[0]] = 500.0
    maps[1][truth[1]] = 5.0  # ... the defect of the second
    rule, dice = _choose_rule(maps, truth)
    assert dice == 1.0
    assert rule.relative == 0.01
    assert SILENCE * 0.9999 < rule.level < 5.0
    assert (rule.masks(maps) == truth).all()


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
        replace(QUICK, lam=(1e-4, 3e-4), trials=2, defects=4),
        lambda done, total: told.append((done, total)),
    )
    # DIRECT ends its round, and may try a pair more than it was asked to.
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert len(told) >= 2
    assert all(total == max(done, 2) for done, total in told)


def test_normals_without_any_residual_still_give_a_bundle(trained: Trained, parts: Parts) -> None:
    # At so large a lambda nothing is a defect, so that every anomaly is zero.
    found = recalibrate(trained, parts, replace(QUICK, lam=(1e3, 1e3), smoothings=(0.0,))).calibration
    assert found.mask_threshold == pytest.approx(SILENCE)
    assert found.verdict.threshold == pytest.approx(SILENCE)
    assert found.synthetic_dice < 0.1


def test_the_bank_keeps_each_normals_features_and_its_residual_against_the_others(
    trained: Trained, parts: Parts
) -> None:
    bank = bank_of(trained, parts.train[:6])
    assert len(bank) == bank.rows == 6
    with torch.inference_mode():
        features = trained.networks.autoencoder.encode(torch.from_numpy(parts.train[:6]))
        found = bank.query(features)
    assert (found.slot == torch.arange(6)[:, None, None]).all()
    assert found.score.max() < 1e-4
    # Held against itself, a normal would have left less.
    assert found.known.mean() > 0
    fewer = bank_of(trained, parts.train[:2])
    with torch.inference_mode():
        assert fewer.query(features[:2]).known.mean() > found.known[:2].mean()


def test_a_bank_of_one_normal_has_no_others_to_be_held_against(trained: Trained, parts: Parts) -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        bank_of(trained, parts.train[:1])
