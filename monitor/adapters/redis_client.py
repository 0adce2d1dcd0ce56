"""Connections to Redis or Valkey, and which of its answers are outages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import redis
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
    """Return once the server has answered.

    Raises:
        ServiceUnavailableError: it does not, or refuses the password; names the URL without it.
    """
    try:
        client.ping()
    except redis.RedisError as error:
        raise ServiceUnavailableError(SERVICE, KEY, safe_address(url), str(error)) from error


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
