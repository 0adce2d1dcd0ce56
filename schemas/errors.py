"""The error tree: exceptions steer, so each class says what happens next."""

from __future__ import annotations

import reprlib
from enum import StrEnum
from typing import Final

MOST_TOLD: Final = 300

_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = MOST_TOLD


class PaedidError(Exception):
    """Base of every error this project raises on purpose."""


class OperatorError(PaedidError):
    """Something a person must mend. The commands print its one line and exit with code 2, without a traceback."""


class ConfigurationError(OperatorError):
    """A setting is wrong.

    Args:
        key: the setting's name as the user writes it, e.g. ``kafka.bootstrap_servers``.
        value: the value found (never a secret).
        problem: what is wrong with it.
        remedy: what to do.
    """

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        super().__init__(f"{_cut(key)} = {_show(value)}: {_cut(problem)}. {remedy}")
        self.key = key
        self.value = value


def _show(value: object) -> str:
    """Return a value as one short line, whatever a file held: a list may hold itself, a text may be a megabyte."""
    try:
        return _cut(_SHORT.repr(value))
    except ValueError:  # Python writes no integer of thousands of digits
        return f"a very large {type(value).__name__}"


def _cut(text: str) -> str:
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= MOST_TOLD else f"{text[:MOST_TOLD]}..."


class ServiceUnavailableError(OperatorError):
    """A server did not answer at start-up, or cannot serve yet. While running, an outage is waited out instead.

    Args:
        service: what it is, for people.
        key: the setting that names it.
        address: that setting's value, without secrets.
        problem: what is wrong.
        answers: whether it answers, and only cannot serve for now.
    """

    def __init__(self, service: str, key: str, address: str, problem: str, *, answers: bool = False) -> None:
        state = "cannot serve now" if answers else "is not reachable"
        remedy = (
            "Try again when it can."
            if answers
            else f"Start it, or set {key} to where it listens (see 'paedid-monitor settings')."
        )
        super().__init__(f"{service} at {key} = {address!r} {state}: {problem.rstrip('.')}. {remedy}")
        self.service = service


class ServiceRefusedError(OperatorError):
    """A server answers and refuses, or is not to be trusted: a password, a certificate, a right. Waiting mends nothing.

    Args:
        service: which one, e.g. Kafka.
        address: where it listens.
        problem: what is refused, for whom and on what; no secret.
        remedy: what to do, a sentence.
    """

    def __init__(self, service: str, address: str, problem: str, remedy: str) -> None:
        super().__init__(f"{service} at {address} {_cut(problem)}. {remedy}")
        self.service = service


class BundleError(OperatorError):
    """A model bundle is missing, damaged, or does not fit. Names the file, what is wrong, and what to do."""


class PriorError(OperatorError):
    """No prior of this name is installed, or the one that is does not work. Names what is installed."""


class BankMismatchError(OperatorError):
    """The bank in Redis was made by another encoder or has another shape, so its features mean nothing here."""


class DataError(OperatorError):
    """Training data is missing, unreadable or too little. Names the folder or file and what to do."""


class TrainingError(OperatorError):
    """Training failed in a way that must not be saved, e.g. a collapsed autoencoder."""


class UnregistrableError(PaedidError):
    """The part cannot be brought to the reference's place: there is no verdict on such a frame, and no learning it.

    Args:
        detail: what was found and what is allowed, for people.
    """


class Reason(StrEnum):
    """Why a frame was dead-lettered. Stable: dashboards and replays select on it."""

    UNREADABLE = "unreadable"
    MISSING_HEADERS = "missing_headers"
    INVALID_HEADERS = "invalid_headers"
    CLOCK_AHEAD = "clock_ahead"
    UNKNOWN_CAMERA = "unknown_camera"
    EMPTY = "empty"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    WRONG_SIZE = "wrong_size"
    REFUSED_BY_DATABASE = "refused_by_database"


class InvalidFrameError(PaedidError):
    """This frame cannot be inspected, now or later: it goes to the dead letters with its original bytes.

    Args:
        reason: the stable code.
        detail: one sentence for people, naming what was found and what was expected.
    """

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
