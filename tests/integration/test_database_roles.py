"""The roles of docs/postgresql.md: each can do what it is for, and each right that it lacks is told with its GRANT."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs

from monitor.adapters import migrations
from monitor.adapters.bank_book import SqlBankBook
from monitor.adapters.bank_desk import BankDesk
from monitor.adapters.database_rights import LEARNER, WORKER, as_rights
from monitor.adapters.dead_letter_desk import DeadLetterDesk, Selection
from monitor.adapters.drift_reports import SqlDriftReports
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.memory import MemoryPublisher
from monitor.adapters.model_desk import SqlModelDesk
from monitor.adapters.review_desk import ReviewDesk
from monitor.adapters.reviews import SqlReviewStore
from monitor.adapters.rule_store import SqlRuleStore
from monitor.adapters.shadow_desk import SqlShadowDesk
from monitor.clock import SystemClock
from monitor.database_access import open_database
from monitor.ports import (
    BankEntry,
    BankKey,
    BatchOutcome,
    DriftReport,
    LogGap,
    OrderKind,
    Policy,
    Removal,
    ReviewOutcome,
)
from monitor.publishing import OutboxRelay
from schemas.errors import ServiceRefusedError
from schemas.messages import Verdict
from schemas.tables import TABLES
from tests.faults.line import wait_until
from tests.integration.granted import GRANTED, Plant, granted
from tests.integration.records import CAPTURED, dead_letter, inspection

PROGRAMS = {"worker": WORKER, "learner": LEARNER}
KEY = BankKey("cam1", "model-1")


@pytest.fixture
def plant(postgres_url: str) -> Iterator[Plant]:
    with Plant(postgres_url) as plant:
        yield plant


def drift_report() -> DriftReport:
    return DriftReport(
        camera="cam1", model_id="model-1", bank_version=3, updated_at=CAPTURED, since=CAPTURED, frames=5, ratio=0.5,
        drifting_since=None, last_drift_at=None, locations=(), score_ewma=1.25, distance_ewma=b"1234",
    )  # fmt: skip


def entry(frame_id: str, version: int) -> BankEntry:
    return BankEntry("cam1", "model-1", frame_id, 3, "0" * 64, "1" * 64, 99, "Ada", None, version)


def work(engine: Engine) -> None:
    store = SqlInspectionStore(engine, "inspections")
    records = tuple(inspection(f"frame-{n}", n, image_sha256="0") for n in range(4))
    for _ in range(2):
        store.record(BatchOutcome(records, (dead_letter(9),), (drift_report(),), (LogGap(records[0].position, 3),)))
        store.record_shadows(records)
    assert store.drift_report("cam1", "model-1") is not None
    messages = store.unpublished(10)
    store.mark_published([message.id for message in messages])
    assert store.forget_published(timedelta(days=-1), 10) == len(messages) == 4
    assert SqlModelDesk(engine).in_force() == ()


def review(engine: Engine) -> None:
    desk = ReviewDesk(engine)
    assert len(desk.list_flagged(10)) == 4
    assert desk.show("frame-1").regions
    desk.confirm("frame-1", Verdict.NORMAL, "Ada")
    desk.confirm("frame-2", Verdict.NORMAL, "Ada")
    assert len(desk.retract("frame-2", "Ada")[1]) == 1


def learn(engine: Engine) -> None:
    reviews, book, rule = SqlReviewStore(engine), SqlBankBook(engine), SqlRuleStore(engine)
    for pending in reviews.pending_reviews(10):
        assert reviews.is_pending(pending.review_id)
        reviews.complete_review(pending.review_id, ReviewOutcome("recorded", "a test", 1))
    for order in book.pending_orders("model-1", 10):
        book.complete_order(order.order_id, "done", "a test", 1)
    book.write("cam1", "model-1", [entry("frame-1", 1)], ())
    book.write("cam1", "model-1", (), [Removal("frame-1", 2, "Ada", "a test")])
    assert (book.barred(["frame-2"]), book.paused(), book.bank_version("cam1", "model-1")) == ({"frame-2"}, set(), 2)
    assert book.next_bank_version("cam1", "model-1")
    assert list(book.taught_cameras("model-1")) == ["cam1"]
    assert reviews.golden_defects("cam1", 10) == ()
    assert rule.newest() == 4
    assert rule.calm_frames("model-1", 0, 0.5, 10) == ()
    assert rule.confirmed_since("cam1", CAPTURED) == 0
    assert rule.confirm("frame-3", "calm")
    assert SqlDriftReports(engine).of_model("model-1")


def operate(engine: Engine) -> None:
    bank, letters, models = BankDesk(engine), DeadLetterDesk(engine), SqlModelDesk(engine)
    assert bank.banks() == [KEY]
    bank.find_order(bank.order(OrderKind.ROLLBACK, KEY, "Ada", version=0))
    bank.pause(Policy.RULE, "Ada")
    bank.resume(Policy.RULE, "Ada")
    SqlBankBook(engine).write("cam1", "model-2", [entry("frame-3", 1)], ())
    SqlBankBook(engine).write("cam1", "model-2", (), [Removal("frame-3", 2, "Ada", "a test")])
    letters.mark_replayed([each.id for each in letters.newest(Selection(), 10)], "Ada")
    assert letters.purge(Selection(), "Ada") == 1
    models.assign("cam1", None, "Ada")
    assert models.in_use() == {"cam1": "model-1"}
    SqlShadowDesk(engine).compare()


def read(engine: Engine) -> None:
    ReviewDesk(engine).list_flagged(10)
    BankDesk(engine).orders(KEY)
    DeadLetterDesk(engine).totals(Selection())
    SqlModelDesk(engine).history()
    SqlShadowDesk(engine).compare()
    with engine.connect() as connection:
        for table in TABLES:
            connection.execute(table.select())


def test_each_role_can_do_what_it_is_for_with_what_the_document_grants(plant: Plant) -> None:
    turns: tuple[tuple[str, Callable[[Engine], None]], ...] = (
        ("worker", work), ("reviewer", review), ("learner", learn), ("operator", operate), ("reader", read),
    )  # fmt: skip
    for role, do in turns:
        # The tables are up to date, so that whoever brings them up to date at start needs no right to.
        for migrate in (True, False):
            with open_database(plant.settings(f"paedid_{role}", migrate=migrate), PROGRAMS.get(role, {})):
                pass
        do(plant.engine(f"paedid_{role}"))
    ReviewDesk(plant.engine("paedid_operator")).confirm("frame-0", Verdict.DEFECT, "Bob")
    migrations.downgrade(plant.url("paedid_owner"), "base")


@pytest.mark.parametrize("role", PROGRAMS)
def test_what_a_program_asks_for_is_what_the_document_grants(role: str) -> None:
    needed = {(each.kind, each.name, each.right) for each in as_rights(PROGRAMS[role])}
    assert needed == granted(GRANTED[f"paedid_{role}"])


def test_each_right_that_a_program_lacks_is_told_at_its_start_with_the_statement_that_grants_it(plant: Plant) -> None:
    for role, needed in (("worker", WORKER), ("learner", LEARNER)):
        settings, name = plant.settings(f"paedid_{role}", migrate=False), plant.name(f"paedid_{role}")
        for each in as_rights(needed):
            plant.execute(f"REVOKE {each.right} ON {each.kind} {each.name} FROM {name}")
            with pytest.raises(ServiceRefusedError) as caught, open_database(settings, needed):
                pass
            told = str(caught.value)
            # And nothing else: those before it are granted again.
            assert f"role '{name}' lacks {each.right} on {each.kind.lower()} {each.name}. Grant it: GRANT" in told
            assert "\n" not in told
            assert "secret-word" not in told
            plant.execute(*re.findall(r"GRANT [^;]*;", told))
        with open_database(settings, needed):
            pass


Denied = tuple[str, str, Callable[[Engine], object], str]
DENIED: tuple[Denied, ...] = (
    ("reader", "", lambda engine: ReviewDesk(engine).confirm("frame-1", Verdict.NORMAL, "Ada"),
     "GRANT INSERT ON TABLE reviews TO {role}; GRANT USAGE ON SEQUENCE reviews_id_seq TO {role};"),
    ("reader", "", lambda engine: DeadLetterDesk(engine).purge(Selection(), "Ada"),
     "GRANT UPDATE ON TABLE dead_letters TO {role};"),
    ("reader", "REVOKE SELECT ON TABLE inspections FROM {role}", lambda engine: ReviewDesk(engine).list_flagged(1),
     "GRANT SELECT ON TABLE inspections TO {role};"),
    ("worker", "REVOKE USAGE ON SEQUENCE outbox_id_seq FROM {role}",
     lambda engine: SqlInspectionStore(engine, "t").record(BatchOutcome((inspection("new", 77),))),
     "GRANT USAGE ON SEQUENCE outbox_id_seq TO {role};"),
    ("worker", "REVOKE DELETE ON TABLE outbox FROM {role}",
     lambda engine: SqlInspectionStore(engine, "t").forget_published(timedelta(0), 1),
     "GRANT DELETE ON TABLE outbox TO {role};"),
)  # fmt: skip


def test_a_right_that_is_missed_while_running_is_told_with_the_statement_that_grants_it(plant: Plant) -> None:
    work(plant.engine("paedid_worker"))
    for role, revoke, do, grant in DENIED:
        name = plant.name(f"paedid_{role}")
        engine = plant.engine(f"paedid_{role}")
        if revoke:
            plant.execute(revoke.format(role=name))
        with pytest.raises(ServiceRefusedError, match=re.escape(grant.format(role=name))):
            do(engine)
        plant.execute(*re.findall(r"GRANT [^;]*;", grant.format(role=name)))
        do(engine)


@pytest.mark.parametrize("right", ["UPDATE", "DELETE"])
def test_a_right_that_the_outbox_relay_lacks_is_told_and_waited_for_while_frames_are_stored(
    plant: Plant, right: str
) -> None:
    name, publisher = plant.name("paedid_worker"), MemoryPublisher()
    store = SqlInspectionStore(plant.engine("paedid_worker"), "t")
    plant.execute(f"REVOKE {right} ON TABLE outbox FROM {name}")
    store.record(BatchOutcome((inspection("frame-1", 1),)))
    relay = OutboxRelay(store, publisher, SystemClock())
    with capture_logs() as logs:
        relay.start()
        wait_until(lambda: any(log["event"].startswith("Results are refused") for log in logs))
        store.record(BatchOutcome((inspection("frame-2", 2),)))
        plant.execute(f"GRANT {right} ON TABLE outbox TO {name}")
        wait_until(lambda: any(log["event"] == "Results are being published again" for log in logs))
        relay.stop()
    [told] = [log["error"] for log in logs if log["event"].startswith("Results are refused")]
    assert told.endswith(f"Grant it: GRANT {right} ON TABLE outbox TO {name};")
    assert {json.loads(message.payload)["frame_id"] for message in publisher.sent_events} == {"frame-1", "frame-2"}
    assert store.unpublished(1) == ()


def test_a_policy_of_the_servers_own_is_told_in_the_servers_words(plant: Plant) -> None:
    plant.execute("ALTER TABLE reviews ENABLE ROW LEVEL SECURITY")
    work(plant.engine("paedid_worker"))
    with pytest.raises(ServiceRefusedError, match=r"row-level security policy for table .reviews.*docs/postgresql\.md"):
        ReviewDesk(plant.engine("paedid_reviewer")).confirm("frame-1", Verdict.NORMAL, "Ada")


def test_who_may_not_make_tables_is_told_so_and_nothing_is_left_behind(plant: Plant) -> None:
    url, name = plant.url("paedid_reader"), plant.name("paedid_reader")
    migrations.downgrade(plant.url("paedid_owner"), "base")
    plant.execute("DROP TABLE alembic_version")
    with pytest.raises(ServiceRefusedError, match=f"GRANT CREATE ON SCHEMA public TO {name};.*owner run"):
        migrations.upgrade(url)
    plant.execute(f"REVOKE USAGE ON SCHEMA public FROM {name}")
    with pytest.raises(ServiceRefusedError, match=rf"no schema.*GRANT USAGE ON SCHEMA public TO {name};"):
        migrations.check(url)


def test_who_does_not_own_the_tables_cannot_change_them_and_is_told_so(plant: Plant) -> None:
    migrations.downgrade(plant.url("paedid_owner"), "0006")
    plant.execute(f"GRANT CREATE ON SCHEMA public TO {plant.name('paedid_operator')}")
    with pytest.raises(ServiceRefusedError, match=r"refuses: (must be owner|role .* lacks|permission denied).*owner"):
        migrations.upgrade(plant.url("paedid_operator"))


def test_every_table_is_somebodys_to_write() -> None:
    written = {name for statements in GRANTED.values() for _, name, right in granted(statements) if right == "INSERT"}
    assert written == {table.name for table in TABLES}
