"""Whatever people confirm, take back and order, by two learners that may be killed anywhere: the bank is what SQL says.

Over a real Valkey and a real Redis, with SQLite.
"""

# ruff: noqa: ANN401 - ports are wrapped whole
from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from pydantic import SecretStr

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.memory import MemoryImageStore
from monitor.adapters.redis_bank import RedisBankStore
from monitor.bank_follower import BankFollower
from monitor.core.bank_entry import most_bytes, to_bytes
from monitor.learning.learner import BANK_CHECK_S, Learner
from monitor.learning.snapshot import Snapshot, of_store
from monitor.ports import OrderKind
from monitor.settings import DatabaseSettings, RedisSettings
from schemas.messages import Verdict
from tests.integration.learning_world import KEY, PINNED, WHOLE, World
from tests.unit.pipeline_fakes import ENTRY, ToyInspector

# Shorter than the settings allow, so that followers fall behind it.
LOG_LENGTH = 4
MOST_COMMANDS = 40
learners = st.integers(0, 1)


class Killed(BaseException):
    """The program is gone. No ``except Exception`` may see it."""


class Fuse:
    """Lets so many commands pass, then kills: before the next one is sent, or after it was carried out."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.after = False

    def arm(self, commands: int, *, after: bool) -> None:
        self.left, self.after = commands, after

    @contextlib.contextmanager
    def command(self) -> Iterator[None]:
        if self.left is not None:
            self.left -= 1
        gone = self.left is not None and self.left < 0
        if gone and not self.after:
            raise Killed
        yield
        if gone:
            raise Killed


class Fused:
    """A port whose every call is a command."""

    def __init__(self, port: Any, fuse: Fuse) -> None:
        self._port, self._fuse = port, fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*args: Any, **options: Any) -> Any:
            with self._fuse.command():
                return method(*args, **options)

        return call


class FusedRedis(RedisBankStore):
    """Whose staging of a bank's slots is a command of its own."""

    fuse: Fuse

    def _stage(self, *args: Any) -> str:
        with self.fuse.command():
            return super()._stage(*args)


class LearningMachine(RuleBasedStateMachine):
    """Two learners of one line, people, and a Redis that loses its memory."""

    redis_url: str
    template: Path
    lines = 0

    def __init__(self) -> None:
        super().__init__()
        LearningMachine.lines += 1
        # A file of its own: SQLite keeps more than one beside it.
        database = self.template.with_name(f"line-{LearningMachine.lines}.db")
        shutil.copy(self.template, database)
        self.engine = connect(DatabaseSettings(url=SecretStr(f"sqlite:///{database}")))
        self.redis = redis.Redis.from_url(self.redis_url)
        self.redis.flushdb()
        settings_ = RedisSettings(url=self.redis_url).model_copy(update={"log_length": LOG_LENGTH})
        self.banks = RedisBankStore(settings_)
        self.world = World(self.engine, self.banks, MemoryImageStore(), self.redis.flushdb, budget=3 * WHOLE)
        self.fuse = Fuse()
        self.fused = FusedRedis(settings_, chunk_bytes=2 * most_bytes(ENTRY))
        self.fused.fuse = self.fuse
        self.alive: list[Learner | None] = [None, None]
        self.following = RedisBankStore(settings_)
        self.worker = BankFollower(ToyInspector(), self.following, self.world.clock)
        self.normal: list[str] = []
        self.taken_back: set[str] = set()
        self.quarantined: set[str] = set()
        self.snapshots: list[str] = []
        self.history: dict[int, list[str]] = {}
        self.version = 0

    def teardown(self) -> None:
        self.settle()
        if self.world.active():
            before = self.world.audit()
            self.redis.flushdb()
            self.settle()
            assert self.world.audit().checksum == before.checksum
        self.engine.dispose()
        self.redis.close()
        for store in (self.banks, self.fused, self.following):
            store.close()

    def learner(self, number: int) -> Learner:
        found = self.alive[number]
        if found is None:
            world, fuse = self.world, self.fuse
            found = self.alive[number] = world.learner(
                reviews=Fused(world.reviews, fuse),
                book=Fused(world.book, fuse),
                images=Fused(world.images, fuse),
                banks=Fused(self.fused, fuse),
            )
        return found

    # What people do.

    @rule(number=st.integers(1, 9))
    def confirm_normal(self, number: int) -> None:
        self.normal.append(self.world.review(str(number).encode()))

    @rule(number=st.integers(2, 9))
    def confirm_defect(self, number: int) -> None:
        self.world.review(str(number).encode(), Verdict.DEFECT)

    @precondition(lambda self: self.normal)
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        frame = data.draw(st.sampled_from(self.normal), label="frame")
        self.normal.remove(frame)
        self.world.review_desk.retract(frame, "bob")
        self.taken_back.add(frame)

    @precondition(lambda self: self.world.active())
    @rule(data=st.data())
    def quarantine(self, data: st.DataObject) -> None:
        frame = data.draw(st.sampled_from(self.world.active()), label="frame")
        self.world.desk.order(OrderKind.QUARANTINE, KEY, "bob", frame_id=frame)
        self.quarantined.add(frame)

    @precondition(lambda self: self.history)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        version = data.draw(st.sampled_from([0, *self.history]), label="version")
        self.world.desk.order(OrderKind.ROLLBACK, KEY, "bob", version=version)

    @rule()
    def rebuild(self) -> None:
        self.world.desk.order(OrderKind.REBUILD, KEY, "bob")

    @precondition(lambda self: self.history)
    @rule()
    def take_snapshot(self) -> None:
        self.settle()
        if self.banks.version(KEY) is None:
            return  # nothing was ever learnt, and the next worker makes the bank anew
        active = self.world.book.active_entries(*self.world._names())
        taken = of_store(self.banks, KEY, ToyInspector().manifest, PINNED, active)
        assert len(Snapshot.from_bytes(taken.to_bytes()).entries) == len(active)
        self.snapshots.append(self.world.images.put(taken.to_bytes()))

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        sha256 = data.draw(st.sampled_from(self.snapshots), label="snapshot")
        self.world.desk.order(OrderKind.RESTORE, KEY, "bob", snapshot_sha256=sha256)

    # What programs and servers do.

    @rule(number=learners)
    def step(self, number: int) -> None:
        self.learner(number).step()

    @rule(number=learners, commands=st.integers(0, MOST_COMMANDS), after=st.booleans())
    def step_and_die(self, number: int, commands: int, after: bool) -> None:  # noqa: FBT001 - drawn
        self.fuse.arm(commands, after=after)
        try:
            self.learner(number).step()
        except Killed:
            self.alive[number] = None
        finally:
            self.fuse.left = None

    @rule(number=learners, others=st.integers(1, 6))
    def step_while_another_edits(self, number: int, others: int) -> None:
        """In the middle of one learner's step, the other one takes its whole turn."""
        mine, other = self.learner(number), self.world.learner()
        calls = 0
        original = self.fuse.command

        @contextlib.contextmanager
        def interleaved() -> Iterator[None]:
            nonlocal calls
            calls += 1
            if calls == others * 3:
                other.step()
            with original():
                yield

        self.fuse.command = interleaved
        try:
            mine.step()
        finally:
            self.fuse.command = original

    @rule()
    def lose_redis(self) -> None:
        self.redis.flushdb()

    @precondition(lambda self: self.banks.version(KEY) is not None)
    @rule(part=st.sampled_from(["slots", "frames", "log", "meta"]))
    def lose_a_part_of_redis(self, part: str) -> None:
        self.redis.delete(f"paedid:bank:{{{KEY.camera}:{KEY.model_id}}}:{part}")

    @rule()
    def settle(self) -> None:
        """Let a learner work until nothing waits; then everything must hold."""
        self.world.clock.advance(BANK_CHECK_S)
        learner = self.world.learner()
        while learner.step():
            pass
        if self.banks.version(KEY) is None:
            assert self.world.active() == []
            return
        self.check()

    def check(self) -> None:
        found = self.world.audit()
        assert found.problems == ()
        assert found.size_bytes <= self.world.budget
        assert (found.pinned, found.learned) == (PINNED, len(self.world.active()))
        assert found.version >= self.version, "versions only grow"
        self.version = found.version
        active = set(self.world.active())
        assert not active & self.quarantined
        assert not active & self.taken_back
        self.history.setdefault(found.version, sorted(active))
        for version, frames in self.history.items():
            then = self.world.book.entries_at(*self.world._names(), version)
            assert sorted(entry.frame_id for entry in then) == frames, "what was is written down for good"
        self.follow()

    def follow(self) -> None:
        bank = self.worker.current(KEY.camera)
        assert bank.version == self.banks.version(KEY)
        theirs = {c.slot: c.features for c in self.banks.changes(KEY, None).slots if c.features is not None}
        assert bank.slots == sorted(theirs)
        for slot, features in theirs.items():
            entry = bank.entry(slot)
            assert entry is not None
            assert to_bytes(entry) == to_bytes(features)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("machine") / "template.db"
    migrations.upgrade(f"sqlite:///{path}")
    return path


@pytest.mark.usefixtures("each_redis")
def test_whatever_happens_the_bank_is_what_the_database_says(redis_url: str, template: Path) -> None:
    class Machine(LearningMachine):
        pass

    Machine.redis_url, Machine.template = redis_url, template
    profile = settings(
        max_examples=40,
        stateful_step_count=25,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # Each example takes a while: what is found is told as it is, not after minutes of making it shorter.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        report_multiple_bugs=False,
    )
    run_state_machine_as_test(Machine, settings=profile)
