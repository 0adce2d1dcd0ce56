"""PostgreSQL through PgBouncer in transaction mode: nothing of a session outlives a transaction."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import timedelta

import psycopg
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, make_url, text

from monitor.adapters import migrations, postgresql
from monitor.adapters.bank_desk import BankDesk
from monitor.adapters.database import connect, while_running
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.review_desk import ReviewDesk
from monitor.adapters.shadow_desk import SqlShadowDesk
from monitor.errors import StoreUnavailableError
from monitor.ports import BatchOutcome, Policy
from monitor.settings import DatabaseSettings
from schemas.errors import OperatorError, ServiceRefusedError
from schemas.messages import Verdict
from tests.faults.line import wait_until
from tests.integration.records import dead_letter, inspection
from tests.servers import PgBouncer

SERVER_CONNECTIONS = 4
# But what PgBouncer itself sets for each client.
IN_SESSION = """
    SELECT count(*) FROM pg_settings WHERE source = 'session' AND name NOT IN
        ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')
"""
LEFT_BEHIND = f"""
    SELECT pg_backend_pid(), current_setting('idle_in_transaction_session_timeout'), ({IN_SESSION}),
        (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors WHERE is_holdable),
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
"""


def open_database(url: str) -> Engine:
    return connect(DatabaseSettings(url=SecretStr(url)))


def work(engine: Engine, number: int) -> None:
    """Do some of everything that programs and people do."""
    store, desk = SqlInspectionStore(engine, "inspections"), ReviewDesk(engine)
    frames = [f"frame-{number}-{each}" for each in range(4)]
    records = tuple(inspection(frame, 10 * number + each, image_sha256="0") for each, frame in enumerate(frames))
    store.record(BatchOutcome(records, (dead_letter(10 * number + 9, frame_id=b"d%d" % number),)))
    store.record_shadows(records)
    store.mark_published([message.id for message in store.unpublished(10)])
    store.forget_published(timedelta(days=1), 10)
    desk.confirm(frames[0], Verdict.NORMAL, "Ada")
    desk.retract(frames[0], "Ada")
    with pytest.raises(OperatorError, match="several ids begin so"):
        desk.show(f"frame-{number}-")
    BankDesk(engine).pause(Policy.RULE, "Ada")
    BankDesk(engine).resume(Policy.RULE, "Ada")
    SqlShadowDesk(engine).compare()


def test_nothing_of_a_session_outlives_a_transaction_on_any_server_connection(pooled_url: str) -> None:
    migrations.upgrade(pooled_url)
    engines = [open_database(pooled_url) for _ in range(2)]
    for number, engine in enumerate(engines):
        work(engine, number)
    # By default the driver prepares a statement at its sixth time, unless a transaction is rolled back meanwhile.
    for number in range(100, 120):
        outcome = BatchOutcome((inspection(f"frame-{number}", number),))
        assert SqlInspectionStore(engines[number % len(engines)], "inspections").record(outcome).inspections == 1
    for engine in engines:
        engine.dispose()
    url = make_url(pooled_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with ExitStack() as stack:
        # As many transactions at once as there are server connections, so that each of them is looked at.
        held = [stack.enter_context(psycopg.connect(url, prepare_threshold=None)) for _ in range(SERVER_CONNECTIONS)]
        found = [connection.execute(LEFT_BEHIND.encode()).fetchone() for connection in held]
    assert len({row[0] for row in found if row}) == SERVER_CONNECTIONS
    assert {row[1:] for row in found if row} == {("0", 0, 0, 0, 0)}


def test_a_transaction_that_stands_still_is_ended_through_a_pooler_too(
    pooled_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, other = open_database(pooled_url), open_database(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(text("SHOW idle_in_transaction_session_timeout")).scalar() == "10s"
    monkeypatch.setattr(postgresql, "BEGIN", postgresql.BEGIN.replace("'10s'", "'100ms'"))
    idle = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :pid")

    def is_ended(pid: int) -> bool:
        with other.connect() as connection:
            return connection.execute(idle, {"pid": pid}).scalar() == 0

    with pytest.raises(StoreUnavailableError), while_running(), engine.connect() as connection:  # noqa: PT012
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        wait_until(lambda: is_ended(pid))
        connection.execute(text("SELECT 1"))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1
    engine.dispose()
    other.dispose()


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        ({"auth_type": "scram-sha-256"}, "", r"it does not take the password for role 'postgres'\. Correct the name"),
        ({"client_tls_sslmode": "disable"}, "?sslmode=require", r"asks for TLS, and the server has none.*take sslmode"),
        ({}, "?options=-cstatement_timeout%3D5", r"does not pass on.*options.*ignore_startup_parameters"),
        ({"pool_mode": "statement"}, "", r"the pooler allows no transactions\. Set pool_mode = transaction"),
    ],
    ids=["password", "tls", "options", "statement-mode"],
)
def test_what_pgbouncer_refuses_is_told_in_one_line(
    postgres_url: str, settings: dict[str, str], options: str, told: str
) -> None:
    url = make_url(postgres_url)
    user = url.username or ""
    with (
        PgBouncer(url, {user: "secret-word"}, **settings) as server,
        pytest.raises(ServiceRefusedError, match=told) as caught,
    ):
        open_database(server.url(url.database, user, "wrong-word") + options)
    assert "\n" not in str(caught.value)
    assert "-word" not in str(caught.value)
    assert "start it" not in str(caught.value).lower()


def test_a_database_and_a_role_that_pgbouncer_does_not_find_are_named(pgbouncer: PgBouncer) -> None:
    with pytest.raises(ServiceRefusedError, match="there is no database 'nowhere'"):
        open_database(pgbouncer.url("nowhere"))
    with pytest.raises(ServiceRefusedError, match="does not take role 'nobody' for who"):
        open_database(pgbouncer.url("nowhere", "nobody"))
