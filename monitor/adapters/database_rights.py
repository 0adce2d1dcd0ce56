"""What the programs need to be allowed in PostgreSQL, and what to tell where a right is missing.

``docs/postgresql.md`` has these rights as GRANT statements, and those of the people who use the commands. Tests hold
the two together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from monitor.adapters.database_refusals import quoted, refusal, words
from schemas.errors import OperatorError, ServiceRefusedError
from schemas.tables import TABLES

DENIED: Final = "42501"
VERSIONS: Final = "alembic_version"
READ, ADD, CHANGE, DROP = "SELECT", "INSERT", "UPDATE", "DELETE"

Rights = Mapping[str, tuple[str, ...]]

# By table. INSERT needs USAGE on the sequence of the table's ids as well.
WORKER: Final[Rights] = {
    VERSIONS: (READ,),
    "inspections": (READ, ADD),
    "regions": (READ, ADD),
    "shadow_inspections": (READ, ADD),
    "drift_states": (READ, ADD, CHANGE),
    "outbox": (READ, ADD, CHANGE, DROP),
    "dead_letters": (READ, ADD),
    "log_gaps": (READ, ADD),
    "model_assignments": (READ,),
}
LEARNER: Final[Rights] = {
    VERSIONS: (READ,),
    "inspections": (READ,),
    "reviews": (READ, ADD, CHANGE),
    "bank_entries": (READ, ADD, CHANGE),
    "bank_orders": (READ, CHANGE),
    "learning_pauses": (READ,),
    "drift_states": (READ,),
    "model_assignments": (READ,),
}


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One right. ``kind`` is TABLE, SEQUENCE or SCHEMA."""

    kind: str
    name: str
    right: str


def as_rights(needed: Rights) -> list[Right]:
    """Return the rights one by one, those on sequences included."""
    tables = [Right("TABLE", table, right) for table, rights in needed.items() for right in rights]
    serial = {table.name for table in TABLES if "id" in table.columns}
    adds = [table for table, rights in needed.items() if ADD in rights and table in serial]
    return tables + [Right("SEQUENCE", f"{table}_id_seq", "USAGE") for table in adds]


def require_rights(connection: Connection, needed: Rights) -> None:
    """Return if the role of this connection has what a program needs. SQLite has no roles.

    Raises:
        ServiceRefusedError: names what is missing, and the statements that grant it.
    """
    if connection.dialect.name == "postgresql" and (error := _explain(connection, as_rights(needed))):
        raise error


def explain_denied(engine: Engine, error: BaseException, statement: str | None) -> ServiceRefusedError | None:
    """Return what to tell where a statement was denied for want of a right; None if that was not it."""
    if getattr(error, "sqlstate", None) != DENIED:
        return None
    said = words(error)
    try:
        # On a connection of its own: the transaction that was denied takes no more questions.
        with engine.connect() as connection:
            found = _explain(connection, _asked(connection, statement or ""))
    except (SQLAlchemyError, OperatorError):
        found = None
    return found or refusal(engine.url, said, "Let the owner of the tables do it, or grant it: see docs/postgresql.md.")


def _asked(connection: Connection, statement: str) -> list[Right]:
    """Return the rights that a statement of ours needs, by its words."""
    verb = statement.split(maxsplit=1)[0].upper() if statement.strip() else ""
    names = [name for name in (VERSIONS, *(table.name for table in TABLES)) if re.search(rf"\b{name}\b", statement)]
    if verb not in {READ, ADD, CHANGE, DROP}:
        schema = connection.execute(text("SELECT current_schema()")).scalar_one()
        return [Right("SCHEMA", schema or "public", "CREATE")]
    # The table that is written to is named first.
    first = sorted(names, key=statement.index)[:1]
    return as_rights({name: (READ, verb) if [name] == first and verb != READ else (READ,) for name in names})


def _explain(connection: Connection, needed: Iterable[Right]) -> ServiceRefusedError | None:
    missing = _missing(connection, list(needed))
    if not missing:
        return None
    role = connection.execute(text("SELECT current_user")).scalar_one()
    objects: dict[tuple[str, str], list[str]] = {}
    for each in missing:
        objects.setdefault((each.kind, each.name), []).append(each.right)
    lacks = ", ".join(f"{' and '.join(rights)} on {kind.lower()} {name}" for (kind, name), rights in objects.items())
    grantee = quoted(role)
    grants = " ".join(
        f"GRANT {', '.join(rights)} ON {kind} {quoted(name)} TO {grantee};" for (kind, name), rights in objects.items()
    )
    remedy = f"Grant it: {grants}"
    if any(kind == "SCHEMA" for kind, _ in objects):
        remedy += " Or let the tables' owner run 'paedid-monitor migrate'."
    return refusal(connection.engine.url, f"role {role!r} lacks {lacks}", remedy)


def _missing(connection: Connection, needed: list[Right]) -> list[Right]:
    found = []
    for each in needed:
        # to_regclass: what is not there has no rights, and is told of elsewhere.
        what = "CAST(:name AS text)" if each.kind == "SCHEMA" else "to_regclass(CAST(:name AS text))"
        question = text(f"SELECT has_{each.kind.lower()}_privilege({what}, :right)")
        if connection.execute(question, {"name": each.name, "right": each.right}).scalar() is False:
            found.append(each)
    return found
