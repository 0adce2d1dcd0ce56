"""``python -m deploy.local``: the whole monitor on one machine, with servers of its own."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

# OpenMP threads that wait busily starve every other process on the machine; to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import typer
from rich.console import Console

from monitor.logs import configure_logging
from monitor.settings import LogSettings
from schemas.commands import run_app
from schemas.errors import ConfigurationError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def describe() -> None:
    """The whole monitor on one machine, with a Kafka broker, Valkey and SQLite of its own."""
    configure_logging(LogSettings(level="warning"))


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="A data set in MVTec layout to train on and stream; default: a simulated line.")
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, help="Parts to measure; default: all, or 400 simulated.")] = None,
    exit_: Annotated[bool, typer.Option("--exit", help="End by itself when the story is told.")] = False,
    report: Annotated[Path | None, typer.Option(help="Also write the figures here, as JSON.")] = None,
    out: Annotated[Path, typer.Option(help="Where the model, the database, images and logs go.")] = Path("demo"),
    rate: Annotated[
        float | None, typer.Option(min=0.01, help="Parts a second; default: as fast as they are inspected.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps of training; fewer is quicker.")] = None,
    lessons: Annotated[int, typer.Option(min=0, help="Falsely flagged parts to confirm as normal.")] = 5,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
) -> None:
    """Train, stream parts through Kafka, inspect them, confirm a false alarm, and see the part pass."""
    from deploy.local.demo import DemoSettings, run_demo

    settings = DemoSettings(
        directory=_fresh(out), data=data, frames=frames, rate=rate, steps=steps, lessons=lessons,
        exit=exit_, report=report, seed=seed,
    )  # fmt: skip
    run_demo(settings, Console())


@app.command()
def up(
    bundle: Annotated[Path, typer.Argument(help="The model, as paedid-trainer wrote it.")],
    out: Annotated[Path, typer.Option(help="Where the database, the bank, images and logs go; used again next time.")],
) -> None:
    """Run a line's broker, bank, database, worker and learner here until Ctrl-C; attach cameras to it.

    The broker keeps frames in memory: those not yet inspected when it stops are lost. For a plant, give the programs
    servers of your own (see 'paedid-monitor settings').
    """
    from deploy.local.stack import Stack
    from monitor.adapters.artifacts import load_bundle

    load_bundle(bundle)  # a wrong bundle is told before anything starts
    console = Console(soft_wrap=True, highlight=False)
    with Stack(out, bundle) as stack:
        stack.wait_until_ready()
        monitor = f"paedid-monitor --config {stack.config}"
        console.print(f"Ready. Logs, images and the database are in {stack.directory}.")
        console.print(f"  attach a camera   {monitor} camera SOURCE --camera NAME --rate FPS")
        console.print(f"  review parts      {monitor} review list")
        console.print("Ctrl-C stops it.")
        try:
            while True:
                stack.check()
                time.sleep(1.0)
        except KeyboardInterrupt:
            console.print("Stopping ...")


def _fresh(out: Path) -> Path:
    """Return a folder for one run of the demo below ``out``, never one used before.

    Raises:
        ConfigurationError: nothing can be written there.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="run-", dir=out)).resolve()
    except OSError as error:
        raise ConfigurationError(
            "--out", str(out), error.strerror or str(error), "Name a folder that can be written."
        ) from None


if __name__ == "__main__":
    sys.exit(run_app(app))
