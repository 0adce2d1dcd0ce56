"""Opening the database, for commands that need nothing else (and so should not wait for torch)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Engine

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.database_rights import Rights, require_rights
from monitor.errors import StoreRefusedError, StoreUnavailableError
from monitor.settings import Settings
from schemas.errors import OperatorError

NOTHING_MORE: Final[Rights] = {}


@contextmanager
def open_database(settings: Settings, needed: Rights = NOTHING_MORE) -> Iterator[Engine]:
    """Connect to the database, and see that its tables are up to date and that this program may use them.

    Args:
        settings: name the database.
        needed: what a program is to be allowed from its start. A command does what it is told at once, so it is told of
            a missing right as soon as it wants it.

    Raises:
        ServiceUnavailableError, ServiceRefusedError, ConfigurationError.
    """
    url = settings.database.url.get_secret_value()
    engine = connect(settings.database)
    try:
        if settings.database.migrate:
            migrations.upgrade(url)
        else:
            migrations.check(url)
        with engine.connect() as connection:
            require_rights(connection, needed)
        yield engine
    finally:
        engine.dispose()


@contextmanager
def database_of_a_command(settings: Settings, what_now: str = "Nothing was changed; try again.") -> Iterator[Engine]:
    """Open the database for a command: should a server go away or refuse, the operator is told, and what to do now.

    Raises:
        ServiceUnavailableError, ServiceRefusedError, ConfigurationError: at start.
        OperatorError: in place of StoreUnavailableError.
    """
    with open_database(settings) as engine:
        try:
            yield engine
        except StoreRefusedError as error:
            raise OperatorError(str(error)) from error
        except StoreUnavailableError as error:
            msg = f"a server went away: {error}. {what_now}"
            raise OperatorError(msg) from error
