"""What is looked at before a program begins: whether Redis answers, lets everything be done, and keeps the banks."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any, Final

import redis
import structlog
from redis.exceptions import RedisClusterException

from monitor.adapters.redis_client import KEY
from monitor.adapters.redis_connection import ERRORS, RedisConnection
from monitor.adapters.redis_errors import NO_TLS, TLS, Refusal, refusal_of
from monitor.adapters.redis_rights import nodes_of, require_rights
from monitor.redis_address import RedisAddress, parse_redis_url, safe_address
from monitor.settings import RedisSettings
from schemas.errors import ConfigurationError, ServiceUnavailableError

SERVICE: Final = "Redis"
# They are answers: the server is there, and will serve by itself.
NOT_YET: Final = (redis.exceptions.BusyLoadingError, redis.exceptions.ClusterDownError)

log = structlog.get_logger()


def check_at_start(connection: RedisConnection, settings: RedisSettings) -> None:
    """Return once Redis has answered; warn if it is set to evict what banks are made of.

    Raises:
        ServiceUnavailableError: it does not answer, or cannot serve yet; names the URL without its password.
        ConfigurationError: it refuses something: says what, and what to do.
    """
    address = parse_redis_url(settings.url)
    try:
        client = connection.connect()
        client.ping()
        require_rights(client, address.user)
    except ERRORS as error:
        raise _as_told_at_start(connection.explained(error), address, settings) from error
    for name, node in nodes_of(client):
        _warn_of_eviction(node, name or safe_address(settings.url))


def _as_told_at_start(error: Exception, address: RedisAddress, settings: RedisSettings) -> Exception:
    told = safe_address(settings.url)
    refusal = refusal_of(error, address.user)
    if refusal is None and isinstance(error, redis.ConnectionError | redis.TimeoutError | RedisClusterException):
        refusal = _other_encryption(address, settings.timeout_s)
    if refusal is not None:
        return ConfigurationError(KEY, told, refusal.problem, refusal.remedy)
    answers = isinstance(error, NOT_YET) and not isinstance(error, redis.exceptions.MasterDownError)
    return ServiceUnavailableError(SERVICE, KEY, told, " ".join(str(error).split()), answers=answers)


def _warn_of_eviction(node: redis.Redis, name: str) -> None:
    with suppress(redis.RedisError):  # not everybody may ask
        memory: Any = node.info("memory")
        policy = memory.get("maxmemory_policy", "")
        # The volatile policies take only keys that expire, and those of a bank do not.
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            log.warning(
                "Redis may evict the memory bank when it is full; set its maxmemory-policy to noeviction",
                policy=policy,
                redis=name,
            )


def _other_encryption(address: RedisAddress, timeout_s: float) -> Refusal | None:
    """Return what to say if a server that does not answer speaks TLS where we do not, or asks more of it than we give.

    Of its answers to a client that went wrong, some are lost on the way. Here it has nothing to misunderstand.
    """
    for host, port in address.hosts:
        with suppress(OSError):
            if address.tls and _answers_plainly(host, port, timeout_s):
                return NO_TLS
            try:
                if _answers_tls(host, port, timeout_s) and not address.tls:
                    return TLS
            except ssl.SSLError as error:
                return TLS if not address.tls else refusal_of(redis.ConnectionError(str(error)), address.user)
    return None


def _answers_plainly(host: str, port: int, timeout_s: float) -> bool:
    with socket.create_connection((host, port), timeout_s) as connection:
        connection.sendall(b"PING\r\n")
        with suppress(TimeoutError, ConnectionError):
            return connection.recv(1) in {b"+", b"-"}
    return False


def _answers_tls(host: str, port: int, timeout_s: float) -> bool:
    """Return whether a server speaks TLS; raise SSLError if it does, and refuses."""
    # Nothing is sent over it, and nothing believed: it is only asked for.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection((host, port), timeout_s) as connection:
        try:
            encrypted = context.wrap_socket(connection)
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or ""):
                raise
            return False
        with encrypted, suppress(TimeoutError):
            # One that wants a certificate of ours says so now; one that is content waits for us.
            encrypted.recv(1)
    return True
