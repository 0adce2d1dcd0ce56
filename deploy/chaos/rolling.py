"""How long frames wait while a worker joins the group, and while all workers are restarted one after the other."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from deploy.chaos.brokers import make_broker
from deploy.chaos.databases import SqliteFile
from deploy.chaos.load import Belt
from deploy.chaos.world import Fate, Life, World
from schemas.artifacts import read_manifest
from schemas.errors import OperatorError
from schemas.messages import utc_now
from schemas.tables import InspectionRow

WORKERS: Final = 4
SETTLE_S: Final = 8.0
READY_S: Final = 60.0
# What a worker logs once it works, or stands by.
AT_WORK: Final = (b'"partitions assigned"', b"it stands by")
LATE_MS: Final = 1000.0

Figures = dict[str, object]


class RollingRestart:
    """One line whose workers come one by one and are restarted one by one, while frames pass at an even pace.

    Args:
        directory: where everything goes.
        bundle: the model.
        brokers: of Apache Kafka; 0: the embedded one.
        static: each worker has a ``kafka.group_instance_id`` of its own.
        rate: frames a second.
    """

    def __init__(self, directory: Path, bundle: Path, brokers: int, rate: float, *, static: bool) -> None:
        self._bundle = bundle
        self._static = static
        self._rate = rate
        self._world = World(
            directory, bundle, SqliteFile(directory), make_broker(directory, brokers), cameras={"overload": "wait"}
        )
        self._lives: dict[int, Life] = {}

    def run(self, on_step: Callable[[], None]) -> Figures:
        """Return how long frames waited, by what went on; ``on_step`` is called 1 + ``WORKERS`` times."""
        with ExitStack() as stack:
            world = stack.enter_context(self._world)
            engine = create_engine(world.database.url)
            stack.callback(engine.dispose)
            stack.callback(self._stop_all)
            for number in range(WORKERS - 1):
                self._start(number)
            belt = Belt(world, read_manifest(self._bundle).architecture.input.height)
            stack.callback(belt.close)
            with _passing(belt, self._rate):
                time.sleep(SETTLE_S)
                figures: Figures = {"quiet": self._during(engine, lambda: None)}
                figures["a worker joins"] = self._during(engine, lambda: self._start(WORKERS - 1))
                on_step()
                figures["rolling restart"] = self._during(engine, lambda: self._restart_all(on_step))
            return figures

    def _stop_all(self) -> None:
        for life in self._lives.values():
            life.stop()

    def _restart_all(self, on_step: Callable[[], None]) -> None:
        for number in range(WORKERS):
            self._lives[number].stop()
            self._start(number)
            time.sleep(SETTLE_S / 2)
            on_step()

    def _start(self, number: int) -> None:
        name = f"worker-{number}-{time.monotonic_ns()}"
        life = self._lives[number] = Life(self._world, "worker", name, Fate(), self._config(number))
        deadline = time.monotonic() + READY_S
        while not any(sign in life.log_bytes() for sign in AT_WORK):
            life.check()
            if time.monotonic() > deadline:
                msg = f"{name} was not ready in time; see its log"
                raise OperatorError(msg)
            time.sleep(0.05)

    def _config(self, number: int) -> Path:
        if not self._static:
            return self._world.config
        settings = yaml.safe_load(self._world.config.read_text(encoding="utf-8"))
        settings["kafka"] |= {"group_instance_id": f"worker-{number}", "session_timeout_ms": 45_000}
        path = self._world.directory / f"worker-{number}.yaml"
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    def _during(self, engine: Engine, action: Callable[[], None]) -> Figures:
        """Return the latencies of the frames that were captured while ``action`` went on, and a little after."""
        started = utc_now()
        action()
        time.sleep(SETTLE_S)
        ended = utc_now()
        time.sleep(SETTLE_S)  # those that wait come to their end
        latencies = _latencies(engine, started, ended)
        return {
            "frames": len(latencies),
            "median_ms": round(float(np.median(latencies))),
            "longest_ms": round(max(latencies)),
            "later_than_1s": sum(each > LATE_MS for each in latencies),
        }


@contextmanager
def _passing(belt: Belt, rate: float) -> Iterator[None]:
    """Within, frames pass at an even pace."""
    stop = threading.Event()

    def pass_on() -> None:
        while not stop.wait(1 / rate):
            belt.pass_on()

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _latencies(engine: Engine, started: datetime, ended: datetime) -> list[float]:
    columns = InspectionRow.latency_ms
    captured = InspectionRow.captured_at
    with Session(engine) as session:
        return list(session.scalars(select(columns).where(captured >= started, captured < ended)))
