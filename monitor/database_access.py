"""Opening the database, for commands that need nothing else (and so should not wait for torch)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.settings import Settings


@contextmanager
def open_database(settings: Settings) -> Iterator[Engine]:
    """Connect to the database and see that its tables are up to date.

    Raises:
        ServiceUnavailableError, ConfigurationError.
    """
    url = settings.database.url.get_secret_value()
    engine = connect(settings.database)
    try:
        if settings.database.migrate:
            migrations.upgrade(url)
        else:
            migrations.check(url)
        yield engine
    finally:
        engine.dispose()
