"""``paedid-monitor model shadow``: a model that looks on, to be compared with the active one before it is trusted."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from monitor.assignments import NO_MODEL, Chosen, Role
from monitor.console import By, Why
from monitor.model_commands import SOON, Camera, Opened, for_camera, opened_models, require_camera
from monitor.settings import Settings
from schemas.errors import OperatorError


def shadow(
    context: typer.Context,
    bundle: Annotated[
        Path | None, typer.Argument(help="The bundle that paedid-trainer wrote, where workers find it too.")
    ] = None,
    camera: Camera = None,
    off: Annotated[bool, typer.Option("--off", help="End it; what it found stays in the database.")] = False,
    by: By = None,
    why: Why = None,
) -> None:
    """Let a model inspect the same frames without a say; 'model compare' tells how it does.

    First it learns what the line has taught the active model. What is confirmed later, it learns when this command is
    given again, or when it is activated.
    """
    from monitor.adapters.review_desk import require_name

    if (bundle is None) != off:
        msg = "give either the bundle of the model that is to look on, or --off to end it"
        raise OperatorError(msg)
    who = by or getpass.getuser()
    require_name(who)  # before all that takes long
    require_camera(camera)
    with opened_models(context.obj) as opened:
        if bundle is None:
            _end(opened, camera, who, why)
        else:
            _begin(context.obj, opened, bundle, camera, who, why)


def _begin(settings: Settings, opened: Opened, bundle: Path, camera: str | None, who: str, why: str | None) -> None:
    from schemas.artifacts import read_manifest

    chosen = Chosen(read_manifest(bundle).model_id, bundle.resolve())
    if opened.models.of(camera).model_id == chosen.model_id:
        msg = f"model {chosen.model_id} is active {for_camera(camera)}: name another one to be compared with it"
        raise OperatorError(msg)
    _teach(settings, opened, chosen, camera)
    opened.desk.assign(camera, chosen, who, why, Role.SHADOW)
    beside = opened.models.of(camera).model_id
    typer.echo(f"Model {chosen.model_id} looks on {for_camera(camera)}, beside {beside}; it has no say. {SOON}")
    if camera is None:
        _tell_others(opened)


def _teach(settings: Settings, opened: Opened, chosen: Chosen, camera: str | None) -> None:
    """Let the shadow learn what the line has taught the model that is active for each of its cameras."""
    from monitor.adapters.bank_desk import BankDesk
    from monitor.inheritance import hand_down, open_heir

    known = sorted({key.camera for key in BankDesk(opened.engine).banks()})
    cameras = [camera] if camera else [each for each in known if each not in opened.shadows.own]
    actives = {opened.models.of(each).model_id for each in (*cameras, camera)} - {chosen.model_id}
    for active in sorted(actives):
        with open_heir(settings, active, chosen.bundle) as heir:
            theirs = [each for each in cameras if opened.models.of(each).model_id == active]
            # Until nothing is new: meanwhile people go on to confirm.
            while hand_down(heir, theirs):
                pass
            for each in theirs:
                heir.open(each)


def _end(opened: Opened, camera: str | None, who: str, why: str | None) -> None:
    shadows = opened.shadows
    own = shadows.others if camera is None else shadows.own.get(camera, NO_MODEL)
    if own == NO_MODEL:
        msg = f"no model was told to look on {for_camera(camera)}, so there is nothing to end"
        if camera and shadows.others != NO_MODEL:
            msg += f"; {shadows.others.model_id} looks on for all without their own: 'model shadow --off' ends that"
        raise OperatorError(msg)
    opened.desk.assign(camera, None, who, why, Role.SHADOW)
    typer.echo(f"Model {own.model_id} does not look on {for_camera(camera)} any more. {SOON}")
    if camera is None:
        _tell_others(opened)
    elif shadows.others != NO_MODEL:
        typer.echo(f"{shadows.others.model_id} does, as for every camera without one of its own.")


def _tell_others(opened: Opened) -> None:
    for name, its in sorted(opened.shadows.own.items()):
        typer.echo(f"{name} keeps its own, {its.model_id}; 'model shadow --off --camera {name}' ends that.")
