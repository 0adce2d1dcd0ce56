"""What calibration saw, kept for the report: scores, curves and examples, and no more pictures than are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.metrics import Maps, Masks, dice
from trainer.thresholds import MaskRule, above_peak, dice_at

# The curve goes from the chosen level to this many times less and more.
CURVE_SPAN, CURVE_POINTS = 12.0, 49


@dataclass(frozen=True, slots=True)
class Candidate:
    """One set of numbers that was tried, by name, and the mean Dice on the synthetic defects that it reached."""

    parameters: dict[str, float]
    dice: float


@dataclass(frozen=True, slots=True)
class Example:
    """One synthetic defect: ``image`` (C, H, W) in [0, 1], its ``truth`` and what was ``found`` of it, both (H, W)."""

    kind: str
    image: NDArray[np.float32]
    truth: NDArray[np.bool_]
    found: NDArray[np.bool_]
    dice: float
    score: float


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """What the report shows beside the numbers that the manifest has.

    Attributes:
        normal_scores: (V,) of the validation normals.
        defective_scores: (D,) of the normals with a synthetic defect, and their ``kinds``, D names.
        level_curve: the mean Dice at each level of the mask, regions of any size counting.
        candidates: in the order in which they were tried.
        examples: of each kind the worst found, a middling and the best found.
    """

    normal_scores: NDArray[np.floating]
    defective_scores: NDArray[np.floating]
    kinds: tuple[str, ...]
    level_curve: tuple[tuple[float, float], ...]
    candidates: tuple[Candidate, ...]
    examples: tuple[Example, ...]


def collect_report(
    *,
    normal_scores: NDArray[np.floating],
    defective_scores: NDArray[np.floating],
    kinds: Sequence[str],
    images: NDArray[np.float32],
    truth: Masks,
    anomaly: Maps,
    rule: MaskRule,
    candidates: Sequence[Candidate],
) -> CalibrationReport:
    """Keep of a calibration what its report shows.

    Args:
        normal_scores: (V,).
        defective_scores: (D,) of the frames with a synthetic defect.
        kinds: D names.
        images: (D, C, H, W).
        truth: (D, H, W).
        anomaly: (D, H, W) maps.
        rule: the chosen one.
        candidates: all that were tried.
    """
    levels = np.geomspace(rule.level / CURVE_SPAN, rule.level * CURVE_SPAN, CURVE_POINTS).astype(np.float32)
    curve = dice_at(above_peak(anomaly, rule.relative), truth, levels).mean(axis=0)
    found = rule.masks(anomaly)
    dices = dice(found, truth)
    examples = [
        Example(
            kinds[index],
            images[index].copy(),
            truth[index].copy(),
            found[index],
            float(dices[index]),
            float(defective_scores[index]),
        )
        for index in _pick(kinds, dices)
    ]
    return CalibrationReport(
        normal_scores=normal_scores,
        defective_scores=defective_scores,
        kinds=tuple(kinds),
        level_curve=tuple(zip(levels.tolist(), curve.tolist(), strict=True)),
        candidates=tuple(candidates),
        examples=tuple(examples),
    )


def _pick(kinds: Sequence[str], dices: NDArray[np.float64]) -> list[int]:
    """Return of each kind the worst, the middle and the best: a choice that flatters nobody."""
    picked: list[int] = []
    for kind in sorted(set(kinds)):
        members = [index for index, each in enumerate(kinds) if each == kind]
        members.sort(key=lambda index: float(dices[index]))
        picked += [members[place] for place in sorted({0, len(members) // 2, len(members) - 1})]
    return picked
