"""How single settings are read from what people wrote: servers, URLs, cameras. What is wrong is a ValueError."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml
from pydantic import SecretStr
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from monitor.redis_address import parse_redis_url

MAX_FILE_BYTES: Final = 1_000_000
DATABASE_DRIVERS: Final = frozenset({"sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg"})


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is larger than 1 MB, or no UTF-8.
    """
    with path.open("rb") as file:  # not by its size: a device has none, and no end
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        msg = "the file is larger than 1 MB"
        raise ValueError(msg)
    return data.decode()


def parse_yaml(text: str) -> object:
    """Return what a YAML document holds.

    Raises:
        ValueError: it is none, in one line.
    """
    try:
        return yaml.safe_load(text)
    # PyYAML lets out what its constructors run into: the 31st of February, an empty number, deep nesting.
    except (
        yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError,
    ) as error:  # fmt: skip
        raise ValueError(" ".join(str(error).split())) from error


def bootstrap(value: str) -> str:
    """Require host:port, separated by commas."""
    for server in value.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:  # noqa: PLR2004 - the ports there are
            msg = f"{server.strip()!r} is not host:port"
            raise ValueError(msg)
    return value


def readable_file(value: Path) -> Path:
    """Require a file that can be read."""
    try:
        value.open("rb").close()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    return value


def not_empty(value: SecretStr) -> SecretStr:
    """Require a secret that is one."""
    if not value.get_secret_value():
        msg = "it is empty"
        raise ValueError(msg)
    return value


def https_url(value: str) -> str:
    """Require an https URL that holds no password."""
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname:
        msg = "not an https:// URL"
        raise ValueError(msg)
    if parts.username is not None or parts.password is not None:
        msg = "the URL holds a user; the client's id and secret have settings of their own"
        raise ValueError(msg)
    return value


def redis_url(value: str) -> str:
    """Require a URL of a server, a cluster or Sentinels."""
    parse_redis_url(value)
    return value


def database_url(value: SecretStr) -> SecretStr:
    """Require a URL of SQLite or PostgreSQL."""
    try:
        url = make_url(value.get_secret_value())
    except (ArgumentError, ValueError):  # whose own text may hold a part of the password
        msg = "not an SQLAlchemy URL such as sqlite:///monitor.db or postgresql+psycopg://user@host/name"
        raise ValueError(msg) from None
    if url.drivername not in DATABASE_DRIVERS:
        msg = f"{url.drivername!r} is not supported; use sqlite or postgresql+psycopg"
        raise ValueError(msg)
    return value


def by_camera(value: object) -> object:
    """Read a mapping from an environment variable's text; a camera that is called 1 is no number."""
    value = _unquoted(value, "not a mapping such as {line-1: 12.5}")
    return {str(camera): pitch for camera, pitch in value.items()} if isinstance(value, dict) else value


def names(value: object) -> object:
    """Read a list from an environment variable's text, nothing as no names; a camera that is called 1 is no number."""
    value = _unquoted(value, "not a list such as [line-1, line-2]")
    if value is None:
        return ()
    return [str(each) if type(each) is int else each for each in value] if isinstance(value, list) else value


def _unquoted(value: object, otherwise: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return parse_yaml(value)
    except ValueError as error:
        raise ValueError(otherwise) from error
