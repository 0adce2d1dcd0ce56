"""Workers over a real broker, a real database and a real Redis: each frame ends in the database once."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from sqlalchemy import create_engine, text

from monitor.adapters import migrations
from monitor.adapters.kafka import ensure_topics
from monitor.settings import KafkaSettings, Settings
from monitor.wiring import open_worker_ports
from monitor.worker import run_worker
from schemas.messages import FrameEvent
from tests.unit.pipeline_fakes import DEFECT, NORMAL, ToyInspector, png

CAMERAS = ("north", "east", "south", "west")


@pytest.fixture
def settings(kafka_settings: KafkaSettings, redis_url: str, database_url: str, tmp_path: Path) -> Settings:
    settings = Settings.model_validate(
        {
            "kafka": kafka_settings.model_dump(),
            "redis": {"url": redis_url},
            "database": {"url": database_url},
            "images": {"url": str(tmp_path / "images")},
            "batch": {"max_frames": 8},
        }
    )
    ensure_topics(settings.kafka, settings.limits)
    migrations.upgrade(database_url)
    return settings


@contextmanager
def worker(settings: Settings) -> Iterator[None]:
    """Run a worker within; it finishes what it has in hand before this returns."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with open_worker_ports(settings) as ports:
                run_worker(settings, ToyInspector(), ports, stop=stop)
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()
    assert failures == []


def send(settings: Settings, numbers: range) -> None:
    """Send frames of four cameras; every tenth shows a defect, every ninth is broken."""
    with KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        for number in numbers:
            camera = CAMERAS[number % 4]
            frame = FrameEvent(frame_id=f"f{number}", camera=camera, captured_at=datetime.now(UTC))
            image = b"broken" if number % 9 == 0 else png(DEFECT if number % 10 == 0 else NORMAL)
            producer.send(settings.kafka.frames_topic, image, key=camera.encode(), headers=frame.to_headers())
        producer.flush(10)


def wait_until(condition: Callable[[], bool], timeout: float = 40) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.05)


@contextmanager
def counting(settings: Settings) -> Iterator[Callable[[str], int]]:
    engine = create_engine(settings.database.url.get_secret_value())

    def count(table: str) -> int:
        with engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())

    yield count
    engine.dispose()


def read_all(settings: Settings, topic: str) -> list[bytes]:
    with KafkaConsumer(bootstrap_servers=settings.kafka.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, partition) for partition in range(settings.kafka.partitions)])
        values: list[bytes] = []
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not (values and not (found := consumer.poll(500))):
            found = found if values else consumer.poll(500)
            values += [record.value for records in found.values() for record in records]
    return values


def test_frames_become_rows_events_and_dead_letters(settings: Settings) -> None:
    send(settings, range(90))
    with worker(settings), counting(settings) as count:
        wait_until(lambda: count("outbox WHERE published_at IS NOT NULL") == 80)
        assert count("inspections") == 80
        assert count("inspections WHERE verdict = 'defect'") == 8
        assert count("inspections WHERE image_sha256 IS NOT NULL AND verdict = 'defect'") == 8
        assert count("dead_letters") == 10
    events = [json.loads(value)["frame_id"] for value in read_all(settings, settings.kafka.inspections_topic)]
    assert sorted(events) == sorted(f"f{number}" for number in range(90) if number % 9)
    assert read_all(settings, settings.kafka.dead_topic) == [b"broken"] * 10


def test_a_worker_that_comes_and_one_that_goes_lose_no_frame_and_store_none_twice(settings: Settings) -> None:
    sender = threading.Thread(target=lambda: [send(settings, range(at, at + 20)) for at in range(0, 600, 20)])
    with counting(settings) as count:
        with worker(settings):
            sender.start()
            wait_until(lambda: count("inspections") > 0)
            with worker(settings):
                sender.join()
                wait_until(lambda: count("inspections") + count("dead_letters") == 600)
        assert count("dead_letters") == 67
        assert count("outbox") == count("inspections") == 533


def test_what_was_committed_is_not_delivered_again(settings: Settings) -> None:
    send(settings, range(40))
    with counting(settings) as count:
        with worker(settings):
            wait_until(lambda: count("inspections") + count("dead_letters") == 40)
        send(settings, range(40, 45))
        inspector = ToyInspector()
        stop = threading.Event()
        with open_worker_ports(settings) as ports:
            thread = threading.Thread(target=run_worker, args=(settings, inspector, ports), kwargs={"stop": stop})
            thread.start()
            wait_until(lambda: count("inspections") + count("dead_letters") == 45)
            stop.set()
            thread.join(10)
    assert sum(frames for frames, _ in inspector.calls) == 5
