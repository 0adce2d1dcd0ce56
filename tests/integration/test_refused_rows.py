"""What a database refuses of one row becomes that frame's dead letter, and stops nothing else of its batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.dead_letter_desk import DeadLetterDesk, Selection
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.memory import MemoryImageStore, MemoryPublisher
from monitor.adapters.refused_rows import find_refused
from monitor.adapters.review_desk import ReviewDesk
from monitor.adapters.settled import Settled
from monitor.clock import FakeClock
from monitor.ports import BatchOutcome, DeadLetter, InspectionRecord, LogPosition, RawRecord, Recorded
from monitor.settings import DatabaseSettings, ImageSettings
from monitor.storing import FinishedBatch, Recorder
from schemas.errors import OperatorError, Reason
from schemas.messages import FrameEvent, Verdict
from schemas.tables import DeadLetterRow, InspectionRow, OutboxRow, RegionRow, ShadowInspectionRow
from tests.integration.records import REGION, dead_letter, inspection
from tests.integration.test_database_roles import drift_report

CONSTRAINT = "ALTER TABLE inspections ADD CONSTRAINT serial CHECK (part_serial NOT LIKE 'bad%')"
LENGTH = "ALTER TABLE inspections ALTER COLUMN part_serial TYPE varchar(4)"
DEFERRED_TRIGGER = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.part_serial LIKE 'bad%' THEN RAISE EXCEPTION 'no such part'; END IF; RETURN NEW;
    END $$;
    CREATE CONSTRAINT TRIGGER late AFTER INSERT ON inspections DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrations.upgrade(database_url)
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    yield engine
    engine.dispose()


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[Engine]:
    migrations.upgrade(postgres_url)
    engine = connect(DatabaseSettings(url=SecretStr(postgres_url)))
    yield engine
    engine.dispose()


def execute(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def of(frame_id: str, offset: int, part_serial: str | None = "P1", **fields: object) -> InspectionRecord:
    """Return a record of a frame with values that no check of ours has seen."""
    record = inspection(frame_id, offset)
    frame = FrameEvent.model_construct(**(dict(record.frame) | {"part_serial": part_serial}))
    return replace(record, frame=frame, **fields)


def message_of(record: InspectionRecord) -> RawRecord:
    """Return the message that brought a frame, with a header that only the message has."""
    headers = (("ce_id", record.frame.frame_id.encode()), ("traceparent", b"00-1-2-3"))
    return RawRecord(record.position, b"cam1", headers, b"image of %d" % record.position.offset)


def rows(engine: Engine, column: object) -> list[object]:
    with Session(engine) as session:
        return list(session.scalars(select(column).order_by(column)))  # type: ignore[call-overload]


@dataclass
class Writer:
    """The recorder over a database, and what it sent to the dead letters."""

    engine: Engine

    def __post_init__(self) -> None:
        self.store = SqlInspectionStore(self.engine, "inspections")
        self.publisher = Checked(self.engine)

    def record(self, *records: InspectionRecord) -> Recorded:
        recorder = Recorder(
            store=self.store,
            images=MemoryImageStore(),
            publisher=self.publisher,
            policy=ImageSettings(keep="none"),
            clock=FakeClock(datetime(2026, 1, 3, tzinfo=UTC)),
        )
        came = {record.position: message_of(record) for record in records}
        try:
            return recorder.submit(FinishedBatch(records, (), came)).result(timeout=30)
        finally:
            recorder.close()


class Checked(MemoryPublisher):
    """Keeps dead letters, and sees that none has its row before it is kept."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine

    def dead_letters(self, letters: list[DeadLetter]) -> list[LogPosition | None]:  # type: ignore[override]
        stored = rows(self._engine, DeadLetterRow.offset)
        assert not {letter.record.position.offset for letter in letters} & set(stored)
        return list(super().dead_letters(letters))


# What no check of ours lets through today; a database takes it the worse.
@pytest.mark.parametrize(
    "bad",
    [
        of("bad", 2, part_serial="\ud800"),
        of("bad", 2, regions=(REGION.model_copy(update={"area": None}),)),
        of("bad", 2, bank_version=2**70),
    ],
    ids=["no-text", "null", "number"],
)
def test_a_frame_that_no_database_takes_becomes_a_dead_letter_and_the_rest_of_its_batch_is_stored(
    engine: Engine, bad: InspectionRecord
) -> None:
    writer = Writer(engine)
    with capture_logs() as logs:
        recorded = writer.record(of("f1", 1), bad, of("f3", 3))
    assert recorded == Recorded(inspections=2, dead_letters=1, repeats=0)
    assert rows(engine, InspectionRow.frame_id) == ["f1", "f3"]
    assert len(rows(engine, OutboxRow.id)) == 2
    assert len(rows(engine, RegionRow.id)) == 4
    [letter] = writer.publisher.sent_letters
    assert letter.record == message_of(bad)
    [kept] = DeadLetterDesk(engine).newest(Selection(reason=Reason.REFUSED_BY_DATABASE), 10)
    assert (kept.camera, kept.frame_id, kept.position) == ("cam1", "bad", bad.position)
    assert kept.detail
    assert [log["log_level"] for log in logs] == ["warning"]
    # Delivered again, whole: nothing is stored twice.
    again = writer.record(of("f1", 1), bad, of("f3", 3))
    assert again.inspections == again.dead_letters == 0


@pytest.mark.parametrize("statement", [CONSTRAINT, LENGTH, DEFERRED_TRIGGER], ids=["constraint", "length", "trigger"])
def test_what_a_plants_own_database_refuses_is_set_aside_once(postgres: Engine, statement: str) -> None:
    execute(postgres, statement)
    writer = Writer(postgres)
    frames = [of(f"f{n}", n, "bad part" if n in {3, 7} else "P1") for n in range(10)]
    assert writer.record(*frames) == Recorded(inspections=8, dead_letters=2, repeats=0)
    assert sorted(letter.record.position.offset for letter in writer.publisher.sent_letters) == [3, 7]
    assert set(rows(postgres, DeadLetterRow.reason)) == {"refused_by_database"}
    assert writer.record(*frames) == Recorded(inspections=0, dead_letters=0, repeats=10)


def test_a_refused_drift_report_and_a_refused_shadow_cost_no_frame(postgres: Engine) -> None:
    store = SqlInspectionStore(postgres, "inspections")
    crazy = replace(drift_report(), camera="x" * 500)
    assert store.record(BatchOutcome((of("f1", 1), of("f2", 2)), (), (drift_report(), crazy))).inspections == 2
    assert store.drift_report("cam1", "model-1") is not None
    store.record_shadows([of("f1", 1), of("f2", 2, score=None)])
    assert rows(postgres, ShadowInspectionRow.frame_id) == ["f1"]


def test_a_dead_letter_whose_words_are_refused_is_stored_without_them(postgres: Engine) -> None:
    execute(postgres, "ALTER TABLE dead_letters ADD CONSTRAINT named CHECK (frame_id IS NULL)")
    store = SqlInspectionStore(postgres, "inspections")
    recorded = store.record(BatchOutcome((of("f1", 1),), (dead_letter(2, frame_id=b"bad"), dead_letter(3, key=None))))
    assert recorded == Recorded(inspections=1, dead_letters=2, repeats=0)
    with Session(postgres) as session:
        bare = session.scalars(select(DeadLetterRow).where(DeadLetterRow.offset == 2)).one()
        assert (bare.frame_id, bare.detail, bare.size_bytes) == (None, "", 5)
        assert bare.sha256


def test_a_database_that_takes_no_dead_letter_at_all_is_told_and_nothing_is_stored(postgres: Engine) -> None:
    execute(postgres, "ALTER TABLE dead_letters ADD CONSTRAINT never CHECK (size_bytes < 0)")
    store = SqlInspectionStore(postgres, "inspections")
    with pytest.raises(OperatorError, match=r"whatever is spared.*never.*frames wait in Kafka"):
        store.record(BatchOutcome((of("f1", 1),), (dead_letter(2),)))
    assert rows(postgres, InspectionRow.frame_id) == []


def test_a_frame_that_another_worker_stores_at_that_moment_is_no_refusal(postgres: Engine) -> None:
    store, other = (SqlInspectionStore(postgres, "inspections") for _ in range(2))
    elsewhere = replace(of("same", 1), position=replace(of("same", 1).position, partition=5))

    def insert(session: Session, outcome: BatchOutcome, settled: Settled) -> None:
        # From another partition, so that no lock keeps the two apart.
        assert other.record(BatchOutcome((elsewhere,))).inspections == 1
        store._insert_new(session, outcome, settled)

    with Session(postgres) as session:
        assert not find_refused(session, BatchOutcome((of("same", 1),)), insert).inspections


def test_what_a_command_is_given_and_no_database_holds_is_told_in_one_line(engine: Engine) -> None:
    SqlInspectionStore(engine, "inspections").record(BatchOutcome((inspection("frame-1", 1, image_sha256="0"),)))
    desk = ReviewDesk(engine)
    with pytest.raises(OperatorError, match="does not take what it was given"):
        desk.show("frame-\udce4")
    with pytest.raises(OperatorError, match="does not take what it was given"):
        DeadLetterDesk(engine).named([2**70])
    # A note typed in another encoding than the terminal's.
    assert desk.confirm("frame-1", Verdict.NORMAL, "Ada", "Öl\udce4\0").note == "Öl?"
