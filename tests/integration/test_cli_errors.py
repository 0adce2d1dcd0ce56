"""What an operator sees when something is wrong: one line that names it and the remedy, exit code 2, no secrets."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from subprocess import CompletedProcess
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from deploy.local.servers import free_port
from monitor.adapters.artifacts import load_bundle
from monitor.adapters.database import connect
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.migrations import upgrade
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.review_desk import ReviewDesk
from monitor.ports import BankKey, BankShape, BatchOutcome
from monitor.settings import DatabaseSettings
from schemas.messages import Verdict
from tests.faults.line import MakeLine, Message, good_png, run
from tests.faults.prefork import Prefork
from tests.integration.records import dead_letter, inspection

SECRET = "hunter2"  # in every URL that may hold a password; never in what is printed
CAMERA = ("--camera", "press-1")


@dataclass(frozen=True)
class Case:
    """A command and what its one line must say; ``$names`` are filled in.

    ``wrong``: settings, or the whole text of the settings' file.
    """

    command: str
    says: tuple[str, ...]
    wrong: dict[str, Any] | str = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    program: str = "monitor"


SETTINGS = {
    "an unknown key": Case(
        "run",
        ("kafka.bootstrap_server ", "no such setting", "$tmp", "Did you mean kafka.bootstrap_servers?"),
        {"kafka.bootstrap_server": "x:1"},
    ),
    "an unknown section": Case("learn", ("kafak", "no such setting"), {"kafak.group": "x"}),
    "a value out of range": Case(
        "learn", ("batch.max_frames = 0", "greater than or equal to 1", "$tmp", "paedid-monitor settings"),
        {"batch.max_frames": 0},
    ),
    "a value of another type": Case("migrate", ("metrics.port = 'many'", "integer"), {"metrics.port": "many"}),
    "a value that is not one of a few": Case(
        "review list", ("images.keep = 'some'", "'flagged', 'all' or 'none'"), {"images.keep": "some"}
    ),
    "a server without a port": Case(
        f"camera . {' '.join(CAMERA)}", ("kafka.bootstrap_servers = 'localhost'", "host:port"),
        {"kafka.bootstrap_servers": "localhost"},
    ),
    "no YAML": Case("run", ("config = ", "$tmp", "not YAML", "line 1", "Correct the file"), "kafka: ["),
    "no mapping": Case("run", ("config = ", "mapping of sections", "Write 'section:'"), "- kafka"),
    "a section that is none": Case("run", ("config = ", "mapping of sections"), "kafka: localhost:9092"),
    "no file": Case("--config $tmp/none.yaml run", ("config = '$tmp/none.yaml'", "No such file", "Name a readable")),
    "a folder for a file": Case("--config $tmp run", ("config = '$tmp'", "Is a directory", "Name a readable")),
    "a file named by the environment": Case(
        "run", ("$tmp/none.yaml", "No such file"), environment={"PAEDID_CONFIG": "$tmp/none.yaml"}
    ),
    "a wrong variable": Case(
        "run", ("batch.max_frames = 'many'", "PAEDID_BATCH__MAX_FRAMES"),
        environment={"PAEDID_BATCH__MAX_FRAMES": "many"},
    ),
    "an unknown variable": Case(
        "run", ("kafka.groop", "PAEDID_KAFKA__GROOP", "Did you mean kafka.group?"),
        environment={"PAEDID_KAFKA__GROOP": "x"},
    ),
    "a secret's file that is not there": Case(
        "learn", ("PAEDID_REDIS__PASSWORD_FILE", "$tmp/none", "No such file"),
        environment={"PAEDID_REDIS__PASSWORD_FILE": "$tmp/none"},
    ),
    "a database that is not supported": Case(
        "migrate", ("database.url = '...'", "mysql", "use sqlite or postgresql"), {"database.url": f"mysql://me:{SECRET}@db/x"}
    ),
    "a database URL that is none": Case(
        "migrate", ("database.url = '...'", "not an SQLAlchemy URL"), {"database.url": f"me {SECRET} db"}
    ),
    "a database driver that does not exist": Case(
        "migrate", ("database.url", "postgresql+nonsense", "use sqlite or postgresql"), {"database.url": f"postgresql+nonsense://me:{SECRET}@db/x"}
    ),
    "a Redis URL that is none": Case(
        "run", ("redis.url", "redis://, rediss:// or unix://"), {"redis.url": f"http://:{SECRET}@cache:6379"}
    ),
    "a Redis Cluster's database": Case(
        "bank status", ("redis.url", "only database 0"), {"redis.url": f"redis+cluster://:{SECRET}@cache:6379/2"}
    ),
}  # fmt: skip

SERVERS = {
    "no database to migrate": Case(
        "migrate",
        ("PostgreSQL at database.url = 'postgresql://me:***@127.0.0.1:$closed/x'", "not reachable", "Start it"),
        {"database.url": f"postgresql://me:{SECRET}@127.0.0.1:$closed/x?password={SECRET}"},
    ),
    "no database to review": Case(
        "review list", ("PostgreSQL at database.url", "127.0.0.1:$closed", "not reachable"),
        {"database.url": f"postgresql+psycopg://me:{SECRET}@127.0.0.1:$closed/x"},
    ),
    "no folder for the database": Case(
        "review list", ("database.url = 'sqlite:///$tmp/none/x.db'", "unable to open", "Name a file"),
        {"database.url": "sqlite:///$tmp/none/x.db"},
    ),
    "no tables, and none to be made": Case(
        "review list", ("database.url", "no tables yet", "paedid-monitor migrate"),
        {"database.url": "sqlite:///$tmp/empty.db", "database.migrate": False},
    ),
    "no database to run": Case(
        "run", ("PostgreSQL at database.url", "not reachable"),
        {"database.url": f"postgresql://me:{SECRET}@127.0.0.1:$closed/x"},
    ),
    "no Redis to run": Case(
        "run", ("Redis at redis.url = 'redis://:***@127.0.0.1:$closed/0'", "not reachable", "Start it"),
        {"redis.url": f"redis://:{SECRET}@127.0.0.1:$closed/0"},
    ),
    "no Redis to learn": Case(
        "learn", ("Redis at redis.url = 'redis://127.0.0.1:$closed/0'", "not reachable"),
        {"redis.url": "redis://127.0.0.1:$closed/0", "redis.password": SECRET},
    ),
    "no such database in Redis": Case(
        "learn", ("redis.url = 'redis://$redis/99'", "no database of this number", "0 to 15"),
        {"redis.url": "redis://$redis/99"},
    ),
    "a wrong password for Redis": Case(
        "run", ("redis.url = 'redis://me:***@$redis/0'", "wrong user or password", "Correct redis.password"),
        {"redis.url": f"redis://me:{SECRET}@$redis/0"},
    ),
    "no Kafka to run": Case(
        "run", ("Kafka at kafka.bootstrap_servers = '127.0.0.1:$closed'", "not reachable", "Start it"),
        {"kafka.bootstrap_servers": "127.0.0.1:$closed", "kafka.connect_timeout_s": 0.5},
    ),
    "no Kafka for a camera": Case(
        f"camera $images {' '.join(CAMERA)}", ("Kafka at kafka.bootstrap_servers", "127.0.0.1:$closed"),
        {"kafka.bootstrap_servers": "127.0.0.1:$closed", "kafka.connect_timeout_s": 0.5},
    ),
    "another server where Kafka should be": Case(
        f"camera $images {' '.join(CAMERA)}",
        ("Kafka at kafka.bootstrap_servers", "$redis", "no Kafka broker answered"),
        {"kafka.bootstrap_servers": "$redis", "kafka.connect_timeout_s": 0.5},
    ),
    "a place for images that is none": Case(
        "learn", ("images.url", "nonsense", "Name a writable folder"),
        {"images.url": f"nonsense://me:{SECRET}@server/images"},
    ),
    "a metrics port in use": Case(
        "run", ("metrics.port = $used", "cannot listen on 127.0.0.1", "Choose a free port"), {"metrics.port": "$used"}
    ),
}  # fmt: skip

BUNDLES = {
    "no bundle": Case(
        "run", ("'$tmp/none'", "no manifest.json", "paedid-trainer train"), {"model.bundle": "$tmp/none"}
    ),
    "a changed byte": Case(
        "run", ("$tmp/changed/bank.safetensors", "SHA-256", "changed or damaged", "Restore"),
        {"model.bundle": "$tmp/changed"},
    ),
    "a missing file": Case(
        "learn", ("$tmp/incomplete/autoencoder.safetensors", "missing", "Restore"), {"model.bundle": "$tmp/incomplete"}
    ),
    "a manifest cut short": Case(
        "learn", ("$tmp/short/manifest.json", "Invalid JSON", "Restore"), {"model.bundle": "$tmp/short"}
    ),
    "a device that is not there": Case(
        "run", ("model.device = 'cuda:77'", "CUDA devices", "Use auto or cpu"), {"model.device": "cuda:77"}
    ),
}  # fmt: skip

CAMERAS = {
    "no such source": Case(f"camera $tmp/none {' '.join(CAMERA)}", ("$tmp/none", "no such file", "Name a folder")),
    "a folder without images": Case(f"camera $tmp/changed {' '.join(CAMERA)}", ("$tmp/changed", "no images")),
    "a camera's id with a space": Case(
        "camera $images --camera press%1", ("camera = 'press%1'", "letters, digits"),
    ),
    "no camera's id": Case("camera $images", ("Missing option '--camera'", "See --help")),
    "an unknown option": Case(f"camera $images {' '.join(CAMERA)} --fps 3", ("No such option: --fps", "See --help")),
}  # fmt: skip

REVIEWS = {
    "an unknown frame": Case("review confirm part-9 normal", ("'part-9'", "no frame")),
    "an unknown frame to show": Case("review show part-9", ("'part-9'", "no frame")),
    "a beginning of many": Case(
        "review confirm part-1 normal", ("'part-1'", "several ids begin so", "part-11", "part-12", "more characters")
    ),
    "too short a beginning": Case("review confirm par normal", ("'par'", "first 4 characters")),
    "a word against another": Case(
        "review confirm part-11 normal", ("part-11", "Ada confirmed it as defect", "cannot become normal", "Ask them")
    ),
    "a normal without its image": Case("review confirm part-12 normal", ("part-12", "not kept", "images.keep")),
    "no such word": Case("review confirm part-12 broken", ("'broken'", "'normal'", "'defect'", "See --help")),
}  # fmt: skip

MODELS = {
    "no bundle to activate": Case("model activate $tmp/none", ("'$tmp/none'", "no manifest.json", "correct the path")),
    "a damaged bundle to activate": Case(
        "model activate $tmp/changed", ("$tmp/changed/bank.safetensors", "SHA-256", "Restore")
    ),
    "a camera that cannot be": Case(
        "model activate $bundle --camera press%1", ("--camera 'press 1'", "no camera can have this id")
    ),
    "nothing to go back to": Case("model rollback", ("no model was ever assigned for every camera", "nothing to go")),
    "nothing to go back to for a camera": Case("model rollback --camera press-1", ("assigned for camera press-1",)),
    "a name that is too long": Case(
        f"model activate $bundle --camera press-1 --by {'x' * 129}", ("1 to 128 printable characters",)
    ),
    "neither a bundle nor an end of a shadow": Case("model shadow", ("either the bundle", "or --off")),
    "a bundle and an end of a shadow": Case("model shadow $bundle --off", ("either the bundle", "or --off")),
    "a shadow of itself": Case("model shadow $bundle", ("is active for every camera", "name another one")),
    "a damaged bundle to look on": Case(
        "model shadow $tmp/changed-2", ("$tmp/changed-2/bank.safetensors", "SHA-256", "Restore")
    ),
    "no shadow to end": Case("model shadow --off --camera press-1", ("look on for camera press-1", "nothing to end")),
    "nothing to compare": Case(
        "model compare --camera press-1 --since 2026-05-06T07:08Z",
        ("no frame of camera press-1 since 2026-05-06 07:08 UTC", "beside the active model", "'model shadow BUNDLE'"),
    ),
    "a time that is none": Case("model compare --since yesterday", ("--since 'yesterday'", "days back", "2026-05-06")),
    "a camera that cannot be compared": Case("model compare --camera press%1", ("--camera 'press 1'", "no camera can")),
    "no Redis to activate": Case(
        "model activate $bundle --camera press-1", ("Redis at redis.url", "127.0.0.1:$closed", "not reachable"),
        {"redis.url": "redis://127.0.0.1:$closed/0"},
    ),
}  # fmt: skip

WHICH = "either their ids, or options that choose them"
DEAD_LETTERS = {
    "an unknown letter to show": Case("dlq show 77", ("dead letter 77: there is none", "'dlq list --state all'")),
    "an unknown letter to replay": Case("dlq replay 1 77", ("dead letter 77: there is none",)),
    "an unknown letter to purge": Case("dlq purge 1 77 --yes", ("dead letter 77: there is none",)),
    "a letter that is no number": Case("dlq show part-1", ("'letter'", "valid integer", "See --help")),
    "no letters to replay": Case("dlq replay", (WHICH, "See --help")),
    "no letters to purge": Case("dlq purge --yes", (WHICH,)),
    "letters named and chosen": Case("dlq replay 1 --all", (WHICH,)),
    "letters named and chosen by age": Case("dlq purge 1 --older-than 3 --yes", (WHICH,)),
    "no such reason": Case("dlq list --reason broken", ("'broken'", "'truncated'", "See --help")),
    "a purger's name that is too long": Case(f"dlq purge 1 --yes --by {'x' * 129}", ("1 to 128 printable characters",)),
    "a replayer's name that is too long": Case(f"dlq replay 1 --by {'x' * 129}", ("1 to 128 printable characters",)),
    "no Kafka to replay from": Case(
        "dlq replay 1", ("Kafka at kafka.bootstrap_servers = '127.0.0.1:$closed'", "not reachable", "Start it"),
        {"kafka.bootstrap_servers": "127.0.0.1:$closed", "kafka.connect_timeout_s": 0.5},
    ),
}  # fmt: skip

TRAININGS = {
    "no folder": Case("train $tmp/none --out $tmp/new", ("$tmp/none", "no such folder"), program="trainer"),
    "too few images": Case(
        "train $images --out $tmp/new", ("$images: 1 images", "at least 20"), program="trainer"
    ),
    "something that is no image": Case(
        "train $tmp/mixed --out $tmp/new", ("$tmp/mixed/19.png", "not an image", "Take it out"), program="trainer"
    ),
    "a size that cannot be": Case(
        "train $tmp/normals --out $tmp/new --size 100", ("--size = '100'", "multiples of 16"), program="trainer"
    ),
    "a place that is taken": Case(
        "train $tmp/normals --out $images", ("--out = '$images'", "not a model bundle", "new folder"), program="trainer"
    ),
    "a damaged bundle": Case("show $tmp/changed", ("$tmp/changed/bank.safetensors", "SHA-256"), program="trainer"),
    "no bundle to show": Case("show $tmp/none", ("$tmp/none", "no manifest.json"), program="trainer"),
}  # fmt: skip

CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "settings": SETTINGS, "servers": SERVERS, "bundles": BUNDLES,
        "cameras": CAMERAS, "reviews": REVIEWS, "dead letters": DEAD_LETTERS,
        "models": MODELS, "training": TRAININGS,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


class World:
    """What the cases are tried on, each with the settings of a line that works but for what is wrong."""

    def __init__(self, programs: Prefork, sections: dict[str, dict[str, str]], names: dict[str, str]) -> None:
        self._programs = programs
        self._sections = sections
        self._names = names

    def fill(self, text: str) -> str:
        return Template(text).substitute(self._names).replace("%", " ")

    def attempt(self, case: Case) -> CompletedProcess[str]:
        config = self.fill("$tmp/monitor.yaml")
        Path(config).write_text(self._settings(case.wrong))
        arguments = [self.fill(word) for word in case.command.split()]
        environment = {name: self.fill(value) for name, value in case.environment.items()}
        if case.program == "monitor" and "--config" not in arguments and "PAEDID_CONFIG" not in environment:
            arguments = ["--config", config, *arguments]
        return self._programs.run(case.program, *arguments, environment=environment)

    def _settings(self, wrong: dict[str, Any] | str) -> str:
        if isinstance(wrong, str):
            return wrong
        document: dict[str, dict[str, Any]] = {name: dict(keys) for name, keys in self._sections.items()}
        for name, value in wrong.items():
            section, _, key = name.partition(".")
            document.setdefault(section, {})[key] = self.fill(value) if isinstance(value, str) else value
        return yaml.safe_dump(document)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, broker: str, redis_server: str, bundle: Path) -> Iterator[World]:
    tmp = tmp_path_factory.mktemp("errors")
    sections = {
        "kafka": {"bootstrap_servers": broker},
        "redis": {"url": redis_server},
        "database": {"url": f"sqlite:///{tmp / 'monitor.db'}"},
        "images": {"url": str(tmp / "kept")},
        "model": {"bundle": str(bundle)},
    }
    make_bundles(tmp, bundle)
    make_pictures(tmp)
    make_reviews(f"sqlite:///{tmp / 'monitor.db'}")
    with socket.create_server(("127.0.0.1", 0)) as used, Prefork() as programs:
        names = {
            "tmp": str(tmp),
            "images": str(tmp / "images"),
            "bundle": str(bundle),
            "closed": str(free_port()),
            "used": str(used.getsockname()[1]),
            "redis": redis_server.removeprefix("redis://").partition("/")[0],
        }
        yield World(programs, sections, names)


def make_bundles(tmp: Path, bundle: Path) -> None:
    for name in ("changed", "incomplete", "short"):
        shutil.copytree(bundle, tmp / name)
    bank = tmp / "changed" / "bank.safetensors"
    data = bytearray(bank.read_bytes())
    data[len(data) // 2] ^= 1
    bank.write_bytes(data)
    (tmp / "incomplete" / "autoencoder.safetensors").unlink()
    # Of another name: a model cannot be its own shadow.
    shutil.copytree(tmp / "changed", tmp / "changed-2")
    renamed = tmp / "changed-2" / "manifest.json"
    renamed.write_text(json.dumps(json.loads(renamed.read_text()) | {"model_id": "changed-2"}))
    manifest = tmp / "short" / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:200])


def make_pictures(tmp: Path) -> None:
    for folder, count in (("images", 1), ("mixed", 19), ("normals", 20)):
        (tmp / folder).mkdir()
        for number in range(count):
            cv2.imwrite(str(tmp / folder / f"{number:02}.png"), np.full((32, 32), number, np.uint8))
    (tmp / "mixed" / "19.png").write_bytes(b"not an image")


def make_reviews(database_url: str) -> None:
    upgrade(database_url)
    engine = connect(DatabaseSettings.model_validate({"url": database_url}))
    frames = inspection("part-11", 1, image_sha256="0" * 64), inspection("part-12", 2)
    SqlInspectionStore(engine, "inspections").record(BatchOutcome(frames, (dead_letter(3),)))
    ReviewDesk(engine).confirm("part-11", Verdict.DEFECT, "Ada")
    engine.dispose()


@pytest.mark.parametrize("name", CASES)
def test_one_line_says_what_is_wrong(name: str, world: World) -> None:
    case = CASES[name]
    done = world.attempt(case)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    *before, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    for text in case.says:
        assert world.fill(text) in line
    # Nothing but what it did before it met the error: trainers show progress, and libraries log.
    assert all(each.startswith(("reading images: ", '{"')) for each in before)
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr


def test_settings_are_printed_without_their_secrets(tmp_path: Path) -> None:
    config = tmp_path / "monitor.yaml"
    sections = {
        "redis": {"url": f"redis://me:{SECRET}@cache:6379/0", "password": SECRET},
        "database": {"url": f"postgresql://me:{SECRET}@db/x"},
        "images": {"url": f"sftp://me:{SECRET}@files/images"},
    }
    config.write_text(yaml.safe_dump(sections))
    done = run("monitor", "--config", str(config), "settings")
    assert done.returncode == 0
    assert SECRET not in done.stdout + done.stderr
    assert "cache:6379" in done.stdout


def test_a_bank_of_another_model_stops_worker_and_learner(make_line: MakeLine, sqlite_url: str) -> None:
    line = make_line(sqlite_url, log={"format": "json", "level": "error"})
    model = load_bundle(line.settings.model.bundle)
    banks = RedisBankStore(line.settings.redis)
    seed = np.zeros((1, 2, 2, 3), np.float16)
    key = BankKey("press-1", model.manifest.model_id)
    banks.open(key, BankShape("0" * 64, (2, 2, 3)), seed)
    banks.close()

    line.send([Message.of(good_png(1), key.camera)])
    worker = line.run("run")
    assert (worker.returncode, line.settled(), line.committed()) == (2, 0, 0)

    engine = connect(line.settings.database)
    sha256 = FsspecImageStore(line.settings.images.url).put(good_png(1))
    frame = inspection("part-1", 1, camera=key.camera, image_sha256=sha256)
    SqlInspectionStore(engine, "inspections").record(BatchOutcome((frame,)))
    ReviewDesk(engine).confirm("part-1", Verdict.NORMAL, "Ada")
    engine.dispose()
    learner = line.run("learn")
    assert learner.returncode == 2
    assert line.count("reviews WHERE outcome = 'pending'") == 1

    for done in (worker, learner):
        [said] = done.stderr.splitlines()
        assert said.startswith("error: ")
        assert f"press-1:{key.model_id}" in said
        assert "own model_id" in said
