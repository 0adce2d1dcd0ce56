"""Sends dead letters to be inspected again: those that the broker still has, each marked once it was sent.

A crash between sending and marking sends some again: the database knows frames by their id, and stores none twice. A
frame without a readable id cannot be known again; it becomes a new dead letter, as does all that cannot be inspected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from monitor.adapters.dead_letter_desk import DeadLetterDesk, Letter
from monitor.adapters.kafka import DeadLetterTopic, KeptLetter, dead_id
from monitor.adapters.review_desk import require_name

# What is in memory at once; a single larger letter is taken when nothing else is.
AT_ONCE: Final = 100
AT_ONCE_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a replay. ``problem``: why it was not sent; None: it was."""

    letter: Letter
    problem: str | None = None
    had_deadline: bool = False


def locate(
    desk: DeadLetterDesk,
    topic: DeadLetterTopic,
    letters: Sequence[Letter],
    patience_s: float,
    progress: Callable[[int, int], None],
) -> tuple[Sequence[Letter], bool]:
    """Search for letters whose place was not recorded, and record it.

    Args:
        desk: where their account is.
        topic: where their bytes are.
        letters: the letters, in any order.
        patience_s: how long to search, in seconds.
        progress: told how many messages were looked at, and how many there are.

    Returns:
        The letters, those that were found with their place, and whether the search came to its end.

    Raises:
        StoreUnavailableError: a server went away.
    """
    lacking = {dead_id(letter.position): letter for letter in letters if letter.kept_at is None}
    if not lacking:
        return letters, True
    places, complete = topic.locate(lacking.keys(), patience_s, progress)
    desk.remember({lacking[name].id: place for name, place in places.items()})
    found = [replace(each, kept_at=each.kept_at or places.get(dead_id(each.position))) for each in letters]
    return found, complete


def fetch(topic: DeadLetterTopic, letters: Sequence[Letter]) -> list[KeptLetter | str]:
    """Return each letter as the broker has it, or why it cannot be had.

    Raises:
        StoreUnavailableError: the broker went away.
    """
    kept = topic.fetch({dead_id(each.position): each.kept_at for each in letters if each.kept_at is not None})
    return [_whole(letter, kept.get(dead_id(letter.position))) for letter in letters]


def replay(desk: DeadLetterDesk, topic: DeadLetterTopic, letters: Sequence[Letter], by: str) -> Iterator[Outcome]:
    """Send letters to be inspected again, and yield what became of each.

    Args:
        desk: where their account is.
        topic: where their bytes are.
        letters: the letters, with their places.
        by: who wants it.

    Raises:
        OperatorError: ``by`` is no name; nothing was sent.
        StoreUnavailableError, ServiceUnavailableError: a server went away; what was not yielded may have been sent.
    """
    require_name(by)  # before anything is sent: it could not be written down
    for some in _portions(letters):
        fetched = list(zip(some, fetch(topic, some), strict=True))
        whole = [(letter, kept) for letter, kept in fetched if isinstance(kept, KeptLetter)]
        sent = topic.replay([kept for _, kept in whole])
        done = {letter.id: kept for (letter, kept), was_sent in zip(whole, sent, strict=True) if was_sent}
        desk.mark_replayed(list(done), by)
        for letter, kept in fetched:
            if isinstance(kept, str):
                yield Outcome(letter, kept)
            elif letter.id in done:
                yield Outcome(letter, had_deadline=kept.has_deadline)
            else:
                yield Outcome(letter, "too large for the frames topic now: raise its max.message.bytes")


def _whole(letter: Letter, kept: KeptLetter | None) -> KeptLetter | str:
    place = letter.kept_at
    if place is None:
        return "its bytes were not found in the dead-letter topic"
    if kept is None:
        return (
            f"the broker no longer has its bytes: {place.topic} partition {place.partition} offset {place.offset} is "
            "past its retention, or the topic was made anew since"
        )
    if kept.value_omitted:
        origin = letter.position
        return (
            f"its {letter.size_bytes} bytes were too large for the dead-letter topic; they may still be in "
            f"{origin.topic} partition {origin.partition} offset {origin.offset}"
        )
    return kept


def _portions(letters: Sequence[Letter]) -> Iterator[Sequence[Letter]]:
    portion: list[Letter] = []
    for letter in letters:
        full = sum(each.size_bytes for each in portion) + letter.size_bytes > AT_ONCE_BYTES
        if portion and (full or len(portion) == AT_ONCE):
            yield portion
            portion = []
        portion.append(letter)
    if portion:
        yield portion
