"""A plant's own PostgreSQL: a day through PgBouncer, each program as a role of its own; and a right that is revoked."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from sqlalchemy import make_url

from deploy.chaos.databases import PostgresServer
from deploy.local.programs import Program
from monitor.adapters.database import connect
from monitor.adapters.review_desk import ReviewDesk
from monitor.settings import DatabaseSettings
from tests.faults.line import MakeLine, Message, good_png, wait_until
from tests.faults.operated import odd_png, said
from tests.faults.test_model_swap import Changing, rename
from tests.integration.granted import GRANTED, Plant
from tests.servers import PgBouncer

pytestmark = pytest.mark.usefixtures("forks")
ROLES = {"run": "paedid_worker", "learn": "paedid_learner", "review": "paedid_reviewer"}


class InPlant(Changing):
    """A line whose programs and people have each a role of their own; what is not stored is looked up as the owner."""

    urls: dict[str, str]

    def of_roles(self, urls: dict[str, str]) -> None:
        """Give each role its URL."""
        self.urls = urls
        sections = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        for role, url in urls.items():
            sections["database"] = {"url": url, "migrate": False}
            self._config(role).write_text(yaml.safe_dump(sections), encoding="utf-8")

    def program(self, name: str, *arguments: str) -> Program:
        config = self._config(ROLES[arguments[0]])
        return Program(name, ["--config", str(config), *arguments], self.directory)

    def run(self, *arguments: str) -> CompletedProcess[str]:
        config = self._config(ROLES.get(arguments[0], "paedid_operator"))
        return self.forks.run("monitor", "--config", str(config), *arguments)

    def ok(self, *arguments: str) -> str:
        """Run a command; return what it said, in one line."""
        done = self.run(*arguments)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return " ".join(done.stdout.split())

    def odd_part(self) -> str:
        """Send a part that is like no other, and return its id once it has a verdict."""
        message = Message.of(odd_png(40))
        self.send([message])
        self.wait(lambda: self.verdict(message.frame_id) is not None)
        return message.frame_id

    def reconnect(self) -> None:
        """Forget the connections to a server that was killed."""
        self._engine.dispose()

    def check_accounts(self) -> None:
        """Assert that what was sent is stored, once: with a verdict, or as a dead letter."""
        stored = [row.frame_id for row in self.query("SELECT frame_id FROM inspections")]
        dead = [row.frame_id for row in self.query("SELECT frame_id FROM dead_letters")]
        assert sorted(stored + dead) == sorted(self.sent)

    def _config(self, role: str) -> Path:
        return self.directory / f"{role}.yaml"

    @cached_property
    def _desk(self) -> ReviewDesk:
        engine = connect(DatabaseSettings.model_validate({"url": self.urls["paedid_reviewer"]}))
        self._closing.callback(engine.dispose)
        return ReviewDesk(engine)


@pytest.fixture
def mortal_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own, to be killed."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def mortal(mortal_postgres: PostgresServer) -> Iterator[Plant]:
    with Plant(mortal_postgres.url) as plant:
        yield plant


@pytest.fixture
def plant(postgres_url: str) -> Iterator[Plant]:
    with Plant(postgres_url) as plant:
        yield plant


def test_a_day_through_pgbouncer_loses_nothing_doubles_nothing_and_keeps_the_bank(
    mortal: Plant, mortal_postgres: PostgresServer, make_line: MakeLine, bundle: Path, tmp_path: Path
) -> None:
    plant, postgres = mortal, mortal_postgres
    line = make_line(plant.url("paedid_owner"), kind=InPlant)
    assert isinstance(line, InPlant)
    plant.execute("ALTER TABLE inspections ADD CONSTRAINT lots CHECK (lot <> 'refused')")
    new = rename(bundle, tmp_path / "successor-1")
    users = {plant.name(role): "" for role in GRANTED}
    with PgBouncer(make_url(postgres.url), users) as pooler:
        database = make_url(postgres.url).database
        line.of_roles({role: pooler.url(database, plant.name(role)) for role in GRANTED})
        worker, learner = line.program("worker", "run"), line.program("learner", "learn")
        with line.operating(worker, learner):
            first, second = line.click(), line.click()
            line.follow(line.learnt(first, second))
            broken, refused = Message.of(b"no image"), Message.of(good_png(1), lot="refused")
            line.send([broken, refused])
            assert second in line.ok("review", "show", second)
            assert "golden defect" in line.ok("review", "confirm", line.odd_part(), "defect", "--reviewer", "Ada")

            postgres.strike()
            line.reconnect()
            line.inspect_more(60)
            line.ok("bank", "quarantine", first, "--by", "Bob")
            line.ok("review", "retract", second, "--reviewer", "Ada")
            third = line.click()
            line.follow(line.learnt(third))
            assert line.taught(line.models()[-1]) == {third}
            assert "As the database says." in line.ok("bank", "verify")

            assert "Model successor-1 is active" in line.model("activate", str(new), "--by", "Bob")
            line.wait_for_model("successor-1")
            line.wait(lambda: said(learner, "Learning with model successor-1"))
            fourth = line.click()
            line.follow(line.learnt(fourth))
            assert line.taught("successor-1") == {third, fourth}
            assert "As the database says." in line.ok("bank", "verify")
        reasons = sorted(row.reason for row in line.query("SELECT reason FROM dead_letters"))
        assert reasons == ["not_an_image", "refused_by_database"]
        dead = line.read(line.kafka.dead_topic, lambda found: len(found) >= 2)
        assert {bytes(record.value) for record in dead} == {b"no image", good_png(1)}


def test_a_right_that_is_revoked_while_the_line_runs_ends_its_programs_in_one_line_and_loses_nothing(
    plant: Plant, make_line: MakeLine
) -> None:
    line = make_line(plant.url("paedid_owner"), kind=InPlant)
    assert isinstance(line, InPlant)
    line.of_roles({role: plant.url(role) for role in GRANTED})
    revoked = {"run": "INSERT ON TABLE inspections", "learn": "SELECT ON TABLE reviews"}
    with line.program("refused-run", "run") as worker, line.program("refused-learn", "learn") as learner:
        programs = {"run": worker, "learn": learner}
        wait_until(lambda: said(worker, "Inspecting") and said(learner, "Learning"), programs=[worker, learner])
        for command, right in revoked.items():
            plant.execute(f"REVOKE {right} FROM {plant.name(ROLES[command])}")
        line.send([Message.of(good_png(number)) for number in range(4)])
        wait_until(lambda: all(program.exit_code is not None for program in programs.values()))
    for command, program in programs.items():
        assert program.exit_code == 2
        log = program.log_file.read_text(encoding="utf-8")
        assert "Traceback" not in log
        assert "secret-word" not in log
        [told] = [each for each in log.splitlines() if each.startswith("error: ")]
        grant = f"GRANT {revoked[command]} TO {plant.name(ROLES[command])};"
        assert told.endswith(f"Grant it: {grant}")
        plant.execute(grant)
    # What was not stored was not committed: it comes again.
    assert (line.committed(), line.settled()) == (0, 0)
