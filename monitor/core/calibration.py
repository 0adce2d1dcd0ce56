"""Thresholds without defect labels: what normals allow one to promise, with its interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, norm

CONFIDENCE = 0.95
# A score below this share of the largest is that of a frame without any anomaly.
NEGLIGIBLE = 1e-3


@dataclass(frozen=True, slots=True)
class VerdictThreshold:
    """A line through the scores of normals.

    Attributes:
        threshold: frames scoring above it are flagged.
        above: how many of the normals lie above it.
        low, high: the exact 95 % interval of the false-reject rate.
    """

    threshold: float
    above: int
    low: float
    high: float


def clopper_pearson(successes: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact binomial confidence interval of a share (Clopper and Pearson 1934)."""
    if not 0 <= successes <= trials or trials < 1:
        msg = f"{successes} of {trials} is not a share"
        raise ValueError(msg)
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if successes == 0 else float(beta.ppf(tail, successes, trials - successes + 1))
    high = 1.0 if successes == trials else float(beta.ppf(1.0 - tail, successes + 1, trials - successes))
    return low, high


def verdict_threshold(scores: NDArray[np.floating], wanted_rate: float, least: float = 0.0) -> VerdictThreshold:
    """Choose the score above which a frame is flagged, for a wanted false-reject rate.

    The empirical quantile, where there are normals enough to see it; with fewer than 1 / rate normals it lies beyond
    the largest, and a log-normal fit says how far (never below the largest). The interval counts what was seen and
    assumes nothing, so it tells when there were too few normals to promise the rate.

    Args:
        scores: (N,) scores >= 0, N >= 1, of normal frames on which nothing else was chosen.
        wanted_rate: share of the normals to be flagged at most, in (0, 1).
        least: the threshold is not below it; frames that score no more have nothing odd about them.
    """
    values = np.sort(np.asarray(scores, dtype=np.float64))
    count = len(values)
    if not count:
        msg = "no scores of normal frames, so no threshold"
        raise ValueError(msg)
    allowed = math.floor(wanted_rate * count)
    if allowed:
        threshold = float(values[count - allowed - 1])
    else:
        threshold = max(float(values[-1]), _log_normal_quantile(values, wanted_rate, least))
    threshold = max(threshold, least)
    above = int((values > threshold).sum())
    low, high = clopper_pearson(above, count)
    return VerdictThreshold(threshold, above, low, high)


def _log_normal_quantile(values: NDArray[np.float64], rate: float, least: float) -> float:
    """Return what a share ``rate`` of normals exceeds, by a log-normal fit to sorted scores; 0 where none can be made.

    A frame that the bank explains wholly scores no more than ``least``, or next to nothing. Its logarithm would blow
    the spread up, so such frames count in the share and not in the fit.
    """
    fitted = values[values > max(least, NEGLIGIBLE * values[-1])]
    if len(fitted) < 2:  # noqa: PLR2004 - a spread takes two
        return 0.0
    logs = np.log(fitted)
    tail = rate * len(values) / len(fitted)
    return math.exp(float(logs.mean() + norm.ppf(1.0 - tail) * logs.std(ddof=1)))
