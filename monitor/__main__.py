"""The command ``paedid-monitor``."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Annotated, Literal

# OpenMP threads that wait busily starve every other process on the machine; to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import structlog
import typer

from monitor.bank_commands import bank_app
from monitor.compare_commands import compare
from monitor.dlq_commands import dlq_app
from monitor.logs import configure_logging
from monitor.model_commands import model_app
from monitor.review_commands import review_app
from monitor.settings import Settings, load_settings
from monitor.settings_help import explain_settings
from monitor.shadow_commands import shadow
from schemas.commands import run_app
from schemas.errors import OperatorError

# What needs torch, Kafka or a database is imported by the command that needs it: the others, and --help, start at once.

log = structlog.get_logger()
app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(review_app, name="review")
app.add_typer(bank_app, name="bank")
app.add_typer(dlq_app, name="dlq")
app.add_typer(model_app, name="model")
model_app.command()(shadow)
model_app.command()(compare)


@app.callback()
def configure(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings as YAML; default: the file named by PAEDID_CONFIG, else the defaults.")
    ] = None,
) -> None:
    """Inspects a line's camera stream and learns from the people who review it.

    A line needs three programs running, each on any machine: 'camera' sends frames, 'run' inspects them, 'learn'
    teaches the memory bank what people confirm. 'review' is for those people, 'bank' for what the line has learned,
    'dlq' for frames that could not be inspected, 'model' for changing to another model.
    """
    if context.resilient_parsing or not context.invoked_subcommand:
        return
    settings = load_settings(config)
    configure_logging(settings.log)
    context.obj = settings


@app.command()
def run(context: typer.Context) -> None:
    """Inspect frames until told to stop (Ctrl-C or SIGTERM finishes the batch in hand).

    Any number of these may run; they share the cameras between them.
    """
    from monitor import wiring
    from monitor.worker import run_worker

    settings: Settings = context.obj
    inspector = wiring.load_inspector(settings.model)
    with wiring.open_worker_ports(settings) as ports:
        run_worker(settings, inspector, ports)


@app.command()
def learn(context: typer.Context) -> None:
    """Teach the memory bank what people confirm as normal, until told to stop."""
    from monitor import wiring
    from monitor.learning.school import keep_learning
    from monitor.signals import stopping_on_signals

    settings: Settings = context.obj
    inspector = wiring.load_inspector(settings.model)
    stop = threading.Event()
    with wiring.open_school(settings, inspector) as school, stopping_on_signals(stop):
        log.info("Learning", model=inspector.manifest.model_id)
        keep_learning(school.step, stop, settings.review.poll_interval_s)
        log.info("Stopped")


@app.command()
def camera(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(help="A folder of images, a video file, a device number, or any OpenCV URL.")
    ],
    camera_id: Annotated[str, typer.Option("--camera", help="The camera's name: letters, digits and . _ : -")],
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=10_000, help="Frames a second; default: as the source gives them.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after so many frames.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Start a folder or a video again at its end.")] = False,
    encoding: Annotated[Literal["png", "jpeg"], typer.Option(help="For videos and live cameras.")] = "png",
    lot: Annotated[str | None, typer.Option(help="The lot that all frames belong to.")] = None,
    deadline_ms: Annotated[
        int | None, typer.Option(min=1, help="Frames not inspected so long after capture are stored as uninspected.")
    ] = None,
) -> None:
    """Send a camera's frames to Kafka, where the workers pick them up.

    Examples:
      paedid-monitor camera images/ --camera line-1 --rate 10

      paedid-monitor camera rtsp://10.0.0.7/stream --camera line-1 --rate 5
    """
    from monitor.camera import run_camera

    settings: Settings = context.obj
    summary = run_camera(
        source,
        camera_id,
        settings.kafka,
        settings.limits,
        rate=rate,
        limit=limit,
        loop=loop,
        encoding=encoding,
        lot=lot,
        deadline_ms=deadline_ms,
    )
    typer.echo(summary.told())
    if summary.problem is not None:
        raise OperatorError(summary.problem)


@app.command()
def migrate(context: typer.Context) -> None:
    """Bring the database's tables up to date. Harmless where they are."""
    from monitor.adapters import migrations
    from monitor.adapters.database import connect

    settings: Settings = context.obj
    connect(settings.database).dispose()
    migrations.upgrade(settings.database.url.get_secret_value())
    typer.echo("The tables are up to date.")


@app.command()
def settings(context: typer.Context) -> None:
    """Print the settings in force as a YAML file, each with its meaning and its environment variable."""
    typer.echo("\n".join(explain_settings(context.obj)))


def main() -> None:
    """Run ``paedid-monitor``."""
    sys.exit(run_app(app))


if __name__ == "__main__":
    main()
