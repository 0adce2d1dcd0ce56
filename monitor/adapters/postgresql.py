"""PostgreSQL, reached directly or through a pooler such as PgBouncer: nothing of a session outlives a transaction.

In transaction mode, a pooler hands each transaction whatever server connection is free. So there are no prepared
statements here, no SET but SET LOCAL, and no lock but those that end with the transaction.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import ExceptionContext

from monitor.adapters.database_refusals import KEY, create_database, explain_refusal, quoted, refusal, safe_url
from monitor.adapters.database_rights import explain_denied
from schemas.errors import ConfigurationError

IDLE_IN_TRANSACTION_S: Final = 10
# One round trip. A program that stands still in the middle of a transaction would hold what its successor waits for:
# the server ends such a transaction, and who waits for it tries again.
BEGIN: Final = f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_S}s'"
# A dead network is noticed within seconds instead of TCP's quarter of an hour.
NETWORK: Final[dict[str, Any]] = {
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "application_name": "paedid-monitor",
}
# Not for the URL or the environment to choose. Autocommit: the driver's own BEGIN would be one more round trip.
OWN: Final[dict[str, Any]] = {"autocommit": True, "prepare_threshold": None, "client_encoding": "utf8"}


def make_postgres_engine(url: URL, timeout_s: float) -> Engine:
    """Return an engine for PostgreSQL that has not connected yet. Its refusals are ServiceRefusedError.

    Raises:
        ConfigurationError: the driver cannot be loaded, or the URL's password is not escaped.
    """
    if "@" in (url.host or ""):
        # All that follows the first '@' would be told as the host, a part of the password included.
        problem, remedy = "the name or the password has an '@' in it", "Write '@' as %40, and '%' as %25."
        raise ConfigurationError(KEY, "postgresql://...", problem, remedy)
    network = NETWORK | {"connect_timeout": max(2, round(timeout_s))}
    chosen = {name: value for name, value in network.items() if name not in url.query}
    try:
        engine = create_engine(
            url.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_timeout=timeout_s,
            connect_args=chosen | OWN,
        )
    except ImportError as error:
        remedy = "Install it: pip install 'psycopg[binary]'."
        raise ConfigurationError(KEY, safe_url(url), f"its driver cannot be loaded: {error}", remedy) from error
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", _tell_refusals)
    return engine


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(BEGIN)


def _tell_refusals(context: ExceptionContext) -> None:
    """Raise ServiceRefusedError in place of a driver's error that no waiting mends."""
    engine, error = context.engine, context.original_exception
    if engine is None:
        return
    refusal = explain_denied(engine, error, context.statement) or explain_refusal(engine.url, error)
    if refusal is not None:
        raise refusal from error


def require_usable(connection: Connection, url: URL) -> None:
    """Return if the database can hold every text and has a schema that this role may use.

    Raises:
        ServiceRefusedError: it is not in UTF8, or there is no schema for this role; with the statement that mends it.
    """
    if connection.dialect.name != "postgresql":
        return
    query = "SELECT current_setting('server_encoding'), current_schema(), current_user, current_setting('search_path')"
    encoding, schema, role, path = connection.execute(text(query)).one()
    if encoding != "UTF8":
        name = f"{url.database or role}_utf8"
        problem = f"the database is in {encoding}, which cannot hold every serial, lot and note"
        raise refusal(url, problem, f"Make one in UTF8 and name it in {KEY}: {create_database(name)}")
    if schema is None:
        problem = f"role {role!r} may use no schema of its search_path ({path})"
        raise refusal(url, problem, f"Grant it: GRANT USAGE ON SCHEMA public TO {quoted(role)};")
