"""Calibration without defect labels: (α, λ, thresholds) from validation normals with synthetic defects.

The verdict threshold is chosen last, on the clean validation normals alone. No test image is ever touched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu
from torch import Tensor

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.calibration import verdict_threshold
from monitor.core.inspector import explain
from monitor.core.memory_bank import MemoryBank
from monitor.core.regions import threshold
from monitor.core.scoring import Normality, image_score, residual_strength, unfamiliarity
from schemas.artifacts import PAPER_PIXELS, Calibration, Polarity, VerdictCalibration
from trainer.synthetic import paste_defect

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """What is searched, and what the user asks for.

    Attributes:
        alphas, lambdas: the candidates.
        polarity: which residuals count; knowledge of the product, so the user's to say.
        false_reject_rate: the share of good parts the line may flag.
        defects: synthetic defects pasted.
        seed: of the synthetic defects.
    """

    alphas: tuple[float, ...] = (0.1, 0.3, 1.0)
    lambdas: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    polarity: Polarity = Polarity.BOTH
    false_reject_rate: float = 0.01
    solver_steps: int = 10
    defects: int = 120
    seed: int = 0


# Quantiles of the normals' own latent scores between which the bank's word fades in; the widest that costs no Dice.
FAMILIAR = ((0.3, 0.9), (0.1, 0.6), (0.05, 0.3), (0.02, 0.1), (0.0, 0.02))
DICE_TOLERANCE = 0.005
MIN_AREAS = (1, 2, 4, 8, 16)
LEVELS = 48
# The image score averages the largest values of this many pixels of a 128x128 frame, and in proportion elsewhere.
SCORE_PIXELS = (10, 30, 100, 300)


@dataclass(frozen=True, slots=True)
class _Evidence:
    """One (α, λ)'s maps, in units of a spread estimated on the half of the normals they do not come from."""

    clean: Tensor  # (V, H, W) the normals themselves
    defective: Tensor  # (D, H, W) normals with a pasted defect
    clean_scores: Tensor  # s (V, P1, P2)
    defective_scores: Tensor  # s (D, P1, P2)
    normality: Normality  # of all normals: what the bundle keeps


@dataclass(frozen=True, slots=True)
class _Material:
    """What calibration measures on: normals, and normals with known defects."""

    normals: Tensor  # (V, C, H, W)
    defective: Tensor  # (D, C, H, W)
    truth: NDArray[np.bool_]  # (D, H, W)
    origin: NDArray[np.int64]  # (D,) the normal each defective frame was made from


def calibrate(
    autoencoder: PatchAutoencoder,
    bank: MemoryBank,
    validation: NDArray[np.float32],
    settings: CalibrationSettings,
    progress: Progress | None = None,
) -> tuple[Calibration, Normality]:
    """Choose every number that decides.

    Args:
        autoencoder: trained, on none of the validation images.
        bank: of normals, none of them a validation image.
        validation: (V, C, H, W) normals, at least two.
        settings: what to search.
        progress: called with (candidates done, candidates in all).
    """
    material = _paste_defects(validation, settings)
    best: tuple[float, float, float, float, _Evidence] | None = None
    candidates = [(alpha, lam) for alpha in settings.alphas for lam in settings.lambdas]
    for done, (alpha, lam) in enumerate(candidates, 1):
        evidence = _gather(autoencoder, bank, material, settings, alpha, lam)
        level, dice = _best_level(evidence.defective.numpy(), material.truth)
        if best is None or dice > best[0]:
            best = dice, level, alpha, lam, evidence
        if progress:
            progress(done, len(candidates))
    assert best is not None
    _, level, alpha, lam, evidence = best
    familiar = _choose_familiar(evidence, material.truth, level)
    defective = _gated(evidence.defective, evidence.defective_scores, familiar)
    clean = _gated(evidence.clean, evidence.clean_scores, familiar)
    min_area, dice = _choose_min_area(defective.numpy(), material.truth, level)
    score_pixels = _choose_score_pixels(clean, defective)
    calibration = Calibration(
        alpha=alpha,
        lam=lam,
        solver_steps=settings.solver_steps,
        polarity=settings.polarity,
        mask_threshold=level,
        min_area=min_area,
        score_pixels=score_pixels,
        familiar=familiar,
        synthetic_dice=dice,
        verdict=_choose_verdict(image_score(clean, score_pixels), image_score(defective, score_pixels), settings),
    )
    return calibration, evidence.normality


def mean_dice(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the mean over frames of 2|A∩B| / (|A| + |B|) of masks (B, H, W); 1 where both are empty."""
    overlap = (masks & truth).sum(axis=(1, 2))
    sizes = masks.sum(axis=(1, 2)) + truth.sum(axis=(1, 2))
    return float(np.where(sizes > 0, 2 * overlap / np.maximum(sizes, 1), 1.0).mean())


def _paste_defects(validation: NDArray[np.float32], settings: CalibrationSettings) -> _Material:
    rng = np.random.default_rng(settings.seed)
    origin = np.arange(max(settings.defects, len(validation))) % len(validation)
    defects = [paste_defect(validation[index], rng) for index in origin]
    return _Material(
        normals=torch.from_numpy(validation),
        defective=torch.from_numpy(np.stack([defect.image for defect in defects])),
        truth=np.stack([defect.mask for defect in defects]),
        origin=origin,
    )


@torch.inference_mode()
def _gather(
    autoencoder: PatchAutoencoder,
    bank: MemoryBank,
    material: _Material,
    settings: CalibrationSettings,
    alpha: float,
    lam: float,
) -> _Evidence:
    """Inspect all frames with one (α, λ)."""
    clean = explain(autoencoder, material.normals, bank, alpha, lam, settings.solver_steps)
    defective = explain(autoencoder, material.defective, bank, alpha, lam, settings.solver_steps)
    strength = residual_strength(clean.residual, settings.polarity)
    # A frame's own residual must not excuse it, so each half is held against the other half's spread.
    half = torch.arange(len(strength)) % 2
    spreads = torch.stack([Normality.fit(strength[half != part]).spread for part in (0, 1)])  # (2, H, W)
    return _Evidence(
        clean=strength / spreads[half],
        defective=residual_strength(defective.residual, settings.polarity) / spreads[half[material.origin]],
        clean_scores=clean.retrieval.score,
        defective_scores=defective.retrieval.score,
        normality=Normality.fit(strength),
    )


def _best_level(anomaly: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the level of the best mean Dice and that Dice, for anomaly maps and true masks (D, H, W)."""
    share = truth.mean()
    levels = np.quantile(anomaly[:, ::2, ::2], 1.0 - np.geomspace(share / 30, min(0.5, 5 * share), LEVELS))
    dices = [mean_dice(anomaly > level, truth) for level in levels]
    index = int(np.argmax(dices))
    return float(levels[index]), dices[index]


def _gated(anomaly: Tensor, scores: Tensor, familiar: tuple[float, float]) -> Tensor:
    return anomaly * unfamiliarity(scores, familiar, (anomaly.shape[1], anomaly.shape[2]))


def _choose_familiar(evidence: _Evidence, truth: NDArray[np.bool_], level: float) -> tuple[float, float]:
    """Return the widest range of latent scores in which the bank may excuse a residual without hiding defects."""
    plain = mean_dice((evidence.defective > level).numpy(), truth)
    ranges = [tuple(np.quantile(evidence.clean_scores.numpy(), share).tolist()) for share in FAMILIAR]
    for low, high in ranges:
        gated = _gated(evidence.defective, evidence.defective_scores, (low, high))
        if mean_dice((gated > level).numpy(), truth) >= plain - DICE_TOLERANCE:
            return float(low), float(high)
    return float(ranges[-1][0]), float(ranges[-1][1])


def _choose_min_area(anomaly: NDArray[np.float32], truth: NDArray[np.bool_], level: float) -> tuple[int, float]:
    """Return the smallest region worth reporting, and the mean Dice with it."""
    dices = [mean_dice(np.stack([threshold(each, level, area) for each in anomaly]), truth) for area in MIN_AREAS]
    index = int(np.argmax(dices))
    return MIN_AREAS[index], dices[index]


def _choose_score_pixels(clean: Tensor, defective: Tensor) -> int:
    """Return how many pixels the image score averages, so that it best tells defective frames from clean ones."""
    counts = [max(1, round(pixels * clean[0].numel() / PAPER_PIXELS)) for pixels in SCORE_PIXELS]
    aurocs = [auroc(image_score(clean, count).numpy(), image_score(defective, count).numpy()) for count in counts]
    return counts[int(np.argmax(aurocs))]


def auroc(negatives: NDArray[np.floating], positives: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative (ties count half)."""
    return float(mannwhitneyu(positives, negatives).statistic / (len(positives) * len(negatives)))


def _choose_verdict(clean: Tensor, defective: Tensor, settings: CalibrationSettings) -> VerdictCalibration:
    line = verdict_threshold(clean.numpy(), settings.false_reject_rate)
    return VerdictCalibration(
        threshold=line.threshold,
        wanted_false_reject_rate=settings.false_reject_rate,
        normals=len(clean),
        above=line.above,
        false_reject_low=line.low,
        false_reject_high=line.high,
        synthetic_detected=float((defective > line.threshold).float().mean()),
    )
