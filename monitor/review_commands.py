"""``paedid-monitor review``: what people look at, and their word on it."""

from __future__ import annotations

import getpass
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from monitor.console import By, Why, plain_table, wide_console
from monitor.ports import Policy
from monitor.settings import Settings
from schemas.messages import RegionMessage, Verdict

if TYPE_CHECKING:  # the database takes a while to import; --help should not
    from monitor.adapters.review_desk import FlaggedFrame, FrameDetails, ReviewDesk

review_app = typer.Typer(
    no_args_is_help=True, help="Look at flagged parts, and say what they are. What you confirm as normal is learnt."
)
WAIT_S = 5.0
POLL_S = 0.05


class Word(StrEnum):
    """What a person says of a part."""

    NORMAL = "normal"
    DEFECT = "defect"


@review_app.command("list")
def list_flagged(
    context: typer.Context,
    camera: Annotated[str | None, typer.Option(help="Only this camera's parts.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Also those already reviewed.")] = False,
) -> None:
    """List the parts that were flagged or could not be inspected, the newest first."""
    with _desk(context.obj) as desk:
        frames = desk.list_flagged(limit, camera, only_open=not everything)
    if not frames:
        typer.echo("Nothing waits for review.")
        return
    table = plain_table("frame", "camera", "part", "captured", "verdict", "score/limit", "area", "review")
    for frame in frames:
        table.add_row(*_row(frame))
    wide_console().print(table)


@review_app.command()
def show(
    context: typer.Context,
    frame: Annotated[str, typer.Argument(help="A frame's id, or a beginning of it that only one frame has.")],
    save: Annotated[
        Path | None, typer.Option(help="Write the frame, its mask and an overlay into this folder.")
    ] = None,
) -> None:
    """Tell everything that is known about a frame."""
    with _desk(context.obj) as desk:
        details = desk.show(frame)
    console = Console(highlight=False, soft_wrap=True)
    for name, value in _facts(details):
        console.print(f"[bold]{name:<12}[/] {value}")
    for region in details.regions:
        console.print(f"  {_measures(region)}")
    if save is not None:
        from monitor.review_pictures import save_pictures

        for path in save_pictures(context.obj, details, save):
            console.print(f"wrote {path}")


@review_app.command()
def confirm(
    context: typer.Context,
    frame: Annotated[str, typer.Argument(help="A frame's id, or a beginning of it that only one frame has.")],
    word: Annotated[Word, typer.Argument(help="What the part really is.")],
    reviewer: By = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the learner has dealt with it.")] = True,
) -> None:
    """Say what a part really is. A part confirmed normal is taught to its camera's bank within a second."""
    with _desk(context.obj) as desk:
        review = desk.confirm(frame, Verdict(word.value), reviewer or getpass.getuser(), note)
        deadline = time.monotonic() + (WAIT_S if wait else 0.0)
        while review.outcome == "pending" and time.monotonic() < deadline:
            time.sleep(POLL_S)
            review = desk.show(review.frame_id).frame.review or review
    if review.outcome == "pending":
        typer.echo(f"{review.frame_id} is recorded as {review.verdict}; the learner has not dealt with it yet.")
        return
    version = f" (bank version {review.bank_version})" if review.bank_version is not None else ""
    typer.echo(
        f"{review.frame_id}: {review.verdict}, {review.outcome}{version}. {review.outcome_detail or ''}".rstrip()
    )


@review_app.command()
def retract(
    context: typer.Context,
    frame: Annotated[str, typer.Argument(help="A frame's id, or a beginning of it that only one frame has.")],
    reviewer: By = None,
    why: Why = None,
) -> None:
    """Take back what was said about a part. What it taught is forgotten within a second; it can be reviewed anew."""
    from monitor.adapters.bank_desk import BankDesk
    from monitor.bank_commands import wait_for
    from monitor.database_access import database_of_a_command

    with _desk(context.obj) as desk:
        review, orders = desk.retract(frame, reviewer or getpass.getuser(), why)
    typer.echo(f"{review.frame_id}: that {review.reviewer} confirmed it as {review.verdict} is taken back.")
    taken_back = "The review is taken back; 'bank status' shows whether the bank has followed."
    with database_of_a_command(context.obj, taken_back) as engine:
        for order in orders:
            typer.echo(wait_for(BankDesk(engine), order))


@contextmanager
def _desk(settings: Settings) -> Iterator[ReviewDesk]:
    from monitor.adapters.review_desk import ReviewDesk
    from monitor.database_access import database_of_a_command

    with database_of_a_command(settings) as engine:
        yield ReviewDesk(engine)


def _row(frame: FlaggedFrame) -> tuple[str, ...]:
    score = "" if frame.score is None else f"{frame.score:.1f}/{frame.threshold:.1f}"
    area = "" if frame.defect_area is None else f"{frame.defect_area:.2%}"
    verdict = frame.verdict.value if frame.reason is None else f"{frame.verdict.value}: {frame.reason}"
    review = "" if frame.review is None else f"{frame.review.verdict.value} by {frame.review.reviewer}"
    captured = f"{frame.captured_at.astimezone():%m-%d %H:%M:%S}"
    return frame.frame_id, frame.camera, frame.part_serial or "", captured, verdict, score, area, review


def _measures(region: RegionMessage) -> str:
    """Return a region's line: where it is, how large, and how odd. What was not measured is left out."""
    parts = [f"region at ({region.x}, {region.y}), {region.width}x{region.height} px, area {region.area:.0f} px"]
    if region.length is not None and region.breadth is not None:
        parts.append(f"{region.length:.1f} x {region.breadth:.1f} px at {region.orientation:.0f} degrees")
        parts.append(f"{region.path_length:.1f} px along it, {region.mean_width:.1f} px wide")
    if region.length_mm is not None and region.breadth_mm is not None:
        parts.append(
            f"that is {region.length_mm:.3g} x {region.breadth_mm:.3g} mm, {region.area_mm2:.3g} mm2, "
            f"{region.path_length_mm:.3g} mm along it, {region.mean_width_mm:.3g} mm wide"
        )
    parts.append(f"residual {region.mean_residual:.1f} (max {region.max_residual:.1f}) times the normal spread")
    return ", ".join(parts)


def _count(details: FrameDetails) -> str:
    listed = len(details.regions)
    count = listed if details.region_count is None else details.region_count
    return f"{count} regions" + (f", of which the {listed} largest were measured" if count > listed else "")


def _facts(details: FrameDetails) -> Iterator[tuple[str, str]]:
    frame = details.frame
    yield "frame", frame.frame_id
    yield "camera", frame.camera
    yield "part", f"{frame.part_serial or '-'}, lot {frame.lot or '-'}"
    yield "captured", f"{frame.captured_at.astimezone():%Y-%m-%d %H:%M:%S.%f %Z}"
    yield (
        "inspected",
        f"{details.latency_ms:.0f} ms later, model {details.model_id}, bank version {details.bank_version}",
    )
    yield "verdict", frame.verdict.value + (f" ({frame.reason})" if frame.reason else "")
    if frame.score is not None:
        yield "score", f"{frame.score:.2f}, flagged above {frame.threshold:.2f}"
        yield "mask", f"{frame.defect_area:.2%} of the frame in {_count(details)}"
    yield "log", f"{details.topic} partition {details.partition} offset {details.offset}"
    yield "image", frame.image_sha256 or "not kept (see images.keep)"
    if frame.review is not None:
        review = frame.review
        by = review.reviewer if review.policy is Policy.PERSON else "the rule"
        yield "review", f"{review.verdict.value} by {by}: {review.outcome}. {review.outcome_detail or ''}"
