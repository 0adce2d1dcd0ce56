"""Whether a line has moved away from its bank: control charts of the scores, of the camera and of each location.

Each chart is an exponentially weighted moving average (EWMA; Roberts, Technometrics 1, 1959): z = (1 - w) z + w x, held
against mean + L sigma sqrt(w / (2 - w) (1 - (1 - w)^2t)) of validation normals, upwards only: nearer to the bank is no
drift. Lucas and Saccucci (Technometrics 32, 1990) give L of about 3 for independent samples. The parts of a line are
not independent: lots differ, lamps sway, defects come in runs. So L is 8, with w of 0.03 one standard deviation of the
normals that is kept up for a few dozen frames; and half as much again for locations, of which there are many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

WEIGHT: Final = 0.03
SCORE_LIMIT: Final = 8.0
LOCATION_LIMIT: Final = 12.0
# What is farther from the mean counts as so many standard deviations: a defect is no drift, however large, and one
# defect in ten parts is none.
WINSOR: Final = 2.5
# A camera has drifted if its score has, or this share of its locations: neighbours move together.
LOCATIONS_OUT: Final = 0.25
# Deviations are estimated from few normals: a location that hardly varied among them may still vary.
LEAST_DEVIATION: Final = 0.25

Map = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class DriftBaseline:
    """What validation normals are like to the bank: their scores, and s of each location.

    Attributes:
        score_mean, score_deviation: of the image scores.
        distance_mean, distance_deviation: (P1, P2), of ``Inspection.distance``.
    """

    score_mean: float
    score_deviation: float
    distance_mean: Map
    distance_deviation: Map

    @classmethod
    def fit(cls, scores: NDArray[np.floating], distances: NDArray[np.floating]) -> DriftBaseline:
        """Estimate from scores (V,) and distances (V, P1, P2) of normals, V >= 2."""
        # Mean and deviation of few normals are off by about so much, and the charts would take it for drift.
        doubt = 1.0 + 2.0 / math.sqrt(len(scores))
        deviation = doubt * distances.std(axis=0, ddof=1)
        floor = LEAST_DEVIATION * float(deviation.mean()) + 1e-6
        return cls(
            score_mean=float(scores.mean()),
            score_deviation=doubt * float(scores.std(ddof=1)) + 1e-3,
            distance_mean=distances.mean(axis=0).astype(np.float32),
            distance_deviation=np.maximum(deviation, floor).astype(np.float32),
        )

    @property
    def usual_score(self) -> float:
        """What most normals score no more than: one standard deviation above the mean."""
        return self.score_mean + self.score_deviation


@dataclass(frozen=True, slots=True)
class DriftState:
    """Where a camera's charts stand after ``frames`` frames."""

    frames: int
    score: float
    distance: Map  # (P1, P2)


@dataclass(frozen=True, slots=True)
class DriftReading:
    """What the charts say.

    Attributes:
        ratio: how far the score's average has come towards its limit: 0 as normals are, 1 at the limit.
        locations: (P1, P2) the same for each location.
        drifting: whether the line has moved away from its bank.
    """

    ratio: float
    locations: Map
    drifting: bool

    def out(self) -> list[tuple[int, int, float]]:
        """Return the locations beyond their limit as (row, column, ratio), the farthest first."""
        rows, columns = np.nonzero(self.locations > 1.0)
        found = [(int(i), int(j), round(float(self.locations[i, j]), 2)) for i, j in zip(rows, columns, strict=True)]
        return sorted(found, key=lambda each: -each[2])


def begin(baseline: DriftBaseline) -> DriftState:
    """Return charts that start at the normals' mean."""
    return DriftState(0, baseline.score_mean, baseline.distance_mean.copy())


def advance(state: DriftState, baseline: DriftBaseline, score: float, distance: Map) -> DriftState:
    """Return the charts after one more frame; one whose numbers are not finite changes nothing."""
    if not math.isfinite(score) or not np.isfinite(distance).all():
        return state
    score = min(score, baseline.score_mean + WINSOR * baseline.score_deviation)
    distance = np.minimum(distance, baseline.distance_mean + WINSOR * baseline.distance_deviation)
    return replace(
        state,
        frames=state.frames + 1,
        score=(1 - WEIGHT) * state.score + WEIGHT * score,
        distance=((1 - WEIGHT) * state.distance + WEIGHT * distance).astype(np.float32),
    )


def read(state: DriftState, baseline: DriftBaseline) -> DriftReading:
    """Hold the charts against their limits."""
    spread = math.sqrt(WEIGHT / (2 - WEIGHT) * (1 - (1 - WEIGHT) ** (2 * max(1, state.frames))))
    ratio = (state.score - baseline.score_mean) / (SCORE_LIMIT * spread * baseline.score_deviation)
    locations = (state.distance - baseline.distance_mean) / (LOCATION_LIMIT * spread * baseline.distance_deviation)
    drifting = ratio > 1.0 or float((locations > 1.0).mean()) >= LOCATIONS_OUT
    return DriftReading(float(ratio), locations.astype(np.float32), drifting)
