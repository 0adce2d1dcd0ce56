"""The topics as the programs find them, and frames that a topic does not take, on Apache Kafka."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import structlog
import yaml
from kafka import KafkaConsumer

from deploy.local.apache_kafka import ApacheKafka
from deploy.local.servers import TansuBroker
from monitor.adapters.kafka import FrameSender, ensure_topics, prepare_topics
from monitor.adapters.kafka.topic_checks import MESSAGE_OVERHEAD_BYTES
from monitor.camera import run_camera
from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import ServiceRefusedError
from schemas.messages import FrameEvent, new_frame_id, utc_now
from tests.faults.line import run
from tests.integration.kafka_administrator import Administrator

LIMITS = LimitSettings(max_frame_bytes=200_000)


@pytest.fixture
def settings(apache_kafka: ApacheKafka, topics: Callable[[str], str]) -> KafkaSettings:
    names = {f"{name}_topic": topics(name) for name in ("frames", "dead", "inspections")}
    return KafkaSettings(bootstrap_servers=apache_kafka.address, group=topics("group"), partitions=2, **names)


@pytest.fixture
def administrator(apache_kafka: ApacheKafka) -> Administrator:
    with closing(Administrator(apache_kafka.admin_address)) as administrator:
        yield administrator  # type: ignore[misc]


def prepare(settings: KafkaSettings, limits: LimitSettings = LIMITS) -> list[tuple[str, str]]:
    """Return what is told of the topics, and what mends it."""
    with structlog.testing.capture_logs() as logs:
        prepare_topics(settings, limits)
    return [(entry["event"], entry["mend"]) for entry in logs if entry["log_level"] == "warning"]


def test_topics_that_are_made_here_fit_and_nothing_is_told_of_them(settings: KafkaSettings) -> None:
    assert prepare(settings) == []
    assert prepare(settings) == []
    allowed = prepare_topics(settings, LIMITS).max_message_bytes
    assert set(allowed.values()) == {LIMITS.max_frame_bytes + MESSAGE_OVERHEAD_BYTES}


def test_what_does_not_fit_is_told_a_line_each_and_the_commands_mend_it(
    settings: KafkaSettings, administrator: Administrator
) -> None:
    frames, dead, results = settings.frames_topic, settings.dead_topic, settings.inspections_topic
    administrator.create(frames, max_message_bytes="100000", retention_ms="60000", cleanup_policy="compact")
    administrator.create(dead, partitions=2, max_message_bytes="100000", retention_bytes="1000000")
    administrator.create(results, min_insync_replicas="2")
    told = prepare(settings)
    assert [line.partition(":")[0] for line, _ in told] == [
        f"Topic {frames} takes messages of up to 100000 bytes, and limits.max_frame_bytes = 200000",
        f"Topic {frames} has 1 partitions and not kafka.partitions = 2",
        f"Topic {frames} is compacted (cleanup.policy=compact)",
        f"Topic {frames} keeps messages for 1 minutes (retention.ms=60000)",
        f"Topic {dead} takes messages of up to 100000 bytes, and limits.max_frame_bytes = 200000",
        f"Topic {dead} keeps 1000000 bytes a partition (retention.bytes), less than 10 of the largest frames",
        f"Topic {results} has 1 replicas in sync and wants 2 (min.insync.replicas)",
    ]
    for _, command in told:
        administrator.run(command)
    deadline = time.monotonic() + 20
    while prepare(settings):
        assert time.monotonic() < deadline


def test_the_embedded_broker_which_tells_no_limits_is_told_of_nothing(embedded_broker: TansuBroker) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    assert prepare(settings) == prepare(settings) == []
    assert prepare_topics(settings, LIMITS).max_message_bytes == {}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number, size in enumerate((1000, 300_000, 2000, 400_000)):
        (folder / f"{number}.png").write_bytes(generator.bytes(size))
    return folder


@pytest.mark.parametrize("limit", ["known", "unknown"])
def test_frames_too_large_for_the_topic_are_counted_and_told_of_once(
    limit: str, settings: KafkaSettings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_topics(settings, LimitSettings(max_frame_bytes=100_000))
    if limit == "known":
        config = tmp_path / "monitor.yaml"
        sections = {"kafka": settings.model_dump(mode="json"), "log": {"format": "json"}}
        config.write_text(yaml.safe_dump(sections | {"limits": {"max_frame_bytes": 100_000}}))
        done = run("monitor", "--config", str(config), "camera", str(folder), "--camera", "cam")
        said, told = done.stderr, done.stdout
        assert done.returncode == 2
        assert "error: 2 frames were dropped: larger than the topic takes (max.message.bytes)" in done.stderr
    else:
        monkeypatch.setattr("monitor.adapters.kafka.topics._Topics._configs", lambda *_: {})
        with structlog.testing.capture_logs() as logs:
            summary = run_camera(str(folder), "cam", settings, LIMITS)
        said, told = str(logs), summary.told()
        assert summary.taken == summary.acknowledged + summary.unacknowledged + summary.dropped
        assert summary.problem is not None
    assert told.strip() == (
        "4 frames taken: 2 acknowledged, 0 not acknowledged, 2 dropped (2 too large, 0 while too many waited)"
    )
    assert said.count("Frames are dropped: larger than the topic takes") == 1
    options = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 2000}
    with KafkaConsumer(settings.frames_topic, bootstrap_servers=settings.bootstrap_servers, **options) as consumer:
        assert sorted(len(message.value) for message in consumer) == [1000, 2000]


def test_a_limit_that_was_raised_meanwhile_is_noticed(
    settings: KafkaSettings, administrator: Administrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.adapters.kafka.sender.TRY_LIMIT_S", 0.2)
    ensure_topics(settings, LimitSettings(max_frame_bytes=1024))
    large = bytes(MESSAGE_OVERHEAD_BYTES + 100_000)
    with closing(FrameSender(settings, 10**7, max_message_bytes=MESSAGE_OVERHEAD_BYTES + 1024)) as sender:

        def offer() -> None:
            assert sender.offer(FrameEvent(frame_id=new_frame_id(), camera="cam", captured_at=utc_now()), large)
            time.sleep(0.02)

        until = time.monotonic() + 1
        while time.monotonic() < until:
            offer()
        assert (sender.acknowledged, sender.too_large + sender.waiting) == (0, sender.taken)
        command = "kafka-configs --bootstrap-server x --alter --entity-type topics --entity-name {} --add-config {}"
        administrator.run(command.format(settings.frames_topic, "max.message.bytes=1000000"))
        deadline = time.monotonic() + 20
        while not sender.acknowledged:
            assert time.monotonic() < deadline
            offer()
        dropped = sender.too_large
        for _ in range(20):
            offer()
        assert sender.too_large == dropped


def test_sigterm_ends_the_camera_agent_in_time_though_the_broker_hangs(
    embedded_broker: TansuBroker, folder: Path, tmp_path: Path
) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    config = tmp_path / "monitor.yaml"
    config.write_text(yaml.safe_dump({"kafka": settings.model_dump(mode="json"), "log": {"format": "json"}}))
    command = [sys.executable, "-m", "monitor", "--config", str(config), "camera", str(folder), "--camera", "cam"]
    with subprocess.Popen(
        [*command, "--loop", "--rate", "20"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stderr is not None
        assert agent.pid is not None
        next(line for line in agent.stderr if "camera agent started" in line)
        time.sleep(0.5)
        assert embedded_broker.pid is not None
        os.kill(embedded_broker.pid, signal.SIGSTOP)
        time.sleep(1.5)  # so that it is in the midst of its attempts
        started = time.monotonic()
        agent.terminate()
        said, problems = agent.communicate(timeout=40)
        took = time.monotonic() - started
    os.kill(embedded_broker.pid, signal.SIGCONT)
    assert took < 13
    assert agent.returncode == 2
    assert "frames were not sent: stopped while Kafka was away" in problems
    numbers = [int(word) for word in said.replace("(", " ").split() if word.isdigit()]
    taken, acknowledged, waiting, dropped, *_ = numbers
    assert taken == acknowledged + waiting + dropped
    assert waiting > 0


def test_an_agent_that_is_told_to_stop_ends_though_a_topic_is_gone(
    settings: KafkaSettings, administrator: Administrator, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.camera.FLUSH_S", 0.5)
    ensure_topics(settings, LIMITS)
    stop = threading.Event()
    threading.Timer(0.5, administrator.delete, (settings.frames_topic,)).start()
    threading.Timer(2, stop.set).start()
    started = time.monotonic()
    summary = run_camera(str(folder), "cam", settings, LIMITS, rate=20, loop=True, stop=stop)
    assert time.monotonic() - started < 2 + 8
    assert summary.taken == summary.acknowledged + summary.unacknowledged + summary.dropped


class HalfKnown(ApacheKafka):
    """Two brokers, the second of which advertises a name that only it knows."""

    def _properties(self, number: int) -> dict[str, str]:
        found = super()._properties(number)
        if number == 1:
            client, internal = found["advertised.listeners"].split(",")
            port = client.rpartition(":")[2]
            found["advertised.listeners"] = f"CLIENT://kafka-2.plant.invalid:{port},{internal}"
        return found


@pytest.mark.slow
def test_a_broker_of_several_that_leads_partitions_under_a_name_which_is_not_known_here_is_told_of(
    apache_kafka: ApacheKafka, tmp_path: Path, topics: Callable[[str], str]
) -> None:
    del apache_kafka  # it says whether there is one
    names = {f"{name}_topic": topics(name) for name in ("frames", "dead", "inspections")}
    with HalfKnown(tmp_path / "kafka", brokers=2) as kafka:
        known = kafka.address.split(",")[0]
        settings = KafkaSettings(bootstrap_servers=known, **names)
        with closing(Administrator(kafka.admin_address)) as administrator:
            for name in names.values():
                administrator.create(name, partitions=4)
        with structlog.testing.capture_logs() as logs, pytest.raises(ServiceRefusedError) as caught:
            ensure_topics(settings, LIMITS)
    line = str(caught.value)
    assert "a broker that leads partitions is told of as broker 1 at kafka-2.plant.invalid:" in line
    assert "cannot resolve the name 'kafka-2.plant.invalid'" in line
    assert any("broker 1 at kafka-2.plant.invalid" in entry["event"] for entry in logs)
