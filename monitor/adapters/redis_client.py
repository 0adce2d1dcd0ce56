"""Clients of Redis or Valkey: of one server, of a Redis Cluster, of the master that Sentinels watch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import Connection, SSLConnection, parse_url
from redis.retry import Retry
from redis.sentinel import Sentinel

from monitor.redis_address import Kind, RedisAddress, parse_redis_url, safe_address
from monitor.settings import RedisSettings
from schemas.errors import ConfigurationError

KEY: Final = "redis.url"
CLIENT_NAME: Final = "paedid-monitor"
FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
REMEDY: Final = "Write redis://host:port/0, redis+cluster://host:port or redis+sentinel://host:26379/master."


class ClientFactory:
    """Makes clients that have not connected yet, but for a cluster's, which asks for the cluster's nodes at once.

    Args:
        settings: where Redis is.

    Raises:
        ConfigurationError: the URL cannot be read, or names a file that cannot be.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        try:
            self.address = parse_redis_url(settings.url)
            self._options = _options(self.address)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(KEY, safe_address(settings.url), str(error), REMEDY) from None

    def server(self) -> redis.Redis:
        """Return a client of one server."""
        return redis.Redis.from_url(
            self._settings.url, password=_secret(self._settings.password), retry=_once_more(), **self._limits
        )

    def cluster(self, also: Iterable[tuple[str, int]] = ()) -> RedisCluster:
        """Return a client of a cluster, which knows its nodes.

        Args:
            also: hosts and ports to ask for them beside those of the URL.

        Raises:
            redis.RedisError, redis.exceptions.RedisClusterException: none of the nodes answers, or they refuse.
        """
        return _Cluster(
            startup_nodes=[ClusterNode(host, port) for host, port in (*self.address.hosts, *also)],
            # The nodes are asked anew at the first sign of a failover, not at the fifth.
            reinitialize_steps=1,
            retry=_once_more(),
            **self._of_a_node,
        )

    def sentinel(self) -> redis.Redis:
        """Return a client of the master that Sentinels name; they are asked whenever it connects."""
        own = {
            "username": self._settings.sentinel_username,
            "password": _secret(self._settings.sentinel_password),
            "retry": Retry(NoBackoff(), 0),
        }
        sentinel = Sentinel(self.address.hosts, sentinel_kwargs=self._of_a_node | own)
        name, database = str(self.address.master), self.address.database
        master: redis.Redis = sentinel.master_for(name, db=database, retry=_once_more(), **self._of_a_node)
        return master

    @property
    def _of_a_node(self) -> dict[str, Any]:
        identity = {
            "username": self.address.username,
            "password": self.address.password or _secret(self._settings.password),
            "ssl": self.address.tls,
        }
        return self._limits | identity | self._options

    @property
    def _limits(self) -> dict[str, Any]:
        timeout = self._settings.timeout_s
        return {
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "protocol": 2,
            "client_name": CLIENT_NAME,
        }


class _Cluster(RedisCluster):
    """redis-py's, which follows an ASK to a node that serves no slot yet, as a new one during resharding does not."""

    def get_node(self, host: Any = None, port: Any = None, node_name: Any = None) -> Any:  # noqa: ANN401 - as redis-py's
        found = RedisCluster.get_node(self, host, port, node_name)
        if found is None and node_name:
            address, _, number = str(node_name).rpartition(":")
            found = ClusterNode(address, int(number), "primary")
        return found


def _once_more() -> Retry:
    # Once more, at once: an idle connection may have been closed by the server. Longer outages are waited out by those
    # who call, who know what may wait.
    return Retry(NoBackoff(), 1)


def _secret(value: Any) -> str | None:  # noqa: ANN401 - a SecretStr or None
    return value.get_secret_value() if value else None


def _options(address: RedisAddress) -> dict[str, Any]:
    """Return the options behind the question mark, as redis-py reads them.

    Raises:
        ValueError, TypeError: there is no such option, or its value is none.
    """
    scheme = "rediss" if address.tls else "redis"
    options: dict[str, Any] = parse_url(f"{scheme}://host?{address.options}")
    kind = options.pop("connection_class", Connection)
    options.pop("host")
    if options.pop("db", 0) and address.kind is not Kind.SERVER:
        msg = "the database stands behind a slash, not among the options"
        raise ValueError(msg)
    try:
        (SSLConnection if kind is SSLConnection else Connection)(**options)
    except TypeError as error:
        msg = f"an option that is none ({str(error).rpartition(' ')[2]})" + _tls_hint(address)
        raise ValueError(msg) from None
    for name in FILES:
        if name in options and not Path(options[name]).is_file():
            msg = f"{name} names no file that can be read"
            raise ValueError(msg)
    return options


def _tls_hint(address: RedisAddress) -> str:
    return "; options that begin with ssl_ need rediss://" if "ssl_" in address.options and not address.tls else ""
