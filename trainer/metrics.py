"""The measures: Dice, AUROC of images and of pixels, AUPRO, bootstrap intervals. All exact: nothing is binned."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, mannwhitneyu

Maps = NDArray[np.float32]  # (B, H, W), larger is more abnormal
Masks = NDArray[np.bool_]  # (B, H, W)

FPR_LIMIT = 0.3
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over frames with the 95 % bootstrap interval over them: how it would vary with other such frames."""

    mean: float
    low: float
    high: float
    frames: int


def shrink(truth: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask (h, w) at another size (H, W): pixels that it covers by half or more."""
    if truth.shape == size:
        return truth
    covered = cv2.resize(truth.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(covered >= 0.5 - 1e-6)


def dice(masks: Masks, truth: Masks) -> NDArray[np.float64]:
    """Return (B,): 2|A∩B| / (|A| + |B|) of masks (B, H, W); 1 where both are empty."""
    overlap = (masks & truth).sum(axis=(1, 2))
    sizes = masks.sum(axis=(1, 2)) + truth.sum(axis=(1, 2))
    return np.where(sizes > 0, 2 * overlap / np.maximum(sizes, 1), 1.0)


def mean_dice(masks: Masks, truth: Masks) -> float:
    """Return the mean of ``dice`` over the frames."""
    return float(dice(masks, truth).mean())


def auroc(negatives: NDArray[np.floating], positives: NDArray[np.floating]) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative (ties count half)."""
    # Scipy adds the ranks in the precision of the scores: in single precision those of a million pixels go wrong. The
    # statistic is the same by every method; the asymptotic one spends nothing on the distribution of a p-value.
    statistic = mannwhitneyu(np.float64(positives), np.float64(negatives), method="asymptotic").statistic
    return float(statistic / (len(positives) * len(negatives)))


def pixel_auroc(maps: Maps, truth: Masks) -> float:
    """Return the AUROC of all pixels of all frames, those of good ones included."""
    return auroc(maps[~truth], maps[truth])


def aupro(maps: Maps, truth: Masks, limit: float = FPR_LIMIT) -> float:
    """Return the area under the per-region overlap curve, up to a false-positive rate and divided by it.

    Per-region overlap: the share of a true region that lies above the threshold, averaged over the 8-connected regions
    of all frames, so that a small defect counts as much as a large one. False positives: the share of all normal
    pixels above it. (Bergmann et al., *Uninformed Students*, CVPR 2020, section 4; *MVTec AD*, IJCV 2021.)

    Args:
        maps: (B, H, W) anomaly maps.
        truth: (B, H, W), with a defect in one frame at least.
        limit: the largest false-positive rate, in (0, 1].
    """
    weights, regions = _region_weights(truth)
    normal = ~truth
    order = np.argsort(-maps, axis=None, kind="stable")
    values = maps.reshape(-1)[order]
    overlap = np.cumsum(weights.reshape(-1)[order], dtype=np.float64) / regions
    false_positives = np.cumsum(normal.reshape(-1)[order]) / normal.sum()
    # Pixels of one value pass the threshold together: the curve has a point after the last of them only.
    last = np.append(np.flatnonzero(np.diff(values)), len(values) - 1)
    x = np.concatenate([[0.0], false_positives[last]])
    y = np.concatenate([[0.0], overlap[last]])
    inside = x < limit
    # Of several points above one another at the limit the curve is cut where it gets there.
    x_cut, y_cut = np.append(x[inside], limit), np.append(y[inside], _crossing(x, y, limit))
    return float(np.trapezoid(y_cut, x_cut) / limit)


def _region_weights(truth: Masks) -> tuple[NDArray[np.float64], int]:
    """Return (B, H, W) the share that each pixel has of its region, 0 outside, and the number of regions."""
    weights, regions = np.zeros(truth.shape), 0
    for mask, shares in zip(truth, weights, strict=True):
        count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        regions += count - 1
        per_label = 1.0 / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
        per_label[0] = 0.0  # the background
        shares[...] = per_label[labels]
    if not regions:
        msg = "no true region in any frame, so no overlap with them"
        raise ValueError(msg)
    return weights, regions


def _crossing(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> float:
    """Return the height at which the rising curve (x, y), x from 0 to 1, first reaches ``limit``."""
    after = int(np.searchsorted(x, limit, side="left"))
    run = x[after] - x[after - 1]
    return float(y[after - 1] + (y[after] - y[after - 1]) * (limit - x[after - 1]) / run)


def estimate(values: NDArray[np.float64], seed: int = 0) -> Estimate:
    """Return the mean of values (n,), n >= 1, with its percentile bootstrap interval (2000 resamples)."""
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:  # noqa: PLR2004 - one cannot be resampled, equal ones need not
        return Estimate(mean, mean, mean, len(values))
    interval = bootstrap(
        (values,), np.mean, n_resamples=2000, confidence_level=CONFIDENCE, method="percentile", rng=seed
    ).confidence_interval
    return Estimate(mean, float(interval.low), float(interval.high), len(values))
