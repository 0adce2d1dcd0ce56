"""What clients are given for a secured cluster: TLS, and who they say they are."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any

from kafka.net.sasl.oauth import AbstractTokenProvider

from monitor.adapters.kafka.library_security import TlsSocket
from monitor.adapters.kafka.oauth import TokenFile, TokenService
from monitor.settings import KafkaSettings
from schemas.errors import ConfigurationError


def security_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options of kafka-python's clients that have to do with security.

    Raises:
        ConfigurationError: a certificate or key is none, or they do not belong together.
    """
    options: dict[str, Any] = {"security_protocol": settings.security_protocol}
    if settings.uses_tls:
        options["ssl_context"] = tls_context(settings)
    if settings.uses_sasl:
        options["sasl_mechanism"] = settings.sasl_mechanism
    if settings.uses_sasl and settings.sasl_mechanism == "OAUTHBEARER":
        options["sasl_oauth_token_provider"] = _token_provider(settings)
    elif settings.uses_sasl and settings.sasl_password is not None:
        options["sasl_plain_username"] = _sasl_name(settings)
        options["sasl_plain_password"] = settings.sasl_password.get_secret_value()
    return options


def tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    """Return how the brokers are checked, and what this client shows them.

    The files are read anew each time, so that a client which connects anew has a renewed certificate.

    Raises:
        ConfigurationError: see :func:`security_options`.
    """
    context = trusting("kafka.ssl_ca_file", settings.ssl_ca_file)
    context.check_hostname = settings.ssl_check_hostname
    context.sslsocket_class = TlsSocket
    if settings.ssl_certificate_file is not None and settings.ssl_key_file is not None:
        secret = settings.ssl_key_password
        password = secret.get_secret_value() if secret else ""
        try:
            # A function: without a password OpenSSL would ask for it at the terminal.
            context.load_cert_chain(settings.ssl_certificate_file, settings.ssl_key_file, lambda: password)
        except (OSError, ValueError) as error:
            problem = f"not a key to the certificate in {settings.ssl_certificate_file}: {_said(error)}"
            remedy = "Name PEM files that belong together, and set kafka.ssl_key_password if the key has one."
            raise ConfigurationError("kafka.ssl_key_file", str(settings.ssl_key_file), problem, remedy) from None
    return context


def trusting(key: str, ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that trusts one CA, or else those that the system trusts.

    Args:
        key: the setting that names the file.
        ca_file: PEM.

    Raises:
        ConfigurationError: the file holds no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca_file is None:
        context.load_default_certs()
        return context
    try:
        context.load_verify_locations(ca_file)
    except OSError as error:
        remedy = "Name a PEM file with the CA's certificate."
        raise ConfigurationError(key, str(ca_file), f"not a certificate: {_said(error)}", remedy) from None
    return context


@lru_cache(maxsize=8)
def _token_provider(settings: KafkaSettings) -> AbstractTokenProvider:
    """Return the provider that all clients of one cluster share, so that they use one token."""
    if settings.oauth_token_file is not None:
        return TokenFile(settings.oauth_token_file)
    return TokenService(settings, lambda: trusting("kafka.oauth_ca_file", settings.oauth_ca_file))


def _sasl_name(settings: KafkaSettings) -> str | None:
    name = settings.sasl_username
    if name is None or settings.sasl_mechanism == "PLAIN":
        return name
    return name.replace("=", "=3D").replace(",", "=2C")  # RFC 5802; the library does not


def _said(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
