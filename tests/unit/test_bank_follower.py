"""The banks on the device follow the store, and inspection goes on without it."""

from __future__ import annotations

import numpy as np
import pytest
from structlog.testing import capture_logs

from monitor.bank_follower import BankFollower
from monitor.clock import FakeClock
from monitor.errors import BankMissingError, StoreRefusedError, StoreUnavailableError
from monitor.ports import BankChanges, BankKey, BankShape, LearnedSlot
from schemas.errors import BankMismatchError
from tests.unit.pipeline_fakes import AWAY, ENTRY, SEED, SHAPE, Banks, ToyInspector

KEY = BankKey("cam", "toy-1")


def follow(banks: Banks, clock: FakeClock | None = None) -> BankFollower:
    return BankFollower(ToyInspector(), banks, clock or FakeClock())


def test_the_first_to_come_makes_the_bank_of_the_bundles_normals() -> None:
    banks = Banks()
    bank = follow(banks).current("cam")
    assert banks.version(KEY) == 0
    assert (bank.version, len(bank)) == (0, 2)


def test_a_bank_that_has_been_taught_is_loaded_whole_at_first() -> None:
    banks = Banks()
    banks.teach("cam", "one")
    bank = follow(banks).current("cam")
    assert (bank.version, len(bank)) == (1, 3)


def test_an_edit_is_there_at_the_next_look() -> None:
    banks = Banks()
    follower = follow(banks)
    follower.current("cam")
    banks.teach("cam", "one", 7)
    bank = follower.current("cam")
    assert bank.version == 1
    assert np.array_equal(bank.entry(2), np.full(ENTRY, 7, np.float16))
    assert banks.asked == [None, 0]


def test_a_normal_that_was_taken_back_is_forgotten() -> None:
    banks = Banks()
    follower = follow(banks)
    banks.teach("cam", "one")
    assert len(follower.current("cam")) == 3
    banks.remove(KEY, SHAPE, "one")
    bank = follower.current("cam")
    assert (bank.version, len(bank)) == (2, 2)


def test_a_bank_that_was_made_anew_replaces_the_copy_as_a_whole() -> None:
    banks = Banks()
    follower = follow(banks)
    for name in "abc":
        banks.teach("cam", name)
    assert len(follower.current("cam")) == 5
    banks.wipe()
    banks.open(KEY, SHAPE, SEED, version=9)
    bank = follower.current("cam")
    assert (bank.version, len(bank)) == (9, 2)


def test_each_camera_has_a_bank_of_its_own() -> None:
    banks = Banks()
    follower = follow(banks)
    banks.teach("left", "one")
    assert (follower.current("left").version, follower.current("right").version) == (1, 0)
    assert follower.current("left") is follower.current("left")


def test_without_redis_at_first_start_the_bundles_own_bank_inspects() -> None:
    clock = FakeClock()
    banks = Banks()
    banks.teach("cam", "one")
    banks.error = AWAY
    follower = follow(banks, clock)
    bank = follower.current("cam")
    assert (bank.version, len(bank)) == (0, 2)
    banks.error = None
    clock.advance(1.1)
    bank = follower.current("cam")
    assert (bank.version, len(bank)) == (1, 3)


def test_while_redis_is_away_the_bank_at_hand_goes_on_and_it_is_said_once() -> None:
    clock = FakeClock()
    banks = Banks()
    banks.teach("cam", "one")
    follower = follow(banks, clock)
    follower.current("cam")
    banks.error = AWAY
    with capture_logs() as logs:
        for _ in range(50):
            assert follower.current("cam").version == 1
            clock.advance(0.2)
        banks.error = None
        clock.advance(1.0)
        follower.current("cam")
    assert [entry["event"] for entry in logs] == [
        "Redis unreachable; inspecting with bank version 1",
        "Redis is back; following the banks again",
    ]


def test_redis_is_not_asked_at_every_batch_while_it_is_away() -> None:
    clock = FakeClock()
    banks = Banks()
    follower = follow(banks, clock)
    follower.current("cam")
    banks.error = AWAY
    banks.asked.clear()
    for _ in range(100):
        follower.current("cam")
        clock.advance(0.1)
    assert 9 <= len(banks.asked) <= 11


def test_a_redis_that_hangs_takes_no_more_than_a_tenth_of_the_time() -> None:
    clock = FakeClock()
    banks = Banks()
    follower = follow(banks, clock)
    follower.current("cam")
    hung = 0.0

    def hang(key: BankKey, since: int | None) -> BankChanges:  # noqa: ARG001
        nonlocal hung
        clock.advance(2.0)
        hung += 2.0
        raise AWAY

    banks.changes = hang
    while clock.monotonic() < 1000:
        follower.current("cam")
        clock.advance(0.1)
    assert 50 < hung < 100


def test_a_refusal_is_told_once_in_its_own_words_and_is_no_outage() -> None:
    clock = FakeClock()
    banks = Banks()
    follower = follow(banks, clock)
    follower.current("cam")
    with capture_logs() as logs:
        for error in (AWAY, StoreRefusedError("Redis refuses: no right"), None):
            banks.error = error
            for _ in range(20):
                assert follower.current("cam").version == 0
                clock.advance(0.2)
    assert [entry["event"] for entry in logs] == [
        "Redis unreachable; inspecting with bank version 0",
        "Redis refuses the bank; until that is mended, inspecting with bank version 0",
        "Redis is back; following the banks again",
    ]
    assert logs[1]["error"] == "Redis refuses: no right"


def test_while_a_node_of_a_cluster_is_away_the_banks_on_others_are_followed() -> None:
    clock = FakeClock()
    banks = Banks()
    follower = follow(banks, clock)
    for camera in ("here", "there", "away"):
        follower.current(camera)
    changes, failed = banks.changes, []

    def partly(key: BankKey, since: int | None) -> BankChanges:
        if key.camera == "away":
            clock.advance(0.5)
            failed.append(clock.monotonic())
            raise AWAY
        return changes(key, since)

    banks.changes = partly
    late = []
    with capture_logs() as logs:
        for number in range(300):
            for camera in ("away", "here", "there"):
                follower.current(camera)
            if number % 50 == 0:
                banks.teach("here", f"frame-{number}")
            late.append(banks.version(BankKey("here", KEY.model_id)) - follower.current("here").version)
            clock.advance(0.1)
        banks.changes = changes
        clock.advance(10)
        follower.current("away")
    # At first it may be the whole of Redis that is away.
    assert not any(late[60:])
    assert 0.5 * len(failed) < 0.15 * clock.monotonic()
    events = [entry["event"] for entry in logs if not entry["event"].startswith("Inspecting with")]
    assert [event.partition(";")[0] for event in events] == ["Redis unreachable", "Redis is back"]


def test_a_bank_that_redis_lost_is_not_made_anew_with_fewer_normals() -> None:
    banks = Banks()
    banks.teach("cam", "one")
    follower = follow(banks)
    follower.current("cam")
    banks.wipe()
    with capture_logs() as logs:
        for _ in range(3):
            bank = follower.current("cam")
            assert (bank.version, len(bank)) == (1, 3)
    assert banks.version(KEY) is None
    assert [entry["event"] for entry in logs] == [
        "Redis has lost the bank; inspecting with version 1 until it is rebuilt"
    ]
    learned = LearnedSlot(2, "one", 1, np.full(ENTRY, 2, np.float16))
    banks.open(KEY, SHAPE, SEED, learned=[learned], version=2)
    bank = follower.current("cam")
    assert (bank.version, len(bank)) == (2, 3)


def test_a_bank_of_another_encoder_stops_the_worker() -> None:
    banks = Banks()
    banks.open(KEY, BankShape("f" * 64, ENTRY), SEED)
    with pytest.raises(BankMismatchError):
        follow(banks).current("cam")


def test_a_strict_follower_says_what_is_away_or_missing_instead_of_going_on() -> None:
    banks = Banks()
    follower = BankFollower(ToyInspector(), banks, FakeClock(), strict=True)
    banks.teach("cam", "one")
    assert follower.current("cam").version == 1
    banks.error = AWAY
    with pytest.raises(StoreUnavailableError):
        follower.current("cam")
    banks.error = None
    banks.wipe()
    with pytest.raises(BankMissingError):
        follower.current("cam")
