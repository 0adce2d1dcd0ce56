"""Any sequence of edits, by two writers and with followers at any version, keeps the bank's invariants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from monitor.adapters.memory import MemoryBankStore
from monitor.adapters.redis_bank import RedisBankStore
from monitor.core.bank_entry import most_bytes
from monitor.errors import BankFullError, BankMovedError
from monitor.ports import Addition, BankKey, BankShape, BankStore, LearnedSlot
from monitor.settings import RedisSettings

pytestmark = pytest.mark.usefixtures("each_redis")

PINNED, LOG_LENGTH = 2, 3
SHAPE = BankShape("a" * 64, (1, 1, 4))
BUDGET = 3 * most_bytes(SHAPE.features)
FRAMES = [f"frame-{number}" for number in range(8)]


def features(value: int) -> NDArray[np.float16]:
    return np.full(SHAPE.features, value, dtype=np.float16)


SEED = np.stack([features(-1), features(-2)])
writers = st.integers(0, 1)


class BankMachine(RuleBasedStateMachine):
    """Two store objects on one bank, against a list that says what was learned in which order."""

    make_stores: Callable[[], tuple[BankStore, BankStore]]
    banks = 0

    def __init__(self) -> None:
        super().__init__()
        self.stores = type(self).make_stores()
        BankMachine.banks += 1
        self.key = BankKey(f"cam{BankMachine.banks}", "model-1")
        self.learned: list[tuple[str, int, int]] = []  # frame, slot, version added
        self.contents = {0: -1, 1: -2}
        self.removed: dict[str, int] = {}
        self.version = 0
        self.value = 0
        # Per store object: every copy it has handed out, by version.
        self.copies: tuple[dict[int, dict[int, int]], ...] = ({}, {})

    @initialize()
    def open(self) -> None:
        assert [store.open(self.key, SHAPE, SEED) for store in self.stores] == [0, 0]

    @rule(writer=writers, frame=st.sampled_from(FRAMES), leaving=st.integers(0, 2), behind=st.integers(0, 1))
    def add(self, writer: int, frame: str, leaving: int, behind: int) -> None:
        self.value += 1
        evicted = self.learned[:leaving]
        evict = tuple(slot for _, slot, _ in evicted)
        taken = self.contents.keys() - set(evict)
        slot = min(set(range(20)) - taken)
        addition = Addition(frame, features(self.value), self.version - behind, slot, evict, BUDGET)
        known = {name: (slot, version) for name, slot, version in self.learned}
        if frame in known:
            edit = self.stores[writer].add(self.key, SHAPE, addition)
            assert (edit.added, edit.slot, edit.version) == (False, *known[frame])
            return
        if behind:
            with pytest.raises(BankMovedError):
                self.stores[writer].add(self.key, SHAPE, addition)
            return
        if len(self.learned) - len(evicted) == 3:
            with pytest.raises(BankFullError):
                self.stores[writer].add(self.key, SHAPE, addition)
            return
        edit = self.stores[writer].add(self.key, SHAPE, addition)
        self.version += 1
        assert (edit.added, edit.version, edit.slot) == (True, self.version, slot)
        assert edit.evicted == tuple(name for name, _, _ in evicted)
        for each in evicted:
            self.learned.remove(each)
            self.removed[each[0]] = self.version
            del self.contents[each[1]]
        self.removed.pop(frame, None)
        self.learned.append((frame, slot, edit.version))
        self.contents[slot] = self.value

    @rule(writer=writers, frame=st.sampled_from(FRAMES))
    def remove(self, writer: int, frame: str) -> None:
        for entry in [entry for entry in self.learned if entry[0] == frame]:
            self.learned.remove(entry)
            del self.contents[entry[1]]
            self.version += 1
            self.removed[frame] = self.version
        assert self.stores[writer].remove(self.key, SHAPE, frame) == self.removed.get(frame, self.version)

    @precondition(lambda self: self.learned)
    @rule(writer=writers, ahead=st.integers(1, 3))
    def restore(self, writer: int, ahead: int) -> None:
        self.version += ahead
        learned = [
            LearnedSlot(slot, frame, added, features(self.contents[slot])) for frame, slot, added in self.learned
        ]
        self.removed.clear()
        store = self.stores[writer]
        assert store.open(self.key, SHAPE, SEED, learned=learned, version=self.version) == self.version

    @rule(reader=writers, data=st.data())
    def follow(self, reader: int, data: st.DataObject) -> None:
        copies = self.copies[reader]
        since = data.draw(st.sampled_from([None, *copies, self.version + 5]), label="since")
        changes = self.stores[reader].changes(self.key, since)
        copy = {} if changes.reload else dict(copies[since if since is not None else -1])
        slots = [change.slot for change in changes.slots]
        assert len(slots) == len(set(slots))
        for change in changes.slots:
            if change.features is None:
                assert copy.pop(change.slot, None) is not None or not changes.reload
            else:
                copy[change.slot] = int(change.features.flat[0])
        assert changes.version == self.version
        assert copy == self.contents
        copies[changes.version] = copy

    @invariant()
    def version_and_capacity_hold(self) -> None:
        assert [store.version(self.key) for store in self.stores] in ([self.version] * 2, [None] * 2)
        assert len(self.learned) <= BUDGET // most_bytes(SHAPE.features)
        if self.stores[0].version(self.key) is not None:
            learned = {name: version for name, _, version in self.learned}
            assert [store.all_learned(self.key) for store in self.stores] == [learned] * 2
        assert {0: -1, 1: -2}.items() <= self.contents.items()


@pytest.mark.parametrize("kind", ["memory", "redis"])
def test_any_sequence_of_edits_keeps_the_banks_invariants(
    kind: str, redis_url: str, request: pytest.FixtureRequest
) -> None:
    # Shorter than the settings allow, so that followers fall behind it.
    redis_settings = RedisSettings(url=redis_url).model_copy(update={"log_length": LOG_LENGTH})
    one_slot, everything = most_bytes(SHAPE.features), 4 * 2**20
    redis_stores = RedisBankStore(redis_settings, one_slot), RedisBankStore(redis_settings, everything)
    request.addfinalizer(lambda: [store.close() for store in redis_stores] and None)

    def make_stores() -> tuple[BankStore, BankStore]:
        memory_store = MemoryBankStore(LOG_LENGTH)
        return redis_stores if kind == "redis" else (memory_store, memory_store)

    class Machine(BankMachine):
        pass

    Machine.make_stores = staticmethod(make_stores)
    profile = settings(max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Machine, settings=profile)
