"""When more comes than can be inspected: which frames are let go, and that they are told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.assignments import Chosen
from monitor.clock import FakeClock
from monitor.core.view import Placement
from monitor.inspecting import BatchInspector
from monitor.intake import DecodedFrame
from monitor.metrics import UNINSPECTED
from monitor.models import Models
from monitor.overload import PAST_DEADLINE, SKIPPED, Overload, Pace
from monitor.ports import LogPosition
from monitor.post import PostMaker
from monitor.settings import CameraSettings, Settings, load_settings
from schemas.errors import ConfigurationError
from schemas.messages import FrameEvent
from tests.unit.pipeline_fakes import DEFECT, NORMAL, SIZE, Assigned, Banks, Bench, Store, ToyInspector, load_toy, png

CLOCK = FakeClock()


def frame(age_s: float = 0, deadline_ms: int | None = 1000, camera: str = "cam") -> FrameEvent:
    captured_at = CLOCK.now() - timedelta(seconds=age_s)
    return FrameEvent(frame_id="f", camera=camera, captured_at=captured_at, deadline_ms=deadline_ms)


def why_not(event: FrameEvent, newer: int = 0, pace_s: float = 0.0, **cameras: object) -> str | None:
    pace = Pace()
    for _ in range(5):
        pace.observe(pace_s)
    return Overload(CameraSettings.model_validate(cameras), CLOCK).why_not(event, newer, pace)


@pytest.mark.parametrize(("age_s", "reason"), [(0.5, None), (1.5, PAST_DEADLINE)])
def test_a_frame_is_let_go_once_its_camera_waits_no_longer(age_s: float, reason: str | None) -> None:
    assert why_not(frame(age_s)) == reason


def test_a_frame_is_let_go_if_its_verdict_would_come_too_late() -> None:
    assert why_not(frame(0.5), newer=1, pace_s=0.4) is None
    assert why_not(frame(0.5), newer=1, pace_s=0.6) == PAST_DEADLINE


def test_without_overload_a_frame_is_tried_until_its_deadline_has_passed() -> None:
    assert why_not(frame(0.5), newer=0, pace_s=0.6) is None


def test_a_frame_that_does_not_say_how_long_its_camera_waits_is_inspected() -> None:
    assert why_not(frame(3600, deadline_ms=None), newer=10**6, pace_s=60) is None


def test_a_camera_that_waits_gets_a_verdict_however_late() -> None:
    assert why_not(frame(3600), newer=10**6, pace_s=60, overload="wait") is None


@pytest.mark.parametrize(("newer", "reason"), [(9, None), (10, SKIPPED)])
def test_the_oldest_frames_are_skipped_while_too_many_newer_ones_wait(newer: int, reason: str | None) -> None:
    policy = {"overload": "skip-oldest", "most_waiting": 10}
    assert why_not(frame(3600), newer, **policy) == reason


def test_cameras_may_differ() -> None:
    policy = {"overload": "wait", "overload_of": {"fast": "deadline"}}
    assert why_not(frame(3600, camera="slow"), **policy) is None
    assert why_not(frame(3600, camera="fast"), **policy) == PAST_DEADLINE


def test_an_unknown_policy_is_a_clear_error() -> None:
    with pytest.raises(ConfigurationError, match=r"cameras\.overload.*'wait', 'skip-oldest' or 'deadline'"):
        load_settings(environment={"PAEDID_CAMERAS__OVERLOAD": "newest"})


def test_the_first_time_of_all_and_one_outage_do_not_make_the_next_frames_too_late_for_long() -> None:
    pace = Pace()
    for seconds in (5.0, 0.1, 0.2, 0.1):
        pace.observe(seconds)
    assert pace.slowest == timedelta(seconds=0.2)
    pace.observe(60.0)
    pace.forget()
    assert pace.slowest == timedelta(seconds=0.2)


@given(slow=st.floats(0.1, 100), times=st.integers(2, 200))
def test_what_was_slow_is_tried_again_in_the_end(slow: float, times: int) -> None:
    pace = Pace()
    for _ in range(times):
        pace.observe(slow)
    assert pace.slowest == timedelta(seconds=slow)
    for _ in range(64):
        pace.forget()
    assert pace.slowest == timedelta()


def overloaded(**cameras: object) -> Bench:
    return Bench(Settings.model_validate({"batch": {"max_frames": 4, "max_age_s": 0.005}, "cameras": cameras}))


def test_under_skip_oldest_only_the_newest_frames_are_inspected_and_the_others_are_counted() -> None:
    counter = UNINSPECTED.labels(reason=SKIPPED, camera="cam")
    before = counter._value.get()
    bench = overloaded(overload="skip-oldest", most_waiting=3)
    for number in range(20):
        bench.line.send(f"f{number:02}", png(NORMAL if number % 2 else DEFECT))
    bench.run()
    verdicts = [bench.store.verdicts[f"f{number:02}"] for number in range(20)]
    assert verdicts == ["uninspected"] * 17 + ["normal", "defect", "normal"]
    assert {record.reason for record in bench.store.records} == {SKIPPED, None}
    assert counter._value.get() - before == 17
    assert sum(frames for frames, _ in bench.inspector.calls) == 3


def test_a_frame_that_is_let_go_is_not_even_decoded() -> None:
    bench = overloaded()
    long_ago = datetime.now(UTC) - timedelta(seconds=5)
    bench.line.send("late", b"no image", captured_at=long_ago, deadline_ms=500)
    bench.run()
    assert (bench.store.verdicts, bench.store.dead_letters) == ({"late": "uninspected"}, [])


def test_a_frame_whose_time_runs_out_while_it_waits_for_its_batch_is_let_go() -> None:
    clock, inspector = FakeClock(), ToyInspector()
    posts = PostMaker(load_toy, Banks(), Store(), clock)
    post = posts.of(inspector)
    models = Models(Assigned(), Chosen("toy-1", Path("toy-1")), post, posts.load, clock, "Inspecting")
    batch = BatchInspector(models, clock, CameraSettings())
    pixels = np.full((1, SIZE, SIZE), 0.2, np.float32)
    events = [
        FrameEvent(frame_id=f"f{number}", camera="cam", captured_at=clock.now(), deadline_ms=deadline_ms)
        for number, deadline_ms in enumerate((100, 1000))
    ]
    frames = [
        DecodedFrame(LogPosition("frames", "t1", 0, number), event, post, pixels, Placement((SIZE, SIZE)))
        for number, event in enumerate(events)
    ]
    clock.advance(0.5)
    assert [record.reason for record in batch.inspect(frames)] == [PAST_DEADLINE, None]
