from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.core.bank_entry import keep_only
from monitor.core.memory_bank import MemoryBank

P1, P2, P3, R = 2, 3, 5, 4
SHAPE = (P1, P2, P3 + R)


def entry(seed: int) -> NDArray[np.float16]:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float16)


def queries(count: int, seed: int = 77) -> torch.Tensor:
    return torch.randn((count, P3, P1, P2), generator=torch.Generator().manual_seed(seed))


def bank_of(*seeds: int) -> MemoryBank:
    bank = MemoryBank(SHAPE, 6, residual=R)
    for slot, seed in enumerate(seeds):
        bank.put(slot, entry(seed))
    return bank


def contents(bank: MemoryBank) -> list[NDArray[np.float16] | None]:
    return [bank.entry(slot) for slot in range(6)]


def same(left: list[NDArray[np.float16] | None], right: list[NDArray[np.float16] | None]) -> bool:
    return all(
        a is b is None or (a is not None and b is not None and np.array_equal(a, b, equal_nan=True))
        for a, b in zip(left, right, strict=True)
    )


def part_of(seed: int, *locations: tuple[int, int]) -> NDArray[np.float16]:
    """Return an entry that keeps these locations only."""
    there = np.zeros((P1, P2), np.bool_)
    for location in locations:
        there[location] = True
    return keep_only(entry(seed), there)


def nearest_by_hand(
    query: NDArray[np.float32], known: dict[int, NDArray[np.float16]], i: int, j: int
) -> tuple[int, float]:
    """Return the slot with the largest cosine at one location, and 1 minus that cosine."""
    best, slot = -2.0, -1
    vector = query[:, i, j].astype(np.float64)
    for number, stored in known.items():
        other = stored[i, j, :P3].astype(np.float64)
        cosine = float(vector @ other / np.linalg.norm(vector) / np.linalg.norm(other))
        if cosine > best:
            best, slot = cosine, number
    return slot, 1.0 - best


@settings(max_examples=50)
@given(st.lists(st.integers(0, 7), min_size=1, unique=True), st.integers(0, 10_000))
def test_a_query_finds_the_largest_cosine_at_each_location(slots: list[int], seed: int) -> None:
    bank = MemoryBank(SHAPE, 8, residual=R)
    known = {slot: entry(seed + slot) for slot in slots}
    for slot, stored in known.items():
        bank.put(slot, stored)
    asked = queries(3, seed)
    found = bank.query(asked)
    for b in range(3):
        for i in range(P1):
            for j in range(P2):
                slot, score = nearest_by_hand(asked[b].numpy(), known, i, j)
                assert found.slot[b, i, j] == slot
                assert found.score[b, i, j].item() == pytest.approx(score, abs=1e-5)
                np.testing.assert_array_equal(found.nearest[b, :, i, j], known[slot][i, j, :P3])
                np.testing.assert_array_equal(found.known[b, i, j], known[slot][i, j, P3:])


def test_a_stored_frame_scores_nothing_though_it_is_kept_in_half_precision() -> None:
    features = queries(1)
    stored = np.zeros(SHAPE, np.float16)
    stored[..., :P3] = features[0].permute(1, 2, 0).numpy()
    bank = bank_of(1, 2)
    bank.put(4, stored)
    found = bank.query(features)
    assert (found.slot == 4).all()
    assert found.score.max() < 1e-5


def test_no_rounding_makes_a_score_negative() -> None:
    entries = np.random.default_rng(0).normal(size=(20, 4, 4, 64)).astype(np.float16)
    bank = MemoryBank((4, 4, 64), 20)
    for slot, stored in enumerate(entries):
        bank.put(slot, stored)
    score = bank.query(torch.from_numpy(entries.astype(np.float32)).permute(0, 3, 1, 2)).score
    assert score.min() >= 0
    assert score.max() < 1e-5


def test_only_the_direction_of_a_feature_counts() -> None:
    bank = bank_of(1, 2, 3)
    left, right = bank.query(queries(2)), bank.query(queries(2) * 100)
    assert torch.equal(left.slot, right.slot)
    torch.testing.assert_close(left.score, right.score, rtol=0, atol=1e-5)


def test_the_same_feature_elsewhere_in_the_frame_does_not_excuse() -> None:
    stored = np.zeros(SHAPE, np.float16)
    stored[..., 0] = 1.0
    stored[1, 2, :P3] = (0, 1, 0, 0, 0)
    bank = MemoryBank(SHAPE, 1, residual=R)
    bank.put(0, stored)
    asked = torch.zeros(1, P3, P1, P2)
    asked[0, 1] = 1.0  # normal at (1, 2) only
    expected = torch.ones(1, P1, P2)
    expected[0, 1, 2] = 0.0
    torch.testing.assert_close(bank.query(asked).score, expected)


commands = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.integers(0, 9)),
        st.tuples(st.just("remove"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("clear"), st.just(0), st.just(0)),
    ),
    max_size=12,
)


@settings(max_examples=80)
@given(commands)
def test_a_bank_is_a_dictionary_of_slots(steps: list[tuple[str, int, int]]) -> None:
    bank, truth = MemoryBank(SHAPE, 4, residual=R), dict[int, NDArray[np.float16]]()
    for verb, slot, seed in steps:
        if verb == "put":
            bank.put(slot, entry(seed))
            truth[slot] = entry(seed)
        elif verb == "remove":
            bank.remove(slot)
            truth.pop(slot, None)
        else:
            bank.clear()
            truth.clear()
        assert len(bank) == len(truth)
        assert bank.slots == sorted(truth)
        assert bank.rows <= 4
        assert same(contents(bank), [truth.get(number) for number in range(6)])
        if truth:
            found = bank.query(queries(1))
            assert set(found.slot.flatten().tolist()) <= set(truth)
        else:
            with pytest.raises(ValueError, match="empty"):
                bank.query(queries(1))


def test_scoring_leaves_the_bank_as_it_was() -> None:
    bank = bank_of(1, 2, 3)
    bank.version = 41
    before = contents(bank)
    asked = queries(2)
    kept = asked.clone()
    first = bank.query(asked)
    first.nearest.zero_()
    first.known.zero_()
    assert same(contents(bank), before)
    assert (len(bank), bank.version) == (3, 41)
    assert torch.equal(asked, kept)
    assert not torch.equal(bank.query(asked).nearest, first.nearest)


def test_what_is_taken_out_of_the_bank_is_a_copy() -> None:
    bank = bank_of(1)
    taken = bank.entry(0)
    assert taken is not None
    taken[:] = 0
    np.testing.assert_array_equal(bank.entry(0), entry(1))


def test_an_excluded_slot_is_not_found_by_its_own_frame_only() -> None:
    bank = bank_of(1, 2, 3)
    asked = queries(2)
    alone = [bank_of(1, 2, 3) for _ in range(2)]
    alone[0].remove(0)
    alone[1].remove(2)
    found = bank.query(asked, exclude=torch.tensor([0, 2]))
    for number in range(2):
        expected = alone[number].query(asked[number : number + 1])
        assert torch.equal(found.slot[number], expected.slot[0])
        assert torch.equal(found.score[number], expected.score[0])


def test_excluding_all_there_is_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing is left"):
        bank_of(1).query(queries(1), exclude=torch.tensor([0]))


def test_an_empty_bank_refuses_to_judge() -> None:
    bank = bank_of()
    with pytest.raises(ValueError, match="the memory bank is empty"):
        bank.query(queries(1))
    assert len(bank) == 0
    bank.put(0, part_of(1, (0, 0)))
    with pytest.raises(ValueError, match=r"empty.*at some locations"):
        bank.query(queries(1))


def test_slots_are_counted_from_zero() -> None:
    with pytest.raises(IndexError, match="slot -1"):
        bank_of(1).put(-1, entry(2))


def test_a_bank_that_was_made_small_grows_and_forgets_nothing() -> None:
    bank = MemoryBank(SHAPE, residual=R)
    for slot in range(40):
        bank.put(3 * slot, entry(slot))
    assert (len(bank), bank.rows) == (40, 40)
    for slot in range(40):
        np.testing.assert_array_equal(bank.entry(3 * slot), entry(slot))


def test_a_location_that_an_entry_does_not_keep_is_searched_among_the_others() -> None:
    bank, features = bank_of(1, 2), queries(1)
    own = np.zeros(SHAPE, np.float16)
    own[..., :P3] = features[0].permute(1, 2, 0).numpy()
    there = np.zeros((P1, P2), np.bool_)
    there[0, 1] = there[1, 2] = True
    before = bank.query(features)
    bank.put(2, keep_only(own, there))
    found = bank.query(features)
    kept = torch.from_numpy(there)
    assert torch.equal(found.slot[0] == 2, kept)
    assert torch.equal(found.score[0][~kept], before.score[0][~kept])
    assert found.score[0][kept].max() < 1e-5
    np.testing.assert_array_equal(bank.locations(2), there)
    np.testing.assert_array_equal(bank.entry(2), keep_only(own, there))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, P1 - 1), st.integers(0, P2 - 1)), min_size=1, max_size=30))
def test_search_grows_with_the_variety_at_one_location_and_not_with_the_entries(places: list[tuple[int, int]]) -> None:
    bank = bank_of(1)
    for number, place in enumerate(places):
        bank.put(1 + number, part_of(number, place))
    assert bank.rows == 1 + max(places.count(place) for place in places)
    for number in range(len(places)):
        bank.remove(1 + number)
    for number, place in enumerate(places):
        bank.put(1 + number, part_of(number, place))
    assert bank.rows == 1 + max(places.count(place) for place in places)


def test_of_equally_near_entries_the_lowest_slot_is_found_whatever_the_order_of_edits() -> None:
    first, second = MemoryBank(SHAPE, residual=R), MemoryBank(SHAPE, residual=R)
    for bank, order in ((first, (0, 1, 2)), (second, (2, 1, 0))):
        for slot in order:
            bank.put(slot, entry(7))
    for bank in (first, second):
        assert (bank.query(queries(2)).slot == 0).all()


def test_what_is_tried_and_what_is_left_out_are_so_only_within() -> None:
    bank = bank_of(1, 2, 3)
    before = contents(bank)
    with bank.trying(entry(9)), bank.without(1):
        assert (len(bank), bank.entry(1)) == (3, None)
        assert 3 in bank.query(queries(4)).slot
    with pytest.raises(ZeroDivisionError), bank.trying(part_of(8, (0, 0))):
        raise ZeroDivisionError
    assert same(contents(bank), before)


def test_the_distance_to_the_others_is_that_of_a_bank_without_the_entry() -> None:
    bank = bank_of(1, 2, 3)
    bank.put(3, part_of(4, (1, 0), (0, 2)))
    far = bank.distances_to_others([3, 1])
    for slot, distance in zip((3, 1), far, strict=True):
        stored = bank.entry(slot)
        assert stored is not None
        asked = torch.from_numpy(np.nan_to_num(stored[..., :P3]).astype(np.float32)).permute(2, 0, 1)[None]
        with bank.without(slot):
            expected = bank.query(asked).score[0].numpy()
        there = ~np.isnan(stored[..., 0])
        np.testing.assert_array_equal(np.isnan(distance), ~there)
        np.testing.assert_allclose(distance[there], expected[there], atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((P1, P2, P3), np.float16),
        np.zeros((P2, P1, P3 + R), np.float16),
        np.zeros((1, *SHAPE), np.float16),
        np.full(SHAPE, np.nan, np.float16),
        np.full(SHAPE, np.inf, np.float16),
        np.where(np.arange(P3 + R) == 2, np.nan, np.ones(SHAPE)).astype(np.float16),
    ],
)
def test_entries_that_do_not_fit_are_refused(wrong: NDArray[Any]) -> None:
    bank = bank_of(1)
    with pytest.raises(ValueError, match=r"must be of shape \(2, 3, 9\)"):
        bank.put(0, wrong)
    np.testing.assert_array_equal(bank.entry(0), entry(1))


@pytest.mark.parametrize("shape", [(1, P3 + R, P1, P2), (1, P3, P2, P1), (1, P1, P2, P3)])
def test_queries_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be of shape"):
        bank_of(1).query(torch.zeros(shape))


@pytest.mark.parametrize("residual", [-1, P3 + R])
def test_a_bank_without_features_cannot_be_made(residual: int) -> None:
    with pytest.raises(ValueError, match="does not fit entries"):
        MemoryBank(SHAPE, 3, residual=residual)


@settings(max_examples=25)
@given(st.permutations(range(5)), st.integers(0, 100))
def test_a_query_is_answered_alike_alone_or_in_any_batch(order: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    bank = MemoryBank((4, 4, 66), 50, residual=2)
    for slot in range(50):
        bank.put(slot, rng.normal(size=(4, 4, 66)).astype(np.float16))
    asked = torch.from_numpy(rng.normal(size=(5, 64, 4, 4)).astype(np.float32))
    together = bank.query(asked[order])
    for place, number in enumerate(order):
        alone = bank.query(asked[number : number + 1])
        for name in ("score", "nearest", "slot", "known"):
            assert torch.equal(getattr(together, name)[place], getattr(alone, name)[0])
