"""Reaching the broker: client options, and a clear error when nobody answers, or somebody refuses."""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import socket
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import structlog
from kafka.errors import KafkaError

from monitor.adapters.kafka import listeners
from monitor.adapters.kafka.library_security import Answer, Broker, ClosingSocket, ask
from monitor.adapters.kafka.refusals import SERVICE, address, refusal, suspicion
from monitor.adapters.kafka.security import security_options
from monitor.settings import KafkaSettings
from schemas.errors import OperatorError, ServiceRefusedError, ServiceUnavailableError

# A message of any size must arrive: a frame over the limit belongs in the dead letters, not in the way of the next.
MAX_MESSAGE_BYTES = 2**31 - 1
# Handshakes take time, whatever a caller's patience: with TLS and SCRAM eight round trips.
LEAST_PATIENCE_S: Final = 2.0

log = structlog.get_logger()


def client_options(settings: KafkaSettings, timeout_s: float) -> dict[str, Any]:
    """Return what every client of the broker is given.

    Args:
        settings: where the broker listens, and what it asks for.
        timeout_s: how long a client may try to reach the broker when it is made.

    Raises:
        ConfigurationError: a certificate or key is none, or they do not belong together.
    """
    return {
        "bootstrap_servers": _servers(settings),
        "bootstrap_timeout_ms": max(1, round(timeout_s * 1000)),
        # An outage ends when the broker is back, not half a minute later.
        "reconnect_backoff_max_ms": 1000,
        "receive_message_max_bytes": MAX_MESSAGE_BYTES,
        "proxy_url": f"{ClosingSocket.SCHEMES[0]}://",
        **security_options(settings),
    }


@contextlib.contextmanager
def reaching_broker(settings: KafkaSettings, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
    """Make clients within this context, with the options it gives.

    Args:
        settings: where the broker listens, and what it asks for.
        timeout_s: how long to wait for it; default: ``kafka.connect_timeout_s``, and then the addresses that the
            brokers advertise are tried as well. 0: one try.

    Raises:
        ServiceUnavailableError: nobody listens there, or no Kafka broker.
        ServiceRefusedError: the broker refuses this client, or is not to be trusted, or cannot be reached where it says
            that it listens.
        ConfigurationError: a certificate or key is none, or they do not belong together.
    """
    quieten_library()
    at_start = timeout_s is None
    deadline = time.monotonic() + (settings.connect_timeout_s if timeout_s is None else timeout_s)
    problem = _await_listener(settings, deadline)
    if problem is not None:
        raise _unavailable(settings, problem)
    brokers = _first_contact(settings, deadline)
    if at_start:
        require_reachable(settings, brokers)
    try:
        yield client_options(settings, max(LEAST_PATIENCE_S, deadline - time.monotonic()))
    except (KafkaError, OSError) as error:
        refused = refusal(error, settings)
        raise refused or _unavailable(settings, f"no Kafka broker answered as one should ({error})") from error


def quieten_library() -> None:
    """Keep the library from writing dozens of lines a second while a broker is away; this program says what it means.

    Where logging was configured, it decides.
    """
    if logging.getLogger("kafka").level == logging.NOTSET:
        logging.getLogger("kafka").setLevel(logging.CRITICAL)


def ask_whether_refused(settings: KafkaSettings, timeout_s: float = LEAST_PATIENCE_S) -> OperatorError | None:
    """Return what each of the servers refuses, asked once more; None if one takes the client, or all are away.

    For clients that run: the library tries again for ever when a password or certificate is no longer taken, and tells
    of a timeout alone.
    """
    answers = list(_ask_all(settings, timeout_s))
    if any(answer.error is None for answer in answers):
        return None
    refused = (refusal(answer.error, settings) for answer in answers if answer.error is not None)
    return next((each for each in refused if each is not None), None)


def require_reachable(settings: KafkaSettings, brokers: Sequence[Broker]) -> None:
    """Tell of brokers that this machine does not reach where they say that they listen.

    Raises:
        ServiceRefusedError: it reaches none of them.
    """
    problems = [listeners.told(broker, problem) for broker, problem in listeners.unreachable(brokers).items()]
    if problems and len(problems) == len(brokers):
        problem = (
            f"answers, but none of its brokers can be reached where it says that they listen: {'; '.join(problems)}"
        )
        raise ServiceRefusedError(SERVICE, address(settings), problem, listeners.REMEDY)
    for problem in problems:
        _warn_once(f"A Kafka broker cannot be reached, and what it leads neither: {problem}")


@functools.cache
def _warn_once(text: str) -> None:
    log.warning(text)


def _first_contact(settings: KafkaSettings, deadline: float) -> Sequence[Broker]:
    """Return the brokers as the first server says that takes this client; an outage is waited for until the deadline.

    Raises:
        ServiceRefusedError: no server takes it, and one refuses.
        ServiceUnavailableError: none answers.
    """
    while True:
        last = Answer()
        refused: OperatorError | None = None
        for answer in _ask_all(settings, deadline - time.monotonic()):
            if answer.error is None:
                return answer.brokers
            refused = refused or refusal(answer.error, settings)
            last = answer
        if refused is not None:
            raise refused
        if time.monotonic() >= deadline:
            break
        time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))
    error = last.error or KafkaError("no server is named")
    suspected = suspicion(error, settings, connected=last.connected)
    raise suspected or _unavailable(settings, f"no Kafka broker answered as one should ({error})") from error


def _ask_all(settings: KafkaSettings, timeout_s: float) -> Iterator[Answer]:
    servers = _servers(settings)
    random.shuffle(servers)  # so that not all programs come to the same one
    each_s = max(LEAST_PATIENCE_S, timeout_s / len(servers))
    for server in servers:
        yield ask(server, client_options(settings, each_s), each_s)


def _servers(settings: KafkaSettings) -> list[str]:
    return [server.strip() for server in settings.bootstrap_servers.split(",")]


def _unavailable(settings: KafkaSettings, problem: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(SERVICE, "kafka.bootstrap_servers", settings.bootstrap_servers, problem)


def _await_listener(settings: KafkaSettings, deadline: float) -> str | None:
    """Wait until any of the servers accepts a connection; return the problem if none does.

    Asked before a client is made, because kafka-python leaves a thread behind for each client that could not connect.
    """
    while True:
        problem = ""
        for server in _servers(settings):
            host, _, port = server.rpartition(":")
            try:
                patience = max(0.5, (deadline - time.monotonic()) / len(_servers(settings)))
                socket.create_connection((host.strip("[]"), int(port)), timeout=patience).close()
            except (OSError, UnicodeError) as error:  # UnicodeError: what is no host name
                problem = getattr(error, "strerror", None) or str(error)
            else:
                return None
        if time.monotonic() >= deadline:
            return problem
        time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))
