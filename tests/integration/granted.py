"""The GRANT statements of docs/postgresql.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "postgresql.md"
BLOCKS: Final = re.compile(r"```sql\n-- (\w+)\n(.*?)```", re.DOTALL)
GRANT: Final = re.compile(r"GRANT ([A-Z, ]+) ON (?:(TABLE|SEQUENCE) )?(.+) TO (\w+)$", re.DOTALL)


def documented() -> dict[str, list[str]]:
    """Return the statements for each role of the document, in its order."""
    blocks = BLOCKS.findall(DOCUMENT.read_text(encoding="utf-8"))
    return {role: [each.strip() for each in statements.split(";") if each.strip()] for role, statements in blocks}


def granted(statements: list[str]) -> set[tuple[str, str, str]]:
    """Return (TABLE or SEQUENCE, name, right) of all that is granted on tables and sequences by their names."""
    found = set()
    for statement in statements:
        rights, kind, names, _ = GRANT.fullmatch(statement).groups()  # type: ignore[union-attr]
        if kind:
            found |= {(kind, name.strip(), right.strip()) for name in names.split(",") for right in rights.split(",")}
    return found
