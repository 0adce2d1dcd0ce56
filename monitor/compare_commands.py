"""``paedid-monitor model compare``: how a shadow judged the frames that the active model inspected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from monitor.console import plain_table, wide_console
from monitor.model_commands import require_camera
from monitor.settings import Settings
from schemas.errors import OperatorError

if TYPE_CHECKING:  # the database takes a while to import; --help should not
    from monitor.adapters.shadow_desk import Disagreement, Look
    from monitor.comparison import Comparison, Share

MOST_DAYS = 36_500


def compare(
    context: typer.Context,
    camera: Annotated[str | None, typer.Option(help="Only this camera's frames.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only frames from then on: days back, or a time, 2026-05-06T07:08; default: all.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=0, max=1000, help="How many frames on which they disagree, the newest first.")
    ] = 20,
    save: Annotated[
        Path | None, typer.Option(help="Write these frames into this folder: active outlined in red, shadow in blue.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object.")] = False,
) -> None:
    """Compare a shadow with the active model, on the frames that both inspected.

    False rejects and misses are counted on frames that people reviewed. People mostly review what the active model
    flags: its misses are seldom among them, nor what the shadow alone flags. Review those listed here, too.
    """
    require_camera(camera)
    from_then = since_when(since, datetime.now(UTC))
    comparisons, found = _read(context.obj, camera, from_then, limit)
    if not comparisons:
        where = (f" of camera {camera}" if camera else "") + (
            f" since {from_then:%Y-%m-%d %H:%M %Z}" if from_then else ""
        )
        msg = (
            f"no frame{where} was inspected by a shadow beside the active model: 'model shadow BUNDLE' lets one look on"
        )
        raise OperatorError(msg)
    if as_json:
        figures = {
            "comparisons": [asdict(each) for each in comparisons],
            "disagreements": [_as_json(each) for each in found],
        }
        typer.echo(json.dumps(figures, indent=2, allow_nan=False))
    else:
        _print(comparisons, found)
    if save is not None:
        _save(context.obj, found, save)


def since_when(since: str | None, now: datetime) -> datetime | None:
    """Return the time that a person means: days back from ``now``, or a time, without a zone the local one.

    Raises:
        OperatorError: it is neither, or more than a hundred years ago.
    """
    if since is None:
        return None
    msg = f"--since {since!r}: give days back, 0 to {MOST_DAYS}, or a time such as 2026-05-06 or 2026-05-06T07:08"
    try:
        days = float(since)
    except ValueError:
        try:
            return datetime.fromisoformat(since).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise OperatorError(msg) from error
    if not 0 <= days <= MOST_DAYS:  # nor is it what is not a number
        raise OperatorError(msg)
    return now - timedelta(days=days)


def _read(
    settings: Settings, camera: str | None, since: datetime | None, limit: int
) -> tuple[Sequence[Comparison], Sequence[Disagreement]]:
    from monitor.adapters.shadow_desk import SqlShadowDesk
    from monitor.database_access import database_of_a_command

    with database_of_a_command(settings) as engine:
        desk = SqlShadowDesk(engine)
        return desk.compare(camera, since), desk.disagreements(limit, camera, since)


def _as_json(each: Disagreement) -> dict[str, object]:
    def look(its: Look) -> dict[str, object]:
        return {"model_id": its.model_id, "verdict": its.verdict, "score": its.score, "threshold": its.threshold}

    return {
        "frame_id": each.frame_id,
        "camera": each.camera,
        "captured_at": each.captured_at.isoformat(),
        "active": look(each.active),
        "shadow": look(each.shadow),
        "review": each.truth,
    }


def _print(comparisons: Sequence[Comparison], found: Sequence[Disagreement]) -> None:
    console = wide_console()
    for each in comparisons:
        console.print(_figures(each))
        console.print()
    if not found:
        console.print("No disagreement is listed.")
        return
    table = plain_table("frame", "camera", "when", "active", "score/limit", "shadow", "score/limit", "review")
    table.columns[0].no_wrap = True
    for one in found:
        taken = f"{one.captured_at.astimezone():%Y-%m-%d %H:%M:%S}"
        looks = [text for its in (one.active, one.shadow) for text in (its.verdict.value, _score(its))]
        table.add_row(escape(one.frame_id), one.camera, taken, *looks, one.truth.value if one.truth else "")
    console.print(table)


def _figures(each: Comparison) -> Table:
    """Return the table of one pair of models."""
    table = plain_table(f"{each.frames} frames", f"active {each.active.model_id}", f"shadow {each.shadow.model_id}")
    for name, both in (("both normal", each.both_normal), ("both defect", each.both_defect)):
        table.add_row(name, _of(both, each.frames), _of(both, each.frames))
    table.add_row("only this one: defect", _of(each.only_active, each.frames), _of(each.only_shadow, each.frames))
    table.add_row(
        "false rejects, of reviewed normals", *(_share(its.false_rejects) for its in (each.active, each.shadow))
    )
    table.add_row("misses, of reviewed defects", *(_share(its.misses) for its in (each.active, each.shadow)))
    ratios = [its.median_ratio for its in (each.active, each.shadow)]
    table.add_row("median score/limit", *("-" if ratio is None else f"{ratio:.3f}" for ratio in ratios))
    overlap = "-" if each.dice is None else f"{each.dice:.3f}, {each.dice_frames} frames"
    table.add_row("Dice of the masks, both defect", overlap, overlap)
    return table


def _of(count: int, total: int) -> str:
    return f"{count} ({count / total:.1%})"


def _share(share: Share | None) -> str:
    if share is None:
        return "- (none reviewed)"
    return f"{share.count} of {share.total} ({share.low:.1%} to {share.high:.1%})"


def _score(its: Look) -> str:
    return f"{its.score:.2f}/{its.threshold:.2f}"


def _save(settings: Settings, found: Sequence[Disagreement], folder: Path) -> None:
    """Write the pictures; what is told goes to the standard error, for the figures may be read by a program."""
    from monitor.review_pictures import save_disagreement

    paths = [save_disagreement(settings, each, folder) for each in found]
    for path in paths:
        if path is not None:
            typer.echo(f"wrote {path}", err=True)
    if missing := paths.count(None):
        typer.echo(f"{missing} of {len(found)} images were not kept (images.keep), or are gone.", err=True)
