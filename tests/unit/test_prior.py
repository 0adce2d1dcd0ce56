from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.memory_bank import Retrieval
from monitor.core.prior import abnormal_locations, restrict


def scores(seed: int, levels: int = 1000) -> torch.Tensor:
    drawn = torch.randint(levels, (3, 4, 5), generator=torch.Generator().manual_seed(seed))
    return drawn / levels


def retrieval(score: torch.Tensor, nearest: torch.Tensor) -> Retrieval:
    return Retrieval(score, nearest, torch.zeros_like(score, dtype=torch.int64), torch.zeros(*score.shape, 1))


@given(st.integers(0, 10_000), st.floats(0, 1), st.sampled_from((2, 1000)))
def test_the_locations_with_the_largest_scores_are_chosen(seed: int, alpha: float, levels: int) -> None:
    score = scores(seed, levels)
    chosen = abnormal_locations(score, alpha)
    for frame, mask in zip(score, chosen, strict=True):
        assert alpha * 20 - 1e-6 <= mask.sum() <= alpha * 20 + 1
        if mask.any() and not mask.all():
            assert frame[mask].min() >= frame[~mask].max()


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_a_share_that_divides_evenly_chooses_exactly_that_many(case: tuple[int, int]) -> None:
    locations, wanted = case
    chosen = abnormal_locations(torch.rand(1, 1, locations), wanted / locations)
    assert chosen.sum() == wanted


def test_seven_percent_of_a_hundred_locations_are_seven() -> None:
    assert abnormal_locations(torch.rand(1, 10, 10), 0.07).sum() == 7


def test_the_smallest_share_still_chooses_one_and_none_chooses_none() -> None:
    assert abnormal_locations(scores(1), 0.001).sum(dim=(1, 2)).tolist() == [1, 1, 1]
    assert not abnormal_locations(scores(1), 0.0).any()
    assert abnormal_locations(scores(1), 1.0).all()


def test_equal_scores_are_chosen_alike_in_any_batch() -> None:
    score = torch.zeros(3, 4, 5)
    together = abnormal_locations(score, 0.3)
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[:1], abnormal_locations(score[:1], 0.3))


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_the_banks_features_replace_those_of_abnormal_locations_only(alpha: float) -> None:
    score = scores(3)
    features, nearest = torch.randn(3, 6, 4, 5), torch.randn(3, 6, 4, 5)
    mended = restrict(features, retrieval(score, nearest), alpha)
    chosen = abnormal_locations(score, alpha).unsqueeze(1).expand_as(features)
    assert torch.equal(mended[chosen], nearest[chosen])
    assert torch.equal(mended[~chosen], features[~chosen])
