"""What people are told of dead letters. Keys and headers come from anywhere: they are shown as far as readable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from schemas.messages import MAX_HEADERS, Verdict

if TYPE_CHECKING:  # the database and Kafka take a while to import; --help should not
    from monitor.adapters.dead_letter_desk import Letter
    from monitor.adapters.kafka import KeptLetter
    from monitor.dead_letter_replay import Outcome
    from monitor.ports import LogPosition

HEADINGS: Final = ("id", "when", "camera", "frame", "bytes", "state", "reason", "detail")
SHOWN_BYTES: Final = 200


def row(letter: Letter) -> tuple[str, ...]:
    """Return the cells of a letter's line, as ``HEADINGS`` name them."""
    when = f"{letter.received_at.astimezone():%m-%d %H:%M:%S}"
    who = letter.camera or "", letter.frame_id or ""
    return str(letter.id), when, *who, str(letter.size_bytes), letter.state.value, letter.reason, letter.detail


def told(totals: Mapping[str, int]) -> str:
    """Return how many letters there are of each reason."""
    return ", ".join(f"{reason} {count}" for reason, count in totals.items())


def past(letter: Letter) -> list[str]:
    """Return what was done with a letter, when and by whom."""
    done = ("replayed", letter.replayed_at, letter.replayed_by), ("purged", letter.purged_at, letter.purged_by)
    return [f"{what} on {_moment(at)} by {by}" for what, at, by in done if at is not None]


def facts(letter: Letter, verdict: Verdict | None) -> Iterator[tuple[str, str]]:
    """Yield what is known of a letter as pairs of a name and a value.

    Args:
        letter: its account.
        verdict: what was found on its frame when it came another time.
    """
    yield "letter", str(letter.id)
    yield "state", "; ".join(past(letter)) or letter.state.value
    yield "camera", letter.camera or "-"
    yield "frame", letter.frame_id or "no readable id: replayed, it becomes a new dead letter"
    yield "reason", f"{letter.reason}: {letter.detail}"
    yield "received", _moment(letter.received_at)
    yield "bytes", str(letter.size_bytes)
    yield "from", _place(letter.position)
    if verdict is not None:
        yield "verdict", f"{verdict.value}, when this frame came another time ('review show')"


def content(letter: Letter, kept: KeptLetter | str) -> Iterator[tuple[str, str]]:
    """Yield where a letter's bytes lie, its key and its headers, as far as they can be read; or why there are none.

    Of many headers the first are told, and the beginning of each.
    """
    if letter.kept_at is not None:
        yield "kept at", _place(letter.kept_at)
    if isinstance(kept, str):
        yield "content", kept
        return
    yield "key", _readable(kept.key)
    for name, value in kept.headers[:MAX_HEADERS]:
        yield "header", f"{_readable(name.encode(errors='replace'))}: {_readable(value)}"
    if len(kept.headers) > MAX_HEADERS:
        yield "header", f"and {len(kept.headers) - MAX_HEADERS} headers more"


def fates(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield what became of a replay: a line for each letter that was not sent, and one for the others."""
    for outcome in outcomes:
        if outcome.problem is not None:
            yield f"{outcome.letter.id}: {outcome.problem}"
    sent = [outcome for outcome in outcomes if outcome.problem is None]
    late = sum(outcome.had_deadline for outcome in sent)
    yield f"{len(sent)} replayed." + (f" Their deadline was left out: {late}." if late else "")


def _moment(at: datetime) -> str:
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def _place(place: LogPosition) -> str:
    return f"{place.topic} partition {place.partition} offset {place.offset} (topic id {place.topic_id or 'unknown'})"


def _readable(raw: bytes | None) -> str:
    if raw is None:
        return "none"
    text = "".join(c if c.isprintable() else "\ufffd" for c in raw[:SHOWN_BYTES].decode(errors="replace"))
    return text + (f"... ({len(raw)} bytes)" if len(raw) > SHOWN_BYTES else "")
