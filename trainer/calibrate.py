"""Calibration without defect labels: (α, λ, thresholds) from validation normals with synthetic defects.

The verdict threshold is chosen last, on the clean validation normals alone. No test image is ever touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.core.calibration import verdict_threshold
from monitor.core.memory_bank import MemoryBank
from monitor.core.networks import Networks
from monitor.core.scoring import Normality, image_score, smooth, weigh
from schemas.artifacts import PAPER_PIXELS, Calibration, Polarity, VerdictCalibration
from trainer.bank import build_bank, excess_and_suspicion
from trainer.metrics import auroc, mean_dice
from trainer.report_data import CalibrationReport, Candidate, collect_report
from trainer.synthetic import PLAIN
from trainer.thresholds import MIN_AREAS, MaskRule
from trainer.visible_defects import paste_visible_defect

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """What is searched, and what the user asks for.

    Attributes:
        alphas, lambdas, smoothings: the candidates.
        polarity: which residuals count; knowledge of the product, so the user's to say.
        false_reject_rate: the share of good parts the line may flag.
        defects: synthetic defects pasted.
        seed: of the synthetic defects.
    """

    alphas: tuple[float, ...] = (0.3,)
    lambdas: tuple[float, ...] = (1.5e-4, 3e-4, 6e-4)
    smoothings: tuple[float, ...] = (0.0, 0.6, 0.9, 1.3)
    polarity: Polarity = Polarity.BOTH
    false_reject_rate: float = 0.01
    solver_steps: int = 10
    defects: int = 120
    seed: int = 0


LEVELS = 48
LEAST_LEVEL = 1e-3  # of the normals' spread
# The image score averages the largest values of this many pixels of a 128x128 frame, and in proportion elsewhere.
SCORE_PIXELS = (10, 30, 100, 300)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibration chose."""

    calibration: Calibration
    normality: Normality
    bank: MemoryBank
    report: CalibrationReport | None = None


@dataclass(frozen=True, slots=True)
class _Draft:
    """One candidate for the numbers that shape the anomaly map."""

    alpha: float
    lam: float
    smoothing: float
    solver_steps: int


@dataclass(frozen=True, slots=True)
class _Evidence:
    """One candidate's anomaly maps, in units of a spread estimated on the half of the normals they do not come from."""

    draft: _Draft
    clean: Tensor  # (V, H, W) the normals themselves
    defective: Tensor  # (D, H, W) normals with a pasted defect
    normality: Normality  # of all normals: what the bundle keeps
    bank: MemoryBank
    level: float  # of the best mean Dice
    dice: float


@dataclass(frozen=True, slots=True)
class _Material:
    """What calibration measures on: normals, and normals with known defects."""

    normals: Tensor  # (V, C, H, W)
    defective: Tensor  # (D, C, H, W)
    truth: NDArray[np.bool_]  # (D, H, W)
    origin: NDArray[np.int64]  # (D,) the normal each defective frame was made from
    kinds: tuple[str, ...]  # D names
    inspected: Tensor | None  # (H, W) bool; None: all


def calibrate(
    networks: Networks,
    normals: NDArray[np.float32],
    validation: NDArray[np.float32],
    settings: CalibrationSettings,
    progress: Progress | None = None,
    inspected: NDArray[np.bool_] | None = None,
) -> Calibrated:
    """Choose every number that decides, and build the bank that goes with them.

    Args:
        networks: trained, on none of the validation images.
        normals: (N, C, H, W) for the bank, none of them a validation image.
        validation: (V, C, H, W) normals, at least two.
        settings: what to search.
        progress: called with (candidates done, candidates in all).
        inspected: (H, W) the pixels that count; None: all.
    """
    material = _paste_defects(validation, settings, inspected)
    candidates = [(alpha, lam) for alpha in settings.alphas for lam in settings.lambdas]
    best: _Evidence | None = None
    tried: list[Candidate] = []
    for done, (alpha, lam) in enumerate(candidates, 1):
        for evidence in _gather(networks, normals, material, settings, _Draft(alpha, lam, 0.0, settings.solver_steps)):
            tried.append(Candidate({"α": alpha, "λ": lam, "smoothing": evidence.draft.smoothing}, evidence.dice))
            if best is None or evidence.dice > best.dice:
                best = evidence
        if progress:
            progress(done, len(candidates))
    assert best is not None
    min_area, dice = _choose_min_area(best.defective.numpy(), material.truth, best.level)
    score_pixels = _choose_score_pixels(best.clean, best.defective)
    scores = image_score(best.clean, score_pixels), image_score(best.defective, score_pixels)
    calibration = Calibration(
        alpha=best.draft.alpha,
        lam=best.draft.lam,
        solver_steps=settings.solver_steps,
        polarity=settings.polarity,
        smoothing=best.draft.smoothing,
        mask_threshold=best.level,
        min_area=min_area,
        score_pixels=score_pixels,
        synthetic_dice=dice,
        verdict=_choose_verdict(*scores, settings),
    )
    report = collect_report(
        normal_scores=scores[0].numpy(),
        defective_scores=scores[1].numpy(),
        kinds=material.kinds,
        images=material.defective.numpy(),
        truth=material.truth,
        anomaly=best.defective.numpy(),
        rule=MaskRule(best.level, min_area),
        candidates=tried,
    )
    return Calibrated(calibration, best.normality, best.bank, report)


def _paste_defects(
    validation: NDArray[np.float32], settings: CalibrationSettings, inspected: NDArray[np.bool_] | None
) -> _Material:
    rng = np.random.default_rng(settings.seed)
    origin = np.arange(max(settings.defects, len(validation))) % len(validation)
    defects = [paste_visible_defect(validation[index], rng, inspected, PLAIN) for index in origin]
    return _Material(
        normals=torch.from_numpy(validation),
        defective=torch.from_numpy(np.stack([defect.image for defect in defects])),
        truth=np.stack([defect.mask for defect in defects]),
        origin=origin,
        kinds=tuple(defect.kind for defect in defects),
        inspected=None if inspected is None else torch.from_numpy(inspected),
    )


@torch.inference_mode()
def _gather(
    networks: Networks,
    normals: NDArray[np.float32],
    material: _Material,
    settings: CalibrationSettings,
    draft: _Draft,
) -> Iterator[_Evidence]:
    """Inspect all frames with one (α, λ); yield the evidence for each smoothing."""
    bank = build_bank(networks, normals, draft, settings.polarity)
    (known, clean), (found, defective) = (
        excess_and_suspicion(networks, frames, bank, draft, settings.polarity)
        for frames in (material.normals, material.defective)
    )
    # A frame's own residual must not excuse it, so each half is held against the other half's spread.
    half = torch.arange(len(known)) % 2
    for smoothing in settings.smoothings:
        smoothed = smooth(known, smoothing)
        halves = [Normality.fit(smoothed[half != part], material.inspected) for part in (0, 1)]
        spreads = torch.stack([each.spread for each in halves])  # (2, H, W)
        anomaly = weigh(smooth(found, smoothing) / spreads[half[material.origin]], defective)
        level, dice = _best_level(anomaly.numpy(), material.truth)
        yield _Evidence(
            draft=replace(draft, smoothing=smoothing),
            clean=weigh(smoothed / spreads[half], clean),
            defective=anomaly,
            normality=Normality.fit(smoothed, material.inspected),
            bank=bank,
            level=level,
            dice=dice,
        )


def _best_level(anomaly: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the level of the best mean Dice and that Dice, for anomaly maps and true masks (D, H, W)."""
    share = truth.mean()
    levels = np.quantile(anomaly[:, ::2, ::2], 1.0 - np.geomspace(share / 30, min(0.5, 5 * share), LEVELS))
    # Most residuals are exactly zero on a clean product; a level must be above that.
    levels = np.maximum(levels, LEAST_LEVEL)
    dices = [mean_dice(anomaly > level, truth) for level in levels]
    index = int(np.argmax(dices))
    return float(levels[index]), dices[index]


def _choose_min_area(anomaly: NDArray[np.float32], truth: NDArray[np.bool_], level: float) -> tuple[int, float]:
    """Return the smallest region worth reporting, and the mean Dice with it."""
    dices = [mean_dice(MaskRule(level, area).masks(anomaly), truth) for area in MIN_AREAS]
    index = int(np.argmax(dices))
    return MIN_AREAS[index], dices[index]


def _choose_score_pixels(clean: Tensor, defective: Tensor) -> int:
    """Return how many pixels the image score averages, so that it best tells defective frames from clean ones."""
    counts = [max(1, round(pixels * clean[0].numel() / PAPER_PIXELS)) for pixels in SCORE_PIXELS]
    aurocs = [auroc(image_score(clean, count).numpy(), image_score(defective, count).numpy()) for count in counts]
    return counts[int(np.argmax(aurocs))]


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
