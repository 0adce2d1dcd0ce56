"""The learner follows the assignments: a review teaches the model that inspects the frame's camera now."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.memory import MemoryBankStore, MemoryImageStore
from monitor.adapters.model_desk import SqlModelDesk
from monitor.assignments import Cameras, Chosen
from monitor.learning.learner import Learner
from monitor.learning.school import School
from monitor.models import LOOK_EVERY_S, Models
from monitor.ports import BankKey, OrderKind
from monitor.settings import DatabaseSettings
from schemas.messages import Verdict
from tests.integration.learning_world import World
from tests.unit.pipeline_fakes import ToyInspector


class Classes(World):
    """A world with a learner for each model at work."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.assigned = SqlModelDesk(self.engine)

        def load(chosen: Chosen, cameras: Collection[str]) -> Learner:  # noqa: ARG001 - as it is called
            return self.learner(inspector=ToyInspector(model_id=chosen.model_id))

        default = Chosen("toy-1", Path("toy-1"))
        self.models = Models(self.assigned, default, self.learner(), load, self.clock, "Learning")
        self.school = School(self.models)

    def assign(self, model_id: str | None, camera: str | None = None) -> None:
        """Assign a model and wait until the learner has noticed."""
        self.assigned.assign(camera, model_id and Chosen(model_id, Path(model_id)), "ada")
        self.clock.advance(LOOK_EVERY_S)
        self.models.follow()
        assert self.models._looking is not None
        self.models._looking.result()

    def taught(self, model_id: str) -> dict[str, list[str]]:
        """Return the frames that a model's banks hold, by camera."""
        cameras = self.book.taught_cameras(model_id)
        return {camera: [entry.frame_id for entry in self.book.active_entries(camera, model_id)] for camera in cameras}


@pytest.fixture
def world(database_url: str) -> Iterator[Classes]:
    migrations.upgrade(database_url)
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    banks = MemoryBankStore()
    world = Classes(engine, banks, MemoryImageStore(), banks.wipe)
    yield world
    world.models.close()
    engine.dispose()


def test_a_review_after_the_swap_teaches_the_new_model_whatever_inspected_the_frame(world: Classes) -> None:
    first = world.review(b"5")
    world.school.step()
    second = world.inspect(b"7")
    world.assign("toy-2")
    world.review_desk.confirm(second, Verdict.NORMAL, "ada")
    assert world.school.step() == 1
    assert (world.taught("toy-1"), world.taught("toy-2")) == ({"cam1": [first]}, {"cam1": [second]})


def test_each_cameras_reviews_go_to_its_own_model(world: Classes) -> None:
    world.assign("toy-2", "cam2")
    frames = {}
    for camera in ("cam1", "cam2", "cam3"):
        world.camera = camera
        frames[camera] = world.review(b"5")
    assert world.school.step() == 3
    assert world.taught("toy-1") == {"cam1": [frames["cam1"]], "cam3": [frames["cam3"]]}
    assert world.taught("toy-2") == {"cam2": [frames["cam2"]]}


def test_what_is_ordered_about_the_bank_before_is_still_done(world: Classes) -> None:
    frame = world.review(b"5")
    world.school.step()
    world.assign("toy-2")
    world.school.step()
    order = world.desk.order(OrderKind.QUARANTINE, BankKey("cam1", "toy-1"), "ada", frame_id=frame)
    world.school.step()
    assert world.desk.find_order(order).outcome == "done"
    assert world.taught("toy-1") == {"cam1": []}


def test_reviews_are_found_by_their_cameras(world: Classes) -> None:
    frames = []
    for camera in ("cam1", "cam2"):
        world.camera = camera
        frames.append(world.review(b"5"))

    def found(*names: str, all_but: bool) -> list[str]:
        cameras = Cameras(frozenset(names), all_but=all_but)
        return [review.frame_id for review in world.reviews.pending_reviews(5, cameras=cameras)]

    assert found(all_but=True) == frames
    assert found("cam1", all_but=True) == frames[1:]
    assert found("cam1", all_but=False) == frames[:1]
    assert found(all_but=False) == []
