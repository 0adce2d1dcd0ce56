from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import binomtest, norm

from monitor.core.calibration import clopper_pearson, verdict_threshold

scores = arrays(np.float64, st.integers(1, 300), elements=st.floats(0.0, 1e6))
rates = st.floats(1e-4, 0.5)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from((0.95, 0.99)))
def test_the_interval_is_the_exact_binomial_one(counts: tuple[int, int], confidence: float) -> None:
    successes, trials = counts
    exact = binomtest(successes, trials).proportion_ci(confidence, method="exact")
    assert clopper_pearson(successes, trials, confidence) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(("successes", "trials"), [(-1, 5), (6, 5), (0, 0)])
def test_what_is_not_a_share_is_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="is not a share"):
        clopper_pearson(successes, trials)


@given(scores, rates)
def test_no_more_normals_are_flagged_than_wanted(values: NDArray[np.float64], rate: float) -> None:
    line = verdict_threshold(values, rate)
    above = int((values > line.threshold).sum())
    assert line.above == above <= rate * len(values)
    assert math.isfinite(line.threshold)
    assert (line.low, line.high) == clopper_pearson(above, len(values))
    assert line.low <= above / len(values) <= line.high


@given(scores, rates)
def test_as_many_are_flagged_as_wanted_where_scores_differ(values: NDArray[np.float64], rate: float) -> None:
    distinct = np.unique(values)
    assert verdict_threshold(distinct, rate).above == math.floor(rate * len(distinct))


@given(scores, rates, rates)
def test_asking_for_fewer_false_rejects_never_lowers_the_threshold(
    values: NDArray[np.float64], first: float, second: float
) -> None:
    strict, lenient = (verdict_threshold(values, rate).threshold for rate in sorted((first, second)))
    assert strict >= lenient


@given(scores, rates, st.integers(0, 2**32))
def test_the_order_of_the_normals_does_not_matter(values: NDArray[np.float64], rate: float, seed: int) -> None:
    shuffled = np.random.default_rng(seed).permutation(values)
    assert verdict_threshold(shuffled, rate) == verdict_threshold(values, rate)


def test_too_few_normals_are_extrapolated_beyond_the_largest_and_the_interval_says_so() -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 0.3, 45))
    line = verdict_threshold(values, 0.001)
    assert line.threshold > values.max()
    assert line.threshold == pytest.approx(math.exp(norm.ppf(0.999) * 0.3), rel=0.2)
    assert line.above == 0
    assert line.high > 0.07  # 45 normals cannot promise 0.1 %


def test_one_normal_is_its_own_threshold() -> None:
    assert verdict_threshold(np.array([2.5]), 0.01).threshold == 2.5


def test_normals_without_any_anomaly_do_not_push_the_threshold_out_of_reach() -> None:
    some = np.exp(np.random.default_rng(0).normal(0, 0.3, 10))
    line = verdict_threshold(np.concatenate([np.zeros(30), some]), 0.01)
    # A hundredth of all are one twenty-fifth of those that score at all.
    assert line.threshold == pytest.approx(max(some.max(), verdict_threshold(some, 0.04).threshold))
    assert line.threshold < 2 * some.max()
    assert verdict_threshold(np.zeros(20), 0.01).threshold == 0.0


def test_no_normals_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="no scores"):
        verdict_threshold(np.array([]), 0.01)
