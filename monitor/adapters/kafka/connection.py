"""Reaching the broker: client options, a clear error when nobody answers, and the topics."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import structlog
from kafka.admin import KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError
from kafka.net.inet import KafkaNetSocket

from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import ServiceUnavailableError

SERVICE = "Kafka"
# Headers, key and the record batch around a frame.
MESSAGE_OVERHEAD_BYTES = 128 * 1024
# A message of any size must arrive: a frame over the limit belongs in the dead letters, not in the way of the next.
MAX_MESSAGE_BYTES = 2**31 - 1

log = structlog.get_logger()


class ClosingSocket(KafkaNetSocket):  # type: ignore[misc] # untyped library
    """How clients connect: as they do, but a socket that got no connection is closed at once.

    kafka-python leaves it to the garbage collector, and one a second and client while a broker is away. It asks for
    this class by the scheme of ``proxy_url``; no proxy is involved.
    """

    SCHEMES = ("direct",)

    async def sock_connect(
        self, net: object, sock: socket.socket, sockaddr: object, timeout_at: float | None = None
    ) -> socket.socket:
        """Return the socket, connected to ``sockaddr``."""
        try:
            connected: socket.socket = await super().sock_connect(net, sock, sockaddr, timeout_at=timeout_at)
        except BaseException:  # also when its client is closed meanwhile
            sock.close()
            raise
        return connected


def client_options(settings: KafkaSettings, timeout_s: float) -> dict[str, Any]:
    """Return what every client of the broker is given.

    Args:
        settings: where the broker listens.
        timeout_s: how long a client may try to reach the broker when it is made.
    """
    return {
        "bootstrap_servers": [server.strip() for server in settings.bootstrap_servers.split(",")],
        "bootstrap_timeout_ms": max(1, round(timeout_s * 1000)),
        # An outage ends when the broker is back, not half a minute later.
        "reconnect_backoff_max_ms": 1000,
        "receive_message_max_bytes": MAX_MESSAGE_BYTES,
        "proxy_url": f"{ClosingSocket.SCHEMES[0]}://",
    }


@contextlib.contextmanager
def reaching_broker(settings: KafkaSettings, timeout_s: float | None = None) -> Iterator[dict[str, Any]]:
    """Make clients within this context, with the options it gives.

    Args:
        settings: where the broker listens.
        timeout_s: how long to wait for it; default: ``kafka.connect_timeout_s``. 0: one try.

    Raises:
        ServiceUnavailableError: nobody listens there, or no Kafka broker.
    """
    # The library writes dozens of lines a second while a broker is away; this program says once what that means.
    if logging.getLogger("kafka").level == logging.NOTSET:
        logging.getLogger("kafka").setLevel(logging.CRITICAL)
    timeout_s = settings.connect_timeout_s if timeout_s is None else timeout_s
    deadline = time.monotonic() + timeout_s
    problem = _await_listener(settings, deadline)
    if problem is None:
        try:
            # At least a second for a broker that listens: handshakes take time.
            yield client_options(settings, max(1.0, deadline - time.monotonic()))
        except (KafkaError, OSError) as error:
            problem = f"no Kafka broker answered as one should ({error})"
        else:
            return
    raise ServiceUnavailableError(SERVICE, "kafka.bootstrap_servers", settings.bootstrap_servers, problem)


def _await_listener(settings: KafkaSettings, deadline: float) -> str | None:
    """Wait until any of the servers accepts a connection; return the problem if none does.

    Asked before a client is made, because kafka-python leaves a thread behind for each client that could not connect.
    """
    while True:
        problem = ""
        for server in settings.bootstrap_servers.split(","):
            host, _, port = server.strip().rpartition(":")
            try:
                patience = max(0.5, deadline - time.monotonic())
                socket.create_connection((host.strip("[]"), int(port)), timeout=patience).close()
            except OSError as error:
                problem = error.strerror or str(error)
            else:
                return None
        if time.monotonic() >= deadline:
            return problem
        time.sleep(min(0.1, max(0.0, deadline - time.monotonic())))


def ensure_topics(settings: KafkaSettings, limits: LimitSettings) -> list[str]:
    """Create the topics that are absent; one that exists stays as it is.

    Returns:
        The names of those created.

    Raises:
        ServiceUnavailableError: the broker does not answer.
    """
    wanted = [settings.frames_topic, settings.dead_topic, settings.inspections_topic]
    # Kafka refuses messages over 1 MB unless the topic says otherwise.
    largest = {"max.message.bytes": str(limits.max_frame_bytes + MESSAGE_OVERHEAD_BYTES)}
    created: list[str] = []
    with reaching_broker(settings) as options:
        admin = KafkaAdminClient(**options)
        try:
            present = set(admin.list_topics())
            for name in dict.fromkeys(wanted):
                if name in present:
                    continue
                # Another program may create it at the same time, and then has.
                with contextlib.suppress(TopicAlreadyExistsError):
                    # -1: as many replicas as the broker's default says.
                    admin.create_topics([NewTopic(name, settings.partitions, -1, topic_configs=largest)])
                    created.append(name)
            admin.wait_for_topics(wanted)
        finally:
            admin.close()
    if created:
        log.info("topics created", topics=created, partitions=settings.partitions)
    return created
