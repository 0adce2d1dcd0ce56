"""What a bank store promises, kept by the in-memory twin and by the real Redis or Valkey alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from monitor.adapters.memory import MemoryBankStore
from monitor.adapters.redis_bank import RedisBankStore
from monitor.core.bank_entry import keep_only, most_bytes
from monitor.errors import BankFullError, BankMissingError, BankMovedError
from monitor.ports import Addition, BankChanges, BankKey, BankShape, BankStore, LearnedSlot
from monitor.settings import RedisSettings
from schemas.errors import BankMismatchError
from tests.integration.records import teach

pytestmark = pytest.mark.usefixtures("each_redis_or_cluster")

LOG_LENGTH = 10
PINNED = 2
SHAPE = BankShape("a" * 64, (2, 3, 4))
KEY = BankKey("cam1", "model-1")

Features = NDArray[np.float16]


def features(value: float) -> Features:
    return np.full(SHAPE.features, value, dtype=np.float16)


SEED = np.stack([features(-1), features(-2)])


def follow(copy: dict[int, Features], changes: BankChanges) -> int:
    """Bring a copy up to date as a worker does, and return its version."""
    if changes.reload:
        copy.clear()
    for change in changes.slots:
        if change.features is None:
            copy.pop(change.slot, None)
        else:
            copy[change.slot] = change.features
    return changes.version


def values(copy: dict[int, Features]) -> dict[int, float]:
    return {slot: float(features.flat[0]) for slot, features in sorted(copy.items())}


@pytest.fixture(params=["memory", "redis", "redis in small chunks"])
def store(request: pytest.FixtureRequest) -> Iterator[BankStore]:
    if request.param == "memory":
        yield MemoryBankStore(log_length=LOG_LENGTH)
        return
    settings = RedisSettings(url=request.getfixturevalue("redis_url"), log_length=LOG_LENGTH)
    # Small: what changes fits into one answer, the whole bank does not.
    chunk_bytes = 4 * 2**20 if request.param == "redis" else 3 * features(0).nbytes
    redis_store = RedisBankStore(settings, chunk_bytes=chunk_bytes)
    yield redis_store
    redis_store.close()


def test_an_opened_bank_holds_the_seed_bit_for_bit(store: BankStore) -> None:
    seed = np.random.default_rng(0).normal(size=(PINNED, *SHAPE.features)).astype(np.float16)
    assert store.version(KEY) is None
    assert store.open(KEY, SHAPE, seed) == 0
    assert store.version(KEY) == 0
    changes = store.changes(KEY, None)
    assert (changes.version, changes.reload) == (0, True)
    assert [change.slot for change in changes.slots] == [0, 1]
    for change, pinned in zip(changes.slots, seed, strict=True):
        assert change.features is not None
        assert change.features.dtype == np.float16
        assert change.features.flags.writeable
        assert change.features.tobytes() == pinned.tobytes()


def test_opening_again_changes_nothing(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    edit = teach(store, KEY, SHAPE, "frame-1", features(1))
    assert store.open(KEY, SHAPE, SEED) == edit.version == 1
    assert len(store.changes(KEY, None).slots) == PINNED + 1


@pytest.mark.parametrize(
    ("shape", "seed"),
    [
        (replace(SHAPE, encoder_hash="b" * 64), SEED),
        (replace(SHAPE, features=(3, 2, 4)), SEED.reshape(PINNED, 3, 2, 4)),
        (SHAPE, SEED[:1]),
        (SHAPE, SEED * 2),
    ],
    ids=["encoder", "shape", "fewer pinned", "another seed"],
)
def test_another_models_bank_is_refused(store: BankStore, shape: BankShape, seed: Features) -> None:
    store.open(KEY, SHAPE, SEED)
    with pytest.raises(BankMismatchError, match=KEY.model_id):
        store.open(KEY, shape, seed)
    assert store.open(KEY, SHAPE, SEED) == 0


@pytest.mark.parametrize(
    "shape",
    [replace(SHAPE, encoder_hash="b" * 64), replace(SHAPE, features=(2, 3, 5))],
    ids=["encoder", "shape"],
)
def test_features_of_another_encoder_are_refused(store: BankStore, shape: BankShape) -> None:
    store.open(KEY, SHAPE, SEED)
    teach(store, KEY, SHAPE, "frame-1", features(1))
    with pytest.raises(BankMismatchError):
        teach(store, KEY, shape, "frame-2", np.zeros(shape.features, np.float16))
    with pytest.raises(BankMismatchError):
        store.remove(KEY, shape, "frame-1")
    assert store.version(KEY) == 1


def test_features_of_another_shape_are_refused(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    with pytest.raises(BankMismatchError, match="shape"):
        teach(store, KEY, SHAPE, "frame-1", np.zeros((4, 3, 2), np.float16))
    assert store.version(KEY) == 0


def test_a_bank_that_is_not_there_is_missing(store: BankStore) -> None:
    with pytest.raises(BankMissingError):
        store.changes(KEY, None)
    with pytest.raises(BankMissingError):
        teach(store, KEY, SHAPE, "frame-1", features(1))
    with pytest.raises(BankMissingError):
        store.remove(KEY, SHAPE, "frame-1")


def test_a_frame_added_twice_changes_the_bank_once(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    assert store.learned(KEY, "frame-1") is None
    first = teach(store, KEY, SHAPE, "frame-1", features(1))
    assert (first.version, first.slot, first.added, first.evicted) == (1, 2, True, ())
    again = teach(store, KEY, SHAPE, "frame-1", features(9))
    assert again == replace(first, added=False) == store.learned(KEY, "frame-1")
    assert values({c.slot: c.features for c in store.changes(KEY, None).slots if c.features is not None})[2] == 1


def test_a_frame_that_is_known_is_known_whatever_else_the_addition_says(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    first = teach(store, KEY, SHAPE, "frame-1", features(1))
    late = Addition("frame-1", features(1), at=99, slot=0, evict=(7,), budget=1)
    assert store.add(KEY, SHAPE, late) == replace(first, added=False)


def test_of_two_writers_at_one_version_one_wins(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    store.add(KEY, SHAPE, Addition("frame-1", features(1), at=0, slot=2))
    with pytest.raises(BankMovedError, match="version 1"):
        store.add(KEY, SHAPE, Addition("frame-2", features(2), at=0, slot=3))
    assert (store.version(KEY), store.learned(KEY, "frame-2")) == (1, None)


def test_who_makes_room_leaves_in_the_same_edit(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    for number in (1, 2, 3):
        teach(store, KEY, SHAPE, f"frame-{number}", features(number))
    copy: dict[int, Features] = {}
    version = follow(copy, store.changes(KEY, None))
    edit = teach(store, KEY, SHAPE, "frame-4", features(4), evict=(4, 2))
    assert (edit.version, edit.slot, edit.evicted) == (4, 2, ("frame-3", "frame-1"))
    # Redone after a crash, the answer still names whom it evicted.
    assert teach(store, KEY, SHAPE, "frame-4", features(4)) == replace(edit, added=False)
    assert follow(copy, store.changes(KEY, version)) == 4
    assert values(copy) == {0: -1, 1: -2, 2: 4, 3: 2}
    assert store.learned(KEY, "frame-1") is None
    again = teach(store, KEY, SHAPE, "frame-1", features(1))
    assert (again.version, again.slot, again.added) == (5, 4, True)


@pytest.mark.parametrize("slot", [0, 1, 2])
def test_a_slot_that_is_pinned_or_taken_is_no_room(store: BankStore, slot: int) -> None:
    store.open(KEY, SHAPE, SEED)
    teach(store, KEY, SHAPE, "frame-1", features(1))
    with pytest.raises(Exception, match=f"slot {slot} is pinned or taken"):
        store.add(KEY, SHAPE, Addition("frame-2", features(2), at=1, slot=slot))
    assert (store.version(KEY), len(store.changes(KEY, None).slots)) == (1, PINNED + 1)


def test_the_budget_counts_bytes_and_is_never_exceeded(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    there = np.zeros(SHAPE.features[:2], np.bool_)
    there[0, 0] = True
    small = keep_only(features(3), there)
    budget = 2 * most_bytes(SHAPE.features) + 1 + 2 * 4
    teach(store, KEY, SHAPE, "frame-1", features(1), budget=budget)
    teach(store, KEY, SHAPE, "frame-2", features(2), budget=budget)
    with pytest.raises(BankFullError):
        teach(store, KEY, SHAPE, "frame-3", features(3), budget=budget)
    teach(store, KEY, SHAPE, "frame-4", small, budget=budget)
    with pytest.raises(BankFullError):
        teach(store, KEY, SHAPE, "frame-5", small, budget=budget)
    assert store.version(KEY) == 3
    teach(store, KEY, SHAPE, "frame-6", features(6), evict=(3,), budget=budget)
    store.remove(KEY, SHAPE, "frame-1")
    teach(store, KEY, SHAPE, "frame-7", features(7), budget=budget)
    with pytest.raises(BankFullError):
        teach(store, KEY, SHAPE, "frame-5", small, budget=budget)
    # A restored bank knows what it takes.
    learned = [LearnedSlot(2, "frame-8", 8, features(8)), LearnedSlot(3, "frame-9", 9, small)]
    store.open(KEY, SHAPE, SEED, learned=learned, version=20)
    with pytest.raises(BankFullError):
        teach(store, KEY, SHAPE, "frame-10", features(1), budget=budget - 1)
    teach(store, KEY, SHAPE, "frame-10", features(1), budget=budget)


def test_an_entry_that_keeps_some_locations_only_comes_back_as_it_was(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    there = np.zeros(SHAPE.features[:2], np.bool_)
    there[0, 1] = there[1, 2] = True
    teach(store, KEY, SHAPE, "frame-1", keep_only(features(5), there))
    found = store.changes(KEY, None).slots[-1].features
    assert found is not None
    np.testing.assert_array_equal(found, keep_only(features(5), there))


def test_a_follower_gets_each_changed_slot_once_with_its_newest_bytes(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    teach(store, KEY, SHAPE, "frame-1", features(1))
    copy: dict[int, Features] = {}
    version = follow(copy, store.changes(KEY, None))
    for number in range(2, 5):
        teach(store, KEY, SHAPE, f"frame-{number}", features(number))
    store.remove(KEY, SHAPE, "frame-3")
    teach(store, KEY, SHAPE, "frame-5", features(5))
    changes = store.changes(KEY, version)
    assert not changes.reload
    assert sorted(change.slot for change in changes.slots) == [3, 4, 5]
    assert follow(copy, changes) == 6
    assert values(copy) == {0: -1, 1: -2, 2: 1, 3: 2, 4: 5, 5: 4}


def test_an_unchanged_bank_has_no_changes(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    version = store.changes(KEY, None).version
    assert store.changes(KEY, version) == BankChanges(version=0, reload=False, slots=())


def test_a_removed_frame_leaves_its_slot_empty_for_followers_and_newcomers(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    teach(store, KEY, SHAPE, "frame-1", features(1))
    copy: dict[int, Features] = {}
    version = follow(copy, store.changes(KEY, None))
    assert store.remove(KEY, SHAPE, "frame-1") == 2
    changes = store.changes(KEY, version)
    assert [(change.slot, change.features) for change in changes.slots] == [(2, None)]
    assert [change.slot for change in store.changes(KEY, None).slots] == [0, 1]
    teach(store, KEY, SHAPE, "frame-2", features(2))
    # Whoever asks again is told when that was.
    assert store.remove(KEY, SHAPE, "frame-1") == 2
    assert store.remove(KEY, SHAPE, "frame-9") == 3
    assert teach(store, KEY, SHAPE, "frame-1", features(1)).added


def test_a_follower_behind_the_log_gets_the_whole_bank(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    copy: dict[int, Features] = {}
    version = follow(copy, store.changes(KEY, None))
    for number in range(LOG_LENGTH - 1):
        teach(store, KEY, SHAPE, f"frame-{number}", features(number))
    assert not store.changes(KEY, version).reload
    teach(store, KEY, SHAPE, "frame-last", features(100))
    changes = store.changes(KEY, version)
    assert changes.reload
    assert follow(copy, changes) == LOG_LENGTH
    assert 100 in values(copy).values()


def test_a_version_from_elsewhere_gets_the_whole_bank(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    store.changes(KEY, None)
    changes = store.changes(KEY, 17)
    assert (changes.version, changes.reload, len(changes.slots)) == (0, True, PINNED)


def test_a_lost_bank_is_restored_bit_for_bit_in_its_old_slots_under_a_new_version(store: BankStore) -> None:
    # A fresh worker made the bank anew, without what it had learned; then its version is behind the database's.
    store.open(KEY, SHAPE, SEED)
    copy: dict[int, Features] = {}
    version = follow(copy, store.changes(KEY, None))
    learned = [LearnedSlot(4, "frame-7", 7, features(7)), LearnedSlot(2, "frame-9", 9, features(9))]
    assert store.open(KEY, SHAPE, SEED, learned=learned, version=12) == 12
    changes = store.changes(KEY, version)
    assert changes.reload
    assert follow(copy, changes) == 12
    assert values(copy) == {0: -1, 1: -2, 2: 9, 4: 7}
    # It goes on as the old one would have: known frames are known, versions grow.
    assert teach(store, KEY, SHAPE, "frame-9", features(9)).version == 9
    assert teach(store, KEY, SHAPE, "frame-10", features(10)).slot == 3
    assert store.version(KEY) == 13


def test_a_bank_at_or_above_the_version_is_not_replaced(store: BankStore) -> None:
    store.open(KEY, SHAPE, SEED)
    teach(store, KEY, SHAPE, "frame-1", features(1))
    assert store.open(KEY, SHAPE, SEED, learned=[], version=1) == 1
    assert len(store.changes(KEY, None).slots) == PINNED + 1


def test_learned_normals_in_a_pinned_slot_are_refused(store: BankStore) -> None:
    learned = [LearnedSlot(1, "frame-1", 1, features(1))]
    with pytest.raises(BankMismatchError, match="slot 1, which now holds a pinned normal"):
        store.open(KEY, SHAPE, SEED, learned=learned, version=2)
    assert store.version(KEY) is None


def test_banks_of_other_cameras_and_models_are_apart(store: BankStore) -> None:
    others = [BankKey("cam2", "model-1"), BankKey("cam1", "model-2"), BankKey("cam1:model", "1")]
    for key in (KEY, *others):
        store.open(key, SHAPE, SEED)
    teach(store, KEY, SHAPE, "frame-1", features(1))
    assert [store.version(key) for key in others] == [0, 0, 0]
