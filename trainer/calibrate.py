"""Calibration without defect labels: (α, λ, smoothing, thresholds) from validation normals with synthetic defects.

α and λ are searched by DIRECT (Jones, Perttunen and Stuckman 1993), which needs no gradient, no seed and few trials.
For each pair of them the rest costs next to nothing and is searched exhaustively: every smoothing with every level, and
then the level relative to the frame, and the minimum area. Polarity is not searched: half of the synthetic defects are
dark and half are bright, so they cannot tell; it is knowledge of the product, and the user's to say.

The verdict threshold is chosen last, on the clean validation normals alone. No test image is ever touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import direct
from torch import Tensor

from monitor.core.calibration import verdict_threshold
from monitor.core.drift import DriftBaseline
from monitor.core.memory_bank import MemoryBank
from monitor.core.networks import Networks
from monitor.core.scoring import SILENCE, Normality, Witnesses, anomaly_map, image_score, smooth
from schemas.artifacts import PAPER_PIXELS, Calibration, Polarity, VerdictCalibration
from trainer.bank import Encoded, build_bank, witnesses_of
from trainer.metrics import auroc, mean_dice
from trainer.report_data import CalibrationReport, Candidate, collect_report
from trainer.synthetic import PLAIN
from trainer.thresholds import MIN_AREAS, MaskRule, above_peak, best_level
from trainer.visible_defects import paste_visible_defect

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """What is searched, and what the user asks for.

    Attributes:
        alpha, lam: the least and the largest candidate; λ on a logarithmic scale.
        trials: pairs of them that are tried, about; with 1, the middle alone.
        smoothings: the candidates, in pixels.
        polarity: which residuals count.
        false_reject_rate: the share of good parts the line may flag.
        solver_steps: of the decomposition.
        defects: synthetic defects pasted.
        seed: of the synthetic defects.
    """

    alpha: tuple[float, float] = (0.0, 0.6)
    lam: tuple[float, float] = (5e-5, 4.5e-4)
    trials: int = 9
    smoothings: tuple[float, ...] = (0.0, 0.6, 0.9, 1.3)
    polarity: Polarity = Polarity.BOTH
    false_reject_rate: float = 0.01
    solver_steps: int = 10
    defects: int = 120
    seed: int = 0


# Of levels that are as good as the best within what so few synthetic defects can tell, the highest: it marks the fewest
# sound pixels, and real defects are mostly plainer than synthetic ones.
AS_GOOD = 0.005
# Shares of the frame's own peak, the candidates. Not more: beside a strong defect a faint one is to be found, too.
RELATIVES = (0.0, 0.01, 0.02, 0.03)
# The image score averages the largest values of this many pixels of a 128x128 frame, and in proportion elsewhere.
SCORE_PIXELS = (10, 30, 100, 300)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What calibration chose."""

    calibration: Calibration
    normality: Normality
    bank: MemoryBank
    drift: DriftBaseline
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
    """One candidate's anomaly maps, held against a normality of the half of the normals that they do not come from."""

    draft: _Draft
    clean: Tensor  # (V, H, W) the normals themselves
    defective: Tensor  # (D, H, W) normals with a pasted defect
    normality: Normality  # of all normals: what the bundle keeps
    bank: MemoryBank
    dice: float  # the best mean Dice of any level


@dataclass(frozen=True, slots=True)
class _Material:
    """What calibration measures on: normals, and normals with known defects."""

    bank: Encoded  # N other normals
    normals: Encoded  # V
    defective: Encoded  # D
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
    networks = networks.for_inference()
    material = _prepare(networks, normals, validation, settings, inspected)
    best, tried = _search(networks, material, settings, progress)
    rule, dice = _choose_rule(best.defective.numpy(), material.truth)
    score_pixels = _choose_score_pixels(best.clean, best.defective)
    scores = image_score(best.clean, score_pixels), image_score(best.defective, score_pixels)
    calibration = Calibration(
        alpha=best.draft.alpha,
        lam=best.draft.lam,
        solver_steps=settings.solver_steps,
        polarity=settings.polarity,
        smoothing=best.draft.smoothing,
        mask_threshold=rule.level,
        relative_level=rule.relative,
        min_area=rule.min_area,
        score_pixels=score_pixels,
        synthetic_dice=dice,
        verdict=_choose_verdict(*scores, settings),
    )
    report = collect_report(
        normal_scores=scores[0].numpy(),
        defective_scores=scores[1].numpy(),
        kinds=material.kinds,
        images=material.defective.frames.numpy(),
        truth=material.truth,
        anomaly=best.defective.numpy(),
        rule=rule,
        candidates=tried,
    )
    distances = best.bank.query(material.normals.features).score.numpy()  # (V, P1, P2)
    drift = DriftBaseline.fit(scores[0].numpy(), distances)
    return Calibrated(calibration, best.normality, best.bank, drift, report)


def _prepare(
    networks: Networks,
    normals: NDArray[np.float32],
    validation: NDArray[np.float32],
    settings: CalibrationSettings,
    inspected: NDArray[np.bool_] | None,
) -> _Material:
    """Paste the synthetic defects, and show everything to the networks, once."""
    rng = np.random.default_rng(settings.seed)
    origin = np.arange(max(settings.defects, len(validation))) % len(validation)
    defects = [paste_visible_defect(validation[index], rng, inspected, PLAIN) for index in origin]
    return _Material(
        bank=Encoded.of(networks, normals, suspect_too=False),
        normals=Encoded.of(networks, validation),
        defective=Encoded.of(networks, np.stack([defect.image for defect in defects])),
        truth=np.stack([defect.mask for defect in defects]),
        origin=origin,
        kinds=tuple(defect.kind for defect in defects),
        inspected=None if inspected is None else torch.from_numpy(inspected),
    )


def _search(
    networks: Networks, material: _Material, settings: CalibrationSettings, progress: Progress | None
) -> tuple[_Evidence, list[Candidate]]:
    """Return the evidence of the best candidate; and of each pair (α, λ) that was tried the best smoothing."""
    best: _Evidence | None = None
    tried: list[Candidate] = []

    def loss(alpha: float, lam: float) -> float:
        nonlocal best
        draft = _Draft(alpha, lam, 0.0, settings.solver_steps)
        found = max(_gather(networks, material, settings, draft), key=lambda evidence: evidence.dice)
        tried.append(Candidate({"α": alpha, "λ": lam, "smoothing": found.draft.smoothing}, found.dice))
        if best is None or found.dice > best.dice:
            best = found
        if progress:
            progress(len(tried), max(len(tried), settings.trials))
        return -found.dice

    _direct(loss, settings)
    assert best is not None
    return best, tried


def _direct(loss: Callable[[float, float], float], settings: CalibrationSettings) -> None:
    """Try about ``trials`` pairs (α, λ), each where DIRECT expects the least loss; what is fixed is not searched."""
    low = np.array([settings.alpha[0], np.log(settings.lam[0])])
    high = np.array([settings.alpha[1], np.log(settings.lam[1])])
    free = high > low

    def at(point: NDArray[np.float64]) -> float:
        values = low.copy()
        values[free] = point
        return loss(float(values[0]), float(np.exp(values[1])))

    if free.any() and settings.trials > 1:
        direct(at, list(zip(low[free], high[free], strict=True)), maxfun=settings.trials)
    else:
        at(((low + high) / 2)[free])


@torch.inference_mode()
def _gather(
    networks: Networks, material: _Material, settings: CalibrationSettings, draft: _Draft
) -> Iterator[_Evidence]:
    """Inspect all frames with one (α, λ); yield the evidence for each smoothing."""
    bank = build_bank(networks, material.bank, draft, settings.polarity)
    clean, defective = (
        witnesses_of(networks, frames, bank, draft, settings.polarity)
        for frames in (material.normals, material.defective)
    )
    # A frame's own residual must not excuse it, so each half is held against the other half's spread.
    half = torch.arange(len(clean.excess)) % 2
    for smoothing in settings.smoothings:
        smoothed = smooth(clean.excess, smoothing)
        others = [_fit(smoothed, clean.detail, half != part, material) for part in (0, 1)]
        maps = (
            _anomalies(clean, half, others, smoothing),
            _anomalies(defective, half[material.origin], others, smoothing),
        )
        _, dice = best_level(maps[1].numpy(), material.truth, SILENCE)
        yield _Evidence(
            draft=replace(draft, smoothing=smoothing),
            clean=maps[0],
            defective=maps[1],
            normality=_fit(smoothed, clean.detail, half >= 0, material),
            bank=bank,
            dice=dice,
        )


def _fit(smoothed: Tensor, detail: Tensor, chosen: Tensor, material: _Material) -> Normality:
    return Normality.fit(smoothed[chosen], detail[chosen], material.inspected)


def _anomalies(seen: Witnesses, half: Tensor, others: list[Normality], smoothing: float) -> Tensor:
    """Return anomaly maps (B, H, W), each frame's held against the normality of the half (B,) that it is not in."""
    maps = torch.empty_like(seen.excess)
    for part, normality in enumerate(others):
        maps[half == part] = anomaly_map(seen.at(half == part), normality, smoothing)
    return maps


def _choose_rule(anomaly: NDArray[np.float32], truth: NDArray[np.bool_]) -> tuple[MaskRule, float]:
    """Return the level, the share of the frame's peak and the smallest region worth reporting; and their mean Dice."""
    levels = [best_level(above_peak(anomaly, relative), truth, SILENCE, AS_GOOD) for relative in RELATIVES]
    chosen = int(np.argmax([dice for _, dice in levels]))
    rules = [MaskRule(levels[chosen][0], area, RELATIVES[chosen]) for area in MIN_AREAS]
    dices = [mean_dice(rule.masks(anomaly), truth) for rule in rules]
    best = int(np.argmax(dices))
    return rules[best], dices[best]


def _choose_score_pixels(clean: Tensor, defective: Tensor) -> int:
    """Return how many pixels the image score averages, so that it best tells defective frames from clean ones."""
    counts = [max(1, round(pixels * clean[0].numel() / PAPER_PIXELS)) for pixels in SCORE_PIXELS]
    aurocs = [auroc(image_score(clean, count).numpy(), image_score(defective, count).numpy()) for count in counts]
    return counts[int(np.argmax(aurocs))]


def _choose_verdict(clean: Tensor, defective: Tensor, settings: CalibrationSettings) -> VerdictCalibration:
    line = verdict_threshold(clean.numpy(), settings.false_reject_rate, SILENCE)
    return VerdictCalibration(
        threshold=line.threshold,
        wanted_false_reject_rate=settings.false_reject_rate,
        normals=len(clean),
        above=line.above,
        false_reject_low=line.low,
        false_reject_high=line.high,
        synthetic_detected=float((defective > line.threshold).float().mean()),
    )
