"""The migrations make the tables that the program uses, on both databases, from any number of programs at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from monitor.adapters import migrations
from monitor.adapters.review_desk import ReviewDesk
from schemas.errors import ConfigurationError, ServiceUnavailableError
from schemas.tables import Base

HEAD = ScriptDirectory(Path(migrations.deploy.migrations.__file__).parent).get_current_head()


def tables(url: str) -> set[str]:
    engine = create_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def execute(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_migrated_tables_are_those_of_the_schema_up_down_and_up_again(database_url: str) -> None:
    for _ in range(2):
        migrations.upgrade(database_url)
        migrations.check(database_url)
        engine = create_engine(database_url)
        with engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            assert compare_metadata(context, Base.metadata) == []
        engine.dispose()
        migrations.downgrade(database_url, "base")
        assert tables(database_url) <= {"alembic_version"}


def test_upgrading_twice_keeps_what_is_stored(database_url: str) -> None:
    migrations.upgrade(database_url)
    execute(
        database_url,
        "INSERT INTO outbox (dedupe_id, topic, key, headers, payload, created_at) "
        "VALUES ('a', 't', 'k', '[]', 'x', '2026-01-01')",
    )
    migrations.upgrade(database_url)
    engine = create_engine(database_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM outbox")).scalar() == 1
    engine.dispose()


def test_regions_stored_before_there_were_measures_stay_valid_up_and_down(database_url: str) -> None:
    migrations.upgrade(database_url)
    migrations.downgrade(database_url, "0001")
    engine = create_engine(database_url)
    columns = {column["name"] for column in inspect(engine).get_columns("regions")}
    engine.dispose()
    assert "x" in columns
    assert not columns & {"length", "mean_width_mm"}
    execute(
        database_url,
        'INSERT INTO inspections (frame_id, camera, topic, topic_id, partition, "offset", captured_at, inspected_at, '
        "latency_ms, verdict, model_id, content_type, defect_area) VALUES ('old-1', 'c', 't', 'i', 0, 0, '2026-01-01', "
        "'2026-01-01', 1, 'defect', 'm', 'image/png', 0.1)",
    )
    execute(
        database_url,
        "INSERT INTO regions (inspection_id, x, y, width, height, area, centroid_x, centroid_y, mean_residual, "
        "max_residual) SELECT id, 1, 2, 3, 4, 5, 6, 7, 8, 9 FROM inspections",
    )
    migrations.upgrade(database_url)
    engine = create_engine(database_url)
    details = ReviewDesk(engine).show("old-1")
    engine.dispose()
    (region,) = details.regions
    assert (region.x, region.max_residual, region.length, region.area_mm2) == (1, 9, None, None)
    assert details.region_count is None


def test_an_empty_database_is_refused_with_the_remedy(database_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"no tables yet.*paedid-monitor migrate"):
        migrations.check(database_url)


def test_tables_of_a_newer_program_are_refused_and_left_alone(database_url: str) -> None:
    migrations.upgrade(database_url)
    execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
    for call in (migrations.check, migrations.upgrade):
        with pytest.raises(ConfigurationError, match=r"9999.*newer.*Update this program"):
            call(database_url)
    with pytest.raises(ConfigurationError, match="9999"):
        migrations.downgrade(database_url, "base")
    assert "inspections" in tables(database_url)


def test_a_failing_migration_leaves_nothing_behind(database_url: str) -> None:
    execute(database_url, "CREATE TABLE outbox (id INTEGER)")
    with pytest.raises(DBAPIError, match="outbox"):
        migrations.upgrade(database_url)
    assert tables(database_url) == {"outbox"}


def test_programs_that_start_at_once_take_turns(database_url: str) -> None:
    program = "import sys; from monitor.adapters import migrations; migrations.upgrade(sys.argv[1])"
    command = [sys.executable, "-W", "error", "-c", program, database_url]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) for _ in range(3)]
    errors = [process.communicate(timeout=60)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0], errors
    migrations.check(database_url)


def test_a_server_that_is_away_is_named_without_its_password() -> None:
    url = "postgresql://monitor:secret@127.0.0.1:1/line"
    with pytest.raises(ServiceUnavailableError, match=r"database\.url") as caught:
        migrations.check(url)
    assert "secret" not in str(caught.value)
