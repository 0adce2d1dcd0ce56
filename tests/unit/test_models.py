"""Models are changed while frames flow: between batches, camera by camera, and never for one that does not work."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from monitor.assignments import Cameras, Chosen, PerCamera, Role, choose
from monitor.clock import FakeClock
from monitor.core.view import Placement
from monitor.inspecting import BatchInspector
from monitor.intake import DecodedFrame, FailedFrame
from monitor.metrics import MODEL_IN_USE
from monitor.models import LOOK_EVERY_S, RETRY_AFTER_S, Models
from monitor.ports import BankKey, BankShape, LogPosition
from monitor.post import Post, PostMaker
from monitor.settings import CameraSettings
from schemas.errors import BundleError
from schemas.messages import FrameEvent
from tests.unit.pipeline_fakes import (
    AWAY,
    NORMAL,
    SEED,
    SIZE,
    Assigned,
    Banks,
    Bench,
    Store,
    ToyInspector,
    load_toy,
    png,
)

DEFAULT = Chosen("toy-1", Path("toy-1"))


class World:
    """Models that follow what a test assigns, with a clock of its own."""

    def __init__(self) -> None:
        self.clock, self.assigned, self.banks = FakeClock(), Assigned(), Banks()
        self.load: Callable[[Path], ToyInspector] = load_toy
        self.loads: list[str] = []
        posts = PostMaker(self._load, self.banks, Store(), self.clock)
        self.models = Models(self.assigned, DEFAULT, posts.of(ToyInspector()), posts.load, self.clock, "Inspecting")
        self.batch = BatchInspector(self.models, self.clock, CameraSettings())
        self.frames = 0

    def _load(self, bundle: Path) -> ToyInspector:
        self.loads.append(bundle.name)
        return self.load(bundle)

    def follow(self, seconds: float = LOOK_EVERY_S) -> None:
        """Let time pass, look, and take over what was found."""
        self.clock.advance(seconds)
        self.models.follow()
        if self.models._looking is not None:
            self.models._looking.result()
        self.models.follow()

    def active(self, camera: str = "cam") -> str:
        return self.models.active(camera).model_id

    def decode(self, camera: str = "cam") -> DecodedFrame:
        """Return a frame that is decoded now."""
        self.frames += 1
        event = FrameEvent(frame_id=f"f{self.frames}", camera=camera, captured_at=self.clock.now())
        pixels = np.full((1, SIZE, SIZE), 0.2, np.float32)
        position = LogPosition("frames", "t1", 0, self.frames)
        return DecodedFrame(position, event, self.models.active(camera), pixels, Placement((SIZE, SIZE)))

    def calls(self, post: Post) -> list[int]:
        """Return how many frames a model inspected in each call."""
        inspector = post.inspector
        assert isinstance(inspector, ToyInspector)
        return [frames for frames, _ in inspector.calls]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.models.close()


def test_what_a_camera_is_assigned_counts_for_more_than_what_every_camera_is() -> None:
    assigned = Assigned()
    assert choose(assigned.in_force(Role.ACTIVE), DEFAULT).of("a") == DEFAULT
    assigned.assign("toy-2")
    assigned.assign("toy-3", "a")
    found = choose(assigned.in_force(Role.ACTIVE), DEFAULT)
    assert (found.of("a").model_id, found.of("b").model_id, found.of(None).model_id) == ("toy-3", "toy-2", "toy-2")
    assigned.assign(None, "a")
    assert choose(assigned.in_force(Role.ACTIVE), DEFAULT).of("a").model_id == "toy-2"
    assigned.assign(None)
    assert choose(assigned.in_force(Role.ACTIVE), DEFAULT).of("a") == DEFAULT


def test_every_camera_belongs_to_one_model() -> None:
    models = PerCamera("x", {"a": "y", "b": "x", "c": "z"})
    assert models.cameras("x") == Cameras(frozenset({"a", "c"}), all_but=True)
    assert models.cameras("y") == Cameras(frozenset({"a"}), all_but=False)
    assert models.cameras("gone") == Cameras(frozenset(), all_but=False)


def test_a_model_is_loaded_beside_the_work_and_taken_over_when_it_is_there(world: World) -> None:
    there = threading.Event()

    def slowly(bundle: Path) -> ToyInspector:
        assert there.wait(5)
        return load_toy(bundle)

    world.load = slowly
    world.assigned.assign("toy-2")
    for _ in range(3):
        world.clock.advance(LOOK_EVERY_S)
        world.models.follow()
        assert world.active() == "toy-1"
    there.set()
    with capture_logs() as logs:
        world.follow()
    assert world.active() == "toy-2"
    assert [(log["event"], log["before"]) for log in logs] == [("Inspecting with model toy-2", "toy-1")]
    world.follow()
    assert world.loads == ["toy-2"]


def test_a_frame_that_was_decoded_for_the_old_model_is_inspected_by_it(world: World) -> None:
    before = [world.decode(), world.decode()]
    old = world.models.active("cam")
    world.assigned.assign("toy-2")
    world.follow()
    after = [world.decode()]
    new = world.models.active("cam")
    warming = len(world.calls(new))
    records = world.batch.inspect([*before, *after])
    assert [record.model_id for record in records] == ["toy-1", "toy-1", "toy-2"]
    assert (world.calls(old), world.calls(new)[warming:]) == ([2], [1])


def test_a_frame_that_no_model_inspects_names_the_one_that_would(world: World) -> None:
    event = world.decode("own").event
    world.assigned.assign("toy-2", "own")
    world.follow()
    [record] = world.batch.inspect([FailedFrame(LogPosition("frames", "t1", 0, 9), event)])
    assert (record.model_id, record.verdict.value) == ("toy-2", "uninspected")


def test_cameras_of_several_models_are_inspected_in_one_batch_and_the_metric_names_the_models(world: World) -> None:
    MODEL_IN_USE.clear()  # other tests have cameras of these names
    world.assigned.assign("toy-2", "north")
    world.assigned.assign("toy-3", "south")
    world.follow()
    frames = [world.decode(camera) for camera in ("north", "south", "east", "north")]
    assert [record.model_id for record in world.batch.inspect(frames)] == ["toy-2", "toy-3", "toy-1", "toy-2"]
    assert in_use("north") == {"toy-2"}
    world.assigned.assign(None, "north")
    world.follow()
    world.batch.inspect([world.decode("north")])
    assert in_use("north") == {"toy-1"}
    assert in_use("south") == {"toy-3"}


def test_a_model_that_cannot_be_loaded_is_told_once_and_tried_again_while_the_old_one_works(world: World) -> None:
    def missing(bundle: Path) -> ToyInspector:
        msg = f"{bundle}: not there"
        raise BundleError(msg)

    world.load = missing
    world.assigned.assign("toy-2")
    world.assigned.assign("toy-3", "own")
    with capture_logs() as logs:
        for _ in range(2 * round(RETRY_AFTER_S / LOOK_EVERY_S) + 1):
            world.follow()
    assert (world.active(), world.active("own")) == ("toy-1", "toy-1")
    assert sorted((log["event"], log["error"]) for log in logs) == [
        ("Model toy-2 cannot be loaded; going on without it", "toy-2: not there"),
        ("Model toy-3 cannot be loaded; going on without it", "toy-3: not there"),
    ]
    assert world.loads.count("toy-2") == 3  # not at each look: a bundle is read as a whole
    world.load = load_toy
    world.follow(RETRY_AFTER_S)
    assert (world.active(), world.active("own")) == ("toy-2", "toy-3")


def test_a_camera_whose_next_model_cannot_be_loaded_keeps_the_one_it_has(world: World) -> None:
    def only_the_second(bundle: Path) -> ToyInspector:
        if bundle.name != "toy-2":
            raise OSError
        return load_toy(bundle)

    world.load = only_the_second
    for model_id in ("toy-2", "toy-3"):
        world.assigned.assign(model_id, "own")
        world.follow()
    assert (world.active("own"), world.active()) == ("toy-2", "toy-1")
    assert [cameras.names for _, cameras in world.models.held()] == [{"own"}, {"own"}]


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory"), OSError("stale file handle")])
def test_whatever_is_wrong_with_a_new_model_the_old_one_goes_on(world: World, error: Exception) -> None:
    def fail(bundle: Path) -> ToyInspector:  # noqa: ARG001 - as it is called
        raise error

    world.load = fail
    world.assigned.assign("toy-2")
    with capture_logs() as logs:
        world.follow()
    assert (world.active(), logs[0]["error"], logs[0]["exc_info"]) == ("toy-1", str(error), error)


def test_a_bundle_that_holds_another_model_than_was_assigned_is_not_taken(world: World) -> None:
    world.load = lambda _: ToyInspector(model_id="toy-9")
    world.assigned.assign("toy-2")
    with capture_logs() as logs:
        world.follow()
    assert world.active() == "toy-1"
    assert "holds model toy-9, and model toy-2 was assigned" in logs[0]["error"]


def test_a_model_whose_bank_belongs_to_another_or_is_away_is_not_taken(world: World) -> None:
    assert world.active() == "toy-1"  # from now on the camera is known
    world.banks.open(BankKey("cam", "toy-2"), BankShape("1" * 64, (2, 2, 3)), SEED[:, :2, :2, :3])
    world.assigned.assign("toy-2")
    world.follow()
    assert world.active() == "toy-1"
    world.banks.wipe()
    world.banks.error = AWAY
    world.follow(RETRY_AFTER_S)
    assert world.active() == "toy-1"
    world.banks.error = None
    world.follow(RETRY_AFTER_S)
    assert world.active() == "toy-2"


def test_while_the_database_is_away_the_models_stay_and_it_is_told_once(world: World) -> None:
    world.assigned.assign("toy-2")
    world.follow()
    world.assigned.error = AWAY
    with capture_logs() as logs:
        for _ in range(3):
            world.follow()
    assert world.active() == "toy-2"
    assert [log["event"] for log in logs] == ["The models' assignments cannot be read; going on with those at work"]
    world.assigned.error = None
    world.assigned.assign(None)
    world.follow()
    assert world.active() == "toy-1"


def test_going_back_takes_no_loading_and_what_is_older_is_let_go(world: World) -> None:
    for model_id in ("toy-2", "toy-3"):
        world.assigned.assign(model_id)
        world.follow()
    oldest = weakref.ref(world.models.active("cam").inspector)
    world.assigned.assign("toy-2")
    world.follow()
    assert (world.active(), world.loads) == ("toy-2", ["toy-2", "toy-3"])
    world.assigned.assign("toy-4")
    world.follow()
    gc.collect()
    assert oldest() is None
    assert [post.model_id for post, _ in world.models.held()] == ["toy-2", "toy-4"]


def test_a_program_starts_with_what_is_assigned(world: World) -> None:
    world.assigned.assign("toy-2", "own")
    world.models.start()
    assert (world.active("own"), world.active()) == ("toy-2", "toy-1")


def test_frames_that_flow_through_a_swap_are_stored_once_and_by_one_model_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("monitor.models.LOOK_EVERY_S", 0.0)
    bench = Bench()
    poll = bench.line.poll
    sent = 0

    def poll_and_send(timeout: float, max_records: int) -> Collection[object]:
        nonlocal sent
        if sent == 20:
            bench.assigned.assign("toy-2")
        if not any(record.model_id == "toy-2" for record in bench.store.records):
            bench.line.send(f"f{sent:05}", png(NORMAL))
            sent += 1
        return poll(timeout, max_records)

    bench.line.poll = poll_and_send
    bench.run()
    records = bench.store.records
    assert [record.frame.frame_id for record in records] == [f"f{number:05}" for number in range(sent)]
    models = [record.model_id for record in records]
    assert models == sorted(models)
    assert {record.verdict.value for record in records} == {"normal"}
    assert models[19] == "toy-1"
    assert models[-1] == "toy-2"


def in_use(camera: str) -> set[str]:
    samples = [
        sample for metric in REGISTRY.collect() if metric.name == "paedid_model_in_use" for sample in metric.samples
    ]
    return {sample.labels["model"] for sample in samples if sample.labels["camera"] == camera and sample.value == 1}
