"""Batches by number, bytes and age."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from monitor.batching import MAX_LIGHT, Batcher, BatchSize
from monitor.clock import FakeClock


def test_a_batch_is_ready_when_it_is_full() -> None:
    batcher: Batcher[int] = Batcher(BatchSize(3, 1.0), 1.0, FakeClock())
    for item in range(2):
        batcher.add(item)
    assert not batcher.ready()
    batcher.add(2)
    assert batcher.ready()
    assert batcher.take() == [0, 1, 2]
    assert not batcher.ready()


def test_a_batch_is_ready_when_its_oldest_item_has_waited_long_enough() -> None:
    clock = FakeClock()
    batcher: Batcher[int] = Batcher(BatchSize(3, 1.0), 1.0, clock)
    assert batcher.due_in() is None
    batcher.add(0)
    clock.advance(0.75)
    batcher.add(1)
    assert batcher.due_in() == 0.25
    clock.advance(0.25)
    assert batcher.ready()
    assert batcher.take() == [0, 1]


def test_an_item_left_behind_keeps_its_age() -> None:
    clock = FakeClock()
    batcher: Batcher[int] = Batcher(BatchSize(1, 1.0), 1.0, clock)
    batcher.add(0)
    batcher.add(1)
    clock.advance(0.5)
    batcher.take()
    batcher.add(2)
    clock.advance(0.5)
    assert batcher.take() == [1]


def test_a_batch_is_ready_when_it_has_the_bytes() -> None:
    batcher: Batcher[int] = Batcher(BatchSize(10, 1.0), 1.0, FakeClock(), max_bytes=100)
    batcher.add(0, size=60)
    assert not batcher.ready()
    batcher.add(1, size=60)
    assert batcher.ready()
    assert batcher.take() == [0]
    assert not batcher.ready()


def test_an_item_larger_than_a_batch_makes_one_of_its_own() -> None:
    batcher: Batcher[int] = Batcher(BatchSize(10, 1.0), 1.0, FakeClock(), max_bytes=100)
    batcher.add(0, size=500)
    assert batcher.room == 0
    assert batcher.ready()
    assert batcher.take() == [0]
    assert batcher.room == 20


def test_nothing_makes_an_empty_batch() -> None:
    assert Batcher[int](BatchSize(3, 1.0), 1.0, FakeClock()).take() == []


@given(st.integers(1, 5), st.integers(1, 50), st.lists(st.none() | st.integers(0, 60)))
def test_items_leave_once_in_order_and_no_more_than_two_batches_wait(
    max_frames: int, max_bytes: int, steps: list[int | None]
) -> None:
    batcher: Batcher[int] = Batcher(BatchSize(max_frames, 1.0), 1.0, FakeClock(), max_bytes=max_bytes)
    sent: list[int] = []
    received: list[int] = []
    for step in steps:
        if step is None or batcher.room == 0:
            batch = batcher.take()
            assert len(batch) <= max_frames
            received += batch
        else:
            batcher.add(len(sent), size=step)
            sent.append(len(sent))
        assert len(batcher) <= 2 * max_frames
    while batch := batcher.take():
        received += batch
    assert received == sent


def test_light_items_do_not_count_until_they_are_very_many() -> None:
    batcher: Batcher[int] = Batcher(BatchSize(2, 1.0), 1.0, FakeClock())
    for number in range(MAX_LIGHT - 1):
        batcher.add(number, light=True)
    batcher.add(-1)
    assert not batcher.ready()
    assert batcher.room == 3
    batcher.add(-2)
    assert batcher.take() == [*range(MAX_LIGHT - 1), -1, -2]
    for number in range(2 * MAX_LIGHT):
        batcher.add(number, light=True)
    assert batcher.ready()
    assert batcher.room == 0
    assert [len(batcher.take()) for _ in range(2)] == [MAX_LIGHT, MAX_LIGHT]
    assert batcher.room == 4


def test_a_batch_ends_before_the_item_that_is_one_too_many_and_keeps_the_order() -> None:
    batcher: Batcher[int] = Batcher(BatchSize(1, 1.0), 1.0, FakeClock())
    for item, light in enumerate([False, True, False, True]):
        batcher.add(item, light=light)
    assert [batcher.take(), batcher.take()] == [[0, 1], [2, 3]]


def test_a_batch_is_as_large_as_fits_into_its_time() -> None:
    size = BatchSize(16, 0.2)
    assert size.items == 16
    size.observe(16, 0.8)
    assert size.items == 4
    for _ in range(5):
        size.observe(1, 0.01)
    assert size.items == 16


def test_a_single_slow_batch_does_not_change_the_size() -> None:
    size = BatchSize(16, 0.2)
    for _ in range(3):
        size.observe(16, 0.1)
    size.observe(16, 30.0)
    assert size.items == 16


def test_where_even_one_takes_too_long_a_batch_has_one() -> None:
    size = BatchSize(16, 0.2)
    size.observe(2, 60.0)
    assert size.items == 1


@given(st.integers(1, 64), st.floats(1e-4, 0.5), st.floats(1e-4, 0.5))
def test_the_size_settles_where_a_batch_takes_what_it_may(most: int, overhead: float, each: float) -> None:
    size = BatchSize(most, 0.2)
    for _ in range(200):
        size.observe(size.items, overhead + each * size.items)
    fitting = max((n for n in range(1, most + 1) if overhead + each * n <= 0.2), default=1)
    assert fitting - 1 <= size.items <= fitting
