"""A PostgreSQL that refuses: passwords, roles, databases, encodings, TLS. One line each, without a secret."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from sqlalchemy import URL, create_engine, make_url, text

from deploy.chaos.databases import PostgresServer
from monitor import wiring
from monitor.adapters import migrations
from monitor.adapters.database import make_engine
from monitor.adapters.database_refusals import explain_refusal, explain_unknown
from monitor.adapters.inspections import SqlInspectionStore
from monitor.database_access import open_database
from monitor.settings import Settings
from schemas.errors import ConfigurationError, OperatorError, ServiceRefusedError, ServiceUnavailableError
from tests.faults.line import run, wait_until

Execute = Callable[..., None]
SECRET = "secret-word"
CONNECTED = "connection failed: connection to server at "


@pytest.fixture
def execute(postgres_server: URL) -> Iterator[Execute]:
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")

    def execute(*statements: str) -> None:
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(text(statement))

    yield execute
    engine.dispose()


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def narrow_url(request: pytest.FixtureRequest, postgres_server: URL, execute: Execute) -> Iterator[str]:
    """A database that cannot hold every text."""
    name = f"narrow_{uuid.uuid4().hex[:8]}"
    execute(f"CREATE DATABASE {name} ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    yield postgres_server.set(database=name).render_as_string(hide_password=False)
    execute(f"DROP DATABASE {name} WITH (FORCE)", f"DROP DATABASE IF EXISTS {name}_utf8 WITH (FORCE)")


def opened(url: str, *, migrate: bool = True) -> None:
    with open_database(Settings.model_validate({"database": {"url": url, "migrate": migrate}})):
        pass


def test_a_database_that_cannot_hold_every_text_is_refused_with_the_statement_that_makes_one_that_can(
    narrow_url: str, execute: Execute
) -> None:
    for attempt in (
        lambda: opened(narrow_url),
        lambda: opened(narrow_url, migrate=False),
        lambda: migrations.upgrade(narrow_url),
        lambda: migrations.check(narrow_url),
    ):
        with pytest.raises(ServiceRefusedError, match=r"the database is in (LATIN1|SQL_ASCII), which") as caught:
            attempt()
    [statement] = re.findall(r"CREATE DATABASE [^;]*;", str(caught.value))
    execute(statement)
    url = make_url(narrow_url)
    opened(url.set(database=f"{url.database}_utf8").render_as_string(hide_password=False))


def test_worker_learner_and_commands_tell_of_it_at_their_start(
    execute: Execute,
    postgres_server: URL,
    tmp_path: Path,
) -> None:
    execute("CREATE DATABASE narrow_one ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    url = postgres_server.set(database="narrow_one").render_as_string(hide_password=False)
    settings = Settings.model_validate({"database": {"url": url}})
    try:
        # Before they look for Kafka, Redis or a model.
        for program in (wiring.open_worker_ports(settings), wiring.open_school(settings, cast("Any", None))):
            with pytest.raises(ServiceRefusedError, match="LATIN1"), program:
                pass
        (tmp_path / "config.yaml").write_text(f"database: {{url: '{url}'}}")
        for command in (["migrate"], ["review", "list"]):
            done = run("monitor", "--config", str(tmp_path / "config.yaml"), *command)
            assert done.returncode == 2, done.stderr
            [line] = done.stderr.strip().splitlines()
            assert line.startswith("error: PostgreSQL at database.url = ")
            assert "LATIN1" in line
    finally:
        execute("DROP DATABASE narrow_one WITH (FORCE)")


def test_the_environments_own_encoding_does_not_matter(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    opened(postgres_url)
    migrations.check(postgres_url)


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A server that asks some roles for a password, and lets some not in."""
    with PostgresServer() as server:
        with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
            for statement in (
                f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'",
                "CREATE ROLE asleep NOLOGIN",
                "CREATE ROLE outside LOGIN",
                "CREATE ROLE worker LOGIN",
                "CREATE DATABASE closed",
                "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
            ):
                connection.execute(statement.encode())
            [(path,)] = connection.execute("SHOW hba_file").fetchall()
            rules = "local all guarded scram-sha-256\nlocal all outside reject\n"
            Path(path).write_text(rules + Path(path).read_text())
            connection.execute("SELECT pg_reload_conf()")
        # Which it does when it gets to it.
        outside = make_url(server.url).set(drivername="postgresql", username="outside")
        wait_until(lambda: not lets_in(outside.render_as_string(hide_password=False)))
        yield server.url


def lets_in(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize(
    ("user", "password", "database", "options", "told"),
    [
        ("guarded", "wrong-word", "postgres", {}, "it does not take the password for role 'guarded'"),
        ("guarded", None, "postgres", {}, "it does not take the password for role 'guarded'"),
        ("stranger", SECRET, "postgres", {}, "no role 'stranger'.*CREATE ROLE stranger LOGIN"),
        ("asleep", SECRET, "postgres", {}, "role 'asleep' may not log in.*ALTER ROLE asleep LOGIN;"),
        ("outside", SECRET, "postgres", {}, r"role and database in: .*pg_hba\.conf rejects.*sslmode=require"),
        ("worker", SECRET, "Line-1", {}, "no database 'Line-1'.*CREATE DATABASE \"Line-1\" ENCODING 'UTF8'"),
        ("worker", SECRET, "closed", {}, "'worker' may not connect.*GRANT CONNECT ON DATABASE closed TO worker;"),
        ("worker", SECRET, "postgres", {"sslmode": SECRET}, r"an option that the driver does not take.*\*\*\*"),
        ("worker", SECRET, "postgres", {"nonsense": "1"}, "an option that the driver does not take.*nonsense"),
    ],
)  # fmt: skip
def test_what_the_server_refuses_is_told_in_its_own_words(
    guarded: str, user: str, password: str | None, database: str, options: dict[str, str], told: str
) -> None:
    url = make_url(guarded).set(username=user, password=password, database=database)
    url = url.update_query_dict(options)
    for attempt in (opened, migrations.upgrade, migrations.check):
        with pytest.raises(ServiceRefusedError, match=told) as caught:
            attempt(url.render_as_string(hide_password=False))
        assert "\n" not in str(caught.value)
        assert "-word" not in str(caught.value)
        assert "start it" not in str(caught.value).lower()


def test_a_password_that_is_changed_while_a_program_runs_is_told_at_its_next_connection(guarded: str) -> None:
    url = make_url(guarded).set(username="guarded", password=SECRET)
    engine = make_engine(url)
    store = SqlInspectionStore(engine, "inspections")
    with pytest.raises(ServiceRefusedError, match="not those of this program"):
        store.unpublished(1)
    admin = create_engine(guarded, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("ALTER ROLE guarded PASSWORD 'another'"))
        try:
            engine.dispose()
            for _ in range(2):
                with pytest.raises(ServiceRefusedError, match="it does not take the password for role 'guarded'"):
                    store.unpublished(1)
        finally:
            connection.execute(text(f"ALTER ROLE guarded PASSWORD '{SECRET}'"))
    for each in (engine, admin):
        each.dispose()


def test_a_password_that_is_not_escaped_is_refused_without_a_part_of_it() -> None:
    with pytest.raises(ConfigurationError, match="Write '@' as %40") as caught:
        opened("postgresql://worker:secr@t-word@127.0.0.1/line")
    assert "t-word" not in str(caught.value)


# Words of PostgreSQL, libpq and PgBouncer that take another machine, or long, to hear.
@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            '"h", port 1 failed: FATAL:  no pg_hba.conf entry for host "h", user "u", no encryption',
            "sslmode=require",
        ),
        ('"h", port 1 failed: FATAL:  SSL required', "without TLS"),
        ('"h", port 1 failed: SSL error: certificate verify failed', "no agreement on TLS"),
        ('"h", port 1 failed: root certificate file "/x/root.crt" does not exist', "no agreement on TLS"),
        ('"h", port 1 failed: SSL error: tlsv1 alert unknown ca', "no agreement on TLS"),
        ('"h", port 1 failed: FATAL:  LDAP authentication failed for user "u"', "for who it says"),
    ],
)
def test_words_of_refusal_are_understood(said: str, told: str) -> None:
    error = psycopg.OperationalError(CONNECTED + said)
    found = explain_refusal(make_url("postgresql://u:p@h/d"), error)
    assert found is not None
    assert told in str(found)


@pytest.mark.parametrize(
    "said",
    [
        '"h", port 1 failed: Connection refused',
        '"h", port 1 failed: timeout expired',
        '"h", port 1 failed: FATAL:  the database system is starting up',
        '"h", port 1 failed: FATAL:  the database system is not yet accepting connections',
        '"h", port 1 failed: FATAL:  sorry, too many clients already',
        '"h", port 1 failed: FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute',
        '"h", port 1 failed: FATAL:  query_wait_timeout',
        '"h", port 1 failed: FATAL:  server login has been failing, try again later (server_login_retry)',
        '"h", port 1 failed: FATAL:  client_login_timeout (server down)',
        '"h", port 1 failed: SSL SYSCALL error: Connection reset by peer',
        "consuming input failed: SSL connection has been closed unexpectedly",
        "consuming input failed: server closed the connection unexpectedly",
    ],
)
def test_words_of_an_outage_are_no_refusal(said: str) -> None:
    url, error = make_url("postgresql://u:p@h/d"), psycopg.OperationalError(CONNECTED + said)
    assert explain_refusal(url, error) is None
    assert explain_unknown(url, error) is None


def test_a_server_that_speaks_another_language_is_told_in_its_own_at_start_and_waited_for_while_running() -> None:
    said = '"h", port 1 failed: FATAL:  Passwort-Authentifizierung für Benutzer »u« fehlgeschlagen'
    url, error = make_url("postgresql://u:p@h/d"), psycopg.OperationalError(CONNECTED + said)
    assert explain_refusal(url, error) is None
    told = explain_unknown(url, error)
    assert told is not None
    assert "Passwort-Authentifizierung" in str(told)


def test_a_server_that_is_away_is_no_refusal() -> None:
    with pytest.raises(ServiceUnavailableError, match="not reachable"):
        opened("postgresql://worker@127.0.0.1:1/line")


def test_a_table_that_is_gone_is_told_with_the_remedy(postgres_url: str) -> None:
    opened(postgres_url)
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE outbox RENAME TO elsewhere"))
    engine.dispose()
    with (
        pytest.raises(OperatorError, match=r"not those of this program.*outbox.*paedid-monitor migrate"),
        open_database(Settings.model_validate({"database": {"url": postgres_url}})) as found,
        found.connect() as connection,
    ):
        connection.execute(text("SELECT * FROM outbox"))
