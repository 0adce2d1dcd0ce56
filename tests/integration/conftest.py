"""A migrated database, on each kind of server, for whoever does not fill one of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.inspections import SqlInspectionStore
from monitor.settings import DatabaseSettings


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrations.upgrade(database_url)
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> SqlInspectionStore:
    return SqlInspectionStore(engine, "inspections")
