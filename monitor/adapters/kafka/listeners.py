"""Whether this machine reaches the brokers where they say that they listen (``advertised.listeners``).

A client connects to a bootstrap server once, and from then on to the addresses that it is told. A broker which tells a
name that only its own network knows is the most common mistake with Kafka.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final

from monitor.adapters.kafka.library_security import Broker

TIMEOUT_S: Final = 3.0
UNKNOWN: Final = "this machine cannot resolve the name"
REMEDY: Final = (
    "Set advertised.listeners of the brokers to addresses that this machine reaches, or make them known here."
)


def unreachable(brokers: Sequence[Broker], timeout_s: float = TIMEOUT_S) -> Mapping[Broker, str]:
    """Return the brokers that cannot be reached, and why; all are tried at once.

    Args:
        brokers: as the cluster advertises them.
        timeout_s: how long resolving the names and connecting may take.
    """
    answers: queue.SimpleQueue[tuple[Broker, str]] = queue.SimpleQueue()

    def ask(broker: Broker) -> None:
        answers.put((broker, _problem(broker, timeout_s)))

    for broker in brokers:
        # Daemons: resolving a name may take as long as it likes, and cannot be stopped.
        threading.Thread(target=ask, args=(broker,), name="kafka-listener", daemon=True).start()
    problems = dict.fromkeys(brokers, f"no answer within {timeout_s:g} s")
    deadline = time.monotonic() + timeout_s
    for _ in brokers:
        try:
            broker, problem = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        problems[broker] = problem
    return {broker: problem for broker, problem in problems.items() if problem}


def told(broker: Broker, problem: str) -> str:
    """Return in words what is wrong with a broker's address."""
    return f"broker {broker.number} at {broker.host}:{broker.port} (its advertised.listeners): {problem}"


def is_unknown(problem: str) -> bool:
    """Return whether a problem is a name that means nothing here; other problems may pass."""
    return problem.startswith(UNKNOWN)


def _problem(broker: Broker, timeout_s: float) -> str:
    """Return why a broker cannot be reached, or nothing."""
    try:
        socket.create_connection((broker.host, broker.port), timeout=timeout_s).close()
    except socket.gaierror as error:
        return f"{UNKNOWN} {broker.host!r} ({error.strerror})"
    except UnicodeError:
        return f"{UNKNOWN} {broker.host!r} (no host name)"
    except OSError as error:
        return error.strerror or str(error)
    return ""
