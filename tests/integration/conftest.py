"""A migrated database, on each kind of server, for whoever does not fill one of their own; and a secured Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from deploy.local.apache_kafka import VARIABLE, ApacheKafka, BrokerSecurity
from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.inspections import SqlInspectionStore
from monitor.settings import DatabaseSettings
from tests.integration.secured_kafka import (
    AUDIENCE,
    PASSWORDS,
    SECURED,
    Certificates,
    Secured,
    Tokens,
)
from tests.servers import skip_or_fail


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrations.upgrade(database_url)
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: Engine) -> SqlInspectionStore:
    return SqlInspectionStore(engine, "inspections")


def require_apache_kafka() -> None:
    if not ApacheKafka.is_available():
        skip_or_fail(f"no Apache Kafka here: {VARIABLE} names no folder of its jars, or Java is missing")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[Secured]:
    """A cluster with TLS, passwords, tokens and rights. Topics and groups are to be of the test's own, as are users."""
    require_apache_kafka()
    from tests.integration.kafka_administrator import Administrator  # noqa: PLC0415 - imports kafka, see pytest_configure

    folder = tmp_path_factory.mktemp("secured")
    tokens = Tokens(folder)
    security = BrokerSecurity(certificates.server, passwords=PASSWORDS, jwks=tokens.jwks, audience=AUDIENCE, acl=True)
    with ApacheKafka(folder / "kafka", security=security, settings=SECURED) as kafka:
        administrator = Administrator(kafka.admin_address)
        yield Secured(kafka, certificates, tokens, administrator)
        administrator.close()


@pytest.fixture(scope="session")
def mutual(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> Iterator[ApacheKafka]:
    """A cluster whose clients show certificates."""
    require_apache_kafka()
    security = BrokerSecurity(certificates.server, client_ca=certificates.ca)
    with ApacheKafka(tmp_path_factory.mktemp("mutual"), security=security) as kafka:
        yield kafka
