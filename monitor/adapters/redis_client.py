"""Connections to Redis or Valkey, and which of its answers are outages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from monitor.errors import StoreUnavailableError
from monitor.settings import RedisSettings
from schemas.errors import ConfigurationError, ServiceUnavailableError

KEY: Final = "redis.url"
SERVICE: Final = "Redis"

OUTAGES: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.TryAgainError,
)
# Answers that redis-py has no class for: the disk is full, too few replicas, another script runs.
OUTAGE_CODES: Final = ("MISCONF", "NOREPLICAS", "BUSY")

log = structlog.get_logger()


def make_client(settings: RedisSettings) -> redis.Redis:
    """Return a client that has not connected yet.

    Raises:
        ConfigurationError: the URL cannot be read.
    """
    password = settings.password.get_secret_value() if settings.password else None
    try:
        return redis.Redis.from_url(
            settings.url,
            password=password,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            # Once more, at once: an idle connection may have been closed by the server. Longer outages are waited
            # out by those who call, who know what may wait.
            retry=Retry(NoBackoff(), 1),
            protocol=2,
            client_name="paedid-monitor",
        )
    except ValueError as error:
        raise ConfigurationError(KEY, safe_address(settings.url), str(error), "Write redis://host:port/0.") from None


def ping(client: redis.Redis, url: str) -> None:
    """Return once the server has answered; warn if it is set to evict what banks are made of.

    Raises:
        ServiceUnavailableError: it does not, or refuses the password; names the URL without it.
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise ServiceUnavailableError(SERVICE, KEY, safe_address(url), str(error)) from error
    _warn_of_eviction(client, url)


def _warn_of_eviction(client: redis.Redis, url: str) -> None:
    with suppress(redis.RedisError):  # not everybody may ask
        memory = client.info("memory")
        policy = memory.get("maxmemory_policy", "")
        # The volatile policies take only keys that expire, and those of a bank do not.
        if memory.get("maxmemory") and policy.startswith("allkeys"):
            log.warning(
                "Redis may evict the memory bank when it is full; set its maxmemory-policy to noeviction",
                policy=policy,
                redis=safe_address(url),
            )


def safe_address(url: str) -> str:
    """Return a URL without its password and options."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    name = user.partition(":")[0]
    return f"{parts.scheme}://{name + ':***@' if at else ''}{host}{parts.path}"


@contextmanager
def while_running() -> Iterator[None]:
    """Turn outages into StoreUnavailableError, and let mistakes (a faulty script) through."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        # Redis says what is wrong, but not whose limit it is, nor that it loses nothing.
        msg = f"{error} Redis is full and refuses writes; nothing is lost. Raise its maxmemory."
        raise StoreUnavailableError(msg) from error
    except OUTAGES as error:
        raise StoreUnavailableError(str(error) or type(error).__name__) from error
    except redis.ResponseError as error:
        if not str(error).startswith(OUTAGE_CODES):
            raise
        raise StoreUnavailableError(str(error)) from error
