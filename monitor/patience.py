"""Waiting out an outage: the same call again after growing, jittered pauses, until it works or is given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import tenacity
from tenacity.wait import wait_base

T = TypeVar("T")

# Up to 0.2 s at first, 5 s at most. Jittered, so that workers do not all come back to a server at once.
RETRY_WAIT: Final = tenacity.wait_random_exponential(multiplier=0.2, max=5.0)


def keep_trying(
    action: Callable[[], T],
    *,
    errors: tuple[type[Exception], ...],
    given_up: threading.Event,
    on_outage: Callable[[BaseException], None],
    on_return: Callable[[], None],
    wait: wait_base = RETRY_WAIT,
) -> T:
    """Return what ``action`` returns, once it does.

    Args:
        action: may be called many times.
        errors: what an outage raises; anything else passes through at once.
        given_up: once set, no further attempt is made and the last error passes through.
        on_outage: called once, with the first error, if there is to be another attempt.
        on_return: called once when ``action`` works again after that.
        wait: pauses between attempts.
    """

    def before_sleep(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if state.attempt_number == 1 and error is not None:
            on_outage(error)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(errors),
        wait=wait,
        sleep=tenacity.sleep_using_event(given_up),
        stop=tenacity.stop_when_event_set(given_up),
        before_sleep=before_sleep,
        reraise=True,
    )
    result = retrying(action)
    if retrying.statistics["attempt_number"] > 1:
        on_return()
    return result
