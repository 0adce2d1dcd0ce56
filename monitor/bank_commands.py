"""``paedid-monitor bank``: what a line has learned, and taking it back."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from monitor.console import By, Why, plain_table, wide_console
from monitor.ports import BankEntry, BankKey, BankOrder, OrderKind, Policy
from monitor.settings import Settings
from schemas.errors import OperatorError

if TYPE_CHECKING:  # the database and numpy take a while to import; --help should not
    import numpy as np
    from numpy.typing import NDArray
    from sqlalchemy import Engine

    from monitor.adapters.bank_desk import BankDesk
    from monitor.assignments import Chosen, PerCamera
    from monitor.ports import BankStore

bank_app = typer.Typer(
    no_args_is_help=True,
    help="See what the memory banks have learned, check it, and take it back. Every change is a new version.",
)
WAIT_S = 5.0
POLL_S = 0.05

Camera = Annotated[str | None, typer.Option(help="Whose bank; may be left out where there is only one.")]


@dataclass(frozen=True)
class _Open:
    """What a command works with: the book, and the models that inspect the cameras now."""

    settings: Settings
    engine: Engine
    desk: BankDesk
    models: PerCamera[Chosen]

    def in_force(self, key: BankKey) -> bool:
        """Return whether a bank is of the model that inspects its camera."""
        return key.model_id == self.models.of(key.camera).model_id

    def bundle(self, model_id: str) -> Path:
        """Return where a model's bundle lay when it was last assigned, or else the settings' bundle."""
        from monitor.adapters.model_desk import SqlModelDesk

        chosen = [each.chosen for each in SqlModelDesk(self.engine).history() if each.chosen is not None]
        return next((each.bundle for each in reversed(chosen) if each.model_id == model_id), self.settings.model.bundle)

    def key(self, camera: str | None) -> BankKey:
        """Return the bank that is meant.

        Raises:
            OperatorError: there is none, or there are several.
        """
        keys = [key for key in self.desk.banks() if self.in_force(key)]
        known = ", ".join(key.camera for key in keys) or "none"
        if camera is None and len(keys) == 1:
            return keys[0]
        if camera is None:
            msg = f"say whose bank with --camera; cameras with a bank of the model that inspects them: {known}"
            raise OperatorError(msg)
        key = BankKey(camera, self.models.of(camera).model_id)
        if key not in keys:
            msg = f"camera {camera!r} has no bank of model {key.model_id}; cameras that have: {known}"
            raise OperatorError(msg)
        return key


@bank_app.command()
def status(context: typer.Context) -> None:
    """Tell of every bank: version, what it has learned, what waits, what is paused, whether the line has drifted."""
    with _opened(context.obj) as opened, _store(opened.settings) as store:
        from monitor.adapters.drift_reports import SqlDriftReports
        from monitor.bank_status import status_table, status_words

        console = wide_console()
        keys = [key for key in opened.desk.banks() if opened.in_force(key)]
        models = sorted({each.model_id for each in opened.models.each()})
        reports = [report for model_id in models for report in SqlDriftReports(opened.engine).of_model(model_id)]
        console.print(status_table(opened.desk, store, keys, reports, opened.settings.model.bank_bytes))
        for line in status_words(opened.desk, models):
            console.print(line, highlight=False, soft_wrap=True)


@bank_app.command()
def history(
    context: typer.Context,
    camera: Camera = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="How many edits at most, the newest first.")] = 30,
) -> None:
    """List a bank's edits, the newest first: what came and went, by whose word, and why."""
    with _opened(context.obj) as opened:
        entries = opened.desk.entries(opened.key(camera))
    edits = sorted((edit for entry in entries for edit in _edits(entry)), reverse=True)
    if not edits:
        typer.echo("This bank has learned nothing yet.")
        return
    table = plain_table("version", "when", "edit", "frame", "by", "why")
    for version, when, edit, frame, by, why in edits[:limit]:
        table.add_row(str(version), when, edit, frame, by, why)
    wide_console().print(table)


@bank_app.command()
def show(
    context: typer.Context,
    frame: Annotated[str, typer.Argument(help="A frame's id, or a beginning of it that only one frame has.")],
    save: Annotated[Path | None, typer.Option(help="Write its picture, and which locations it keeps, here.")] = None,
) -> None:
    """Tell everything about what a frame taught: since when, by whom, why, and how much of it is kept."""
    with _opened(context.obj) as opened:
        entries = opened.desk.entries_of(frame)
        console = Console(highlight=False, soft_wrap=True)
        for entry in entries:
            for name, value in _facts(entry):
                console.print(f"[bold]{name:<10}[/] {value}")
            console.print()
        if save is not None:
            from monitor.review_pictures import save_taught

            bundle = opened.bundle(entries[-1].model_id)
            console.print(f"wrote {save_taught(opened.settings, entries[-1], bundle, save)}")


@bank_app.command()
def verify(context: typer.Context, camera: Camera = None) -> None:
    """Hold a bank in Redis against the database, byte for byte. Exit code 1 if it is not what it should be."""
    from monitor.errors import BankMissingError
    from monitor.learning.audit import audit

    with _opened(context.obj) as opened, _store(opened.settings) as store:
        key = opened.key(camera)
        active = [entry for entry in opened.desk.entries(key) if entry.version_removed is None]
        try:
            found = audit(store, key, _seed(opened.bundle(key.model_id)), active)
        except BankMissingError as error:
            msg = f"{error}. The learner makes it anew within seconds if it runs ('paedid-monitor learn')."
            raise OperatorError(msg) from error
    typer.echo(
        f"{key.camera}: version {found.version}, {found.pinned} pinned and {found.learned} learned normals "
        f"({found.size_bytes} bytes)"
    )
    typer.echo(f"checksum {found.checksum}")
    for problem in found.problems:
        typer.echo(problem)
    if found.problems:
        typer.echo("This is not what the database says. 'bank rebuild' makes the bank anew.")
        raise typer.Exit(1)
    typer.echo("As the database says.")


@bank_app.command()
def rebuild(context: typer.Context, camera: Camera = None, by: By = None, why: Why = None) -> None:
    """Make a bank in Redis anew, of what the database says: the same bytes, under a new version."""
    _order(context.obj, OrderKind.REBUILD, camera, by, why)


@bank_app.command()
def rollback(
    context: typer.Context,
    version: Annotated[int, typer.Argument(min=0, help="As of which version; 0: the training normals alone.")],
    camera: Camera = None,
    by: By = None,
    why: Why = None,
) -> None:
    """Go back to what a bank held at an earlier version. The way back is new versions, so it can be undone alike."""
    _order(context.obj, OrderKind.ROLLBACK, camera, by, why, version=version)


@bank_app.command()
def quarantine(
    context: typer.Context,
    frame: Annotated[str, typer.Argument(help="A frame's id, or a beginning of it that only one frame has.")],
    by: By = None,
    why: Why = None,
) -> None:
    """Take what a frame taught out of every bank, for good: no rollback and no new model brings it back."""
    with _opened(context.obj) as opened:
        entries = opened.desk.entries_of(frame)
        keys = sorted({BankKey(entry.camera, entry.model_id) for entry in entries}, key=lambda key: key.model_id)
        who, frame_id = by or getpass.getuser(), entries[0].frame_id
        orders = [opened.desk.order(OrderKind.QUARANTINE, key, who, why, frame_id=frame_id) for key in keys]
        for key, order in zip(keys, orders, strict=True):
            if opened.in_force(key):
                typer.echo(wait_for(opened.desk, order))


@bank_app.command()
def snapshot(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    camera: Camera = None,
) -> None:
    """Write what a bank has learned to a file, for 'bank restore'. Pinned normals are in the bundle."""
    from monitor.learning.snapshot import of_store
    from schemas.artifacts import read_manifest

    with _opened(context.obj) as opened, _store(opened.settings) as store:
        key = opened.key(camera)
        active = [entry for entry in opened.desk.entries(key) if entry.version_removed is None]
        bundle = opened.bundle(key.model_id)
        taken = of_store(store, key, read_manifest(bundle), len(_seed(bundle)), active)
        file.write_bytes(taken.to_bytes())
    typer.echo(f"wrote {file}: {len(taken.entries)} normals, as of version {taken.version}")


@bank_app.command()
def restore(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A file that 'bank snapshot' wrote.")],
    camera: Camera = None,
    by: By = None,
    why: Why = None,
) -> None:
    """Go back to what a snapshot holds. What the bank has learned since leaves it; quarantined frames stay out."""
    from monitor.adapters.images import FsspecImageStore
    from monitor.learning.snapshot import MOST_BYTES, Snapshot

    if file.stat().st_size > MOST_BYTES:
        msg = f"{file}: larger than {MOST_BYTES} bytes, so not a snapshot"
        raise OperatorError(msg)
    data = file.read_bytes()
    taken = Snapshot.from_bytes(data)
    sha256 = FsspecImageStore(context.obj.images.url).put(data)
    reason = f"{file.name}, version {taken.version} of {taken.camera}" + (f": {why}" if why else "")
    _order(context.obj, OrderKind.RESTORE, camera, by, reason, snapshot_sha256=sha256)


@bank_app.command()
def diff(
    context: typer.Context,
    first: Annotated[int, typer.Argument(min=0, help="A version.")],
    second: Annotated[int, typer.Argument(min=0, help="Another one.")],
    camera: Camera = None,
) -> None:
    """List what a bank gained (+) and lost (-) from one version to another."""
    with _opened(context.obj) as opened:
        entries = opened.desk.entries(opened.key(camera))
    before, after = ({entry.frame_id: entry for entry in entries if _held(entry, at)} for at in (first, second))
    for frame_id in sorted(after.keys() - before.keys()):
        typer.echo(f"+ {frame_id}  version {after[frame_id].version_added}, by {after[frame_id].added_by}")
    for frame_id in sorted(before.keys() - after.keys()):
        gone = before[frame_id]
        typer.echo(f"- {frame_id}  version {gone.version_removed}, by {gone.removed_by}: {gone.removed_why}")
    if before.keys() == after.keys():
        typer.echo(f"The bank held the same {len(after)} learned normals at both versions.")


@bank_app.command()
def pause(
    context: typer.Context,
    policy: Annotated[Policy, typer.Argument(help="Whose word is to teach nothing for now.")],
    by: By = None,
    why: Why = None,
) -> None:
    """Let a policy teach nothing until it is resumed. What people confirm meanwhile waits and is not lost."""
    with _opened(context.obj) as opened:
        done = opened.desk.pause(policy, by or getpass.getuser(), why)
    typer.echo(f"{policy.value}: paused." if done else f"{policy.value}: was paused already.")


@bank_app.command()
def resume(
    context: typer.Context,
    policy: Annotated[Policy, typer.Argument(help="Whose word is to teach again.")],
    by: By = None,
) -> None:
    """Let a policy teach again, beginning with what was confirmed meanwhile."""
    with _opened(context.obj) as opened:
        done = opened.desk.resume(policy, by or getpass.getuser())
    typer.echo(f"{policy.value}: teaches again." if done else f"{policy.value}: was not paused.")


@bank_app.command()
def inherit(
    context: typer.Context,
    bundle: Annotated[Path, typer.Argument(help="The new model's bundle; the settings still name the old one.")],
) -> None:
    """Teach a new model what the line has taught the settings' model, and change nothing else.

    Every confirmed normal is looked at again with the new model, and so are the golden defects, so that the gate stands
    from the start. 'model activate' does the same and then switches; this is for those who switch by model.bundle, and
    for the cameras that the settings' model inspects.
    """
    from monitor.inheritance import hand_down, open_heir
    from schemas.artifacts import read_manifest

    settings: Settings = context.obj
    old_model = read_manifest(settings.model.bundle).model_id
    if read_manifest(bundle).model_id == old_model:
        msg = (
            f"{bundle} is the bundle that the settings name: name the new one here, and leave the settings as they are"
        )
        raise OperatorError(msg)
    with _opened(settings) as opened, open_heir(settings, old_model, bundle) as heir:
        # No bank that a learner is teaching at this moment.
        cameras = [each for each in heir.taught_cameras() if opened.models.of(each).model_id == old_model]
        if not hand_down(heir, cameras):
            typer.echo(f"Nothing to inherit: model {old_model} was taught nothing that {heir.model_id} lacks.")


def wait_for(desk: BankDesk, order_id: int) -> str:
    """Wait a while for the learner; say what became of an order.

    Raises:
        OperatorError: the learner refused it.
    """
    deadline = time.monotonic() + WAIT_S
    order = desk.find_order(order_id)
    while order.outcome == "pending" and time.monotonic() < deadline:
        time.sleep(POLL_S)
        order = desk.find_order(order_id)
    if order.outcome == "refused":
        raise OperatorError(order.outcome_detail or "refused")
    if order.outcome == "pending":
        return (
            f"{order.kind.value} is recorded; the learner has not dealt with it yet: does 'paedid-monitor learn' run?"
        )
    return _told(order)


def _told(order: BankOrder) -> str:
    return f"{order.camera}: {order.outcome_detail} (bank version {order.bank_version})"


def _order(
    settings: Settings,
    kind: OrderKind,
    camera: str | None,
    by: str | None,
    why: str | None,
    *,
    version: int | None = None,
    snapshot_sha256: str | None = None,
) -> None:
    with _opened(settings) as opened:
        who = by or getpass.getuser()
        key = opened.key(camera)
        order = opened.desk.order(kind, key, who, why, version=version, snapshot_sha256=snapshot_sha256)
        typer.echo(wait_for(opened.desk, order))


@contextmanager
def _opened(settings: Settings) -> Iterator[_Open]:
    from monitor.adapters.bank_desk import BankDesk
    from monitor.database_access import database_of_a_command
    from monitor.models_in_force import models_in_force

    with database_of_a_command(settings) as engine:
        yield _Open(settings, engine, BankDesk(engine), models_in_force(settings, engine))


@contextmanager
def _store(settings: Settings) -> Iterator[BankStore]:
    from monitor.adapters.redis_bank import RedisBankStore

    store = RedisBankStore(settings.redis)
    try:
        yield store
    finally:
        store.close()


def _seed(bundle: Path) -> NDArray[np.float16]:
    from safetensors.numpy import load_file

    from schemas.artifacts import BANK

    entries: NDArray[np.float16] = load_file(bundle / BANK)["entries"]
    return entries


def _held(entry: BankEntry, version: int) -> bool:
    return entry.version_added <= version and (entry.version_removed is None or entry.version_removed > version)


def _edits(entry: BankEntry) -> Iterator[tuple[int, str, str, str, str, str]]:
    when = f"{entry.added_at.astimezone():%Y-%m-%d %H:%M:%S}" if entry.added_at else ""
    by = entry.added_by if entry.policy is Policy.PERSON else f"{entry.added_by} (by rule)"
    yield entry.version_added, when, "added", entry.frame_id, by, entry.why or ""
    if entry.version_removed is not None:
        gone = f"{entry.removed_at.astimezone():%Y-%m-%d %H:%M:%S}" if entry.removed_at else ""
        yield entry.version_removed, gone, "removed", entry.frame_id, entry.removed_by or "", entry.removed_why or ""


def _facts(entry: BankEntry) -> Iterator[tuple[str, str]]:
    yield "frame", entry.frame_id
    yield "bank", f"{entry.camera}, model {entry.model_id}, slot {entry.slot}"
    when = f" on {entry.added_at.astimezone():%Y-%m-%d %H:%M:%S %Z}" if entry.added_at else ""
    yield "added", f"version {entry.version_added}{when}, by {entry.added_by} ({entry.policy.value})"
    yield "why", entry.why or "-"
    if entry.version_removed is not None:
        gone = f" on {entry.removed_at.astimezone():%Y-%m-%d %H:%M:%S %Z}" if entry.removed_at else ""
        yield "removed", f"version {entry.version_removed}{gone}, by {entry.removed_by}: {entry.removed_why}"
    else:
        yield "removed", "no, it is in the bank"
    yield "kept", f"{_kept(entry)} ({entry.size_bytes} bytes)"
    yield "image", entry.image_sha256
    yield "entry", entry.features_sha256


def _kept(entry: BankEntry) -> str:
    if entry.locations is None:
        return "all of its locations"
    return f"{int.from_bytes(entry.locations).bit_count()} of its locations"
