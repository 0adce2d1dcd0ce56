"""SIGTERM ends a worker within 15 s whatever Kafka does, and what is stored is committed wherever the broker answers.

``STOPS`` says how often each is tried; the suite has one of each.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from deploy.local.apache_kafka import ApacheKafka, BrokerSecurity
from deploy.local.programs import Program
from monitor.settings import KafkaSettings
from tests.faults.line import Line, MakeLine, Message, good_png, wait_until
from tests.faults.operated import said

STOPS = range(int(os.environ.get("STOPS", "1")))
WITHIN_S = 15.0
USER, PASSWORD = "line", "secret-of-the-line"


@pytest.fixture(scope="module")
def secured_kafka(apache_kafka: ApacheKafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    del apache_kafka  # where that one is skipped, so is this one
    security = BrokerSecurity(passwords={USER: PASSWORD}, acl=True)
    with ApacheKafka(tmp_path_factory.mktemp("secured"), security=security) as server:
        yield server


@pytest.fixture
def own_kafka(secured_kafka: ApacheKafka) -> ApacheKafka:
    """Apache Kafka of these tests' own, which asks for a user and holds to what that user may do. It runs."""
    return secured_kafka.start()


@pytest.fixture
def broker(own_kafka: ApacheKafka) -> str:
    return own_kafka.address


@pytest.fixture
def kafka_settings(own_kafka: ApacheKafka, topics: Callable[[str], str]) -> KafkaSettings:
    allow(own_kafka, "*", AclOperation.ALL)
    return KafkaSettings(
        bootstrap_servers=own_kafka.address,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=USER,
        sasl_password=PASSWORD,
        group=topics("group"),
        frames_topic=topics("frames"),
        dead_topic=topics("dead"),
        inspections_topic=topics("inspections"),
    )


def acl(kind: ResourceType, name: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    return AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{USER}", "*", operation, permission)


def allow(server: ApacheKafka, name: str, operation: AclOperation) -> None:
    rules = [acl(kind, name, operation, AclPermissionType.ALLOW) for kind in (ResourceType.TOPIC, ResourceType.GROUP)]
    cluster = acl(ResourceType.BROKER, "kafka-cluster", operation, AclPermissionType.ALLOW)
    apply(server, [*rules, cluster])


def apply(server: ApacheKafka, rules: list[AclBinding]) -> None:
    admin = AdminClient({"bootstrap.servers": server.admin_address})
    for future in admin.create_acls(rules).values():
        future.result(20)


def stopped_within(worker: Program) -> float:
    assert worker.pid is not None
    started = time.monotonic()
    os.kill(worker.pid, signal.SIGTERM)
    wait_until(lambda: worker.exit_code is not None, 3 * WITHIN_S)
    return time.monotonic() - started


def inspected(line: Line, worker: Program, count: int) -> None:
    line.send([Message.of(good_png(number)) for number in range(count)])
    wait_until(lambda: line.settled() >= count, programs=[worker])


@pytest.mark.parametrize("number", STOPS)
def test_while_the_broker_refuses_what_is_sent_to_it(
    make_line: MakeLine, sqlite_url: str, own_kafka: ApacheKafka, number: int
) -> None:
    del number
    line = make_line(sqlite_url)
    with line.program("worker", "run") as worker:
        inspected(line, worker, 5)
        topic = line.kafka.inspections_topic
        apply(own_kafka, [acl(ResourceType.TOPIC, topic, AclOperation.WRITE, AclPermissionType.DENY)])
        line.send([Message.of(good_png(number)) for number in range(5, 10)])
        wait_until(lambda: said(worker, "Results are refused"), programs=[worker])
        wait_until(lambda: line.settled() == 10, programs=[worker])
        assert stopped_within(worker) < WITHIN_S
    assert worker.exit_code == 0
    assert line.committed() == 10
    assert PASSWORD.encode() not in worker.log_file.read_bytes()


@pytest.mark.parametrize("number", STOPS)
def test_while_a_batch_cannot_be_read(
    make_line: MakeLine,
    sqlite_url: str,
    own_kafka: ApacheKafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    del number
    (tmp_path / "zstandard.py").write_text("raise ImportError('not installed')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = make_line(sqlite_url)
    messages = [Message.of(good_png(number)) for number in range(3)]
    options: dict[str, Any] = {"linger.ms": 200, "compression.type": "zstd"}
    client = Producer({"bootstrap.servers": own_kafka.admin_address} | options)
    for message in messages:
        client.produce(line.kafka.frames_topic, message.value, message.key, headers=list(message.headers))
    assert client.flush(20) == 0
    with line.program("worker", "run") as worker:
        wait_until(lambda: line.count("dead_letters") == 3, programs=[worker])
        assert stopped_within(worker) < WITHIN_S
    assert worker.exit_code == 0
    assert line.committed() == 3
    assert {row.reason for row in line.query("SELECT reason FROM dead_letters")} == {"unreadable"}


@pytest.mark.parametrize("number", STOPS)
def test_while_the_broker_is_away(make_line: MakeLine, sqlite_url: str, own_kafka: ApacheKafka, number: int) -> None:
    del number
    line = make_line(sqlite_url)
    with line.program("worker", "run") as worker:
        inspected(line, worker, 5)
        own_kafka.kill()
        wait_until(lambda: said(worker, "Kafka unreachable"), programs=[worker])
        assert stopped_within(worker) < WITHIN_S
    assert worker.exit_code == 0
