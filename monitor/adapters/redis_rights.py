"""What a Redis user must be allowed, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import redis
from redis.cluster import RedisCluster

from monitor.adapters import redis_bank_wire as wire
from monitor.adapters.redis_errors import RefusedError, refusal_of, right_to
from monitor.ports import BankKey

_KEY: Final = f"{wire.prefix(BankKey('camera', 'model'))}slots"

# Commands, each with arguments as it may have: what scripts call needs its right as well. docs/redis.md has the line.
CALLS: Final[Mapping[str, str]] = {
    "ping": "",
    "eval": "return 1 {key}",
    "evalsha": "e0e1f9fabfc9d4800c877a703b823ac0578ff8db 1 {key}",
    **dict.fromkeys(("hgetall", "hlen", "hkeys", "del", "persist"), "{key}"),
    **dict.fromkeys(("hget", "hmget", "hexists", "hstrlen", "hdel"), "{key} 0"),
    "hset": "{key} 0 x",
    "xadd": "{key} * field value",
    "xrange": "{key} - +",
    "rename": "{key} {key}",
    "expire": "{key} 600",
}
CLUSTER_CALLS: Final[Mapping[str, str]] = {"cluster|slots": "", "command": "", "asking": ""}

_ASK: Final = wire.Script("redis_rights.lua")


def nodes_of(client: wire.Client) -> Iterator[tuple[str | None, redis.Redis]]:
    """Yield a client of each node and, of a cluster's, its name."""
    if not isinstance(client, RedisCluster):
        yield None, client
        return
    for node in client.get_nodes():
        yield node.name, client.get_redis_connection(node)


def require_rights(client: wire.Client, user: str) -> None:
    """Ask each node whether the user may do what is needed: a cluster's nodes have users of their own.

    Raises:
        RefusedError: it may not.
        redis.RedisError: a server is away; of a cluster's nodes some may be.
    """
    clustered = isinstance(client, RedisCluster)
    wanted = {**CALLS, **(CLUSTER_CALLS if clustered else {})}
    refused: set[str] = set()
    for _, node in nodes_of(client):
        try:
            refused |= set(_refused(node, wanted, user))
        except (redis.ConnectionError, redis.TimeoutError) as error:
            if not clustered or refusal_of(error, user) is not None:
                raise
    if refused:
        raise RefusedError(right_to([each for each in [*wanted, "key"] if each in refused], user))


def _refused(node: redis.Redis, wanted: Mapping[str, str], user: str) -> Iterable[str]:
    calls = [f"{command} {arguments.format(key=_KEY)}" for command, arguments in wanted.items()]
    try:
        answer: Sequence[bytes] = _ASK(node, [], calls)
        if not answer:
            return ()
        if _may_use_keys(node):
            return [each.decode() for each in answer]
    except redis.ResponseError as error:
        if refusal_of(error, user) is not None:
            raise
        return ()  # a server that cannot be asked; it refuses when it comes to it
    return ("key",)


def _may_use_keys(node: redis.Redis) -> bool:
    """Return whether the keys are allowed; if not, every command on them is refused, whatever its own right."""
    try:
        _ASK(node, [_KEY])
    except redis.exceptions.NoPermissionError:
        return False
    except redis.exceptions.MovedError:
        return True  # rights are looked at first
    return True
