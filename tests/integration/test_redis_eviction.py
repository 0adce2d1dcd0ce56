"""A Redis that may evict memory banks when it is full: whoever starts a program on it is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from structlog.testing import capture_logs

from deploy.local.servers import ValkeyServer
from monitor.adapters.redis_bank import RedisBankStore
from monitor.settings import RedisSettings

pytestmark = pytest.mark.usefixtures("each_redis")


@pytest.fixture
def server(embedded_redis: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(embedded_redis.url) as client:
        yield client


def warnings_at_start(url: str) -> list[str]:
    with capture_logs() as logs, closing(RedisBankStore(RedisSettings(url=url))) as store:
        store.ping()
    return [entry["event"] for entry in logs if entry["log_level"] == "warning"]


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_redis_that_may_evict_a_bank_is_warned_of_with_the_remedy(
    server: redis.Redis, embedded_redis: ValkeyServer, policy: str
) -> None:
    server.config_set("maxmemory-policy", policy)
    [warning] = warnings_at_start(embedded_redis.url)
    assert "maxmemory-policy to noeviction" in warning


def test_a_redis_that_keeps_banks_is_not_warned_of(server: redis.Redis, embedded_redis: ValkeyServer) -> None:
    for policy, maxmemory in (("noeviction", "1gb"), ("volatile-lru", "1gb"), ("allkeys-lru", 0)):
        server.config_set("maxmemory-policy", policy)
        server.config_set("maxmemory", maxmemory)
        assert warnings_at_start(embedded_redis.url) == []


def test_who_may_not_ask_is_not_warned_and_not_refused(server: redis.Redis, embedded_redis: ValkeyServer) -> None:
    server.config_set("maxmemory-policy", "allkeys-lru")
    server.acl_setuser("line", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all", "-info"])
    assert warnings_at_start(embedded_redis.url.replace("redis://", "redis://line:pw@")) == []
