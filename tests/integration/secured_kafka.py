"""Certificates, passwords and tokens for tests of a secured Kafka."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import trustme
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from deploy.local.apache_kafka import ApacheKafka

if TYPE_CHECKING:  # imports kafka, whose warnings pytest lets pass in tests alone
    from tests.integration.kafka_administrator import Administrator

HOST = "127.0.0.1"
AUDIENCE = "kafka"
# Of users; none may ever be printed.
SECRET = "hunter2"
PASSWORDS = {name: f"{SECRET}-{name}" for name in ("camera", "worker", "people", "everyone", "leaving", "dismissed")}
# So often clients sign on anew.
SECURED = {"connections.max.reauth.ms": "5000"}
LONG_AGO = {"not_before": datetime(2019, 1, 1, tzinfo=UTC), "not_after": datetime(2020, 1, 1, tzinfo=UTC)}


class Certificates:
    """A plant's CA with its certificates, and a stranger's, as PEM files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own, self._strange = trustme.CA(), trustme.CA()
        self.ca = self._write("ca.pem", self._own.cert_pem.bytes())
        self.strange_ca = self._write("strange-ca.pem", self._strange.cert_pem.bytes())
        # Kafka reads its key and certificate from one file.
        self.server = self._both("server", self._own.issue_cert(HOST))
        self.of_another_host = self._both("another", self._own.issue_cert("kafka.plant.example"))
        self.out_of_date = self._both("old", self._own.issue_cert(HOST, **LONG_AGO))
        self.client = self._pair("client", self._own.issue_cert("line-1@plant.example"))
        self.strange_client = self._pair("strange-client", self._strange.issue_cert("line-1@plant.example"))
        self.old_client = self._pair("old-client", self._own.issue_cert("line-1@plant.example", **LONG_AGO))

    def locked_key(self, password: str) -> Path:
        """Return the client's key, under a password."""
        key = load_pem_private_key(self.client["ssl_key_file"].read_bytes(), None)
        encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode()))
        return self._write("locked.key", encrypted)

    def _both(self, name: str, cert: trustme.LeafCert) -> Path:
        return self._write(f"{name}.pem", _pkcs8(cert) + _chain(cert))

    def _pair(self, name: str, cert: trustme.LeafCert) -> dict[str, Path]:
        return {
            "ssl_certificate_file": self._write(f"{name}.crt", _chain(cert)),
            "ssl_key_file": self._write(f"{name}.key", _pkcs8(cert)),
        }

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(content)
        return path


def _pkcs8(cert: trustme.LeafCert) -> bytes:
    key = load_pem_private_key(cert.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _chain(cert: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in cert.cert_chain_pems)


class Tokens:
    """Signs JSON Web Tokens (RS256), and writes the key set that Kafka checks them with."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(65537, 2048)
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "kid": "1", "alg": "RS256", "use": "sig", "n": _number(numbers.n), "e": _number(numbers.e)}
        path = folder / "jwks.json"
        path.write_text(json.dumps({"keys": [key]}))
        self.jwks = path.as_uri()

    def token(self, subject: str, life_s: float = 600, audience: str = AUDIENCE) -> str:
        now = int(time.time())
        claims = {"sub": subject, "iat": now, "exp": int(now + life_s), "aud": audience, "scope": "kafka"}
        parts = [{"alg": "RS256", "kid": "1", "typ": "JWT"}, claims]
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_base64(self._key.sign(signed.encode(), padding.PKCS1v15(), SHA256()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8))


@dataclass
class TokenEndpoint:
    """A token service over HTTPS: what it was asked, and what it answers (status, body)."""

    url: str = ""
    answer: Callable[[], tuple[int, Any]] = lambda: (500, {})
    asked: list[tuple[Mapping[str, str], Mapping[str, list[str]]]] = field(default_factory=list)


@contextmanager
def token_endpoint(certificate: Path) -> Iterator[TokenEndpoint]:
    endpoint = TokenEndpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            endpoint.asked.append((dict(self.headers), parse_qs(body)))
            status, answer = endpoint.answer()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", answer)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    with _https(Handler, certificate) as server:
        endpoint.url = f"https://{HOST}:{server.server_port}/token"
        yield endpoint


@contextmanager
def tls_listener(certificate: Path) -> Iterator[str]:
    """Address of a server with this certificate; no client that checks it gets further than that."""
    with _https(BaseHTTPRequestHandler, certificate) as server:
        yield f"{HOST}:{server.server_port}"


@contextmanager
def _https(handler: type[BaseHTTPRequestHandler], certificate: Path) -> Iterator[ThreadingHTTPServer]:
    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # a client that does not like the certificate hangs up

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server((HOST, 0), handler)
    # Not at accept: a handshake that fails would end the server's loop.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    serving.start()
    try:
        yield server
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@dataclass(frozen=True)
class Secured:
    """A cluster with TLS, SASL and ACLs, and what its tests need."""

    kafka: ApacheKafka
    certificates: Certificates
    tokens: Tokens
    administrator: Administrator

    def sasl(self, user: str, mechanism: str = "SCRAM-SHA-512", **changes: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the settings of a user that has a password."""
        return {
            "bootstrap_servers": self.kafka.address,
            "connect_timeout_s": 5,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": mechanism,
            "sasl_username": user,
            "sasl_password": PASSWORDS[user],
            "ssl_ca_file": self.certificates.ca,
        } | changes

    def oauth(self, **changes: Any) -> dict[str, Any]:  # noqa: ANN401
        """Return the settings of a user that has a token."""
        own = self.sasl("camera", "OAUTHBEARER")
        return {key: value for key, value in own.items() if key not in {"sasl_username", "sasl_password"}} | changes
