"""What PostgreSQL and PgBouncer say when they refuse, in the operator's words, and what a database refuses of one row.

Three things are told apart. An outage passes: it is waited for. A refusal does not: it is told at once. What is
refused of one row stops nothing but this row.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy import URL
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from schemas.errors import ServiceRefusedError

KEY: Final = "database.url"
HIDDEN: Final = "***"
_PREPARER: Final = PGDialect().identifier_preparer  # type: ignore[no-untyped-call]
DOCS: Final = "See docs/postgresql.md."

# While a connection is made, libpq gives no SQLSTATE: the words are all there is. Those of a server that speaks another
# language are told as they are. {role} and {database} are the URL's.
_REFUSALS: Final = tuple(
    (re.compile(pattern), problem, remedy)
    for pattern, problem, remedy in (
        (
            r"no password supplied|password authentication failed|SASL authentication failed",
            "it does not take the password for role {role!r}",
            "Correct the name and the password in database.url.",
        ),
        (
            r'role ".*" does not exist|no such user',
            "there is no role {role!r}",
            "Correct the name in database.url, or make it: CREATE ROLE {role} LOGIN PASSWORD '...';",
        ),
        (
            r"is not permitted to log in",
            "role {role!r} may not log in",
            "Let it: ALTER ROLE {role} LOGIN;",
        ),
        (
            r'database ".*" does not exist|no such database',
            "there is no database {database!r}",
            "Correct the name in database.url, or make it: {create}",
        ),
        (
            r"permission denied for database",
            "role {role!r} may not connect to database {database!r}",
            "Grant it: GRANT CONNECT ON DATABASE {database} TO {role};",
        ),
        (
            r"server does not support SSL",
            "database.url asks for TLS, and the server has none",
            "Set 'ssl = on' there, or take sslmode out of database.url.",
        ),
        (
            r"pg_hba\.conf",
            "it does not let this machine, role and database in: {words}",
            "Add a line for them to the server's pg_hba.conf, or ?sslmode=require to database.url if it wants TLS.",
        ),
        (
            r"(?i)SSL required",
            "it does not let this machine in without TLS",
            "Add ?sslmode=require to database.url.",
        ),
        (
            # Not every word of SSL: a TLS connection that breaks is an outage.
            r"(?i)certificate|private key|channel binding|unsupported protocol|wrong version number|tlsv\S* alert",
            "there is no agreement on TLS: {words}",
            "See sslmode, sslrootcert, sslcert and sslkey in docs/postgresql.md.",
        ),
        (
            r"authentication failed",
            "it does not take role {role!r} for who it says it is: {words}",
            "Correct database.url, or the server's pg_hba.conf.",
        ),
        (
            r"unsupported startup parameter",
            "the pooler does not pass on what database.url asks for: {words}",
            "Take it out of database.url, or name it in ignore_startup_parameters of PgBouncer.",
        ),
        (
            r"statement pooling mode",
            "the pooler allows no transactions",
            "Set pool_mode = transaction in PgBouncer.",
        ),
        (
            r"^connection is bad: (?:invalid|.*must be)|invalid connection option|missing .* in connection info",
            "database.url has an option that the driver does not take: {words}",
            DOCS,
        ),
    )
)
# What passes although the server answered: it starts, stops, recovers, or has too many clients.
_PASSING: Final = re.compile(
    r"starting up|shutting down|recovery|not yet accepting|not currently accepting|too many (?:clients|connections)|"
    r"connection slots|no more connections|server down|login_retry|cannot connect to server|wait_timeout|"
    r"terminating connection|closed the connection|server conn|timeout expired"
)
_ROLE: Final = re.compile(r'(?:user|role) "([^"]+)"')
# The server's severity, in whatever language; libpq's own words have no colon there.
_ANSWERED: Final = re.compile(r"failed: [^\s:]+: ")
_UNKNOWN_TABLE: Final = frozenset({"42P01", "42703"})

# What a database refuses of one row: wrong text, a number out of range, a value too long, a constraint, a trigger.
# Class 54 (too wide a row, too large an index entry) comes as an OperationalError, and is no outage.
_ROW_CLASSES: Final = ("22", "23", "44", "54", "P0")
ROW_FAULTS: Final = (DBAPIError, UnicodeError, OverflowError)


def safe_url(url: URL) -> str:
    """Return a URL without its password and options (which may name one)."""
    return url.set(query={}).render_as_string(hide_password=True)


def quoted(name: str) -> str:
    """Return a name as PostgreSQL's SQL writes it."""
    return _PREPARER.quote(name)


def create_database(name: str) -> str:
    """Return the statement that makes a database which can hold every text, whatever the server's own locale is."""
    return f"CREATE DATABASE {quoted(name)} ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0;"


def words(error: BaseException) -> str:
    """Return what a driver's error says, as one line that every database and every header can hold."""
    original = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = getattr(getattr(original, "diag", None), "message_primary", None) or str(original)
    return " ".join(said.encode(errors="replace").decode().split())


def explain_refusal(url: URL, error: BaseException) -> ServiceRefusedError | None:
    """Return what to tell an operator, if the server refused for good; None for an outage, and for what is unknown."""
    said = words(error)
    state = getattr(error, "sqlstate", None)
    if state in _UNKNOWN_TABLE:
        remedy = "Run 'paedid-monitor migrate', or restore a backup."
        return refusal(url, f"its tables are not those of this program: {said}", remedy)
    # A statement's error that has a code of its own is no matter of getting in, whatever its words quote.
    if (state and not state.startswith(("08", "28", "3D"))) or _PASSING.search(said):
        return None
    for pattern, problem, remedy in _REFUSALS:
        if pattern.search(said):
            named = _ROLE.search(said)
            role = url.username or (named[1] if named else "of this account")
            database = url.database or role
            statements = {"role": quoted(role), "database": quoted(database), "create": create_database(database)}
            told = problem.format(words=said, role=role, database=database)
            return refusal(url, told, remedy.format(**statements))
    return None


def explain_unknown(url: URL, error: BaseException) -> ServiceRefusedError | None:
    """Return what to tell at start of a server that answered, and refused in words that are not known here."""
    said = words(error)
    if _ANSWERED.search(said) and not _PASSING.search(said):
        return refusal(url, said, DOCS)
    return None


def refusal(url: URL, problem: str, remedy: str) -> ServiceRefusedError:
    """Return the error that tells of a refusal, without the URL's secrets."""
    for secret in (url.password, *(url.query.get(name) for name in ("password", "sslpassword"))):
        if isinstance(secret, str) and len(secret) > 2:  # noqa: PLR2004 - shorter ones are in many words
            problem, remedy = problem.replace(secret, HIDDEN), remedy.replace(secret, HIDDEN)
    return ServiceRefusedError("PostgreSQL", f"{KEY} = {safe_url(url)!r}", f"refuses: {problem}", remedy)


def is_of_a_row(error: BaseException) -> bool:
    """Return whether a database refused what one row holds, so that other rows may be taken."""
    if isinstance(error, DataError | IntegrityError | UnicodeError | OverflowError):
        return True
    state = str(getattr(getattr(error, "orig", None), "sqlstate", None) or "")
    return state.startswith(_ROW_CLASSES)
