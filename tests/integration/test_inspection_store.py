"""What an inspection store promises, kept by the in-memory twin, by SQLite and by PostgreSQL alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.memory import MemoryInspectionStore
from monitor.ports import BatchOutcome, DriftReport, InspectionStore, LogGap, LogPosition, Recorded
from monitor.settings import DatabaseSettings
from schemas.messages import InspectionEvent, Verdict
from schemas.tables import OutboxRow
from tests.integration.records import CAPTURED, REGION, dead_letter, inspection


class Contract:
    def test_a_batch_is_stored_with_an_event_for_each_frame(self, store: InspectionStore) -> None:
        outcome = BatchOutcome((inspection("f1", 1), inspection("f2", 2, verdict=Verdict.NORMAL)), (dead_letter(3),))
        assert store.record(outcome) == Recorded(inspections=2, dead_letters=1, repeats=0)
        messages = store.unpublished(10)
        assert [(message.topic, message.key) for message in messages] == [("inspections", "cam1")] * 2
        events = [InspectionEvent.model_validate_json(message.payload) for message in messages]
        assert [event.frame_id for event in events] == ["f1", "f2"]
        assert (events[0].verdict, events[0].score, events[0].bank_version) == (Verdict.DEFECT, 0.75, 7)
        assert events[0].regions[0] == REGION
        assert len(events[0].regions) == 2
        assert dict(messages[0].headers)["ce_id"] == events[0].dedupe_id

    def test_an_empty_batch_is_stored(self, store: InspectionStore) -> None:
        assert store.record(BatchOutcome()) == Recorded(0, 0, 0)

    def test_a_gap_of_the_log_is_stored_once(self, store: InspectionStore) -> None:
        gap = LogGap(LogPosition("frames", "t1", 2, 40), 60)
        assert store.record(BatchOutcome((inspection("f1", 100),), gaps=(gap,))).gaps == (gap,)
        # A worker that was killed before it committed finds it again.
        other = replace(gap, position=replace(gap.position, partition=1))
        assert store.record(BatchOutcome(gaps=(gap, other))).gaps == (other,)

    def test_a_redelivered_batch_is_left_as_it_is(self, store: InspectionStore) -> None:
        outcome = BatchOutcome((inspection("f1", 1), inspection("f2", 2)), (dead_letter(3),))
        store.record(outcome)
        assert store.record(outcome) == Recorded(inspections=0, dead_letters=0, repeats=3)
        more = BatchOutcome((inspection("f2", 2), inspection("f3", 4)), (dead_letter(3), dead_letter(5)))
        assert store.record(more) == Recorded(inspections=1, dead_letters=1, repeats=2)
        assert len(store.unpublished(10)) == 3

    def test_a_frame_sent_twice_is_stored_once(self, store: InspectionStore) -> None:
        twice = BatchOutcome((inspection("f1", 1), inspection("f1", 2)))
        assert store.record(twice) == Recorded(inspections=1, dead_letters=0, repeats=1)
        assert store.record(BatchOutcome((inspection("f1", 3),))).repeats == 1
        assert len(store.unpublished(10)) == 1

    def test_a_place_in_the_log_is_settled_once(self, store: InspectionStore) -> None:
        first = BatchOutcome((inspection("f1", 1), inspection("f2", 1)), (dead_letter(1), dead_letter(2)))
        assert store.record(first) == Recorded(inspections=1, dead_letters=1, repeats=2)
        # Settings changed: what was a dead letter would now be inspected, and the other way round.
        again = BatchOutcome((inspection("f3", 2),), (dead_letter(1),))
        assert store.record(again) == Recorded(inspections=0, dead_letters=0, repeats=2)

    def test_a_broken_frame_sent_twice_is_one_dead_letter(self, store: InspectionStore) -> None:
        twice = BatchOutcome(dead_letters=(dead_letter(1, frame_id=b"a"), dead_letter(2, frame_id=b"a")))
        assert store.record(twice) == Recorded(inspections=0, dead_letters=1, repeats=1)
        others = (
            dead_letter(3, frame_id=b"a"),
            dead_letter(4, frame_id=b"a", key=b"cam2"),
            dead_letter(5, frame_id=b""),
        )
        assert store.record(BatchOutcome(dead_letters=others)) == Recorded(inspections=0, dead_letters=2, repeats=1)
        other_bytes = dead_letter(7, frame_id=b"a")
        other_bytes = replace(other_bytes, record=replace(other_bytes.record, value=b"other"))
        assert store.record(BatchOutcome(dead_letters=(other_bytes,))).dead_letters == 1
        nameless = BatchOutcome(dead_letters=(dead_letter(6, frame_id=b""),))
        assert store.record(nameless).dead_letters == 1

    def test_a_recreated_topic_starts_at_offset_zero_again(self, store: InspectionStore) -> None:
        store.record(BatchOutcome((inspection("f1", 0),)))
        assert store.record(BatchOutcome((inspection("f2", 0, topic_id="topic-2"),))).inspections == 1

    def test_published_events_leave_the_outbox_oldest_first(self, store: InspectionStore) -> None:
        store.record(BatchOutcome(tuple(inspection(f"f{n}", n) for n in range(5))))
        oldest = store.unpublished(2)
        store.mark_published([message.id for message in oldest])
        store.mark_published([])
        left = store.unpublished(10)
        assert [InspectionEvent.model_validate_json(message.payload).frame_id for message in left] == ["f2", "f3", "f4"]

    def test_the_newest_drift_report_of_a_camera_and_model_is_kept_and_comes_back_whole(
        self, store: InspectionStore
    ) -> None:
        first = DriftReport(
            camera="cam1", model_id="model-1", bank_version=3, updated_at=CAPTURED, since=CAPTURED, frames=5, ratio=0.5,
            drifting_since=None, last_drift_at=None, locations=(), score_ewma=1.25, distance_ewma=b"1234",
        )  # fmt: skip
        later = replace(first, frames=9, drifting_since=CAPTURED, last_drift_at=CAPTURED, locations=((1, 2, 1.5),))
        other = replace(first, model_id="model-2")
        assert store.drift_report("cam1", "model-1") is None
        store.record(BatchOutcome(drift=(first, other)))
        assert store.drift_report("cam1", "model-1") == first
        store.record(BatchOutcome((inspection("f1", 1),), drift=(later,)))
        assert store.drift_report("cam1", "model-1") == later
        assert store.drift_report("cam1", "model-2") == other
        assert (first.quiet_since, later.quiet_since) == (CAPTURED, None)


class TestMemory(Contract):
    @pytest.fixture
    def store(self) -> InspectionStore:
        return MemoryInspectionStore("inspections")


class TestSql(Contract):
    @pytest.fixture
    def engine(self, database_url: str) -> Iterator[Engine]:
        migrations.upgrade(database_url)
        engine = connect(DatabaseSettings(url=SecretStr(database_url)))
        yield engine
        engine.dispose()

    @pytest.fixture
    def store(self, engine: Engine) -> InspectionStore:
        return SqlInspectionStore(engine, "inspections")

    def test_two_workers_that_judge_the_same_frame_differently_at_the_same_moment_settle_it_once(
        self, engine: Engine, database_url: str
    ) -> None:
        other = connect(DatabaseSettings(url=SecretStr(database_url)))
        stores = [SqlInspectionStore(each, "inspections") for each in (engine, other)]
        together = threading.Barrier(2)

        def settle(store: InspectionStore, outcomes: list[BatchOutcome]) -> list[Recorded]:
            done = []
            for outcome in outcomes:
                together.wait()
                done.append(store.record(outcome))
            return done

        inspected = [BatchOutcome((inspection(f"f{n}", n),)) for n in range(40)]
        dead = [BatchOutcome(dead_letters=(dead_letter(n, frame_id=b"f%d" % n),)) for n in range(40)]
        with ThreadPoolExecutor(2) as threads:
            results = list(threads.map(settle, stores, (inspected, dead)))
        other.dispose()
        both = [(one.inspections, two.dead_letters) for one, two in zip(*results, strict=True)]
        assert all(sum(pair) == 1 for pair in both), both

    def test_what_was_published_long_ago_is_forgotten_oldest_first_and_what_was_not_never_is(
        self, engine: Engine
    ) -> None:
        hours = [0.0]
        store = SqlInspectionStore(engine, "inspections", lambda: CAPTURED + timedelta(hours=hours[0]))
        store.record(BatchOutcome(tuple(inspection(f"f{n}", n) for n in range(6))))
        ids = [message.id for message in store.unpublished(10)]
        for at, some in ((0, ids[3:5]), (10, ids[:3])):
            hours[0] = at
            store.mark_published(some)
        hours[0] = 25
        assert store.forget_published(timedelta(days=1), 1) == 1
        assert store.forget_published(timedelta(days=1), 10) == 1
        assert store.forget_published(timedelta(days=1), 10) == 0
        with engine.connect() as connection:
            assert connection.scalars(select(OutboxRow.id).order_by(OutboxRow.id)).all() == [*ids[:3], ids[5]]
        assert [message.id for message in store.unpublished(10)] == [ids[5]]
