"""A shadow looks at what the active model has inspected, and changes nothing about it, whatever becomes of it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from structlog.testing import capture_logs

from monitor.assignments import NO_MODEL, Role
from monitor.clock import FakeClock
from monitor.core.inspector import Inspection, empty_bank
from monitor.core.memory_bank import MemoryBank
from monitor.core.view import Placement, Prepared
from monitor.intake import DecodedFrame
from monitor.models import LOOK_EVERY_S, Models
from monitor.ports import InspectionRecord, LogPosition
from monitor.post import Post, PostMaker
from monitor.shadowing import ShadowInspector
from schemas.artifacts import InputSpec
from schemas.messages import FrameEvent, Verdict
from tests.unit.pipeline_fakes import (
    AWAY,
    DEFECT,
    NORMAL,
    NOT_A_NUMBER,
    POISON,
    SIZE,
    Assigned,
    Banks,
    Bench,
    Store,
    ToyInspector,
    load_toy,
    make_settings,
    png,
)

GREYS = (NORMAL, DEFECT, 60, 210, NORMAL, DEFECT, 70)


class Other(ToyInspector):
    """Another toy: it sees a larger picture, in colour, and may fail at it."""

    def __init__(self, model_id: str, size: int = 24, source_size: tuple[int, int] | None = None) -> None:
        super().__init__(model_id=model_id)
        spec = InputSpec(height=size, width=size, channels=3, source_size=source_size)
        architecture = self.manifest.architecture.model_copy(update={"input": spec})
        self.manifest = self.manifest.model_copy(update={"architecture": architecture})
        self.seed = np.ones((2, *architecture.entry_shape), np.float16)
        self.size = size
        self.fails: Callable[[int], Exception | None] = lambda _: None

    def new_bank(self) -> MemoryBank:
        bank = empty_bank(self.manifest.architecture, len(self.seed))
        for slot, entry in enumerate(self.seed):
            bank.put(slot, entry)
        return bank

    def prepare(self, image: np.ndarray) -> Prepared:
        assert image.shape[2:] == (3,)
        pixels = cv2.resize(image, (self.size, self.size), interpolation=cv2.INTER_NEAREST)
        return Prepared(pixels.transpose(2, 0, 1).astype(np.float32) / 255, Placement(image.shape[:2]))

    def inspect(self, frames: np.ndarray, bank: MemoryBank) -> list[Inspection]:
        if self.calls and (error := self.fails(len(frames))):  # not when it warms up
            raise error
        return super().inspect(frames, bank)


def shadowed(
    greys: Collection[int] = GREYS,
    make: Callable[[str], ToyInspector] = Other,
    max_frames: int = 100,
    store: Store | None = None,
) -> Bench:
    """Run frames past an active model and a shadow."""
    bench = Bench(make_settings(max_frames=max_frames), store=store)
    bench.assigned.assign("other-1", role=Role.SHADOW)
    bench.load = lambda bundle: make(bundle.name)
    bench.shadow_first = True
    send(bench, greys)
    bench.run()
    return bench


def send(bench: Bench, greys: Collection[int], at: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
    for number, grey in enumerate(greys):
        bench.line.send(f"f{number}", png(grey), captured_at=at)


def without_time(records: Collection[InspectionRecord]) -> list[InspectionRecord]:
    return [replace(record, inspected_at=record.frame.captured_at) for record in records]


def test_the_shadow_sees_what_the_active_model_sees_and_is_stored_beside_it() -> None:
    bench = shadowed()
    seen = {record.frame.frame_id: record for record in bench.store.shadows}
    assert list(seen) == list(bench.store.verdicts)
    assert {record.model_id for record in seen.values()} == {"other-1"}
    assert [seen[f"f{number}"].verdict is Verdict.DEFECT for number in range(4)] == [False, True, False, True]
    mask = cv2.imdecode(np.frombuffer(seen["f1"].mask_png or b"", np.uint8), cv2.IMREAD_GRAYSCALE)
    assert mask.shape == (24, 24)
    assert seen["f1"].score == pytest.approx(DEFECT / 255)


def test_the_shadow_changes_nothing_about_the_active_models_results() -> None:
    alone = Bench(make_settings(max_frames=100))
    send(alone, GREYS)
    alone.run()
    both = shadowed()
    assert both.store.shadows
    assert without_time(both.store.records) == without_time(alone.store.records)
    events = [message.payload for message in both.store.unpublished(100)]
    assert len(events) == len(GREYS)
    assert not any(b"other-1" in payload for payload in events)
    assert both.store.drift.keys() == alone.store.drift.keys() == {("cam", "toy-1")}


@pytest.mark.parametrize("error", [ZeroDivisionError("boom"), torch.cuda.OutOfMemoryError(), AWAY, MemoryError()])
def test_a_shadow_that_fails_is_told_of_once_a_batch_and_harms_nobody(error: Exception) -> None:
    def failing(model_id: str) -> ToyInspector:
        other = Other(model_id)
        other.fails = lambda _: error
        return other

    with capture_logs() as logs:
        bench = shadowed(make=failing)
    assert list(bench.store.verdicts.values()) == ["normal", "defect"] * 3 + ["normal"]
    assert bench.store.shadows == []
    complaints = [log for log in logs if log["log_level"] in {"warning", "error"}]
    assert 1 <= len(complaints) <= bench.store.transactions
    assert sum(len(commit) for commit in bench.line.commits) == len(GREYS)


def test_what_the_shadow_found_is_stored_after_the_verdicts_and_its_loss_is_theirs_not() -> None:
    class Refusing(Store):
        def record_shadows(self, records: Sequence[InspectionRecord]) -> None:
            assert all(record.frame.frame_id in self.inspections for record in records)
            raise ValueError("boom")

    with capture_logs() as logs:
        bench = shadowed(store=Refusing())
    assert list(bench.store.verdicts.values()) == ["normal", "defect"] * 3 + ["normal"]
    assert sum(len(commit) for commit in bench.line.commits) == len(GREYS)
    complaints = [log for log in logs if log["log_level"] == "warning"]
    assert sum(log["frames"] for log in complaints) == len(GREYS)
    assert {log["error"] for log in complaints} == {"boom"}


def test_a_score_that_is_not_a_number_is_no_verdict_of_the_shadow() -> None:
    # The active toy says 'uninspected' of such a frame, and the shadow does not look at it.
    class Unsure(Other):
        def _inspect(self, frame: np.ndarray) -> Inspection:
            found = super()._inspect(frame)
            return replace(found, score=float("nan")) if found.flagged else found

    with capture_logs() as logs:
        bench = shadowed(make=Unsure)
    assert [record.frame.frame_id for record in bench.store.shadows] == ["f0", "f2", "f4", "f6"]
    assert all(record.verdict is Verdict.NORMAL for record in bench.store.shadows)
    complaint = next(log for log in logs if log["log_level"] == "warning")
    assert "not a number" in complaint["problem"]


def test_frames_without_a_verdict_are_not_shown_to_the_shadow() -> None:
    bench = shadowed([NORMAL, POISON, NOT_A_NUMBER])
    assert bench.store.verdicts == {"f0": "normal", "f1": "uninspected", "f2": "uninspected"}
    assert [record.frame.frame_id for record in bench.store.shadows] == ["f0"]


def test_a_memory_that_is_too_small_for_the_shadow_lets_it_see_fewer_at_a_time() -> None:
    clock = FakeClock()
    posts = PostMaker(load_toy, Banks(), Store(), clock)
    post = posts.of(ToyInspector(most_at_once=2))
    pixels = np.full((1, SIZE, SIZE), 0.2, np.float32)
    frames = [
        DecodedFrame(
            LogPosition("frames", "t1", 0, number),
            FrameEvent(frame_id=f"f{number}", camera="cam", captured_at=clock.now()),
            post,
            pixels,
            Placement((SIZE, SIZE)),
        )
        for number in range(5)
    ]
    shadows = Models[Post | None](Assigned(), NO_MODEL, None, posts.load, clock, "Shadowing", Role.SHADOW)
    shadow = ShadowInspector(shadows, clock, most_behind=10)
    seen = [replace(frame, shadow=frame) for frame in frames]
    records = [InspectionRecord(each.position, each.event, Verdict.NORMAL, "toy-1", clock.now()) for each in frames]
    assert shadow.inspect(seen, records) == ()
    assert len(shadow.inspect(seen, records)) == 5
    shadows.close()


def test_under_pressure_the_shadow_does_not_look() -> None:
    bench = shadowed([NORMAL] * 20, max_frames=4)
    assert len(bench.store.verdicts) == 20
    # Behind the last four there were fewer than a batch when they came.
    assert [record.frame.frame_id for record in bench.store.shadows] == ["f16", "f17", "f18", "f19"]


def test_what_the_shadow_cannot_see_it_does_not_see_and_that_is_told_once() -> None:
    with capture_logs() as logs:
        bench = shadowed(make=lambda model_id: Other(model_id, source_size=(50, 50)))
    assert list(bench.store.verdicts.values()) == ["normal", "defect"] * 3 + ["normal"]
    assert bench.store.shadows == []
    [complaint] = [log for log in logs if log["log_level"] == "warning"]
    assert "the model expects 50 x 50" in complaint["problem"]


def test_a_model_does_not_look_at_its_own_frames_twice() -> None:
    bench = Bench()
    bench.assigned.assign("toy-1", role=Role.SHADOW)
    bench.shadow_first = True
    send(bench, GREYS)
    bench.run()
    assert (len(bench.store.records), bench.store.shadows) == (len(GREYS), [])


def test_only_the_shadows_cameras_are_looked_at_and_each_against_its_own_bank() -> None:
    bench = Bench(make_settings(max_frames=100))
    bench.assigned.assign("other-1", "left", role=Role.SHADOW)
    bench.assigned.assign("other-2", "right", role=Role.SHADOW)
    bench.load = lambda bundle: Other(bundle.name)
    bench.shadow_first = True
    for number, camera in enumerate(("left", "right", "middle", "left")):
        bench.line.send(f"f{number}", png(NORMAL), camera)
    bench.run()
    found = {record.frame.frame_id: record.model_id for record in bench.store.shadows}
    assert found == {"f0": "other-1", "f1": "other-2", "f3": "other-1"}


def test_a_shadow_comes_and_goes_without_a_restart_and_leaves_no_memory_behind() -> None:
    clock, assigned = FakeClock(), Assigned()
    posts = PostMaker(load_toy, Banks(), Store(), clock)
    shadows = Models[Post | None](assigned, NO_MODEL, None, posts.load, clock, "Shadowing", Role.SHADOW)

    def follow() -> Post | None:
        clock.advance(LOOK_EVERY_S)
        shadows.follow()
        if shadows._looking is not None:
            shadows._looking.result()
        shadows.follow()
        return shadows.active("cam")

    assigned.assign("toy-2")  # an active one is none of its business
    assert follow() is None
    assigned.assign("toy-3", role=Role.SHADOW)
    post = follow()
    assert post is not None
    assert post.model_id == "toy-3"
    held = weakref.ref(post.inspector)
    del post
    assigned.assign(None, role=Role.SHADOW)
    with capture_logs() as logs:
        assert follow() is None
    assert [(log["event"], log["before"]) for log in logs] == [("Shadowing with model none", "toy-3")]
    gc.collect()
    assert held() is None
    shadows.close()


def test_the_shadows_bundle_may_be_missing() -> None:
    def missing(bundle: Path) -> ToyInspector:
        raise FileNotFoundError(bundle)

    bench = Bench()
    bench.assigned.assign("other-1", role=Role.SHADOW)
    bench.load = missing
    bench.shadow_first = True
    send(bench, GREYS)
    bench.run()
    assert (len(bench.store.records), bench.store.shadows) == (len(GREYS), [])
