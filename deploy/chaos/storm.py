"""The storm: two workers and a learner that die and are started again, servers that go away, frames that flow."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from kafka.errors import KafkaError
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from deploy.chaos.accounts import Ends, bank_problems, read_committed, read_ends, unsettled
from deploy.chaos.feed import CAMERAS, Feed
from deploy.chaos.plan import Plan, Target
from deploy.chaos.points import ProgramKind
from deploy.chaos.reviewer import Reviewer
from deploy.chaos.world import Fate, Life, World
from schemas.errors import PaedidError

TICK_S: Final = 0.02
FATE_PATIENCE_S: Final = 40.0  # a life that has not met its fate by then is ended elsewhere
READY_S: Final = 8.0  # by then a program works
RESTART_S: Final = 0.5
STRIKE_PAUSE_S: Final = (6.0, 14.0)
STALLED_S: Final = 60.0  # frames that still come to their end may take longer
LOOK_S: Final = 0.5
QUIET_S: Final = 5.0  # longer than the learner takes to look at its banks again
KILLED: Final = -9
VAIN_STARTS: Final = 30  # in a row; no outage of ours lasts as long
AWAY: Final = 2  # the exit code of a program that found a server away at its start

log = structlog.get_logger()


@dataclass
class Toll:
    """What the storm has done so far."""

    kills: Counter[str] = field(default_factory=Counter)
    outages: int = 0
    zombies: int = 0
    given_up: int = 0
    crashes: int = 0
    lost: set[str] = field(default_factory=set)  # committed, and not in the database at that moment


class _Slot:
    """One program that is to run all the time: its life now, or when the next one begins."""

    def __init__(self, kind: ProgramKind, name: str) -> None:
        self.kind = kind
        self.name = name
        self.life: Life | None = None
        self.due = 0.0
        self.vain = 0


class Storm:
    """One run. Call `rage`, then `calm`; `toll` and `ends` tell what happened.

    Args:
        world: entered.
        plan: who dies when.
        feed: the camera.
        reviewer: the person.
        engine: the world's database, for reading.
    """

    def __init__(self, world: World, plan: Plan, feed: Feed, reviewer: Reviewer, engine: Engine) -> None:
        self.toll = Toll()
        self._world = world
        self._plan = plan
        self._feed = feed
        self._reviewer = reviewer
        self._engine = engine
        self._slots = [_Slot("worker", "worker-0"), _Slot("worker", "worker-1"), _Slot("learner", "learner")]
        self._next_strike = time.monotonic() + STRIKE_PAUSE_S[1]

    @property
    def ends(self) -> Ends:
        """What became of the frames so far."""
        return read_ends(self._engine)

    def rage(self, frames: int, on_kill: Callable[[int], None]) -> None:
        """Send at least so many frames, until all fates and strikes are dealt and met.

        Args:
            frames: at least so many.
            on_kill: told how many kills there were, at each.
        """
        while not self._spent() or len(self._feed.frame_ids) < frames:
            self._tick(more=True)
            on_kill(self.toll.kills.total())
            self._strike_if_due()

    def calm(self) -> None:
        """Let what was sent come to its end, with all programs alive, for as long as anything moves."""
        moved = settled = time.monotonic()
        before: tuple[int, ...] = ()
        while time.monotonic() - moved < STALLED_S and time.monotonic() - settled < QUIET_S:
            looked = time.monotonic()
            while time.monotonic() - looked < LOOK_S:
                self._tick(more=False)
            now = (self._feed.waiting, unsettled(self._engine), len(self.ends.frames))
            if now != before:
                before, moved = now, time.monotonic()
            if now != (0, 0, len(self._feed.kinds)):
                settled = time.monotonic()
        self._note_lost()

    def stop(self) -> None:
        """Stop the programs."""
        for slot in self._slots:
            if slot.life is not None:
                slot.life.stop()

    def bank_problems(self) -> list[str]:
        """Return what is wrong with the banks."""
        return bank_problems(self._engine, self._world.config, CAMERAS)

    def _spent(self) -> bool:
        doomed = any(slot.life is None or slot.life.fate != Fate() for slot in self._slots)
        return self._plan.over and not doomed

    def _tick(self, *, more: bool) -> None:
        self._feed.tick(more=more)
        if more:
            self._reviewer.tick()
        for slot in self._slots:
            self._look_at(slot)
        time.sleep(TICK_S)

    def _look_at(self, slot: _Slot) -> None:
        life = slot.life
        if life is None:
            if time.monotonic() >= slot.due:
                slot.life = Life(self._world, slot.kind, slot.name, self._plan.fate(slot.kind))
        elif life.exit_code is not None:
            slot.vain = 0 if life.exit_code == KILLED else slot.vain
            self._bury(slot, life)
        elif life.fate.point is not None:
            self._await_fate(life)
        elif life.fate.after_s is not None:
            self._end_elsewhere(life, life.fate.after_s)

    def _bury(self, slot: _Slot, life: Life) -> None:
        met = life.exit_code == KILLED and not life.killed and life.fate.point is not None
        if life.exit_code == KILLED:
            self.toll.kills[life.fate.point.name if met and life.fate.point else "anywhere"] += 1
        elif life.exit_code == AWAY:
            self.toll.given_up += 1
            slot.vain += 1
            if slot.vain > VAIN_STARTS:
                life.check()
        else:
            self.toll.crashes += 1
            log.error("a program crashed", program=slot.name, exit_code=life.exit_code)
        if not met:
            self._plan.unfulfilled(slot.kind, life.fate)
        slot.life, slot.due = None, time.monotonic() + RESTART_S

    def _await_fate(self, life: Life) -> None:
        assert life.fate.point is not None
        if life.fate.point.after == "bank lost" and not life.provoked and life.age_s > READY_S:
            life.provoked = True
            self._strike(Target.EMPTIED_BANK)
        if life.age_s > FATE_PATIENCE_S:
            life.kill()

    def _end_elsewhere(self, life: Life, after_s: float) -> None:
        frozen_s = life.fate.frozen_s
        if frozen_s is None:
            if life.age_s > after_s:
                life.kill()
            return
        if life.age_s > after_s + 2 * frozen_s:
            life.kill()
        elif life.age_s > after_s + frozen_s:
            life.thaw()
        elif life.age_s > after_s and not life.was_frozen:
            self.toll.zombies += 1
            life.freeze()

    def _strike_if_due(self) -> None:
        if time.monotonic() < self._next_strike or (target := self._plan.strike()) is None:
            return
        self._strike(target)
        self._next_strike = time.monotonic() + self._plan.chance.uniform(*STRIKE_PAUSE_S)

    def _strike(self, target: Target) -> None:
        log.info("outage", of=target.value)
        self.toll.outages += 1
        if target is Target.DATABASE:
            self._world.database.strike()
            self.toll.kills[target.value] += self._world.database.kills
            return
        self.toll.kills[target.value] += 1
        if target is Target.BROKER:
            self._strike_broker()
        else:
            self._world.kill_valkey(losing_all=target is Target.EMPTIED_BANK)

    def _strike_broker(self) -> None:
        """Kill the broker; if it forgets, send again what it had acknowledged and nobody had come to.

        What was committed before must be stored: only the rest may be said to be forgotten by the broker.
        """
        self._note_lost()
        self._world.broker.kill(self._world.settings.kafka.frames_topic, self._plan.chance)
        acknowledged = self._feed.acknowledged()
        self._world.restore_broker()
        if self._world.broker.forgets:
            self._feed.send_again(acknowledged - self.ends.frames)

    def _note_lost(self) -> None:
        try:
            committed = read_committed(self._world.settings.kafka)
            self.toll.lost |= committed - self.ends.frames
        except (KafkaError, DBAPIError, TimeoutError, PaedidError) as error:
            log.warning("the log could not be held against the database", error=str(error))
