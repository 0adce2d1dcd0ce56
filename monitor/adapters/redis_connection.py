"""The connection to Redis or Valkey that everything of the bank goes through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException
from redis.sentinel import MasterNotFoundError

from monitor.adapters.redis_bank_wire import Client
from monitor.adapters.redis_client import ClientFactory
from monitor.adapters.redis_errors import (
    A_SENTINEL,
    DATABASE_OF_A_CLUSTER,
    SOCKET_OF_A_CLUSTER,
    RefusedError,
    no_master,
    translate,
)
from monitor.redis_address import Kind
from monitor.settings import RedisSettings

ERRORS: Final = (redis.RedisError, RedisClusterException, RefusedError)
LOST: Final = (RedisClusterException, redis.exceptions.MovedError, redis.exceptions.ReadOnlyError)


class RedisConnection:
    """Owns the client. Used by several threads.

    The client is made by the first who needs it, who thereby finds out whether ``redis://`` names a server or a node of
    a Redis Cluster. It is made anew, of the URL and of the nodes last known, after none of these was there any more.

    Args:
        settings: where Redis is.

    Raises:
        ConfigurationError: the URL cannot be read.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._make = ClientFactory(settings)
        self._lock = threading.Lock()
        self._client: Client = None
        # A cluster's, as they were last: the one that the URL names may be the one that is gone.
        self._nodes: tuple[tuple[str, int], ...] = ()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Give the client.

        Raises:
            StoreUnavailableError: Redis is away; the same call may be made again later.
            StoreRefusedError: it refuses.
        """
        try:
            yield self.connect()
        except ERRORS as error:
            # A mistake (a faulty script) goes through.
            if translated := translate(self.explained(error), self._make.address.user):
                raise translated from error
            raise

    def connect(self) -> Client:
        """Return the client. Raises what redis-py raises, or RefusedError."""
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            return self._client

    def explained(self, error: Exception) -> Exception:
        """Return an error of redis-py, or what is behind it; see to what it says about the topology."""
        with self._lock:
            client = self._client
            # No node is there any more, a server has become a cluster, or a primary was demoted behind its name: who
            # connects anew finds what is there now. Another thread may still be using the client, so nobody closes it.
            if isinstance(error, LOST):
                self._client = None
            if isinstance(client, RedisCluster):
                self._nodes = tuple((node.host, node.port) for node in client.get_nodes())
            elif isinstance(error, redis.exceptions.MovedError):
                self._nodes = ((error.host, error.port),)
        if isinstance(error, MasterNotFoundError) and client is not None:
            manager = client.connection_pool.sentinel_manager
            return no_master(error, manager.sentinels, str(self._make.address.master))
        return error

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> Client:
        address = self._make.address
        if address.kind is Kind.SENTINEL:
            return self._make.sentinel()
        if address.kind is Kind.CLUSTER or self._nodes:
            return self._make.cluster(self._nodes)
        client = self._make.server()
        mode = _mode(client)
        if mode not in {"sentinel", "cluster"}:
            return client
        client.close()
        if mode == "sentinel":
            raise RefusedError(A_SENTINEL)
        if not address.hosts:
            raise RefusedError(SOCKET_OF_A_CLUSTER)
        if address.database:
            raise RefusedError(DATABASE_OF_A_CLUSTER)
        return self._make.cluster()


def _mode(client: redis.Redis) -> str:
    """Return what the server says it is: standalone, cluster or sentinel.

    Not by INFO: HELLO is allowed to every user. Where there is none, a cluster's first MOVED will tell.
    """
    try:
        answer: Any = client.execute_command("HELLO")
    except redis.ResponseError as error:
        if "unknown command" not in str(error).lower():
            raise
        return "standalone"
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=False)
    return next((value.decode() for name, value in pairs if name == b"mode"), "standalone")
