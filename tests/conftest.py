"""The servers of the tests: those named by the environment, else embedded ones. All of them are real."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from deploy.local.servers import TansuBroker, ValkeyServer
from monitor.settings import KafkaSettings


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of a Kafka broker that all tests share."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
        return
    with TansuBroker(tmp_path_factory.mktemp("tansu")) as server:
        yield server.address


@pytest.fixture
def topics() -> Callable[[str], str]:
    """Topic (and group) names that no other test uses: ``topics("frames")`` is the same name throughout one test."""
    suffix = uuid.uuid4().hex[:12]
    return lambda name: f"{name}.{suffix}"


@pytest.fixture
def kafka_settings(broker: str, topics: Callable[[str], str]) -> KafkaSettings:
    """Settings for the shared broker with topics and a group of this test's own."""
    return KafkaSettings(
        bootstrap_servers=broker,
        group=topics("group"),
        frames_topic=topics("frames"),
        dead_topic=topics("dead"),
        inspections_topic=topics("inspections"),
    )


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis or Valkey that all tests share."""
    if url := os.environ.get("REDIS_URL"):
        yield url
        return
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """URL of an empty Redis database: all of it is flushed before the test, so name none that matters."""
    with redis.Redis.from_url(redis_server) as client:
        client.flushdb()
    return redis_server


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[TansuBroker]:
    """A broker of the test's own, to be killed and restarted."""
    with TansuBroker(tmp_path / "tansu") as server:
        yield server


@pytest.fixture
def embedded_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of the test's own, to be killed and restarted."""
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server
