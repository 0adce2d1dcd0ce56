"""``paedid-monitor dlq``: the frames that could not be inspected, and another try."""

from __future__ import annotations

import getpass
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from monitor.console import By, plain_table, wide_console
from monitor.dead_letter_words import HEADINGS, content, facts, fates, past, row, told
from monitor.settings import Settings
from schemas.errors import OperatorError, Reason
from schemas.messages import utc_now

if TYPE_CHECKING:  # the database and Kafka take a while to import; --help should not
    from monitor.adapters.dead_letter_desk import DeadLetterDesk, Letter
    from monitor.adapters.kafka import DeadLetterTopic

dlq_app = typer.Typer(
    no_args_is_help=True,
    help="See the frames that could not be inspected (the dead letters), and have them inspected again.",
)
LARGEST_ID = 2**63 - 1

LetterId = Annotated[int, typer.Argument(min=1, max=LARGEST_ID, help="A letter's id, as 'dlq list' shows it.")]
LetterIds = Annotated[
    list[int] | None, typer.Argument(min=1, max=LARGEST_ID, help="The letters' ids, as 'dlq list' shows them.")
]
OfCamera = Annotated[str | None, typer.Option("--camera", help="Only this camera's.")]
OfReason = Annotated[Reason | None, typer.Option("--reason", help="Only those of this reason.")]
Search = Annotated[
    float, typer.Option(min=1, max=86_400, help="Seconds to search for letters whose place was not recorded.")
]


@dlq_app.command("list")
def list_letters(
    context: typer.Context,
    camera: OfCamera = None,
    reason: OfReason = None,
    state: Annotated[Literal["waiting", "replayed", "purged", "all"], typer.Option(help="Which ones.")] = "waiting",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")] = 20,
) -> None:
    """List the frames that could not be inspected, the newest first."""
    from monitor.adapters.dead_letter_desk import Selection, State

    states = () if state == "all" else (State(state),)
    selection = Selection(camera=camera, reason=reason, states=states)
    with _desk(context.obj) as desk:
        letters, totals = desk.newest(selection, limit), desk.totals(selection)
    if not letters:
        typer.echo(f"No dead letters ({state}).")
        return
    table = plain_table(*HEADINGS)
    for letter in letters:
        table.add_row(*(escape(cell) for cell in row(letter)))
    wide_console().print(table)
    typer.echo(f"{sum(totals.values())} ({state}): {told(totals)}")
    typer.echo("'dlq show ID' tells all of one; mend what was wrong, then 'dlq replay'; or 'dlq purge'.")


@dlq_app.command()
def show(
    context: typer.Context,
    letter: LetterId,
    save: Annotated[Path | None, typer.Option(help="Write the bytes, as they came, to this new file.")] = None,
    search: Search = 60.0,
) -> None:
    """Tell everything that is known about a dead letter, its headers included."""
    from monitor.dead_letter_replay import fetch

    with _desk(context.obj) as desk:
        [found] = desk.named([letter])
        _print_pairs(facts(found, desk.verdict(found)))  # before Kafka is asked, which may be away
        with _topic(context.obj) as topic:
            [found] = _located(desk, topic, [found], search)
            [kept] = fetch(topic, [found])
    _print_pairs(content(found, kept))
    if save is not None:
        if isinstance(kept, str):
            msg = f"dead letter {letter}: {kept}"
            raise OperatorError(msg)
        _write_new(save, kept.value or b"")
        typer.echo(f"wrote {save}")


@dlq_app.command()
def replay(
    context: typer.Context,
    letters: LetterIds = None,
    camera: OfCamera = None,
    reason: OfReason = None,
    everything: Annotated[bool, typer.Option("--all", help="All that wait.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed already.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the oldest first.")] = 10_000,
    by: By = None,
    search: Search = 60.0,
) -> None:
    """Send dead letters to the frames topic again, with the bytes, key and headers they came with.

    Mend first what kept them from being inspected, e.g. raise limits.max_frame_pixels and start the workers again.

    A deadline (ce_deadlinems) is left out: it has passed, and the verdict is wanted now. A letter that was replayed is
    not sent again without --again; nothing is stored twice in any case, for frames are known by their id. What still
    cannot be inspected becomes a new dead letter, and so does, each time, a frame without a readable id.
    """
    from monitor.adapters.dead_letter_desk import Selection, State
    from monitor.adapters.kafka import ensure_topics
    from monitor.dead_letter_replay import replay as send

    _require_one(letters, chosen=everything or camera is not None or reason is not None)
    wanted = (State.WAITING, State.REPLAYED) if again else (State.WAITING,)
    with _desk(context.obj) as desk:
        selection = Selection(camera=camera, reason=reason, states=wanted)
        named = desk.named(letters) if letters else desk.oldest(selection, limit)
        chosen = [letter for letter in named if letter.state in wanted]
        for letter in named:
            if letter.state not in wanted:
                remedy = "; --again sends it again" if letter.state is State.REPLAYED else ""
                typer.echo(f"{letter.id}: not sent, it was {'; '.join(past(letter))}{remedy}")
        if not chosen:
            typer.echo("Nothing to replay.")
            return
        with _topic(context.obj) as topic:
            ensure_topics(context.obj.kafka, context.obj.limits, {context.obj.kafka.frames_topic: "Write"})
            placed = _located(desk, topic, chosen, search)
            sending = send(desk, topic, placed, by or getpass.getuser())
            with _progress() as bar:
                done = list(bar.track(sending, total=len(placed), description="replaying"))
    for line in fates(done):
        typer.echo(line)
    missing = sum(outcome.problem is not None for outcome in done)
    if missing:
        msg = f"{missing} of {len(done)} dead letters were not sent; each is told of above"
        raise OperatorError(msg)


@dlq_app.command()
def purge(
    context: typer.Context,
    letters: LetterIds = None,
    older_than: Annotated[
        float | None, typer.Option(min=0, max=36_500, help="Those that died more than so many days ago.")
    ] = None,
    state: Annotated[Literal["waiting", "replayed"] | None, typer.Option(help="Only those in this state.")] = None,
    by: By = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Put dead letters aside for good: they are not listed and not replayed any more.

    Nothing is deleted. The row stays as the account of its frame, and says who purged it and when; the bytes stay in
    Kafka for as long as the retention of the dead-letter topic says.
    """
    from monitor.adapters.dead_letter_desk import Selection, State

    _require_one(letters, chosen=older_than is not None or state is not None)
    states = (State(state),) if state else (State.WAITING, State.REPLAYED)
    before = None if older_than is None else utc_now() - timedelta(days=older_than)
    with _desk(context.obj) as desk:
        ids = tuple(letter.id for letter in desk.named(letters)) if letters else None
        newest = desk.newest(Selection(), 1)
        # What dies while the question stands is not part of it.
        selection = Selection(ids, states=states, before=before, newest=newest[0].id if newest else 0)
        totals = desk.totals(selection)
        if not totals:
            typer.echo("Nothing to purge.")
            return
        if not yes:
            _ask(f"Purge {sum(totals.values())} dead letters ({told(totals)})?")
        typer.echo(f"{desk.purge(selection, by or getpass.getuser())} purged.")


@contextmanager
def _desk(settings: Settings) -> Iterator[DeadLetterDesk]:
    from monitor.adapters.dead_letter_desk import DeadLetterDesk
    from monitor.database_access import database_of_a_command

    with database_of_a_command(settings, "'dlq list' shows what still waits; try again.") as engine:
        yield DeadLetterDesk(engine)


@contextmanager
def _topic(settings: Settings) -> Iterator[DeadLetterTopic]:
    from monitor.adapters.kafka import DeadLetterTopic

    with closing(DeadLetterTopic(settings.kafka)) as topic:
        yield topic


def _located(
    desk: DeadLetterDesk, topic: DeadLetterTopic, letters: Sequence[Letter], patience_s: float
) -> Sequence[Letter]:
    """Return the letters with their places; search for those whose place was not recorded."""
    from monitor.dead_letter_replay import locate

    with _progress() as bar:
        task = bar.add_task("searching", total=None)
        found, complete = locate(
            desk, topic, letters, patience_s, lambda done, total: bar.update(task, completed=done, total=total)
        )
    if not complete:
        typer.echo(f"The search ended after {patience_s:g} s, before the topic did; --search gives it more.")
    return found


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _require_one(letters: Sequence[int] | None, *, chosen: bool) -> None:
    if bool(letters) == chosen:
        msg = "say which dead letters are meant: either their ids, or options that choose them. See --help."
        raise OperatorError(msg)


def _print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for name, value in pairs:
        console.print(f"[bold]{name:<9}[/] {escape(value)}")


def _ask(question: str) -> None:
    try:
        typer.confirm(question, abort=True)
    except typer.Abort:
        msg = "nothing was purged: nobody said yes. Answer y, or give --yes."
        raise OperatorError(msg) from None


def _write_new(file: Path, data: bytes) -> None:
    try:
        with file.open("xb") as new:
            new.write(data)
    except FileExistsError:
        msg = f"{file}: exists already, and is left as it is. Name a new file."
        raise OperatorError(msg) from None
    except OSError as error:
        msg = f"{file}: {error.strerror or error}. Name a file that can be written."
        raise OperatorError(msg) from error
