"""Choosing a global threshold: by true masks as the paper does, or on synthetic defects, without any label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from monitor.core.regions import peak, threshold
from trainer.metrics import Maps, Masks, mean_dice

MIN_AREAS = (1, 2, 4, 8, 16)
LEVELS = 400
# The candidate levels leave this share of all pixels above them: from a pixel in a few frames to most of each.
ABOVE = (3e-6, 0.7)


@dataclass(frozen=True, slots=True)
class MaskRule:
    """How a map becomes a mask, see ``monitor.core.regions.threshold``."""

    level: float
    min_area: int = 1
    relative: float = 0.0

    def masks(self, maps: Maps) -> Masks:
        """Return the masks (B, H, W) of maps (B, H, W)."""
        return np.stack([threshold(each, self.level, self.min_area, self.relative) for each in maps])


def candidate_levels(maps: Maps) -> NDArray[np.float32]:
    """Return levels (L,), L <= 400, falling, that part the pixels of maps (B, H, W) in ever larger shares."""
    quantiles = np.quantile(maps, 1.0 - np.geomspace(*ABOVE, LEVELS))
    levels: NDArray[np.float32] = np.unique(quantiles.astype(np.float32))[::-1]
    return levels


def dice_at(maps: Maps, truth: Masks, levels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return (B, L): the Dice of each frame with each level, regions of any size counting.

    Sorting a frame's pixels once answers for every level, so that hundreds can be tried.
    """
    curves = np.empty((len(maps), len(levels)))
    for curve, values, mask in zip(curves, maps, truth, strict=True):
        hits = _above(values[mask], levels)
        sizes = _above(values, levels) + int(mask.sum())
        curve[:] = np.where(sizes > 0, 2 * hits / np.maximum(sizes, 1), 1.0)
    return curves


def crossed_dice(curves: NDArray[np.float64], repeats: int, seed: int) -> NDArray[np.float64]:
    """Return (B,): each frame's Dice with levels that were chosen on other frames.

    The frames are halved at random; the level with the best mean Dice on one half is reported on the other, and the
    other way round. Each frame's Dice is the mean over the ``repeats`` halvings.

    Args:
        curves: (B, L) from ``dice_at``, B >= 2.
        repeats: halvings.
        seed: of the halvings, so that every method sees the same.
    """
    rng = np.random.default_rng(seed)
    reported = np.zeros((repeats, len(curves)))
    for row in reported:
        order = rng.permutation(len(curves))
        for chosen, told in (np.array_split(order, 2), np.array_split(order, 2)[::-1]):
            row[told] = curves[told, int(np.argmax(curves[chosen].mean(axis=0)))]
    return np.asarray(reported.mean(axis=0))


def above_peak(maps: Maps, relative: float) -> Maps:
    """Return maps (B, H, W) with 0 where they are not above the share ``relative`` of their own peak."""
    peaks = np.array([peak(each) for each in maps], np.float32)[:, None, None]
    return np.where(maps > relative * peaks, maps, np.float32(0.0))


def best_level(maps: Maps, truth: Masks, least: float = 0.0, tolerance: float = 0.0) -> tuple[float, float]:
    """Return the highest level, above ``least``, that is within ``tolerance`` of the best mean Dice; and that best."""
    levels = np.maximum(candidate_levels(maps), np.float32(least))  # falling
    means = dice_at(maps, truth, levels).mean(axis=0)
    chosen = int(np.argmax(means >= means.max() - tolerance))
    return float(levels[chosen]), float(means.max())


def best_rule(maps: Maps, truth: Masks) -> MaskRule:
    """Return the level with the best mean Dice on maps (B, H, W) of known truth, then the best minimum area."""
    level, _ = best_level(maps, truth)
    rules = [MaskRule(level, area) for area in MIN_AREAS]
    return max(rules, key=lambda rule: mean_dice(rule.masks(maps), truth))


def _above(values: NDArray[np.float32], levels: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how many of the values lie above each level, (L,)."""
    return values.size - np.searchsorted(np.sort(values, axis=None), levels, side="right")
