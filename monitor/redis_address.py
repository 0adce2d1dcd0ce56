"""What ``redis.url`` names: one server, a Redis Cluster, or a master that Sentinels watch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import unquote, urlsplit

REDIS_PORT: Final = 6379
SENTINEL_PORT: Final = 26379
SCHEMES: Final = "redis://, rediss:// or unix://, redis+cluster:// or redis+sentinel:// (with TLS rediss+...)"

_URL: Final = re.compile(r"(redis|rediss)(?:\+(cluster|sentinel))?://([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.DOTALL)


class Kind(Enum):
    """What a URL names."""

    SERVER = "server"
    CLUSTER = "cluster"
    SENTINEL = "sentinel"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed ``redis.url``.

    Attributes:
        hosts: (host, port): the server, nodes of the cluster, or the Sentinels. Empty for a Unix socket.
        tls: whether to speak TLS with all of them.
        username, password: as the URL gives them.
        database: its number.
        master: the name that Sentinels know the master by.
        options: what stands behind the question mark.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    tls: bool = False
    username: str | None = None
    password: str | None = None
    database: int = 0
    master: str | None = None
    options: str = ""

    @property
    def user(self) -> str:
        """The user's name at the server."""
        return self.username or "default"


def parse_redis_url(url: str) -> RedisAddress:
    """Return what a URL names.

    Raises:
        ValueError: it cannot be read. The message holds nothing of the URL, in which a password may stand anywhere.
    """
    if url.startswith("unix://"):
        return RedisAddress(Kind.SERVER)
    found = _URL.fullmatch(url)
    if found is None:
        msg = f"not a {SCHEMES} URL"
        raise ValueError(msg)
    scheme, kind_name, place, options = found.groups()
    kind = Kind(kind_name or "server")
    authority, _, path = place.partition("/")
    user, _, servers = authority.rpartition("@")
    username, _, password = user.partition(":")
    hosts = _hosts(kind, servers)
    master, database = _path(kind, path.rstrip("/"))
    return RedisAddress(
        kind=kind,
        hosts=hosts,
        tls=scheme == "rediss",
        username=unquote(username) or None,
        password=unquote(password) or None,
        database=database,
        master=master,
        options=options or "",
    )


def safe_address(url: str) -> str:
    """Return a URL without its password and options."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return f"{parts.scheme}://{name + ':***@' if at else ''}{host}{parts.path}"


def _hosts(kind: Kind, servers: str) -> tuple[tuple[str, int], ...]:
    named = servers.split(",")
    if kind is Kind.SERVER and len(named) > 1:
        msg = "several servers: write redis+cluster:// for the nodes of a cluster, redis+sentinel:// for Sentinels"
        raise ValueError(msg)
    return tuple(_host(each.strip(), SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT) for each in named)


def _host(server: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{server}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0 or parts.path or parts.username is not None:
        msg = "not host:port after the slashes; special characters of a password are to be percent-encoded"
        raise ValueError(msg)
    return unquote(host), port or default_port


def _path(kind: Kind, path: str) -> tuple[str | None, int]:
    """Return the master's name, for Sentinels, and the number of the database."""
    master, database = None, path
    if kind is Kind.SENTINEL:
        master, _, database = path.partition("/")
        master = unquote(master)
        if not master:
            msg = "the master's name is missing: redis+sentinel://host:26379/master"
            raise ValueError(msg)
    if not re.fullmatch("[0-9]{0,9}", database):
        msg = "the database, last in the URL, is not a number"
        raise ValueError(msg)
    if kind is Kind.CLUSTER and int(database or 0):
        msg = "a Redis Cluster has only database 0: leave it out"
        raise ValueError(msg)
    return master, int(database or 0)
