"""The rule confirms what is beyond doubt, a few a day, while the line is quiet; and never what a person spoke of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from pydantic import SecretStr

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.memory import MemoryBankStore, MemoryImageStore
from monitor.adapters.rule_store import SqlRuleStore
from monitor.learning.rule import LOOK_EVERY_S, Rule
from monitor.ports import BatchOutcome, Policy
from monitor.settings import DatabaseSettings, RuleSettings
from schemas.messages import Verdict
from tests.integration.learning_world import KEY, World
from tests.integration.records import inspection

SETTINGS = RuleSettings(enabled=True, score_share=0.5, quiet_minutes=10, sample=1.0, daily_cap=3)


class Line:
    """A world with a rule, and frames with scores."""

    def __init__(self, world: World, settings: RuleSettings = SETTINGS) -> None:
        self.world = world
        self.quiet: datetime | None = world.clock.now() - timedelta(minutes=11)
        store = SqlRuleStore(world.engine, world.clock.now)
        self.rule = Rule(store, KEY.model_id, settings, lambda _: self.quiet, world.clock)
        self.frames = 0

    def frame(self, score: float = 0.1, verdict: Verdict = Verdict.NORMAL, *, kept: bool = True) -> str:
        """Store a frame with a threshold of 0.5; return its id."""
        self.frames += 1
        frame_id = f"calm-{self.frames}"
        sha256 = self.world.images.put(b"5") if kept else None
        record = inspection(frame_id, 500 + self.frames, verdict=verdict, image_sha256=sha256, model_id=KEY.model_id)
        self.world.inspections.record(BatchOutcome((replace(record, score=score),)))
        return frame_id

    def look(self) -> list[str]:
        """Let the rule look; return the frames that wait with its word."""
        self.world.clock.advance(LOOK_EVERY_S)
        self.rule()
        return [review.frame_id for review in self.world.reviews.pending_reviews(100, [Policy.RULE])]


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    migrations.upgrade(database_url)
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    banks = MemoryBankStore()
    yield World(engine, banks, MemoryImageStore(), banks.wipe)
    engine.dispose()


def test_a_calm_frame_is_confirmed_as_the_rules_word_and_learnt_like_any(world: World) -> None:
    line = Line(world)
    line.look()
    frame = line.frame()
    assert line.look() == [frame]
    assert line.look() == [frame]
    world.learner().step()
    [entry] = world.book.active_entries(*world._names())
    assert (entry.frame_id, entry.policy, entry.added_by) == (frame, Policy.RULE, "rule")
    assert entry.why == "score 0.10, under 0.5 of 0.50"
    world.review_desk.retract(frame, "ada")
    world.learner().step()
    assert world.active() == []


def test_what_is_in_doubt_is_left_to_people(world: World) -> None:
    line = Line(world)
    line.look()
    line.frame(score=0.26)
    line.frame(verdict=Verdict.DEFECT)
    line.frame(verdict=Verdict.UNINSPECTED)
    line.frame(kept=False)
    spoken_of = line.frame()
    world.review_desk.confirm(spoken_of, Verdict.DEFECT, "ada")
    assert line.look() == []


def test_what_was_stored_before_the_rule_looked_first_stays_unsaid(world: World) -> None:
    line = Line(world)
    line.frame()
    assert line.look() == []


@pytest.mark.parametrize("minutes", [None, 9], ids=["drifting or unknown", "not for long enough"])
def test_without_quiet_nothing_is_confirmed(world: World, minutes: int | None) -> None:
    line = Line(world)
    line.look()
    line.quiet = None if minutes is None else world.clock.now() - timedelta(minutes=minutes)
    line.frame()
    assert line.look() == []


def test_a_day_has_a_cap_for_each_camera(world: World) -> None:
    line = Line(world)
    line.look()
    frames = [line.frame() for _ in range(5)]
    assert line.look() == frames[:3]
    assert line.frame() not in line.look()
    world.clock.advance(timedelta(days=1, seconds=1).total_seconds())
    late = line.frame()
    assert line.look() == [*frames[:3], late]


def test_a_sample_is_drawn_by_the_frames_ids_alone(world: World) -> None:
    generous = RuleSettings(enabled=True, score_share=0.5, quiet_minutes=0, sample=0.3, daily_cap=1000)
    line = Line(world, generous)
    line.look()
    frames = [line.frame() for _ in range(60)]
    first = line.look()
    assert 5 < len(first) < 35
    assert [frame for frame in frames if line.rule._is_drawn(frame)] == first


def test_the_rule_is_off_unless_it_is_turned_on(world: World) -> None:
    assert not RuleSettings().enabled
    line = Line(world, RuleSettings(quiet_minutes=0, sample=1.0))
    line.look()
    line.frame()
    assert line.look() == []


def test_the_rule_can_be_paused_by_itself(world: World) -> None:
    line = Line(world)
    line.look()
    frame = line.frame()
    line.look()
    world.desk.pause(Policy.RULE, "ada")
    person = world.review(b"6")
    world.learner().step()
    assert world.active() == [person]
    world.desk.resume(Policy.RULE, "ada")
    world.learner().step()
    assert sorted(world.active()) == sorted([frame, person])
