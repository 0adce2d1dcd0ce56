"""Who said which model inspects which camera: the newest word holds, and none is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.model_desk import SqlModelDesk
from monitor.assignments import Assignment, Chosen, Role
from monitor.errors import StoreUnavailableError
from monitor.ports import BatchOutcome
from monitor.settings import DatabaseSettings
from schemas.errors import OperatorError
from tests.integration.records import inspection

NOW = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)
OLD, NEW = Chosen("m-1", Path("/models/old")), Chosen("m-2", Path("/models/new"))


@pytest.fixture
def desk(engine: Engine) -> SqlModelDesk:
    return SqlModelDesk(engine, now=lambda: NOW)


def test_the_newest_word_on_each_camera_is_in_force_and_all_are_kept(desk: SqlModelDesk) -> None:
    assert desk.in_force() == ()
    desk.assign(None, OLD, "ada")
    desk.assign("cam", OLD, "ada")
    desk.assign(None, NEW, "bob", "fewer false alarms\0")
    desk.assign("cam", None, "bob")
    every, own = sorted(desk.in_force(), key=lambda each: each.camera or "")
    assert every == Assignment(None, Role.ACTIVE, NEW, "bob", "fewer false alarms", NOW)
    assert own == Assignment("cam", Role.ACTIVE, None, "bob", None, NOW)
    assert [(each.camera, each.chosen) for each in desk.history()] == [
        (None, OLD),
        ("cam", OLD),
        (None, NEW),
        ("cam", None),
    ]


def test_a_shadow_is_assigned_beside_the_active_model_and_changes_nothing_about_it(desk: SqlModelDesk) -> None:
    desk.assign("cam", OLD, "ada")
    desk.assign("cam", NEW, "ada", role=Role.SHADOW)
    assert [each.chosen for each in desk.in_force(Role.ACTIVE)] == [OLD]
    assert [each.chosen for each in desk.in_force(Role.SHADOW)] == [NEW]
    assert [each.chosen for each in desk.history(Role.ACTIVE)] == [OLD]


def test_the_model_in_use_is_that_of_each_cameras_newest_frame(desk: SqlModelDesk, engine: Engine) -> None:
    frames = [("a", "m-1"), ("b", "m-1"), ("a", "m-2")]
    records = [
        inspection(f"f{number}", number, camera=camera, model_id=model_id)
        for number, (camera, model_id) in enumerate(frames)
    ]
    SqlInspectionStore(engine, "inspections").record(BatchOutcome(tuple(records)))
    assert desk.in_use() == {"a": "m-2", "b": "m-1"}


def test_a_name_that_cannot_be_stored_assigns_nothing(desk: SqlModelDesk) -> None:
    with pytest.raises(OperatorError, match="1 to 128 printable"):
        desk.assign(None, OLD, "")
    assert desk.history() == ()


def test_a_database_that_is_locked_is_an_outage(sqlite_url: str) -> None:
    migrations.upgrade(sqlite_url)
    engine = connect(DatabaseSettings(url=SecretStr(sqlite_url)), timeout_s=0.1)
    with engine.connect() as other:
        other.execute(text("COMMIT"))
        other.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError):
            SqlModelDesk(engine).assign(None, OLD, "ada")
        other.exec_driver_sql("ROLLBACK")
    engine.dispose()
