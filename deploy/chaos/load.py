"""More frames than can be inspected, for minutes, under each policy: what becomes of them, how late, in what memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.orm import Session

from deploy.chaos.brokers import make_broker
from deploy.chaos.databases import StormyDatabase
from deploy.chaos.feed import CAMERAS, SPOOL_BYTES
from deploy.chaos.world import Fate, Life, World
from deploy.local.parts import simulated
from deploy.simulation import LineSettings, SimulatedLine
from monitor.adapters.kafka import FrameSender
from schemas.artifacts import read_manifest
from schemas.errors import OperatorError
from schemas.messages import FrameEvent, new_frame_id, utc_now
from schemas.tables import DeadLetterRow, InspectionRow

Figures = dict[str, Any]

# A camera with a partition of its own, as a topic of four gives them out: what do the others' floods cost it?
QUIET: Final = "oven"
QUIET_PER_S: Final = 5.0
EACH_CAMERA: Final = (*CAMERAS, QUIET)
DEADLINE_MS: Final = 1000
WARM_UP: Final = 64
PICTURES: Final = 40
SAMPLE_S: Final = 1.0
STALLED_S: Final = 60.0


class Belt:
    """Good parts that pass three busy cameras, as fast as told, and a quiet one; owned by one thread.

    Args:
        world: where they are sent.
        size: height and width of the pictures, in pixels.
    """

    def __init__(self, world: World, size: int) -> None:
        self.frame_ids: set[str] = set()
        line = SimulatedLine(LineSettings(size=size))
        self._pictures = [simulated(line.good_part(index)).content for index in range(PICTURES)]
        self._sender = FrameSender(world.settings.kafka, SPOOL_BYTES)

    def pass_on(self, deadline_ms: int | None = None, camera: str | None = None) -> None:
        """Send one frame, by default of the busy cameras in turn, as soon as there is room for it."""
        number = len(self.frame_ids)
        frame_id = new_frame_id()
        self.frame_ids.add(frame_id)
        picture = self._pictures[number % PICTURES]
        event = FrameEvent(
            frame_id=frame_id,
            camera=camera or CAMERAS[number % len(CAMERAS)],
            captured_at=utc_now(),
            deadline_ms=deadline_ms,
        )
        while not self._sender.offer(event, picture):
            time.sleep(0.001)

    def finish(self) -> None:
        """Wait until the broker has all of them."""
        while self._sender.waiting:
            self._sender.collect()
            time.sleep(0.001)

    def close(self) -> None:
        """Disconnect."""
        self._sender.close()


class Run:
    """One line with its workers, and what is asked of it."""

    def __init__(self, belt: Belt, workers: Sequence[Life], engine: Engine) -> None:
        self.belt = belt
        self._workers = workers
        self._engine = engine

    def capacity(self, frames: int) -> float:
        """Return how many frames a second are inspected while enough of them wait, as many of each partition."""
        before = self.settled()
        for number in range(frames):
            self.belt.pass_on(camera=EACH_CAMERA[number % len(EACH_CAMERA)])
        self.belt.finish()
        started, already = time.monotonic(), self.settled()
        while self.settled() < before + frames:
            self._require_alive()
            time.sleep(0.01)
        return (before + frames - already) / (time.monotonic() - started)

    def press(self, rate: float, seconds: float, on_second: Callable[[], None]) -> list[float]:
        """Send ``rate`` frames a second, and a few of the quiet camera; return the workers' MB each second."""
        memory: list[float] = []
        started = time.monotonic()
        sent = quiet = 0
        while (elapsed := time.monotonic() - started) < seconds:
            while sent < elapsed * rate:
                self.belt.pass_on(DEADLINE_MS)
                sent += 1
            if quiet < elapsed * QUIET_PER_S:
                self.belt.pass_on(DEADLINE_MS, QUIET)
                quiet += 1
            if elapsed >= len(memory) * SAMPLE_S:
                memory.append(self._memory_mb())
                on_second()
            time.sleep(0.002)
        self.belt.finish()
        return memory

    def drain(self) -> float:
        """Wait until every frame has come to its end; return the seconds that took."""
        started = last_change = time.monotonic()
        settled = self.settled()
        while settled < len(self.belt.frame_ids):
            time.sleep(0.1)
            now = self.settled()
            if now != settled:
                settled, last_change = now, time.monotonic()
            self._require_alive()
            if time.monotonic() - last_change > STALLED_S:
                break
        return time.monotonic() - started

    def settled(self) -> int:
        """Return how many frames have come to their end."""
        with Session(self._engine) as session:
            tables = (InspectionRow, DeadLetterRow)
            return sum(session.scalar(select(func.count()).select_from(table)) or 0 for table in tables)

    def account(self, frame_ids: set[str]) -> Figures:
        """Return what became of these frames."""
        columns = (
            InspectionRow.frame_id,
            InspectionRow.camera,
            InspectionRow.verdict,
            InspectionRow.reason,
            InspectionRow.latency_ms,
        )
        with Session(self._engine) as session:
            rows = [row for row in session.execute(select(*columns)) if row.frame_id in frame_ids]
            dead = session.scalar(select(func.count()).select_from(DeadLetterRow)) or 0
        reasons = Counter(row.reason for row in rows if row.verdict == "uninspected")
        inspected = [row for row in rows if row.verdict != "uninspected"]
        quiet = [row.latency_ms for row in inspected if row.camera == QUIET]
        return {
            "sent": len(frame_ids),
            "stored": len(inspected),
            "dead_lettered": dead,
            "uninspected": reasons.total(),
            "reasons": dict(reasons),
            "duplicates": len(rows) - len({row.frame_id for row in rows}),
            "missing": len(frame_ids - {row.frame_id for row in rows}),
            "latency_ms": _percentiles([row.latency_ms for row in inspected]),
            "quiet_camera": {
                "sent": sum(row.camera == QUIET for row in rows),
                "stored": len(quiet),
                "latency_ms": _percentiles(quiet),
            },
        }

    def _memory_mb(self) -> float:
        return float(sum(psutil.Process(worker.pid).memory_info().rss for worker in self._workers)) / 2**20

    def _require_alive(self) -> None:
        for worker in self._workers:
            worker.check()


def _percentiles(values: Sequence[float]) -> dict[str, int] | None:
    return {f"p{share}": round(float(np.percentile(values, share))) for share in (50, 99)} if values else None


@contextmanager
def line(
    directory: Path,
    bundle: Path,
    database: StormyDatabase,
    workers: int = 1,
    *,
    brokers: int = 0,
    apart: bool = False,
    **sections: Mapping[str, object],
) -> Iterator[Run]:
    """Make a line whose workers have inspected their first frames.

    Args:
        directory: where everything goes.
        bundle: the model.
        database: which.
        workers: how many share the cameras.
        brokers: of Apache Kafka; 0: the embedded one.
        apart: each on a core of its own.
        sections: settings of the monitor.
    """
    with ExitStack() as stack:
        world = stack.enter_context(World(directory, bundle, database, make_broker(directory, brokers), **sections))
        engine = create_engine(world.database.url)
        stack.callback(engine.dispose)
        belt = Belt(world, read_manifest(bundle).architecture.input.height)
        stack.callback(belt.close)
        lives = []
        for number in range(workers):
            life = Life(world, "worker", f"worker-{number}", Fate())
            stack.callback(life.stop)
            if apart:
                psutil.Process(life.pid).cpu_affinity([number % (psutil.cpu_count() or 1)])
            lives.append(life)
        run = Run(belt, lives, engine)
        _warm_up(run, lives)
        yield run


def _warm_up(run: Run, lives: Sequence[Life]) -> None:
    deadline = time.monotonic() + STALLED_S
    while any(b'"partitions assigned"' not in life.log_bytes() for life in lives):
        if time.monotonic() > deadline:
            msg = "the workers were not ready in time; see their logs"
            raise OperatorError(msg)
        time.sleep(0.1)
    run.capacity(WARM_UP)


def run_policy(run: Run, rate: float, seconds: float, on_second: Callable[[], None]) -> Figures:
    """Give a line ``rate`` frames a second, and account for every frame."""
    before = set(run.belt.frame_ids)
    memory = run.press(rate, seconds, on_second)
    drained = run.drain()
    quarter = max(1, len(memory) // 4)
    return run.account(run.belt.frame_ids - before) | {
        "sent_per_s": round((len(run.belt.frame_ids) - len(before)) / seconds),
        "seconds": seconds,
        "drained_s": round(drained, 1),
        "memory_mb": {
            "first_quarter": round(float(np.median(memory[:quarter]))),
            "last_quarter": round(float(np.median(memory[-quarter:]))),
            "most": round(max(memory)),
        },
    }
