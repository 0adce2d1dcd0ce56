"""Opening the database, for commands that need nothing else (and so should not wait for torch)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.errors import StoreRefusedError, StoreUnavailableError
from monitor.settings import Settings
from schemas.errors import OperatorError


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


@contextmanager
def database_of_a_command(settings: Settings, what_now: str = "Nothing was changed; try again.") -> Iterator[Engine]:
    """Open the database for a command: should a server go away or refuse, the operator is told, and what to do now.

    Raises:
        ServiceUnavailableError, ConfigurationError: and OperatorError, in place of StoreUnavailableError.
    """
    with open_database(settings) as engine:
        try:
            yield engine
        except StoreRefusedError as error:
            raise OperatorError(str(error)) from error
        except StoreUnavailableError as error:
            msg = f"a server went away: {error}. {what_now}"
            raise OperatorError(msg) from error
