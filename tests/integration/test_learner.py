"""The learner: what people confirm changes the bank once, whatever is interrupted, and survives a lost Redis."""

# ruff: noqa: ANN401 - ports are wrapped whole
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from monitor.feedback import BANK_CHECK_S, Learner
from numpy.typing import NDArray
from pydantic import SecretStr
from structlog.testing import capture_logs

from deploy.local.servers import ValkeyServer
from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.memory import MemoryBankStore, MemoryImageStore, MemoryInspectionStore, MemoryReviewStore
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.review_desk import ReviewDesk
from monitor.adapters.reviews import SqlReviewStore
from monitor.clock import FakeClock
from monitor.errors import BankMissingError, StoreUnavailableError
from monitor.ports import BankKey, BankShape, BankStore, BatchOutcome, ImageStore, InspectionStore, ReviewStore
from monitor.settings import DatabaseSettings, RedisSettings
from schemas.errors import InvalidFrameError, Reason, UnregistrableError
from schemas.messages import Verdict
from tests.integration.records import inspection

SHAPE = BankShape("a" * 64, (1, 1, 4), 4)
KEY = BankKey("cam1", "model-1")
Features = NDArray[np.float16]


def features(value: float) -> Features:
    return np.full(SHAPE.features, value, dtype=np.float16)


SEED = np.stack([features(-1), features(-2)])


def encode(image: bytes) -> Features:
    if image == b"truncated":
        raise InvalidFrameError(Reason.TRUNCATED, "the image ends too early")
    if image == b"turned":
        problem = "the part is turned by 30.0 degrees, farther than 10.0"
        raise UnregistrableError(problem)
    return features(float(image))


@dataclass
class World:
    """Everything around a learner, and what a test does to it."""

    inspections: InspectionStore
    reviews: ReviewStore
    banks: BankStore
    images: ImageStore
    confirm: Callable[..., Any]
    wipe: Callable[[], None]
    clock: FakeClock = field(default_factory=FakeClock)
    frames: int = 0

    def learner(self, **changed: Any) -> Learner:
        parts = {"reviews": self.reviews, "banks": self.banks, "images": self.images, "encode": encode, **changed}
        return Learner(shape=SHAPE, model_id="model-1", seed=SEED, clock=self.clock, poll_interval_s=0.01, **parts)

    def review(self, image: bytes | None, verdict: Verdict = Verdict.NORMAL) -> str:
        """Inspect a frame with this image and confirm it; return its id."""
        self.frames += 1
        frame_id = f"frame-{self.frames}"
        image_sha256 = None if image is None else self.images.put(image)
        record = inspection(frame_id, self.frames, image_sha256=image_sha256, bank_version=0)
        self.inspections.record(BatchOutcome((record,)))
        self.confirm(frame_id, verdict, "ada", "dust")
        return frame_id

    def bank(self) -> dict[int, float]:
        return {
            c.slot: float(c.features.flat[0]) for c in self.banks.changes(KEY, None).slots if c.features is not None
        }


class Interrupted(Exception):  # noqa: N818 - no error, a crash
    """The program ends here."""


class Crashing:
    """A port whose method ``name`` works, or not, and then the program is gone."""

    def __init__(self, port: Any, name: str, *, before: bool) -> None:
        self._port, self._name, self._before = port, name, before

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name != self._name:
            return method

        def crash(*args: Any, **options: Any) -> None:
            if not self._before:
                method(*args, **options)
            raise Interrupted

        return crash


class Contract:
    def test_a_confirmed_normal_is_added_with_its_history(self, world: World) -> None:
        frame = world.review(b"5")
        assert world.learner().step() == 1
        assert world.bank() == {0: -1, 1: -2, 2: 5}
        [entry] = world.reviews.active_entries("cam1", "model-1")
        assert (entry.frame_id, entry.slot, entry.version_added) == (frame, 2, 1)
        assert (entry.added_by, entry.why) == ("ada", "dust")
        assert world.images.get(entry.features_sha256) == features(5).tobytes()
        assert world.images.get(entry.image_sha256) == b"5"
        assert world.learner().step() == 0

    def test_reviews_are_dealt_with_in_order_and_evict_the_oldest(self, world: World) -> None:
        frames = [world.review(str(value).encode()) for value in (5, 6, 7)]
        world.learner().step()
        assert world.bank() == {0: -1, 1: -2, 2: 7, 3: 6}
        assert [entry.frame_id for entry in world.reviews.active_entries("cam1", "model-1")] == frames[1:]
        assert world.reviews.bank_version("cam1", "model-1") == 3
        assert world.reviews.taught_cameras("model-1") == ("cam1",)
        assert world.reviews.taught_cameras("another") == ()

    def test_a_confirmed_defect_leaves_the_bank_as_it_is(self, world: World) -> None:
        world.banks.open(KEY, SHAPE, SEED)
        world.review(b"5", Verdict.DEFECT)
        assert world.learner().step() == 1
        assert world.bank() == {0: -1, 1: -2}
        assert world.reviews.active_entries("cam1", "model-1") == ()
        assert world.reviews.pending_reviews(5) == ()

    def test_what_cannot_be_learned_is_refused_and_holds_nothing_up(self, world: World) -> None:
        world.review(b"truncated")
        world.review(b"nan")
        world.review(b"inf")
        world.review(b"5")
        assert world.learner().step() == 4
        assert world.bank() == {0: -1, 1: -2, 2: 5}
        assert world.reviews.pending_reviews(5) == ()

    def test_a_confirmed_part_that_cannot_be_registered_is_refused_with_the_reason(self, world: World) -> None:
        frame = world.review(b"turned")
        world.review(b"5")
        with capture_logs() as logs:
            world.learner().step()
        assert world.bank() == {0: -1, 1: -2, 2: 5}
        assert world.reviews.pending_reviews(5) == ()
        (said,) = (entry for entry in logs if entry.get("frame") == frame)
        assert "refused" in str(said)
        assert "turned by 30.0 degrees" in str(said)

    def test_an_image_that_is_gone_is_refused(self, world: World) -> None:
        world.review(b"5")
        world.learner(images=MemoryImageStore()).step()
        assert world.reviews.pending_reviews(5) == ()
        assert world.reviews.active_entries("cam1", "model-1") == ()

    @pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
    @pytest.mark.parametrize("where", ["put", "open", "add", "complete_review"])
    def test_a_crash_anywhere_changes_the_bank_once(self, world: World, where: str, before: bool) -> None:  # noqa: FBT001
        for value in (5, 6):
            world.review(str(value).encode())
        if where != "open":
            world.learner().step()
        frame = world.review(b"7")
        port = {"put": "images", "complete_review": "reviews"}.get(where, "banks")
        crashing = Crashing(getattr(world, port), where, before=before)
        with pytest.raises(Interrupted):
            world.learner(**{port: crashing}).step()
        world.learner().step()
        assert world.bank() == {0: -1, 1: -2, 2: 7, 3: 6}
        assert world.banks.version(KEY) == world.reviews.bank_version("cam1", "model-1") == 3
        entries = world.reviews.active_entries("cam1", "model-1")
        assert [(entry.frame_id, entry.version_added) for entry in entries] == [("frame-2", 2), (frame, 3)]

    def test_two_learners_at_once_change_the_bank_once(self, world: World) -> None:
        for value in (5, 6, 7):
            world.review(str(value).encode())
        first, second = world.learner(), world.learner()
        pending = world.reviews.pending_reviews(5)
        for review in pending:
            first._deal_with(review)
            second._deal_with(review)
        assert world.banks.version(KEY) == 3
        assert [entry.version_added for entry in world.reviews.active_entries("cam1", "model-1")] == [2, 3]

    def test_a_lost_bank_is_restored_bit_for_bit_without_a_new_review(self, world: World) -> None:
        for value in (5, 6, 7):
            world.review(str(value).encode())
        learner = world.learner()
        learner.step()
        before = world.bank()
        world.wipe()
        learner.step()
        assert world.banks.version(KEY) is None
        world.clock.advance(BANK_CHECK_S)
        learner.step()
        assert world.bank() == before
        assert world.banks.version(KEY) == 4
        # What was learned before is known, and what comes next evicts whom it would have evicted.
        world.review(b"8")
        learner.step()
        assert world.bank() == {0: -1, 1: -2, 2: 7, 3: 8}
        assert world.reviews.bank_version("cam1", "model-1") == 5

    def test_a_bank_that_a_worker_made_anew_is_replaced_before_it_learns(self, world: World) -> None:
        world.review(b"5")
        world.learner().step()
        world.wipe()
        world.banks.open(KEY, SHAPE, SEED)
        world.review(b"6")
        world.learner().step()
        assert world.bank() == {0: -1, 1: -2, 2: 5, 3: 6}

    def test_a_restored_version_was_never_used_before(self, world: World) -> None:
        world.review(b"5")
        world.learner().step()
        # This version's edit reached Redis and a worker, but not SQL, before Redis was lost.
        record = replace(inspection("ahead", 99), bank_version=7)
        world.inspections.record(BatchOutcome((record,)))
        world.wipe()
        world.learner().step()
        assert world.banks.version(KEY) == 8

    def test_features_that_are_gone_are_encoded_again_and_images_that_are_gone_are_told(self, world: World) -> None:
        world.review(b"5")
        world.review(b"6")
        world.learner().step()
        world.wipe()
        images = MemoryImageStore()
        images.put(b"5")
        with capture_logs() as logs:
            world.learner(images=images).step()
        assert world.bank() == {0: -1, 1: -2, 2: 5}
        assert [entry["frame"] for entry in logs if entry["log_level"] == "error"] == ["frame-2"]

    def test_an_outage_is_told_once_and_loses_no_review(self, world: World) -> None:
        class Away:
            calls = 0

            def __getattr__(self, name: str) -> Any:
                Away.calls += 1
                if Away.calls < 4:
                    msg = "connection refused"
                    raise StoreUnavailableError(msg)
                return getattr(world.reviews, name)

        world.review(b"5")
        stop = threading.Event()
        learner = world.learner(reviews=Away())
        with capture_logs() as logs:
            thread = threading.Thread(target=learner.run, args=(stop,))
            thread.start()
            wait_until(lambda: not world.reviews.pending_reviews(5))
            stop.set()
            thread.join(5)
        assert not thread.is_alive()
        events = [entry["event"] for entry in logs]
        assert len([event for event in events if "Learning pauses" in event]) == 1
        assert len([event for event in events if "Learning again" in event]) == 1

    def test_a_learner_stops_during_an_outage(self, world: World) -> None:
        class Away:
            def __getattr__(self, name: str) -> Any:
                raise BankMissingError(name)

        stop = threading.Event()
        thread = threading.Thread(target=world.learner(reviews=Away()).run, args=(stop,))
        thread.start()
        time.sleep(0.05)
        stop.set()
        thread.join(2)
        assert not thread.is_alive()


def wait_until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


class TestMemory(Contract):
    @pytest.fixture
    def world(self) -> World:
        inspections, banks = MemoryInspectionStore("inspections"), MemoryBankStore()
        reviews = MemoryReviewStore(inspections)
        return World(inspections, reviews, banks, MemoryImageStore(), reviews.confirm, banks.wipe)


class TestReal(Contract):
    @pytest.fixture
    def world(self, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[World]:
        migrations.upgrade(database_url)
        engine = connect(DatabaseSettings(url=SecretStr(database_url)))
        banks = RedisBankStore(RedisSettings(url=redis_url))
        with redis.Redis.from_url(redis_url) as client:
            yield World(
                inspections=SqlInspectionStore(engine, "inspections"),
                reviews=SqlReviewStore(engine),
                banks=banks,
                images=FsspecImageStore(str(tmp_path / "images")),
                confirm=ReviewDesk(engine).confirm,
                wipe=client.flushdb,
            )
        banks.close()
        engine.dispose()


def test_a_redis_that_is_killed_and_comes_back_empty_has_the_bank_again(
    embedded_valkey: ValkeyServer, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    migrations.upgrade(url)
    engine = connect(DatabaseSettings(url=SecretStr(url)))
    banks = RedisBankStore(RedisSettings(url=embedded_valkey.url, timeout_s=0.5))
    images = FsspecImageStore(str(tmp_path / "images"))
    world = World(
        SqlInspectionStore(engine, "x"), SqlReviewStore(engine), banks, images, ReviewDesk(engine).confirm, lambda: None
    )
    stop = threading.Event()
    thread = threading.Thread(target=world.learner().run, args=(stop,))
    thread.start()
    world.review(b"5")
    wait_until(lambda: banks.version(KEY) == 1)
    embedded_valkey.kill()
    world.review(b"6")
    time.sleep(0.3)
    assert len(world.reviews.pending_reviews(5)) == 1
    embedded_valkey.restart()
    with redis.Redis.from_url(embedded_valkey.url) as client:
        client.flushdb()
    wait_until(lambda: not world.reviews.pending_reviews(5))
    stop.set()
    thread.join(5)
    assert world.bank() == {0: -1, 1: -2, 2: 5, 3: 6}
    banks.close()
    engine.dispose()
