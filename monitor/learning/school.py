"""The learning program: a learner for each model at work, one after the other, until told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from monitor.errors import BankMissingError, StoreRefusedError, StoreUnavailableError
from monitor.learning.learner import Learner
from monitor.models import Models
from monitor.patience import keep_trying

log = structlog.get_logger()


class School:
    """The learners of the models at work; a review is dealt with by the model that inspects the frame's camera now.

    The learner of the model before these carries out what is ordered about its banks, should people go back to it.

    Args:
        learners: owned by the thread that steps.
    """

    def __init__(self, learners: Models[Learner]) -> None:
        self._learners = learners

    def step(self) -> int:
        """Let each learner take a step; return how much they dealt with. Raises what a learner's ``step`` raises."""
        self._learners.follow()
        return sum(learner.step(cameras) for learner, cameras in self._learners.held())


def keep_learning(step: Callable[[], int], stop: threading.Event, poll_interval_s: float) -> None:
    """Take steps until ``stop`` is set; outages are waited out, and so are refusals.

    A refusal is told in its own words. It does not end the program: reviews wait in the database, nothing is lost, and
    who mends a right at the server need not start it again.

    Args:
        step: a school's or a learner's: returns how much it dealt with.
        stop: set it from any thread.
        poll_interval_s: pause after a step that found nothing to do.

    Raises:
        BankMismatchError: a bank was made by another model; a person must mend that.
    """
    pauses = _Pauses()

    def attempt() -> int:
        try:
            return step()
        except (StoreUnavailableError, BankMissingError) as error:
            pauses.tell(error)
            raise

    while not stop.is_set():
        try:
            dealt_with = keep_trying(
                attempt,
                errors=(StoreUnavailableError, BankMissingError),
                given_up=stop,
                on_outage=lambda _: None,
                on_return=pauses.end,
            )
        except (StoreUnavailableError, BankMissingError):
            return  # told to stop during an outage: the reviews stay pending
        if dealt_with == 0:
            stop.wait(poll_interval_s)


class _Pauses:
    """Tells once that learning pauses, and again if it is for another reason."""

    def __init__(self) -> None:
        self._told: str | None = None

    def tell(self, error: Exception) -> None:
        refused = isinstance(error, StoreRefusedError)
        why = "a server refuses, which a person must mend" if refused else "a server is away"
        if why != self._told:
            log.warning("Learning pauses: %s; reviews are kept and wait", why, error=str(error))
        self._told = why

    def end(self) -> None:
        self._told = None
        log.info("Learning again; reviews given meanwhile come first")
