"""Connections to the database: SQLite on one machine, PostgreSQL in a plant."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import tenacity
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from monitor.adapters.database_refusals import KEY, explain_unknown, is_of_a_row, safe_url, words
from monitor.adapters.postgresql import make_postgres_engine, require_usable
from monitor.errors import StoreUnavailableError
from monitor.settings import DatabaseSettings
from schemas.errors import ConfigurationError, OperatorError, ServiceUnavailableError

# An execution option: the transaction takes SQLite's write lock at its beginning.
WRITES: Final = "paedid_writes"
# What a standby says, and what a transaction gets that stood still for too long.
PASSING_STATES: Final = frozenset({"25006", "25P03"})
NO_SUCH_VALUE: Final = "the database does not take what it was given: {}. Nothing was changed."


def connect(settings: DatabaseSettings, *, timeout_s: float = 5.0) -> Engine:
    """Return an engine whose database has answered.

    Args:
        settings: names the database.
        timeout_s: how long to wait for a connection and, on SQLite, for another program's write.

    Raises:
        ServiceUnavailableError: the database does not answer.
        ServiceRefusedError: it answers, and refuses: the password, a right, TLS; or it is not in UTF8.
        ConfigurationError: the SQLite file cannot be opened, or PostgreSQL's driver cannot be loaded.
    """
    url = make_url(settings.url.get_secret_value())
    engine = make_engine(url, timeout_s=timeout_s)
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _make_sqlite_safe)
    try:
        with at_start(url), engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            require_usable(connection, url)
    except BaseException:
        engine.dispose()
        raise
    return engine


def make_engine(url: URL, *, timeout_s: float = 5.0) -> Engine:
    """Return an engine that has not connected yet. On SQLite, its transactions include reads and DDL.

    Raises:
        ConfigurationError: an in-memory database, or PostgreSQL's driver cannot be loaded.
    """
    if url.get_backend_name() == "sqlite":
        if url.database in {None, "", ":memory:"}:
            problem = "an in-memory database forgets every result when the program ends"
            raise ConfigurationError(KEY, safe_url(url), problem, "Name a file: sqlite:///monitor.db.")
        engine = create_engine(url, connect_args={"timeout": timeout_s})
        event.listen(engine, "connect", _leave_transactions_to_sqlalchemy)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return make_postgres_engine(url, timeout_s)


def _leave_transactions_to_sqlalchemy(connection: sqlite3.Connection, _record: object) -> None:
    # The driver's own BEGIN comes only before writes, so that reads and DDL would be outside of the transaction.
    connection.isolation_level = None


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and wants to write later fails at once, without waiting, when another wrote
    # in between. So writers take the lock at the beginning and wait their turn.
    immediate = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _make_sqlite_safe(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # FULL: with NORMAL, a power cut could take back a commit whose Kafka offsets were committed after it.
    connection.execute("PRAGMA synchronous = FULL")
    _enter_wal_mode(connection)


# The switch does not wait for the lock as other statements do: two programs that start at once collide here.
@tenacity.retry(
    retry=tenacity.retry_if_exception_type(sqlite3.OperationalError),
    stop=tenacity.stop_after_delay(5),
    wait=tenacity.wait_random(0.01, 0.05),
    reraise=True,
)
def _enter_wal_mode(connection: sqlite3.Connection) -> None:
    # WAL: people read reviews while the worker writes. The file remembers it.
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode = WAL")


@contextmanager
def at_start(url: URL) -> Iterator[None]:
    """Turn a database that does not answer at start-up into the operator's error, without the password in it."""
    try:
        yield
    except DBAPIError as error:
        problem = " ".join(str(error.orig).split())
        if url.get_backend_name() == "sqlite" and not is_locked(error):
            remedy = "Name a file in a folder that exists and may be written to, e.g. sqlite:///monitor.db."
            raise ConfigurationError(KEY, safe_url(url), problem, remedy) from error
        if refused := explain_unknown(url, error.orig or error):
            raise refused from error
        service = "SQLite" if url.get_backend_name() == "sqlite" else "PostgreSQL"
        raise ServiceUnavailableError(service, KEY, safe_url(url), problem) from error


@contextmanager
def while_running() -> Iterator[None]:
    """Turn outages into StoreUnavailableError, values that no row can hold into OperatorError; let the rest through."""
    try:
        yield
    except PoolTimeoutError as error:
        msg = "no database connection became free"
        raise StoreUnavailableError(msg) from error
    except DBAPIError as error:
        if is_of_a_row(error):
            raise OperatorError(NO_SUCH_VALUE.format(words(error))) from error
        if not is_outage(error):
            raise
        raise StoreUnavailableError(words(error)) from error
    except (UnicodeError, OverflowError) as error:
        raise OperatorError(NO_SUCH_VALUE.format(words(error))) from error


def is_locked(error: DBAPIError) -> bool:
    """Tell whether another program holds SQLite's write lock."""
    return getattr(error.orig, "sqlite_errorname", "").startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))


def is_outage(error: DBAPIError) -> bool:
    """Tell whether the same statement may succeed later: the server is away, busy, full, or just a standby."""
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        # SQLITE_ERROR is a mistake in the statement, e.g. a missing table, which SQLite reports as operational.
        operational = isinstance(error.orig, sqlite3.OperationalError)
        return operational and getattr(error.orig, "sqlite_errorname", "SQLITE_ERROR") != "SQLITE_ERROR"
    names = {parent.__name__ for parent in type(error.orig).__mro__}
    passing = getattr(error.orig, "sqlstate", None) in PASSING_STATES
    return passing or bool(names & {"OperationalError", "InterfaceError"})
