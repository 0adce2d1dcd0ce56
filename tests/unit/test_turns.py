"""Fairness between partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.adapters.kafka.turns import Turns


def test_whoever_had_no_turn_for_the_longest_time_comes_first() -> None:
    turns: Turns[str, int] = Turns()
    turns.add("busy", range(100))
    assert turns.take(4) == [0, 1, 2, 3]
    turns.add("quiet", [1000])
    assert turns.take(4) == [1000, 4, 5, 6]
    turns.add("quiet", [1001])
    assert turns.take(2) == [1001, 7]
    turns.add("quiet", [1002])
    turns.add("new", [2000, 2001])
    assert turns.take(5) == [2000, 2001, 1002, 8, 9]


def test_partitions_with_a_backlog_take_turns() -> None:
    turns: Turns[str, str] = Turns()
    for name in "abc":
        turns.add(name, name * 10)
    assert ["".join(turns.take(4)) for _ in range(8)] == [
        "aaaa", "bbbb", "cccc", "aaaa", "bbbb", "cccc", "aabb", "cc",
    ]  # fmt: skip


def test_what_was_fetched_of_a_partition_that_went_is_dropped_and_the_rest_kept() -> None:
    turns: Turns[str, int] = Turns()
    turns.add("stays", [1, 2])
    turns.add("goes", [3])
    turns.keep({"stays", "comes"})
    assert (turns.waiting("stays"), turns.waiting("goes")) == (2, 0)
    assert turns.take(9) == [1, 2]


@given(st.lists(st.one_of(st.tuples(st.sampled_from("abc"), st.integers(0, 7)), st.integers(0, 5)), max_size=60))
def test_everything_is_handed_out_once_in_the_order_of_its_partition_and_nobody_waits_for_more_than_a_round(
    steps: list[tuple[str, int] | int],
) -> None:
    turns: Turns[str, tuple[str, int]] = Turns()
    added, taken = dict.fromkeys("abc", 0), dict.fromkeys("abc", 0)
    waited = dict.fromkeys("abc", 0)
    for step in steps:
        if isinstance(step, tuple):
            name, count = step
            turns.add(name, [(name, added[name] + number) for number in range(count)])
            added[name] += count
            continue
        batch = turns.take(step)
        assert len(batch) == min(step, sum(added.values()) - sum(taken.values()))
        for name, number in batch:
            assert number == taken[name]
            taken[name] += 1
        for name in "abc":
            assert turns.waiting(name) == added[name] - taken[name]
            served = any(name == each for each, _ in batch) or not turns.waiting(name) or step == 0
            waited[name] = 0 if served else waited[name] + 1
            assert waited[name] < 3
