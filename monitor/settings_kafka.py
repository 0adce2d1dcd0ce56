"""How Kafka is reached: the brokers, the topics, and what a secured cluster asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from monitor import settings_values as values
from monitor.settings_section import Seconds, Section, TopicName

OAUTH: Final = "OAUTHBEARER"
PASSWORD_KEYS: Final = ("sasl_username", "sasl_password")
# A worker is back after 5 to 9 s; while it is not, its cameras would go to others, and come back.
LEAST_STATIC_SESSION_MS: Final = 20_000
OAUTH_URL_KEYS: Final = ("oauth_token_url", "oauth_client_id", "oauth_client_secret", "oauth_scope", "oauth_ca_file")
OAUTH_KEYS: Final = ("oauth_token_file", *OAUTH_URL_KEYS)
TLS_KEYS: Final = ("ssl_ca_file", "ssl_certificate_file", "ssl_key_file", "ssl_key_password")

ReadableFile = Annotated[Path, AfterValidator(values.readable_file)]
Secret = Annotated[SecretStr, AfterValidator(values.not_empty)]


class KafkaSettings(Section):
    """Where frames come from and results go to."""

    bootstrap_servers: Annotated[str, AfterValidator(values.bootstrap)] = "127.0.0.1:9092"
    """The brokers, host:port, separated by commas."""
    group: TopicName = "paedid-monitor"
    """The consumer group: workers of one group share the cameras between them."""
    frames_topic: TopicName = "frames"
    """Where the camera agents send frames."""
    dead_topic: TopicName = "frames.dead"
    """Where frames go that can never be inspected, with their original bytes and the reason."""
    inspections_topic: TopicName = "inspections"
    """Where results are published."""
    partitions: Annotated[int, Field(ge=1, le=1000)] = 4
    """Partitions of topics that are created here because they are absent: at most so many workers share them, and
    cameras beyond so many wait for each other."""
    group_instance_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._\-]{1,249}$")] | None = None
    """A name of this worker's own (static membership), the same after a restart: its cameras do not go to the others
    meanwhile. In Kubernetes, the name of a StatefulSet's pod."""
    session_timeout_ms: Annotated[int, Field(ge=6000, le=1_800_000)] | None = None
    """After so long without a sign of life, a worker's cameras go to the others. Default: 6000, or 45000 with
    group_instance_id, where it must be longer than a restart takes."""
    heartbeat_interval_ms: Annotated[int, Field(ge=100, le=600_000)] = 1000
    """How often a worker gives a sign of life."""
    connect_timeout_s: Seconds = 10.0
    """How long to wait for the broker at start."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """What the brokers' listener speaks: SSL is TLS, SASL_ asks who is there. SASL_PLAINTEXT sends a PLAIN password in
    the clear."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """How to say who is there, with SASL_PLAINTEXT and SASL_SSL."""
    sasl_username: Annotated[str, Field(min_length=1)] | None = None
    """The user, with PLAIN and SCRAM."""
    sasl_password: Secret | None = None
    """Better given as a file: PAEDID_KAFKA__SASL_PASSWORD_FILE."""
    oauth_token_file: ReadableFile | None = None
    """With OAUTHBEARER: a file that holds the token, read again at each connection, for others to renew."""
    oauth_token_url: Annotated[str, AfterValidator(values.https_url)] | None = None
    """With OAUTHBEARER, instead of such a file: where a token is had for the client's credentials (https)."""
    oauth_client_id: Annotated[str, Field(min_length=1)] | None = None
    """The client, for oauth_token_url."""
    oauth_client_secret: Secret | None = None
    """Better given as a file: PAEDID_KAFKA__OAUTH_CLIENT_SECRET_FILE."""
    oauth_scope: Annotated[str, Field(min_length=1)] | None = None
    """What is asked for at oauth_token_url, if it wants to be told."""
    oauth_ca_file: ReadableFile | None = None
    """The CA of oauth_token_url's certificate (PEM); default: those that the system trusts."""
    ssl_ca_file: ReadableFile | None = None
    """The CA of the brokers' certificates (PEM); default: those that the system trusts."""
    ssl_certificate_file: ReadableFile | None = None
    """This client's certificate and its chain (PEM), where the brokers ask for one."""
    ssl_key_file: ReadableFile | None = None
    """The private key of that certificate (PEM)."""
    ssl_key_password: Secret | None = None
    """The key's password, if it has one. Better given as a file: PAEDID_KAFKA__SSL_KEY_PASSWORD_FILE."""
    ssl_check_hostname: bool = True
    """Whether a broker's certificate must name the host by which it is reached."""

    @property
    def session_ms(self) -> int:
        """``session_timeout_ms``, or its default."""
        return self.session_timeout_ms or (45_000 if self.group_instance_id else 6000)

    @property
    def uses_tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.security_protocol in {"SSL", "SASL_SSL"}

    @property
    def uses_sasl(self) -> bool:
        """Whether the client says who it is by SASL."""
        return self.security_protocol in {"SASL_PLAINTEXT", "SASL_SSL"}

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.group_instance_id is not None and self.session_ms < LEAST_STATIC_SESSION_MS:
            problem = "a worker with kafka.group_instance_id takes longer than that to restart; set it to 45000"
            self.refuse("session_timeout_ms", problem)
        self._check_tls()
        if self.uses_sasl:
            self._check_sasl()
        else:
            protocol = f"kafka.security_protocol is {self.security_protocol}, without SASL; set it to SASL_SSL"
            self._refuse_all(("sasl_mechanism", *PASSWORD_KEYS, *OAUTH_KEYS), protocol)
        return self

    def _check_tls(self) -> None:
        if not self.uses_tls:
            protocol = f"kafka.security_protocol is {self.security_protocol}, without TLS; set it to SSL or SASL_SSL"
            self._refuse_all(TLS_KEYS, protocol)
        for key, other in (
            ("ssl_certificate_file", "ssl_key_file"),
            ("ssl_key_file", "ssl_certificate_file"),
            ("ssl_key_password", "ssl_key_file"),
        ):
            if getattr(self, key) is not None and getattr(self, other) is None:
                self.refuse(other, f"kafka.{key} is set, which needs it")

    def _check_sasl(self) -> None:
        mechanism = self.sasl_mechanism
        if mechanism is None:
            self.refuse("sasl_mechanism", f"kafka.security_protocol is {self.security_protocol}, which needs one")
        if mechanism != OAUTH:
            self._refuse_all(OAUTH_KEYS, f"kafka.sasl_mechanism is {mechanism}; tokens are for {OAUTH}")
            self._need_all(PASSWORD_KEYS, f"kafka.sasl_mechanism is {mechanism}")
            return
        self._refuse_all(PASSWORD_KEYS, f"kafka.sasl_mechanism is {OAUTH}, which takes a token and no password")
        if self.oauth_token_file is not None:
            self._refuse_all(OAUTH_URL_KEYS, "kafka.oauth_token_file gives the token already")
        elif self.oauth_token_url is None:
            self.refuse("oauth_token_file", f"kafka.sasl_mechanism is {OAUTH}: set it, or kafka.oauth_token_url")
        else:
            self._need_all(("oauth_client_id", "oauth_client_secret"), "kafka.oauth_token_url is set")

    def _refuse_all(self, keys: tuple[str, ...], problem: str) -> None:
        for key in keys:
            if getattr(self, key) is not None:
                self.refuse(key, problem)

    def _need_all(self, keys: tuple[str, ...], why: str) -> None:
        for key in keys:
            if getattr(self, key) is None:
                self.refuse(key, f"{why}, which needs it")
