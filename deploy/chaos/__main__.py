"""The command ``python -m deploy.chaos``."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

# Three programs and four servers share the machine; to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import typer
from rich.console import Console
from rich.progress import Progress
from sqlalchemy import create_engine

from deploy.chaos.brokers import StormyBroker, make_broker
from deploy.chaos.databases import PostgresServer, SqliteFile, StormyDatabase
from deploy.chaos.feed import Feed
from deploy.chaos.load import Run, line, run_policy
from deploy.chaos.plan import Plan
from deploy.chaos.reviewer import Reviewer
from deploy.chaos.rolling import WORKERS, RollingRestart
from deploy.chaos.storm import Storm
from deploy.chaos.world import World
from deploy.local.apache_kafka import VARIABLE, ApacheKafka
from deploy.local.quick import train_quickly
from monitor.adapters.artifacts import load_bundle
from monitor.adapters.database import connect
from monitor.adapters.review_desk import ReviewDesk
from monitor.logs import configure_logging
from monitor.settings import LogSettings
from schemas.commands import run_app

KAFKA_BROKERS: Final = 3

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Database(StrEnum):
    """Which database."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Policy(StrEnum):
    """What is done under overload."""

    WAIT = "wait"
    SKIP_OLDEST = "skip-oldest"
    DEADLINE = "deadline"


Brokers = Annotated[
    int | None,
    typer.Option(
        min=0, max=9, help="Brokers of Apache Kafka (KAFKA_LIBS names its jars); 0: the embedded one. Default: 3, or 0."
    ),
]
DatabaseOption = Annotated[Database, typer.Option(help="Which database is used.")]
Bundle = Annotated[
    Path | None,
    typer.Option(help="A model of the simulated line, for a storm of 64x64; default: one is trained, in seconds."),
]
Out = Annotated[Path, typer.Option(help="Where databases, banks, images and logs go.")]


@app.callback()
def explain() -> None:
    """Hold the monitor to its promise: nothing lost, nothing twice, whatever dies and however much comes."""
    configure_logging(LogSettings(level="warning"))


@app.command()
def storm(
    kills: Annotated[int, typer.Option(min=1, help="Programs killed; servers come on top, one for five.")] = 40,
    frames: Annotated[int, typer.Option(min=1, help="Frames sent at least.")] = 3000,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames a second.")] = 20.0,
    seed: Annotated[int, typer.Option(help="Of who dies when.")] = 0,
    database: DatabaseOption = Database.SQLITE,
    brokers: Brokers = None,
    bundle: Bundle = None,
    out: Out = Path("chaos"),
) -> None:
    """Kill workers, learner, broker or leader, bank and database, at random and at commit points; count what is left.

    Prints one line of JSON. Exit code 1: a frame is missing or there twice, or a bank is not what it should be.
    """
    directory, console, trained = _prepare(out, bundle)
    started = time.monotonic()
    broker = _broker(directory, brokers, console)
    with World(directory, trained, _make(database, directory), broker) as world:
        figures = _run(world, Plan(kills, seed), frames, rate, console)
    figures |= {"seconds": round(time.monotonic() - started), "seed": seed, "database": database.value}
    figures |= {"broker": broker.name}
    typer.echo(json.dumps(figures))
    if not sound(figures):
        raise typer.Exit(1)


@app.command()
def load(
    seconds: Annotated[float, typer.Option(min=2, help="How long too much comes, for each policy.")] = 120.0,
    factor: Annotated[float, typer.Option(min=0.1, help="How many times what can be inspected.")] = 2.0,
    rate: Annotated[float | None, typer.Option(min=1, help="Frames a second, instead of measuring and factor.")] = None,
    policy: Annotated[list[Policy] | None, typer.Option(help="May be given repeatedly; default: each.")] = None,
    burst: Annotated[int, typer.Option(min=10, help="Frames by which is measured what can be inspected.")] = 1500,
    database: DatabaseOption = Database.SQLITE,
    bundle: Bundle = None,
    out: Out = Path("chaos"),
) -> None:
    """Send more frames than can be inspected, under each policy of overload; a line of JSON for each.

    Every frame is accounted for, or the exit code is 1.
    """
    directory, console, trained = _prepare(out, bundle)

    def under(policy: Policy, name: str) -> AbstractContextManager[Run]:
        place = directory / name
        place.mkdir()
        return line(place, trained, _make(database, place), cameras={"overload": policy.value})

    about: dict[str, object] = {"database": database.value}
    if rate is None:
        with under(Policy.WAIT, "capacity") as run:  # no frame is let go, so all that are counted were inspected
            capacity = run.capacity(burst)
        console.print(f"capacity: {capacity:.0f} frames/s")
        rate, about["capacity_per_s"] = factor * capacity, round(capacity)
    accounted = True
    for each in policy or list(Policy):
        with Progress(console=console) as progress:
            task = progress.add_task(each, total=seconds)
            with under(each, each.value) as run:
                figures = run_policy(run, rate, seconds, lambda: progress.advance(task))  # noqa: B023 - called here
        typer.echo(json.dumps({"policy": each.value} | about | figures))
        accounted = accounted and not (figures["missing"] or figures["duplicates"])
    if not accounted:
        raise typer.Exit(1)


@app.command()
def brokers(
    frames: Annotated[int, typer.Option(min=100, help="Frames in each burst.")] = 1500,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of measurements.")] = 3,
    database: DatabaseOption = Database.SQLITE,
    bundle: Bundle = None,
    out: Out = Path("chaos"),
) -> None:
    """Measure how many frames a second a worker inspects from Apache Kafka (one broker) and from the embedded one."""
    directory, console, trained = _prepare(out, bundle)

    def make(name: str, place: Path) -> AbstractContextManager[Run]:
        return line(place, trained, _make(database, place), brokers=int(name != "embedded"))

    rates = _capacities(("embedded", "apache kafka"), make, directory, frames, rounds, console)
    ratio = float(np.median(rates["apache kafka"]) / np.median(rates["embedded"]))
    typer.echo(json.dumps({"frames_per_s": rates, "apache_kafka_against_embedded": round(ratio, 2)}))


@app.command()
def restart(
    static: Annotated[bool, typer.Option("--static", help="Each worker has a kafka.group_instance_id.")] = False,
    rate: Annotated[float, typer.Option(min=0.1, help="Frames a second.")] = 8.0,
    brokers: Brokers = None,
    bundle: Bundle = None,
    out: Out = Path("chaos"),
) -> None:
    """Measure how long frames wait while a fourth worker joins, and while four are restarted one after the other."""
    directory, console, trained = _prepare(out, bundle)
    count = 1 if brokers is None and ApacheKafka.is_available() else brokers or 0
    with Progress(console=console) as progress:
        task = progress.add_task("restart", total=1 + WORKERS)
        figures = RollingRestart(directory, trained, count, rate, static=static).run(lambda: progress.advance(task))
    typer.echo(json.dumps({"static": static, "brokers": count} | figures))


@app.command()
def pair(
    frames: Annotated[int, typer.Option(min=100, help="Frames in each burst.")] = 3000,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of measurements.")] = 3,
    database: DatabaseOption = Database.SQLITE,
    bundle: Bundle = None,
    out: Out = Path("chaos"),
) -> None:
    """Measure how many frames a second two workers inspect against one, each worker kept to one core."""
    directory, console, trained = _prepare(out, bundle)

    def make(workers: str, place: Path) -> AbstractContextManager[Run]:
        return line(place, trained, _make(database, place), int(workers), apart=True)

    rates = _capacities(("1", "2"), make, directory, frames, rounds, console)
    ratio = float(np.median(rates["2"]) / np.median(rates["1"]))
    typer.echo(json.dumps({"frames_per_s": rates, "two_against_one": round(ratio, 2)}))


def _capacities(
    names: Sequence[str],
    make: Callable[[str, Path], AbstractContextManager[Run]],
    directory: Path,
    frames: int,
    rounds: int,
    console: Console,
) -> dict[str, list[int]]:
    """Return the frames a second of each line, measured in turn so that a slow minute meets all of them."""
    rates: dict[str, list[int]] = {name: [] for name in names}
    for number in range(rounds):
        for name, measured in rates.items():
            place = directory / f"{number}-{name.replace(' ', '-')}"
            place.mkdir()
            with make(name, place) as run:
                measured.append(round(run.capacity(frames)))
            console.print(f"{name}: {measured[-1]} frames/s")
    return rates


def _prepare(out: Path, bundle: Path | None) -> tuple[Path, Console, Path]:
    """Return a folder for this run, where to report, and the model."""
    out.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="run-", dir=out)).resolve()
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"Everything goes into {directory}")
    trained = bundle or train_quickly(directory)
    load_bundle(trained)  # a wrong bundle is told before anything starts
    return directory, console, trained


def _broker(directory: Path, brokers: int | None, console: Console) -> StormyBroker:
    if brokers is None:
        brokers = KAFKA_BROKERS if ApacheKafka.is_available() else 0
        if not brokers:
            console.print(f"{VARIABLE} names no Apache Kafka: the embedded broker is used, which loses all when killed")
    return make_broker(directory, brokers)


def _make(database: Database, directory: Path) -> StormyDatabase:
    return SqliteFile(directory) if database is Database.SQLITE else PostgresServer()


def sound(figures: dict[str, object]) -> bool:
    """Return whether everything is accounted for."""
    nothing = ("missing", "duplicates", "wrong", "crashes")
    return figures["bank_consistent"] is True and not any(figures[key] for key in nothing)


def _run(world: World, plan: Plan, frames: int, rate: float, console: Console) -> dict[str, object]:
    feed = Feed(world.settings.kafka, rate)
    desk = connect(world.settings.database)
    engine = create_engine(world.database.url, pool_pre_ping=True)
    raging = Storm(world, plan, feed, Reviewer(ReviewDesk(desk), feed.kinds), engine)
    try:
        with Progress(console=console) as progress:
            task = progress.add_task("kills", total=plan.total)
            raging.rage(frames, lambda done: progress.update(task, completed=done))
            progress.update(task, description="calm", completed=plan.total)
            raging.calm()
        return _figures(raging, feed, console)
    finally:
        raging.stop()
        feed.close()
        engine.dispose()
        desk.dispose()


def _figures(storm: Storm, feed: Feed, console: Console) -> dict[str, object]:
    ends, toll, problems = storm.ends, storm.toll, storm.bank_problems()
    missing = (set(feed.kinds) - ends.frames) | toll.lost
    for problem in [*problems, *(f"frame {frame_id}: missing" for frame_id in sorted(missing))]:
        console.print(problem)
    return {
        "sent": len(feed.frame_ids),
        "stored": ends.count("normal", "defect"),
        "dead_lettered": ends.count("dead letter"),
        "uninspected": ends.count("uninspected"),
        "duplicates": ends.duplicates,
        "missing": len(missing),
        "wrong": ends.wrong(feed.kinds),
        "kills": toll.kills.total(),
        "outages": toll.outages,
        "bank_consistent": not problems,
        "crashes": toll.crashes,
        "forgotten_by_broker": feed.resent,
        "zombies": toll.zombies,
        "starts_without_server": toll.given_up,
        "kills_at": dict(sorted(toll.kills.items())),
    }


if __name__ == "__main__":
    sys.exit(run_app(app))
