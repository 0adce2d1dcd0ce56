"""Brings the database's tables to the schema that this program knows, and checks that they are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, make_url, text

import deploy.migrations
from monitor.adapters.database import WRITES, at_start, make_engine
from monitor.adapters.database_refusals import KEY, safe_url
from monitor.adapters.postgresql import require_usable
from schemas.errors import ConfigurationError

REMEDY: Final = "Run 'paedid-monitor migrate', or set database.migrate to true."
LOCK_TIMEOUT_S: Final = 60.0
# Any number will do, as long as nothing else in this database locks it.
ADVISORY_LOCK: Final = 0x5041_4544_4944

log = structlog.get_logger()


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the tables to ``revision``. Programs that start at once take turns; a failure leaves all as it was.

    Raises:
        ConfigurationError: the tables were made by a newer program.
        ServiceRefusedError: the database answers, and refuses: the password, a right; or it is not in UTF8.
        ServiceUnavailableError: the database does not answer.
    """
    _migrate(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Take the tables back to ``revision``; ``base`` drops them all, with what is in them.

    Raises:
        ConfigurationError: the tables were made by a newer program.
        ServiceRefusedError: the database answers, and refuses: the password, a right; or it is not in UTF8.
        ServiceUnavailableError: the database does not answer.
    """
    _migrate(url, lambda config: command.downgrade(config, revision))


def check(url: str) -> None:
    """Return if the tables are the ones that this program knows.

    Raises:
        ConfigurationError: they are missing, older or newer; names the remedy.
        ServiceRefusedError: the database answers, and refuses: the password, a right; or it is not in UTF8.
        ServiceUnavailableError: the database does not answer.
    """
    parsed = make_url(url)
    with _transaction(parsed, writes=False) as connection:
        current = _current(connection)
    head = _scripts().get_current_head()
    if current == head:
        return
    if current is None:
        raise ConfigurationError(KEY, safe_url(parsed), "the database has no tables yet", REMEDY)
    _refuse_newer(parsed, current)
    raise ConfigurationError(
        KEY, safe_url(parsed), f"its tables are at revision {current}, this program needs {head}", REMEDY
    )


def _migrate(url: str, run: Callable[[Config], None]) -> None:
    parsed = make_url(url)
    with _transaction(parsed, writes=True) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": ADVISORY_LOCK})
        before = _current(connection)
        _refuse_newer(parsed, before)
        config = _config()
        config.attributes["connection"] = connection
        run(config)
        _check_references(connection)
        after = _current(connection)
    if after != before:
        log.info("database migrated", database=safe_url(parsed), before=before, after=after)


@contextmanager
def _transaction(url: URL, *, writes: bool) -> Iterator[Connection]:
    # Not the programs' engine: with foreign keys on, batch mode's DROP TABLE would cascade into other tables.
    engine = make_engine(url, timeout_s=LOCK_TIMEOUT_S if writes else 5.0).execution_options(**{WRITES: writes})
    try:
        with at_start(url):
            connection = engine.connect()
            connection.begin()
        with connection:
            require_usable(connection, url)
            yield connection
            connection.commit()
    finally:
        engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(deploy.migrations.__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_newer(url: URL, current: str | None) -> None:
    known = {script.revision for script in _scripts().walk_revisions()}
    if current is not None and current not in known:
        problem = f"its tables are at revision {current}, which this program does not know: a newer one made them"
        raise ConfigurationError(
            KEY, safe_url(url), problem, "Update this program, or restore a backup of the database."
        )


def _check_references(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
        assert not broken, f"the migration left dangling references: {broken[:3]}"
