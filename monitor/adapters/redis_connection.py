"""The connection to Redis or Valkey that everything of the bank goes through."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.exceptions import RedisClusterException
from redis.sentinel import MasterNotFoundError

from monitor.adapters.redis_bank_wire import Client
from monitor.adapters.redis_client import ClientFactory
from monitor.adapters.redis_errors import A_SENTINEL, DATABASE_OF_A_CLUSTER, RefusedError, no_master, translate
from monitor.redis_address import Kind
from monitor.settings import RedisSettings

ERRORS: Final = (redis.RedisError, RedisClusterException, RefusedError)
LOST: Final = (RedisClusterException, redis.exceptions.MovedError, redis.exceptions.ReadOnlyError)


class RedisConnection:
    """Owns the client. Used by several threads.

    The client is made by the first who needs it, who thereby finds out whether ``redis://`` names a server or a node of
    a Redis Cluster. It is made anew, from the URL, after none of the nodes that it knew was there any more.

    Args:
        settings: where Redis is.

    Raises:
        ConfigurationError: the URL cannot be read.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._make = ClientFactory(settings)
        self._lock = threading.Lock()
        self._client: Client = None

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
        if address.kind is Kind.CLUSTER:
            return self._make.cluster()
        client = self._make.server()
        mode = _mode(client)
        if mode == "sentinel":
            client.close()
            raise RefusedError(A_SENTINEL)
        if mode != "cluster" or not address.hosts:
            return client
        client.close()
        if address.database:
            raise RefusedError(DATABASE_OF_A_CLUSTER)
        return self._make.cluster()


def _mode(client: redis.Redis) -> str:
    """Return what the server says it is: standalone, cluster or sentinel.

    Not by INFO, which a user without @dangerous may not run.
    """
    try:
        answer: Any = client.execute_command("HELLO")
    except redis.AuthenticationError:
        raise
    except redis.ResponseError as error:
        return _mode_by_slots(client, error)
    pairs = answer.items() if isinstance(answer, dict) else zip(answer[::2], answer[1::2], strict=False)
    return next((value.decode() for name, value in pairs if name == b"mode"), "standalone")


def _mode_by_slots(client: redis.Redis, error: redis.ResponseError) -> str:
    """Return the mode for a user who may not say HELLO."""
    if not isinstance(error, redis.exceptions.NoPermissionError) and "HELLO" not in str(error).upper():
        raise error
    try:
        client.execute_command("CLUSTER SLOTS")
    except redis.ResponseError:
        return "standalone"  # or one that is not to be found out; its first MOVED will tell
    return "cluster"
