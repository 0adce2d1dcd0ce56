"""How clients are made of the settings: who is told which password, and who is spoken to with TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import SecretStr
from redis.connection import SSLConnection
from redis.sentinel import SentinelManagedSSLConnection

from monitor.adapters.redis_client import ClientFactory
from monitor.settings import RedisSettings


def test_sentinels_and_master_have_passwords_of_their_own_and_the_same_tls(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.touch()
    settings = RedisSettings(
        url=f"rediss+sentinel://line@a:1,b/press/3?ssl_ca_certs={ca}&socket_keepalive=yes",
        password=SecretStr("server"),
        sentinel_username="watcher",
        sentinel_password=SecretStr("sentinel"),
    )
    pool: Any = ClientFactory(settings).sentinel().connection_pool
    assert issubclass(pool.connection_class, SentinelManagedSSLConnection)
    of_master = {"username": "line", "password": "server", "db": 3, "ssl_ca_certs": str(ca), "socket_keepalive": True}
    assert of_master.items() <= pool.connection_kwargs.items()
    of_sentinels = {"username": "watcher", "password": "sentinel", "ssl_ca_certs": str(ca), "socket_timeout": 2.0}
    for sentinel, host in zip(pool.sentinel_manager.sentinels, ("a", "b"), strict=True):
        each = sentinel.connection_pool
        assert each.connection_class is SSLConnection
        assert {**of_sentinels, "host": host}.items() <= each.connection_kwargs.items()


def test_sentinels_that_ask_for_no_password_are_not_told_the_servers() -> None:
    settings = RedisSettings(url="redis+sentinel://line:server@a/press?socket_timeout=7")
    pool: Any = ClientFactory(settings).sentinel().connection_pool
    told = pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
    assert (told["username"], told["password"], told["socket_timeout"]) == (None, None, 7)
    assert pool.connection_kwargs["password"] == "server"
