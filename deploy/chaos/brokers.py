"""Kafka brokers that go away and come back: the embedded one, which forgets everything, and clusters, which do not."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Self

from kafka.admin import KafkaAdminClient

from deploy.local.apache_kafka import ApacheKafka
from deploy.local.servers import TansuBroker

EMBEDDED_AWAY_S: Final = 1.5
# Longer than the controllers take to notice that a broker is gone, so that its partitions get other leaders.
LEADER_AWAY_S: Final = 5.0
NOTICED_SOON: Final = {"broker.session.timeout.ms": "3000", "broker.heartbeat.interval.ms": "500"}


class StormyBroker(ABC):
    """The brokers that the programs use; entering starts them, leaving takes them away.

    Attributes:
        name: as figures name it.
        forgets: whether an outage loses what was acknowledged.
    """

    name: str
    forgets: bool

    @property
    @abstractmethod
    def address(self) -> str:
        """``bootstrap.servers``."""

    @abstractmethod
    def kill(self, topic: str, chance: random.Random) -> None:
        """Kill the broker, of several the one that leads a partition of ``topic``, and wait for a while."""

    @abstractmethod
    def restore(self) -> None:
        """Start again what was killed."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...


class EmbeddedBroker(StormyBroker):
    """The embedded broker: in memory, so that its topics are empty after an outage."""

    name = "embedded"
    forgets = True

    def __init__(self, directory: Path) -> None:
        self._server = TansuBroker(directory / "tansu")

    @property
    def address(self) -> str:
        """``host:port``."""
        return self._server.address

    def kill(self, topic: str, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        """Kill it."""
        self._server.kill()
        time.sleep(EMBEDDED_AWAY_S)

    def restore(self) -> None:
        """Start it, on the same port."""
        self._server.start()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()


class KafkaCluster(StormyBroker):
    """Apache Kafka: ``brokers`` of them, each partition on three if there are as many."""

    forgets = False

    def __init__(self, directory: Path, brokers: int) -> None:
        self._servers = ApacheKafka(directory / "kafka", brokers, settings=NOTICED_SOON)
        self.name = f"apache kafka, {brokers}"

    @property
    def address(self) -> str:
        """``host:port`` of each."""
        return self._servers.address

    def kill(self, topic: str, chance: random.Random) -> None:
        """Kill a leader of the topic."""
        admin = KafkaAdminClient(bootstrap_servers=self._servers.admin_address.split(","))
        try:
            (described,) = admin.describe_topics([topic])
        finally:
            admin.close()
        leaders = sorted({partition["leader_id"] for partition in described["partitions"]} - {-1})
        self._servers.brokers[chance.choice(leaders or [0])].kill()
        time.sleep(LEADER_AWAY_S)

    def restore(self) -> None:
        """Start it again, with its data."""
        self._servers.start()

    def __enter__(self) -> Self:
        self._servers.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._servers.kill()


def make_broker(directory: Path, brokers: int) -> StormyBroker:
    """Return ``brokers`` of Apache Kafka; none: the embedded one."""
    return KafkaCluster(directory, brokers) if brokers else EmbeddedBroker(directory)
