"""The learner: what people confirm changes the bank once, whatever is interrupted, and survives a lost Redis."""

# ruff: noqa: ANN401 - ports are wrapped whole
from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import redis
from pydantic import SecretStr
from structlog.testing import capture_logs

from deploy.local.servers import ValkeyServer
from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.memory import MemoryBankStore, MemoryImageStore
from monitor.adapters.redis_bank import RedisBankStore
from monitor.core.bank_entry import to_bytes
from monitor.errors import BankMissingError, StoreUnavailableError
from monitor.learning.learner import BANK_CHECK_S
from monitor.learning.school import keep_learning
from monitor.ports import Policy
from monitor.settings import DatabaseSettings, RedisSettings
from schemas.errors import OperatorError
from schemas.messages import Verdict
from tests.integration.learning_world import KEY, SHAPE, WHOLE, World, kept_of
from tests.integration.records import teach
from tests.unit.pipeline_fakes import SEED

KEY_NAMES = (KEY.camera, KEY.model_id)


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
        assert world.bank() == {0: 1, 1: 1, 2: 5}
        [entry] = world.book.active_entries(*KEY_NAMES)
        assert (entry.frame_id, entry.slot, entry.version_added) == (frame, 2, 1)
        assert (entry.added_by, entry.why) == ("ada", "dust")
        assert world.images.get(entry.features_sha256) == to_bytes(kept_of(5))
        assert (entry.size_bytes, entry.policy) == (len(to_bytes(kept_of(5))), Policy.PERSON)
        assert world.images.get(entry.image_sha256) == b"5"
        assert world.learner().step() == 0

    def test_reviews_are_dealt_with_in_order_and_what_is_evicted_is_written_down(self, world: World) -> None:
        frames = [world.review(str(value).encode()) for value in (5, 6, 7)]
        world.learner().step()
        assert world.bank() == {0: 1, 1: 1, 2: 7, 3: 6}
        assert [entry.frame_id for entry in world.book.active_entries(*KEY_NAMES)] == frames[1:]
        assert world.book.bank_version(*KEY_NAMES) == 3
        assert world.book.taught_cameras("toy-1") == ("cam1",)
        assert world.book.taught_cameras("another") == ()

    def test_a_confirmed_defect_leaves_the_bank_as_it_is(self, world: World) -> None:
        world.banks.open(KEY, SHAPE, SEED)
        world.review(b"5", Verdict.DEFECT)
        assert world.learner().step() == 1
        assert world.bank() == {0: 1, 1: 1}
        assert world.book.active_entries(*KEY_NAMES) == ()
        assert world.reviews.pending_reviews(5) == ()

    def test_what_cannot_be_learned_is_refused_and_holds_nothing_up(self, world: World) -> None:
        world.review(b"truncated")
        world.review(b"nan")
        world.review(b"inf")
        world.review(b"5")
        assert world.learner().step() == 4
        assert world.bank() == {0: 1, 1: 1, 2: 5}
        assert world.reviews.pending_reviews(5) == ()

    def test_a_confirmed_part_that_cannot_be_registered_is_refused_with_the_reason(self, world: World) -> None:
        frame = world.review(b"turned")
        world.review(b"5")
        with capture_logs() as logs:
            world.learner().step()
        assert world.bank() == {0: 1, 1: 1, 2: 5}
        assert world.reviews.pending_reviews(5) == ()
        (said,) = (entry for entry in logs if entry.get("frame") == frame)
        assert "refused" in str(said)
        assert "turned by 30.0 degrees" in str(said)

    def test_an_image_that_is_gone_is_refused(self, world: World) -> None:
        world.review(b"5")
        world.learner(images=MemoryImageStore()).step()
        assert world.reviews.pending_reviews(5) == ()
        assert world.book.active_entries(*KEY_NAMES) == ()

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
        assert world.bank() == {0: 1, 1: 1, 2: 7, 3: 6}
        assert world.banks.version(KEY) == world.book.bank_version(*KEY_NAMES) == 3
        entries = world.book.active_entries(*KEY_NAMES)
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
        assert [entry.version_added for entry in world.book.active_entries(*KEY_NAMES)] == [2, 3]

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
        assert world.bank() == {0: 1, 1: 1, 2: 7, 3: 8}
        assert world.book.bank_version(*KEY_NAMES) == 5

    def test_a_bank_that_a_worker_made_anew_is_replaced_before_it_learns(self, world: World) -> None:
        world.review(b"5")
        world.learner().step()
        world.wipe()
        world.banks.open(KEY, SHAPE, SEED)
        world.review(b"6")
        world.learner().step()
        assert world.bank() == {0: 1, 1: 1, 2: 5, 3: 6}

    def test_a_restored_version_was_never_used_before(self, world: World) -> None:
        world.review(b"5")
        world.learner().step()
        # This version's edit reached Redis and a worker, but not SQL, before Redis was lost.
        world.inspect(b"5", bank_version=7)
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
        assert world.bank() == {0: 1, 1: 1, 2: 5}
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
            thread = threading.Thread(target=keep_learning, args=(learner.step, stop, 0.01))
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
        thread = threading.Thread(target=keep_learning, args=(world.learner(reviews=Away()).step, stop, 0.01))
        thread.start()
        time.sleep(0.05)
        stop.set()
        thread.join(2)
        assert not thread.is_alive()

    def test_a_lost_bank_is_known_by_the_same_checksum(self, world: World) -> None:
        for value in (5, 6):
            world.review(str(value).encode())
        world.learner().step()
        before = world.audit()
        assert before.problems == ()
        world.wipe()
        world.learner().step()
        after = world.audit()
        assert after.problems == ()
        assert (after.checksum, after.learned, after.size_bytes) == (before.checksum, 2, before.size_bytes)
        assert after.version > before.version

    def test_what_the_bank_explains_adds_nothing_and_says_so(self, world: World) -> None:
        frame = world.review(b"1")
        world.learner().step()
        assert world.outcome(frame) == (
            "explained",
            "adds nothing: the bank explains it (score 0.10, usual are 0.20)",
        )
        assert world.bank() == {0: 1, 1: 1}

    def test_what_would_hide_a_confirmed_defect_is_refused_with_its_name_and_a_picture_of_both(
        self, world: World
    ) -> None:
        defect = world.review(b"6", Verdict.DEFECT)
        frame = world.review(b"6")
        world.review(b"7")
        world.learner().step()
        outcome, detail = world.outcome(frame)
        assert outcome == "refused"
        assert defect in detail
        assert world.bank() == {0: 1, 1: 1, 2: 7}
        review = world.review_desk.show(frame).frame.review
        assert review is not None
        assert review.hidden_frame_id == defect
        picture = cv2.imdecode(np.frombuffer(world.images.get(str(review.hidden_picture)), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] > 2 * 240

    def test_a_defect_that_passes_names_what_hides_it(self, world: World) -> None:
        culprit = world.review(b"6")
        world.learner().step()
        defect = world.review(b"6", Verdict.DEFECT)
        world.learner().step()
        outcome, detail = world.outcome(defect)
        assert outcome == "recorded"
        assert f"frame {culprit} hides it" in detail
        assert "quarantine" in detail

    def test_a_defect_whose_image_is_gone_guards_nothing_and_holds_nothing_up(self, world: World) -> None:
        world.review(None, Verdict.DEFECT)
        frame = world.review(b"6")
        assert world.learner().step() == 2
        assert world.outcome(frame)[0] == "added"

    def test_a_review_that_is_taken_back_is_forgotten_and_may_be_given_anew(self, world: World) -> None:
        frame = world.review(b"5")
        world.learner().step()
        _, orders = world.review_desk.retract(frame, "bob", "I looked at the wrong part")
        world.learner().step()
        assert world.bank() == {0: 1, 1: 1}
        [entry] = world.desk.entries(KEY)
        assert (entry.version_added, entry.version_removed, entry.removed_by) == (1, 2, "bob")
        assert entry.removed_why == "retract: I looked at the wrong part"
        assert [world.desk.find_order(order).outcome for order in orders] == ["done"]
        world.review_desk.confirm(frame, Verdict.DEFECT, "bob")
        world.learner().step()
        assert world.outcome(frame)[0] == "recorded"
        with pytest.raises(OperatorError, match="cannot become normal"):
            world.review_desk.confirm(frame, Verdict.NORMAL, "ada")

    def test_a_review_taken_back_before_it_was_learnt_teaches_nothing(self, world: World) -> None:
        frame = world.review(b"5")
        world.review_desk.retract(frame, "ada")
        world.learner().step()
        assert world.banks.version(KEY) == 0
        assert world.active() == []

    def test_a_defect_taken_back_guards_no_longer(self, world: World) -> None:
        defect = world.review(b"6", Verdict.DEFECT)
        world.learner().step()
        _, orders = world.review_desk.retract(defect, "ada")
        assert orders == []
        frame = world.review(b"6")
        world.learner().step()
        assert world.outcome(frame)[0] == "added"

    def test_what_was_never_reviewed_cannot_be_taken_back(self, world: World) -> None:
        with pytest.raises(OperatorError, match="nothing to take back"):
            world.review_desk.retract(world.inspect(b"5"), "ada")

    def test_a_paused_policy_teaches_nothing_and_loses_nothing(self, world: World) -> None:
        assert world.desk.pause(Policy.PERSON, "bob", "audit")
        assert not world.desk.pause(Policy.PERSON, "bob")
        [pause] = world.desk.pauses()
        assert (pause.policy, pause.by, pause.why) == (Policy.PERSON, "bob", "audit")
        frame = world.review(b"5")
        assert world.learner().step() == 0
        assert world.outcome(frame)[0] == "pending"
        assert world.desk.resume(Policy.PERSON, "bob")
        assert not world.desk.resume(Policy.PERSON, "bob")
        world.learner().step()
        assert world.outcome(frame)[0] == "added"


@contextmanager
def opened(url: str) -> Iterator[Any]:
    """A database with tables."""
    migrations.upgrade(url)
    engine = connect(DatabaseSettings(url=SecretStr(url)))
    try:
        yield engine
    finally:
        engine.dispose()


def wait_until(holds: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


class TestInMemory(Contract):
    @pytest.fixture
    def world(self, sqlite_url: str) -> Iterator[World]:
        with opened(sqlite_url) as engine:
            banks = MemoryBankStore()
            yield World(engine, banks, MemoryImageStore(), banks.wipe)


@pytest.mark.usefixtures("each_redis")
class TestReal(Contract):
    @pytest.fixture
    def world(self, database_url: str, redis_url: str, tmp_path: Path) -> Iterator[World]:
        banks = RedisBankStore(RedisSettings(url=redis_url))
        with opened(database_url) as engine, redis.Redis.from_url(redis_url) as client:
            yield World(engine, banks, FsspecImageStore(str(tmp_path / "images")), client.flushdb)
        banks.close()


def test_a_redis_that_is_killed_and_comes_back_empty_has_the_bank_again(
    embedded_valkey: ValkeyServer, sqlite_url: str, tmp_path: Path
) -> None:
    banks = RedisBankStore(RedisSettings(url=embedded_valkey.url, timeout_s=0.5))
    with opened(sqlite_url) as engine:
        world = World(engine, banks, FsspecImageStore(str(tmp_path / "images")), lambda: None)
        stop = threading.Event()
        thread = threading.Thread(target=keep_learning, args=(world.learner().step, stop, 0.01))
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
        assert world.bank() == {0: 1, 1: 1, 2: 5, 3: 6}
    banks.close()


@pytest.mark.usefixtures("each_redis")
@pytest.mark.parametrize("part", ["slots", "frames"])
def test_a_bank_that_lost_a_part_of_its_keys_is_restored_as_a_whole(redis_url: str, sqlite_url: str, part: str) -> None:
    banks = RedisBankStore(RedisSettings(url=redis_url))
    with opened(sqlite_url) as engine, redis.Redis.from_url(redis_url) as client:
        world = World(engine, banks, MemoryImageStore(), client.flushdb)
        world.review(b"5")
        world.learner().step()
        checksum = world.audit().checksum
        client.delete(f"paedid:bank:{{cam1:toy-1}}:{part}")
        assert banks.version(KEY) is None
        with pytest.raises(BankMissingError):
            banks.changes(KEY, 1)
        world.review(b"6")
        world.learner().step()
        assert world.bank() == {0: 1, 1: 1, 2: 5, 3: 6}
        assert world.audit().problems == ()
        world.review_desk.retract("frame-2", "ada")
        world.learner().step()
        assert world.audit().checksum == checksum
    banks.close()


@pytest.mark.usefixtures("each_redis")
def test_edits_that_were_lost_and_whose_versions_were_given_anew_are_made_again(
    redis_url: str, sqlite_url: str
) -> None:
    banks = RedisBankStore(RedisSettings(url=redis_url))
    with opened(sqlite_url) as engine, redis.Redis.from_url(redis_url) as client:
        world = World(engine, banks, MemoryImageStore(), client.flushdb, budget=9 * WHOLE)
        stays, leaves = world.review(b"5"), world.review(b"6")
        world.learner().step()
        before = {name: client.dump(name) for name in client.keys("*")}
        world.review_desk.retract(leaves, "ada")
        lost = world.review(b"7")
        world.learner().step()
        assert world.bank() == {0: 1, 1: 1, 2: 5, 3: 7}
        # What a replica had when the primary died.
        client.flushdb()
        for name, dump in before.items():
            client.restore(name, 0, dump)
        # Another learner looked just before the versions 3 and 4 came into the book, and gives them anew.
        others = []
        for number in (8, 9):
            frame = world.inspect(str(number).encode())
            edit = teach(banks, KEY, SHAPE, frame, kept_of(number))
            entry = replace(world.book.active_entries(*KEY_NAMES)[0], frame_id=frame, slot=edit.slot)
            data = to_bytes(kept_of(number))
            kept = {"features_sha256": world.images.put(data), "size_bytes": len(data), "version_added": edit.version}
            world.book.write(*KEY_NAMES, [replace(entry, **kept)], ())
            others.append(frame)
        assert banks.version(KEY) == world.book.bank_version(*KEY_NAMES)
        world.learner().step()
        assert sorted(world.bank().values()) == [1, 1, 5, 7, 8, 9]
        assert set(world.active()) == {stays, lost, *others}
        assert world.audit().problems == ()
        version = banks.version(KEY)
        world.learner().step()
        assert banks.version(KEY) == version
    banks.close()
