"""One test's own line: settings, programs, frames sent, and what became of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeAlias

import cv2
import numpy as np
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from numpy.typing import NDArray
from sqlalchemy import create_engine, text

from deploy.local.programs import Program
from deploy.local.quick import LINE
from deploy.simulation import SimulatedLine
from monitor.adapters import migrations
from monitor.adapters.kafka import ensure_topics
from monitor.adapters.kafka.connection import client_options
from monitor.settings import KafkaSettings, Settings
from schemas.messages import FrameEvent, new_frame_id

STAMPED = SimulatedLine(replace(LINE.settings, novelty_from=0, novelty_rate=1.0))


def png(image: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def good_png(index: int) -> bytes:
    return png(LINE.good_part(index).image)


def wait_until(condition: Callable[[], bool], timeout: float = 60, programs: Sequence[Program] = ()) -> None:
    """Wait until the condition holds; fail at once if one of the programs has ended."""
    deadline = time.monotonic() + timeout
    while not condition():
        for program in programs:
            program.check()
        assert time.monotonic() < deadline, "nothing happened in time"
        time.sleep(0.02)


def run(program: str, *arguments: str, environment: Mapping[str, str] | None = None) -> CompletedProcess[str]:
    """Run ``monitor`` or ``trainer`` to its end, as a shell would."""
    command = [sys.executable, "-m", program, *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | (environment or {})
    )


@dataclass(frozen=True)
class Message:
    """What is sent to the frames topic."""

    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]

    @classmethod
    def of(cls, value: bytes | None, camera: str = "press-1", **event: Any) -> Message:  # noqa: ANN401
        """Return a frame as a camera agent would send it."""
        fields = {"frame_id": new_frame_id(), "captured_at": datetime.now(UTC)} | event
        headers = FrameEvent.model_validate({"camera": camera} | fields).to_headers()
        return cls(camera.encode(), value, tuple(headers))

    @property
    def frame_id(self) -> str:
        return dict(self.headers)["ce_id"].decode()


class Line:
    """Programs over real servers, with a settings file of their own."""

    def __init__(self, directory: Path, sections: dict[str, dict[str, Any]]) -> None:
        self.directory = directory
        self.settings = Settings.model_validate(sections)
        self.config = directory / "monitor.yaml"
        self.config.write_text(yaml.safe_dump(sections), encoding="utf-8")
        self._engine = create_engine(self.settings.database.url.get_secret_value())
        self._closing = ExitStack()
        self._closing.callback(self._engine.dispose)

    def prepare(self) -> None:
        """Make the topics and the tables."""
        ensure_topics(self.kafka, self.settings.limits)
        migrations.upgrade(self.settings.database.url.get_secret_value())

    @property
    def kafka(self) -> KafkaSettings:
        return self.settings.kafka

    def program(self, name: str, *arguments: str) -> Program:
        """Return a command of paedid-monitor, to be used as a context manager; it logs to ``name``.log."""
        return Program(name, ["--config", str(self.config), *arguments], self.directory)

    def run(self, *arguments: str) -> CompletedProcess[str]:
        """Run a command of paedid-monitor to its end."""
        return run("monitor", "--config", str(self.config), *arguments)

    def send(self, messages: Iterable[Message]) -> int:
        """Send messages and wait until the broker has them."""
        producer = self._producer
        futures = [
            producer.send(self.kafka.frames_topic, m.value, key=m.key, headers=list(m.headers)) for m in messages
        ]
        for future in futures:
            future.get(timeout=20)
        return len(futures)

    @cached_property
    def _producer(self) -> KafkaProducer:
        """Made once: a connection for each frame would cost more than the frame."""
        return self._closing.enter_context(KafkaProducer(**client_options(self.kafka, 10.0)))

    def query(self, sql: str, **parameters: object) -> list[Any]:
        """Return the rows of a query."""
        with self._engine.connect() as connection:
            return list(connection.execute(text(sql), parameters))

    def count(self, table: str) -> int:
        """Return how many rows; ``table`` may go on with a WHERE."""
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])

    def settled(self) -> int:
        """Return how many frames are accounted for."""
        return self.count("inspections") + self.count("dead_letters")

    def verdict(self, frame_id: str) -> str | None:
        """Return a frame's verdict once it has one."""
        rows = self.query("SELECT verdict FROM inspections WHERE frame_id = :id", id=frame_id)
        return str(rows[0][0]) if rows else None

    def read(self, topic: str, until: Callable[[list[ConsumerRecord]], bool]) -> list[ConsumerRecord]:
        """Return the topic's messages from its start, once they are all that is waited for; and what comes after."""
        found: list[ConsumerRecord] = []
        with self.consumer(topic) as consumer:
            deadline = time.monotonic() + 20
            while not until(found):
                assert time.monotonic() < deadline, f"{topic} holds {len(found)} messages, not those waited for"
                found += [record for records in consumer.poll(200).values() for record in records]
            found += [record for records in consumer.poll(300).values() for record in records]
        return found

    @contextmanager
    def consumer(self, topic: str) -> Iterator[KafkaConsumer]:
        with KafkaConsumer(
            **client_options(self.kafka, 10.0), group_id=self.kafka.group, auto_offset_reset="earliest",
            enable_auto_commit=False,
        ) as consumer:  # fmt: skip
            consumer.assign([TopicPartition(topic, partition) for partition in range(self.kafka.partitions)])
            consumer.seek_to_beginning()
            yield consumer

    def committed(self) -> int:
        """Return how many frames the group has committed."""
        with self.consumer(self.kafka.frames_topic) as consumer:
            return sum(consumer.committed(partition) or 0 for partition in consumer.assignment())

    def close(self) -> None:
        self._closing.close()


MakeLine: TypeAlias = Callable[..., Line]
