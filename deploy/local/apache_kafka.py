"""Apache Kafka as supervised subprocesses on 127.0.0.1: one broker or a cluster, from the ``libs`` of a distribution.

``KAFKA_LIBS`` names that folder of jars (``kafka_2.13-<version>/libs``). Java 17 or newer runs them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import shutil
import socket
import subprocess
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Self

from deploy.local.servers import HOST, EmbeddedServer, ServerStartError, api_versions_request

VARIABLE: Final = "KAFKA_LIBS"
# A small heap, and only the quick compiler: a test's broker lives for seconds.
JAVA_OPTIONS: Final = ("-Xmx384m", "-Xms64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData")
# Below those that Linux gives to outgoing connections.
QUIET_PORTS: Final = (15_000, 32_000)
FORMAT_TRIES: Final = 3
LOG4J: Final = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""


@dataclass(frozen=True, slots=True)
class BrokerSecurity:
    """What the client listener of a cluster asks for. The listener for administration asks for nothing.

    Attributes:
        keystore: PEM file with the private key (PKCS #8) and the certificate chain; with it the listener speaks TLS.
        client_ca: PEM file with the CA of client certificates; with it a client must show one.
        passwords: of each user, for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
        jwks: JSON Web Key Set, a file or a URL; with it OAUTHBEARER takes tokens that such a key signed.
        audience: that these tokens must name.
        acl: a user may only do what was granted.
    """

    keystore: Path | None = None
    client_ca: Path | None = None
    passwords: Mapping[str, str] = field(default_factory=dict)
    jwks: str | None = None
    audience: str = "kafka"
    acl: bool = False

    @property
    def protocol(self) -> str:
        """The client listener's ``security.protocol``."""
        sasl, tls = bool(self.passwords or self.jwks), self.keystore is not None
        return {(False, False): "PLAINTEXT", (False, True): "SSL", (True, False): "SASL_PLAINTEXT"}.get(
            (sasl, tls), "SASL_SSL"
        )

    def settings(self) -> dict[str, str]:
        """Return the broker's properties."""
        found: dict[str, str] = {}
        listener = "listener.name.client."
        if self.keystore is not None:
            found |= {f"{listener}ssl.keystore.type": "PEM", f"{listener}ssl.keystore.location": str(self.keystore)}
        if self.client_ca is not None:
            found |= {
                f"{listener}ssl.client.auth": "required",
                f"{listener}ssl.truststore.type": "PEM",
                f"{listener}ssl.truststore.location": str(self.client_ca),
            }
        found |= self._sasl(listener)
        if self.acl:
            # Administration's listener knows nobody's name, so that is the one who may do everything.
            found |= {
                "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users": "User:ANONYMOUS",
            }
        return found

    def _sasl(self, listener: str) -> dict[str, str]:
        security = "org.apache.kafka.common.security"
        mechanisms: dict[str, str] = {}
        if self.passwords:
            users = " ".join(f'user_{name}="{password}"' for name, password in self.passwords.items())
            mechanisms["PLAIN"] = f"{security}.plain.PlainLoginModule required {users};"
            for each in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                mechanisms[each] = f"{security}.scram.ScramLoginModule required;"
        if self.jwks:
            mechanisms["OAUTHBEARER"] = f"{security}.oauthbearer.OAuthBearerLoginModule required;"
        found = {"sasl.enabled.mechanisms": ",".join(mechanisms)} if mechanisms else {}
        found |= {f"{listener}{name.lower()}.sasl.jaas.config": jaas for name, jaas in mechanisms.items()}
        if self.jwks:
            handler = f"{security}.oauthbearer.OAuthBearerValidatorCallbackHandler"
            found |= {
                f"{listener}oauthbearer.sasl.server.callback.handler.class": handler,
                f"{listener}oauthbearer.sasl.oauthbearer.jwks.endpoint.url": self.jwks,
                f"{listener}oauthbearer.sasl.oauthbearer.expected.audience": self.audience,
            }
        return found

    @property
    def java_options(self) -> tuple[str, ...]:
        """What the broker's Java must be told besides."""
        return (f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.jwks}",) if self.jwks else ()


@dataclass(frozen=True, slots=True)
class _Ports:
    client: int
    controller: int
    internal: int


class KafkaBroker(EmbeddedServer):
    """One broker of an :class:`ApacheKafka`, which is also one of its controllers."""

    start_timeout_s = 90.0
    stop_timeout_s = 15.0

    def __init__(self, directory: Path, number: int, ports: _Ports, java_options: tuple[str, ...]) -> None:
        # Whether it serves is asked where no password is wanted.
        super().__init__(directory, ports.internal)
        self.name = f"kafka-{number}"
        self.client_address = f"{HOST}:{ports.client}"
        self.properties = self.directory / f"{self.name}.properties"
        self._java_options = java_options

    def _binary(self) -> Path:
        return Path(shutil.which("java") or "java")

    def _remedy(self) -> str:
        return "Install Java 17 or newer, e.g. openjdk-17-jre-headless."

    def _arguments(self) -> list[str]:
        return [*java_arguments(self.directory), *self._java_options, "kafka.Kafka", str(self.properties)]

    def _greeting(self) -> bytes:
        return api_versions_request()


class ApacheKafka:
    """A cluster of Apache Kafka: a context manager that starts it and stops it.

    Data stays in ``directory``: what is started again there goes on. Replication factor 3 and ``min.insync.replicas``
    2 with three brokers.

    Args:
        directory: holds logs, properties and data; made when absent.
        brokers: how many.
        security: what the client listener asks for; default: nothing.
        settings: further properties of all brokers.
    """

    def __init__(
        self,
        directory: Path,
        brokers: int = 1,
        security: BrokerSecurity | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory.resolve()
        self.security = security or BrokerSecurity()
        self._settings = dict(settings or {})
        # Three ports each, all different: one that was free a moment ago may be handed out again.
        ports: set[int] = set()
        while len(ports) < 3 * brokers:
            ports.add(_quiet_port())
        taken = iter(ports)
        self._ports = [_Ports(next(taken), next(taken), next(taken)) for _ in range(brokers)]
        self.brokers = [
            KafkaBroker(self.directory, number, each, self.security.java_options)
            for number, each in enumerate(self._ports)
        ]
        self._cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    @staticmethod
    def is_available() -> bool:
        """Return whether ``KAFKA_LIBS`` names a folder of jars, and Java is installed."""
        return bool(os.environ.get(VARIABLE)) and shutil.which("java") is not None

    @property
    def address(self) -> str:
        """``bootstrap.servers`` of clients."""
        return ",".join(broker.client_address for broker in self.brokers)

    @property
    def admin_address(self) -> str:
        """``bootstrap.servers`` of whoever may do everything, in plain text."""
        return ",".join(broker.address for broker in self.brokers)

    def start(self) -> Self:
        """Start every broker that does not run, and wait until all serve.

        Raises:
            ServerStartError: with the end of its log.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "log4j2.properties").write_text(LOG4J, encoding="utf-8")
        with ThreadPoolExecutor(len(self.brokers)) as formatting:
            list(formatting.map(self._format, range(len(self.brokers))))
        with ExitStack() as undo:
            for broker in self.brokers:
                broker.launch()  # on this thread: a server ends with the thread that started it
                undo.callback(broker.kill)
            for broker in self.brokers:
                broker.wait_until_it_answers()
            undo.pop_all()
        return self

    def stop(self) -> None:
        """Ask every broker to end, and wait until all have."""
        with ThreadPoolExecutor(len(self.brokers)) as stopping:
            list(stopping.map(lambda broker: broker.stop(), self.brokers))

    def kill(self) -> None:
        """Kill every broker, as a power cut would."""
        for broker in self.brokers:
            broker.kill()

    def data(self, broker: int = 0) -> Path:
        """Return the folder of a broker's logs: a folder for each partition, with its segments."""
        return self.directory / f"data-{broker}"

    def _format(self, number: int) -> None:
        self.brokers[number].properties.write_text(
            "".join(f"{name}={value}\n" for name, value in self._properties(number).items()), encoding="utf-8"
        )
        if (self.data(number) / "meta.properties").exists():
            return
        scram = [
            option
            for name, password in self.security.passwords.items()
            for each in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for option in ("--add-scram", f"{each}=[name={name},password={password}]")
        ]
        arguments = ["format", "-t", self._cluster_id, "-c", str(self.brokers[number].properties), *scram]
        command = ["java", *java_arguments(self.directory), "kafka.tools.StorageTool", *arguments]
        for _ in range(FORMAT_TRIES):
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - what we ship
            if not done.returncode:
                return
            shutil.rmtree(self.data(number), ignore_errors=True)
        raise ServerStartError("kafka", f"could not be formatted:\n{done.stdout}{done.stderr}")

    def _properties(self, number: int) -> dict[str, str]:
        ports, factor = self._ports[number], min(3, len(self.brokers))
        listener = partial("{}://{}:{}".format)
        client, internal = listener("CLIENT", HOST, ports.client), listener("INTERNAL", HOST, ports.internal)
        voters = ",".join(f"{node}@{HOST}:{each.controller}" for node, each in enumerate(self._ports))
        protocols = {"CLIENT": self.security.protocol, "CONTROLLER": "PLAINTEXT", "INTERNAL": "PLAINTEXT"}
        replicated = ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")
        return (
            {
                "process.roles": "broker,controller",
                "node.id": str(number),
                "controller.quorum.voters": voters,
                "controller.listener.names": "CONTROLLER",
                "inter.broker.listener.name": "INTERNAL",
                "listeners": ",".join([client, internal, listener("CONTROLLER", HOST, ports.controller)]),
                "advertised.listeners": f"{client},{internal}",
                "listener.security.protocol.map": ",".join(f"{name}:{each}" for name, each in protocols.items()),
                "log.dirs": str(self.data(number)),
                "default.replication.factor": str(factor),
                "min.insync.replicas": str(max(1, factor - 1)),
                "auto.create.topics.enable": "false",
                "unclean.leader.election.enable": "false",
                "group.initial.rebalance.delay.ms": "0",
                "offsets.topic.num.partitions": "3",
                "transaction.state.log.num.partitions": "3",
                "log.cleaner.dedupe.buffer.size": str(8 * 2**20),
                "message.max.bytes": str(64 * 2**20),
                "replica.fetch.max.bytes": str(64 * 2**20),
            }
            | {f"{topic}.replication.factor": str(factor) for topic in replicated}
            | {f"{topic}.min.isr": "1" for topic in replicated[1:]}
            | self.security.settings()
            | self._settings
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        # Killed: whoever leaves has no more use for what is in it.
        self.kill()


def _quiet_port() -> int:
    """Return a free port that no outgoing connection is given: seconds pass before a broker listens there."""
    while True:
        port = random.randrange(*QUIET_PORTS)  # noqa: S311 - no secret
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            return port


def java_arguments(directory: Path) -> list[str]:
    """Return Java's arguments up to the class to run.

    Raises:
        ServerStartError: ``KAFKA_LIBS`` does not name a folder of jars.
    """
    libs = Path(os.environ.get(VARIABLE) or "")
    if not any(libs.glob("kafka-server-*.jar")):
        problem = f"is missing: {VARIABLE} = {json.dumps(str(libs))} is no folder of a Kafka distribution's jars"
        raise ServerStartError("kafka", problem)
    log4j = f"-Dlog4j2.configurationFile={directory / 'log4j2.properties'}"
    return [*JAVA_OPTIONS, log4j, "-cp", f"{libs}/*"]
