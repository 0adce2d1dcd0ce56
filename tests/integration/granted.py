"""The GRANT statements of docs/postgresql.md, and a database whose roles have just what they grant."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import Final, Self

from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url, text

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.settings import DatabaseSettings, Settings

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


GRANTED: Final = documented()


class Plant:
    """A database whose roles have what the document grants, and nothing else."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self._suffix = uuid.uuid4().hex[:8]
        self._admin = create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
        self._engines: list[Engine] = []
        # As since PostgreSQL 15; and who may connect is said, too.
        self.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
        self.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        self.execute(f"REVOKE CONNECT ON DATABASE {self._url.database} FROM PUBLIC")
        for role in GRANTED:
            self.execute(f"CREATE ROLE {self.name(role)} LOGIN PASSWORD 'secret-word'")
        self.grant("paedid_owner")
        migrations.upgrade(self.url("paedid_owner"))
        for role in set(GRANTED) - {"paedid_owner"}:
            self.grant(role)

    def name(self, role: str) -> str:
        """Return a role's name on this server, which other tests share."""
        return f"{role}_{self._suffix}"

    def grant(self, role: str) -> None:
        """Execute the document's statements for a role."""
        for statement in GRANTED[role]:
            here = statement.replace("DATABASE paedid ", f"DATABASE {self._url.database} ")
            self.execute(here.replace(f"TO {role}", f"TO {self.name(role)}"))

    def execute(self, *statements: str) -> None:
        with self._admin.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def url(self, role: str) -> str:
        return self._url.set(username=self.name(role), password="secret-word").render_as_string(hide_password=False)

    def settings(self, role: str, *, migrate: bool = True) -> Settings:
        return Settings.model_validate({"database": {"url": self.url(role), "migrate": migrate}})

    def engine(self, role: str) -> Engine:
        engine = connect(DatabaseSettings(url=SecretStr(self.url(role))))
        self._engines.append(engine)
        return engine

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self._engines:
            engine.dispose()
        for role in GRANTED:
            self.execute(f"DROP OWNED BY {self.name(role)} CASCADE", f"DROP ROLE {self.name(role)}")
        self._admin.dispose()
