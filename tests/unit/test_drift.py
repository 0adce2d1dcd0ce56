"""Drift: a lasting shift is found, a single defect is not one, and a quiet line stays quiet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from deploy.simulation import LineSettings, SimulatedLine
from monitor.core.drift import DriftBaseline, DriftState, advance, begin, read
from monitor.core.inspector import Inspector
from monitor.core.preprocessing import prepare
from tests.unit.small_model import Parts

CELLS = (8, 8)
BASELINE = DriftBaseline(1.0, 0.2, np.full(CELLS, 0.1, np.float32), np.full(CELLS, 0.02, np.float32))


def frames(count: int, seed: int, shift: float = 0.0) -> list[tuple[float, NDArray[np.float32]]]:
    """Draw frames of a line in control, or shifted by so many standard deviations."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(1.0 + 0.2 * shift, 0.2, count)
    distances = rng.normal(0.1 + 0.02 * shift, 0.02, (count, *CELLS)).astype(np.float32)
    return list(zip(scores.tolist(), distances, strict=True))


def follow(drawn: list[tuple[float, NDArray[np.float32]]], state: DriftState | None = None) -> list[bool]:
    state, found = state or begin(BASELINE), []
    for score, distance in drawn:
        state = advance(state, BASELINE, score, distance)
        found.append(read(state, BASELINE).drifting)
    return found


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_a_line_in_control_is_left_in_peace(seed: int) -> None:
    assert not any(follow(frames(1000, seed)))


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_a_shift_of_two_standard_deviations_is_found_within_sixty_frames(seed: int) -> None:
    quiet = frames(100, seed)
    found = follow(quiet + frames(60, seed + 1, shift=2.0))
    assert not any(found[:100])
    assert found[-1]


@given(st.floats(1.0, 1e30), st.integers(0, 1000))
def test_one_defect_is_no_drift_however_large(size: float, seed: int) -> None:
    drawn = frames(60, seed)
    drawn[50] = (size, np.full(CELLS, min(size, 2.0), np.float32))
    assert not any(follow(drawn))


def test_getting_nearer_to_the_bank_is_no_drift() -> None:
    assert not any(follow(frames(200, 1, shift=-3.0)))


def test_drift_ends_when_the_bank_has_learnt() -> None:
    found = follow(frames(100, 1, shift=3.0) + frames(100, 2))
    assert found[99]
    assert not found[-1]


def test_numbers_that_are_none_change_nothing() -> None:
    state = begin(BASELINE)
    broken = np.full(CELLS, np.nan, np.float32)
    assert advance(state, BASELINE, float("nan"), BASELINE.distance_mean) is state
    assert advance(state, BASELINE, float("inf"), BASELINE.distance_mean) is state
    assert advance(state, BASELINE, 1.0, broken) is state


def test_the_locations_that_moved_are_named_the_farthest_first() -> None:
    state = begin(BASELINE)
    moved = BASELINE.distance_mean.copy()
    moved[2, 3] += 0.045
    moved[7, 0] += 0.035
    for _ in range(200):
        state = advance(state, BASELINE, 1.0, moved)
    reading = read(state, BASELINE)
    assert [(row, column) for row, column, _ in reading.out()] == [(2, 3), (7, 0)]
    assert reading.out()[0][2] > reading.out()[1][2] > 1.0
    assert not reading.drifting, "two of 64 locations are a place to look at, not a line that moved"


def test_a_baseline_is_the_normals_mean_and_deviation_with_a_floor() -> None:
    scores = np.array([1.0, 2.0, 3.0, 2.0])
    distances = np.zeros((4, 2, 2))
    distances[:, 0, 0] = scores
    baseline = DriftBaseline.fit(scores, distances)
    # Of four normals it is as doubtful as it is large.
    deviation = 2.0 * scores.std(ddof=1)
    assert (baseline.score_mean, baseline.score_deviation) == pytest.approx((2.0, deviation), abs=2e-3)
    assert baseline.usual_score == pytest.approx(2.0 + deviation, abs=2e-3)
    assert baseline.distance_mean[0, 0] == 2.0
    assert (baseline.distance_deviation > 0.05).all()


def test_a_line_whose_light_fades_drifts_and_one_whose_light_stays_does_not(inspector: Inspector, parts: Parts) -> None:
    def drifts(fading: float) -> bool:
        light = LineSettings(size=64, seed=5, shift=3.0, rotation=3.0, lighting_drift=fading, drift_parts=100)
        line = SimulatedLine(light)
        good = np.stack([prepare(line.good_part(index).image, parts.spec) for index in range(60, 160)])
        state = begin(inspector.drift_baseline)
        for each in inspector.inspect(good, inspector.pinned):
            state = advance(state, inspector.drift_baseline, each.score, each.distance)
        return read(state, inspector.drift_baseline).drifting

    assert drifts(-0.4)
    assert not drifts(0.0)
