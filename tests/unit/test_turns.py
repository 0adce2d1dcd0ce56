"""Fairness between partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.adapters.kafka.turns import Turns


def test_whoever_wants_little_comes_first() -> None:
    turns: Turns[str, int] = Turns()
    turns.add("busy", range(100))
    assert turns.take(4) == [0, 1, 2, 3]
    turns.add("quiet", [1000])
    assert turns.take(4) == [1000, 4, 5, 6]
    turns.add("quiet", [1001])
    assert turns.take(2) == [1001, 7]
    turns.add("quiet", [1002])
    turns.add("new", [2000, 2001])
    assert turns.take(5) == [1002, 2000, 2001, 8, 9]


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
def test_everything_is_handed_out_once_in_the_order_of_its_partition_and_nobody_is_left_behind(
    steps: list[tuple[str, int] | int],
) -> None:
    turns: Turns[str, tuple[str, int]] = Turns()
    added, taken = dict.fromkeys("abc", 0), dict.fromkeys("abc", 0)
    ahead = {name: dict.fromkeys("abc", 0) for name in "abc"}  # how many more others had while this one waited
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
            for other in "abc":
                more = sum(each == other for each, _ in batch) - sum(each == name for each, _ in batch)
                ahead[name][other] = ahead[name][other] + more if turns.waiting(name) else 0
                assert ahead[name][other] <= 2 * 5


def test_a_quiet_partition_waits_for_one_turn_of_another_however_many_flood() -> None:
    turns: Turns[str, int] = Turns()
    for name in "abcdefgh":
        turns.add(name, range(1000))
    for number in range(200):
        turns.add("quiet", [number - 1000])
        assert turns.take(16)[0] < 0
