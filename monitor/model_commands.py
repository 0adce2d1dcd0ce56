"""``paedid-monitor model``: which model inspects which camera, changed while the line runs."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import TypeAdapter, ValidationError
from rich.markup import escape

from monitor.assignments import Assignment, Chosen, PerCamera, Role
from monitor.console import By, Why, plain_table, wide_console
from monitor.settings import Settings
from schemas.errors import OperatorError
from schemas.messages import Identifier

if TYPE_CHECKING:  # the database and torch take a while to import; --help should not
    from sqlalchemy import Engine

    from monitor.adapters.model_desk import SqlModelDesk

model_app = typer.Typer(
    no_args_is_help=True, help="See which model inspects which camera, change to another, and go back; no restart."
)
EVERY = "every other"
SOON = "Workers and learners take it over within seconds, between two batches."

Camera = Annotated[str | None, typer.Option(help="Only this camera; default: every camera without one of its own.")]


@dataclass(frozen=True)
class Opened:
    """What a command works with: the assignments, and what follows from them."""

    engine: Engine
    desk: SqlModelDesk
    models: PerCamera[Chosen]
    shadows: PerCamera[Chosen]

    def of(self, camera: str | None) -> list[Assignment]:
        """Return all assignments of a camera, or those for every camera, the oldest first."""
        return [each for each in self.desk.history() if each.camera == camera]


@model_app.command()
def activate(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The bundle that paedid-trainer wrote, where workers find it too.")],
    camera: Camera = None,
    by: By = None,
    why: Why = None,
) -> None:
    """Let another model inspect, from the next batch on; no frame is lost, and nothing is started again.

    First the new model learns what the line has taught the old one: each confirmed normal is looked at again. The old
    model's bank stays as it is, and 'model rollback' goes back.
    """
    from monitor.adapters.review_desk import require_name
    from monitor.inheritance import hand_down, open_heir
    from schemas.artifacts import read_manifest

    who = by or getpass.getuser()
    require_name(who)  # before all that takes long
    require_camera(camera)
    chosen = Chosen(read_manifest(bundle).model_id, bundle.resolve())
    with opened_models(context.obj) as opened:
        old = opened.models.of(camera)
        own = camera is None or camera in opened.models.own
        if own and old == chosen:
            typer.echo(f"Model {chosen.model_id} is active {for_camera(camera)} already. Nothing was changed.")
            return
        with open_heir(context.obj, old.model_id, bundle) as heir:
            concerned = [camera] if camera else [each for each in heir.known_cameras() if each not in opened.models.own]
            if old.model_id != chosen.model_id:
                # Until nothing is new: meanwhile people go on to confirm.
                while hand_down(heir, concerned):
                    pass
            for each in concerned:
                heir.open(each)
        opened.desk.assign(camera, chosen, who, why)
        before = f"in place of {old.model_id}" if old.model_id != chosen.model_id else "as it was"
        typer.echo(f"Model {chosen.model_id} is active {for_camera(camera)}, {before}. {SOON}")
        if camera is None:
            for name, its in sorted(opened.models.own.items()):
                typer.echo(f"{name} keeps its own, {its.model_id}; 'model rollback --camera {name}' changes that.")


@model_app.command()
def rollback(context: typer.Context, camera: Camera = None, by: By = None, why: Why = None) -> None:
    """Go back to what was assigned before, with the bank as it was then. Done twice, it undoes itself."""
    from schemas.artifacts import read_manifest

    with opened_models(context.obj) as opened:
        past = opened.of(camera)
        if not past:
            msg = f"no model was ever assigned {for_camera(camera)}, so there is nothing to go back to"
            raise OperatorError(msg)
        chosen = past[-2].chosen if len(past) > 1 else None
        if chosen is not None and read_manifest(chosen.bundle).model_id != chosen.model_id:
            msg = f"{chosen.bundle}: holds another model than {chosen.model_id} by now; 'model activate' the right one"
            raise OperatorError(msg)
        opened.desk.assign(camera, chosen, by or getpass.getuser(), why or "rollback")
    with opened_models(context.obj) as opened:
        typer.echo(f"Model {opened.models.of(camera).model_id} is active {for_camera(camera)} again. {SOON}")


@model_app.command()
def status(context: typer.Context) -> None:
    """Tell which model is active for which camera, since when, which one inspected its newest frame, and its shadow."""
    with opened_models(context.obj) as opened:
        in_force = {each.camera: each for each in opened.desk.in_force() if each.chosen is not None}
        in_use = opened.desk.in_use()
        table = plain_table("camera", "model", "newest frame by", "since", "by", "why", "shadow", "bundle")
        for camera in (*sorted({*in_use, *opened.models.own, *opened.shadows.own}), None):
            chosen = opened.models.of(camera)
            said = in_force.get(camera) or in_force.get(None)
            facts = (when(said), said.by, said.why or "") if said else ("", "settings", "")
            used = in_use.get(camera, "") if camera else ""
            looks_on, bundle = opened.shadows.of(camera).model_id, escape(str(chosen.bundle))
            table.add_row(camera or EVERY, chosen.model_id, used, *map(escape, facts), looks_on, bundle)
        wide_console().print(table)


@model_app.command()
def history(
    context: typer.Context,
    camera: Camera = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many at most, the newest first.")] = 30,
) -> None:
    """List who assigned which model, also as a shadow, when and why, the newest first; with --camera for it alone."""
    with opened_models(context.obj) as opened:
        said = [each for role in Role for each in opened.desk.history(role) if camera in {None, each.camera}]
    past = sorted(said, key=lambda each: each.at)
    if not past:
        typer.echo("No model was ever assigned: the settings' inspects.")
        return
    table = plain_table("when", "camera", "role", "model", "by", "why", "bundle")
    for each in past[: -limit - 1 : -1]:
        model, bundle = (each.chosen.model_id, str(each.chosen.bundle)) if each.chosen else ("none", "")
        table.add_row(
            when(each), each.camera or EVERY, each.role.value, model, *map(escape, (each.by, each.why or "", bundle))
        )
    wide_console().print(table)


@contextmanager
def opened_models(settings: Settings) -> Iterator[Opened]:
    """Open what a command works with; of a database that goes away, it gets the operator's error.

    Raises:
        BundleError, ServiceUnavailableError, ConfigurationError.
    """
    from monitor.adapters.model_desk import SqlModelDesk
    from monitor.database_access import database_of_a_command
    from monitor.models_in_force import models_in_force, shadows_in_force

    with database_of_a_command(settings, "No model was assigned; try again.") as engine:
        yield Opened(engine, SqlModelDesk(engine), models_in_force(settings, engine), shadows_in_force(engine))


def require_camera(camera: str | None) -> None:
    """Raise OperatorError unless a camera can have this id."""
    try:
        TypeAdapter(Identifier | None).validate_python(camera)
    except ValidationError as error:
        msg = f"--camera {camera!r}: no camera can have this id; give 1 to 128 letters, digits and . _ : -"
        raise OperatorError(msg) from error


def for_camera(camera: str | None) -> str:
    """Return for whom an assignment is."""
    return f"for camera {camera}" if camera else "for every camera without one of its own"


def when(said: Assignment) -> str:
    """Return the local time of an assignment."""
    return f"{said.at.astimezone():%Y-%m-%d %H:%M:%S}"
