"""The plan of the storm, and the accounts it is held to."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.chaos.accounts import Ends
from deploy.chaos.doomed import find
from deploy.chaos.feed import KINDS, Kind, kind_of
from deploy.chaos.plan import TRIES, Plan
from deploy.chaos.points import POINTS, CommitPoint, ProgramKind
from deploy.chaos.world import Fate

WORKER: ProgramKind = "worker"


def dealt(plan: Plan) -> list[Fate]:
    """Return all fates of a plan."""
    fates = []
    for kind in ("worker", "learner"):
        while (fate := plan.fate(kind)) != Fate():
            fates.append(fate)
    return fates


@given(kills=st.integers(len(POINTS), 100), seed=st.integers(0, 1000))
def test_every_commit_point_has_its_turn_and_the_number_of_kills_is_kept(kills: int, seed: int) -> None:
    fates = dealt(Plan(kills, seed))
    assert len(fates) == kills
    assert {fate.point for fate in fates if fate.point} == set(POINTS)


def test_the_same_seed_deals_the_same_fates() -> None:
    assert dealt(Plan(40, 7)) == dealt(Plan(40, 7)) != dealt(Plan(40, 8))


def test_a_fate_that_does_not_come_to_pass_is_dealt_again_but_not_for_ever() -> None:
    plan = Plan(1, 0)
    fate = next(each for each in (plan.fate(WORKER), plan.fate("learner")) if each.point)
    assert fate.point is not None
    for _ in range(TRIES - 1):
        plan.unfulfilled(fate.point.program, fate)
        assert plan.fate(fate.point.program) == fate
    plan.unfulfilled(fate.point.program, fate)
    assert plan.fate(fate.point.program) == Fate()


@pytest.mark.parametrize("point", [point for point in POINTS if point.method], ids=lambda point: point.name)
def test_every_commit_point_is_a_method_that_exists(point: CommitPoint) -> None:
    assert point.method is not None
    owner, name = find(point.method)
    assert callable(getattr(owner, name))


def test_a_doomed_program_dies_at_the_moment_named_and_not_before(tmp_path: Path) -> None:
    script = """
from deploy.chaos.doomed import doom
from deploy.chaos.points import BY_NAME
from monitor.adapters.images import FsspecImageStore
doom(BY_NAME["image kept"], 2)
store = FsspecImageStore({folder!r})
for number in range(3):
    store.put(bytes([number]))
"""
    done = subprocess.run([sys.executable, "-c", script.format(folder=str(tmp_path))], check=False)
    assert done.returncode == -9
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_the_accounts_see_a_frame_that_is_missing_doubled_or_wrong() -> None:
    kinds = {"a": Kind.GOOD, "b": Kind.BROKEN, "c": Kind.LATE}
    right = Ends((("a", "normal"), ("b", "dead letter"), ("c", "uninspected")))
    assert (right.duplicates, right.wrong(kinds), set(kinds) - right.frames) == (0, 0, set())
    assert [right.count(end) for end in ("normal", "uninspected", "dead letter")] == [1, 1, 1]
    assert Ends((*right.rows, ("a", "dead letter"))).duplicates == 1
    assert Ends((("a", "uninspected"),)).wrong(kinds) == 1
    assert Ends((("never sent", "normal"),)).wrong(kinds) == 1
    assert set(kinds) - Ends((("a", "normal"),)).frames == {"b", "c"}


def test_frames_of_all_kinds_are_sent() -> None:
    sent = Counter(kind_of(number) for number in range(len(KINDS)))
    assert set(sent) == set(Kind)
