"""The user that docs/redis.md gives the monitor at a Redis."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "redis.md"
PASSWORD = "secret"


def documented_lines() -> list[list[str]]:
    """Return the arguments of the document's ACL lines: those for one server, then those that a cluster adds."""
    lines = re.findall(r"^    ACL (SETUSER line .*)$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.replace("PASSWORD", PASSWORD).split() for line in lines]


def documented_user() -> list[str]:
    """Return the arguments of the line for one server."""
    return documented_lines()[0]
