"""What a broker refuses, in words: for whom, on what, and what mends it. An outage is none, and is waited for."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterator
from typing import Final

from kafka import errors

from monitor.adapters.kafka.oauth import TokenAwayError, TokenRefusedError
from monitor.adapters.kafka.rights import Operation, Right, grant_command, principal_of
from monitor.settings import KafkaSettings
from schemas.errors import OperatorError, ServiceRefusedError

SERVICE: Final = "Kafka"
MOST_CAUSES: Final = 10
# What OpenSSL says of a certificate (X509_V_ERR_...).
NOT_IN_TIME: Final = frozenset({9, 10})
ANOTHER_HOST: Final = frozenset({62, 64})
# What it says of a server that does not speak TLS.
NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
# The first two bytes of a TLS alert, which a client without TLS takes for the beginning of a length.
TLS_ALERT: Final = 0x1503

Told = tuple[str, str]  # the problem, and the remedy


def refusal(error: BaseException, settings: KafkaSettings, operation: Operation | None = None) -> OperatorError | None:
    """Return what a person must mend, in one line; None for an outage, or anything else that is no refusal.

    Args:
        error: as a client raised it; what it was raised from is looked at as well.
        settings: whose client it was.
        operation: what was being done with a topic; without it: reading frames, writing anything else.
    """
    causes = list(_causes(error))
    if any(isinstance(each, TokenAwayError) for each in causes):
        return _token_service_not_trusted(causes, settings)
    for each in causes:
        told = _told(each, settings, operation)
        if told is not None:
            return ServiceRefusedError(SERVICE, address(settings), *told)
    return None


def suspicion(error: BaseException, settings: KafkaSettings, *, connected: bool) -> OperatorError | None:
    """Return what probably is wrong where a connection just ends, which a broker's restart looks like as well.

    Args:
        error: of the last of several attempts.
        settings: whose client it was.
        connected: the broker had answered as Kafka before.
    """
    if any(isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError) for each in _causes(error)):
        return ServiceRefusedError(SERVICE, address(settings), *_no_tls(settings))
    if connected and not settings.uses_sasl and isinstance(error, errors.KafkaConnectionError):
        problem = f"hangs up on a client that does not say who it is ({settings.security_protocol})"
        protocol = "SASL_SSL" if settings.uses_tls else "SASL_PLAINTEXT"
        remedy = f"If it asks for a user, set kafka.security_protocol to {protocol} and kafka.sasl_mechanism."
        return ServiceRefusedError(SERVICE, address(settings), problem, remedy)
    if not settings.uses_tls and not connected and isinstance(error, errors.KafkaConnectionError):
        problem = f"hangs up on a client without TLS ({settings.security_protocol})"
        return ServiceRefusedError(SERVICE, address(settings), problem, _speak_tls(settings))
    return None


def address(settings: KafkaSettings) -> str:
    """Return where Kafka is, as messages name it."""
    return f"kafka.bootstrap_servers = {settings.bootstrap_servers!r}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was made of: the library wraps some, raises others while handling them."""
    found: BaseException | None = error
    for _ in range(MOST_CAUSES):
        if found is None:
            return
        yield found
        wrapped = next((each for each in found.args if isinstance(each, BaseException)), None)
        found = wrapped or found.__cause__ or found.__context__


def _told(error: BaseException, settings: KafkaSettings, operation: Operation | None) -> Told | None:
    if isinstance(error, ssl.SSLError):
        return _of_tls(error, settings)
    if isinstance(error, errors.AuthorizationError):
        return _of_right(error, settings, operation)
    if isinstance(error, errors.InvalidReceiveError) and (length := re.search(r"\d+", str(error))):
        over_tls = int(length.group()) >> 16 == TLS_ALERT
        return ("speaks TLS, and this client does not", _speak_tls(settings)) if over_tls else None
    return next((say(error, settings) for kind, say in WORDS.items() if isinstance(error, kind)), None)


def _of_tls(error: ssl.SSLError, settings: KafkaSettings) -> Told | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_certificate(error)
    reason = getattr(error, "reason", None) or ""  # Python's own have none
    if reason in NO_TLS:
        return _no_tls(settings)
    if "ALERT" not in reason:
        return None
    said = reason.lower().replace("_", " ")
    if "VERSION" in reason:
        return f"speaks no TLS version that this client does ({said})", "Allow TLSv1.2 or TLSv1.3 at the broker."
    if settings.ssl_certificate_file is None:
        remedy = "Set kafka.ssl_certificate_file and kafka.ssl_key_file."
        return f"wants a client certificate, and this client has none ({said})", remedy
    remedy = "Take one of a CA in the broker's truststore, which has not expired."
    return f"refuses the certificate in kafka.ssl_certificate_file {settings.ssl_certificate_file} ({said})", remedy


def _of_certificate(error: ssl.SSLCertVerificationError) -> Told:
    said = error.verify_message.rstrip(".")
    if error.verify_code in ANOTHER_HOST:
        remedy = "Name it in kafka.bootstrap_servers as its certificate does (or set kafka.ssl_check_hostname: false)."
        return f"has a certificate of another host ({said})", remedy
    if error.verify_code in NOT_IN_TIME:
        return f"has a certificate out of date ({said})", "Renew the broker's certificate, or set this machine's clock."
    remedy = "Set kafka.ssl_ca_file to the certificate of that CA."
    return f"has a certificate of a CA that this client does not know ({said})", remedy


def _no_tls(settings: KafkaSettings) -> Told:
    protocol = "SASL_PLAINTEXT" if settings.uses_sasl else "PLAINTEXT"
    remedy = f"Name the port of the TLS listener, or set kafka.security_protocol to {protocol}."
    return f"does not speak TLS, as kafka.security_protocol = {settings.security_protocol!r} says", remedy


def _speak_tls(settings: KafkaSettings) -> str:
    return f"Set kafka.security_protocol to {'SASL_SSL' if settings.uses_sasl else 'SSL'}."


def _of_right(error: errors.AuthorizationError, settings: KafkaSettings, operation: Operation | None) -> Told:
    rights = _missing(error, settings, operation)
    words = " or ".join(str(right) for right in rights)
    commands = "; ".join(grant_command(settings, principal_of(settings), [right]) for right in rights)
    return f"refuses {_who(settings)} the right {words}", f"Grant it: {commands}"


def _missing(error: errors.AuthorizationError, settings: KafkaSettings, operation: Operation | None) -> list[Right]:
    if isinstance(error, errors.GroupAuthorizationFailedError):
        return [Right("Read", "group", settings.group)]
    if isinstance(error, errors.TransactionalIdAuthorizationFailedError):
        return [Right("Write", "transactional-id", "*")]
    if not isinstance(error, errors.TopicAuthorizationFailedError):
        return [Right(operation or "IdempotentWrite", "cluster")]
    topics = (settings.frames_topic, settings.dead_topic, settings.inspections_topic)
    named = [name for name in topics if re.search(rf"(?<![\w.\-]){re.escape(name)}(?![\w\-]|\.\w)", str(error))]
    usual: dict[str, Operation] = {settings.frames_topic: "Read"}
    return [Right(operation or usual.get(name, "Write"), "topic", name) for name in named or topics]


def _who(settings: KafkaSettings) -> str:
    if settings.uses_sasl and settings.sasl_username:
        return f"user {settings.sasl_username!r}"
    if settings.uses_sasl:
        return "the token's user"
    return "the certificate's user" if settings.ssl_certificate_file else "clients without a name"


def _not_authenticated(error: BaseException, settings: KafkaSettings) -> Told:
    if isinstance(error, TokenRefusedError):
        said = str(error.args[0]) if error.args else "refused"
        return (
            f"wants a token: {said}",
            "Correct kafka.oauth_client_id and kafka.oauth_client_secret, or kafka.oauth_scope.",
        )
    if settings.sasl_mechanism == "OAUTHBEARER":
        remedy = "Compare its issuer, audience and end with what the broker expects."
        return "refuses the token (OAUTHBEARER)", remedy
    remedy = "Correct kafka.sasl_username and kafka.sasl_password."
    return f"refuses {_who(settings)}: wrong password, or no such user ({settings.sasl_mechanism})", remedy


def _token_service_not_trusted(causes: list[BaseException], settings: KafkaSettings) -> OperatorError | None:
    for each in causes:
        reason = getattr(each, "reason", None)
        if isinstance(each, ssl.SSLCertVerificationError) or isinstance(reason, ssl.SSLCertVerificationError):
            remedy = "Set kafka.oauth_ca_file to the CA of its certificate, and name it as that does."
            return ServiceRefusedError(
                "The token service",
                f"kafka.oauth_token_url = {settings.oauth_token_url!r}",
                f"is not to be trusted ({reason or each})",
                remedy,
            )
    return None


WORDS: Final[dict[type[BaseException], Callable[[BaseException, KafkaSettings], Told]]] = {
    errors.SaslAuthenticationFailedError: _not_authenticated,
    errors.UnsupportedSaslMechanismError: lambda _, settings: (
        f"does not know kafka.sasl_mechanism = {settings.sasl_mechanism!r} at this port",
        "Set it to one of the broker's sasl.enabled.mechanisms.",
    ),
    errors.IllegalSaslStateError: lambda _, settings: (
        f"asks for no user at this port, and kafka.security_protocol = {settings.security_protocol!r} names one",
        f"Name the port of the SASL listener, or set it to {'SSL' if settings.uses_tls else 'PLAINTEXT'}.",
    ),
    errors.FencedInstanceIdError: lambda _, settings: (
        f"gave this worker's place in the group {settings.group!r} to another with the same kafka.group_instance_id",
        "Give each worker an id of its own.",
    ),
    errors.InconsistentGroupProtocolError: lambda _, settings: (
        f"has members in the group {settings.group!r} with another assignment protocol (older workers)",
        "Stop all of them, then start them again.",
    ),
    errors.InvalidSessionTimeoutError: lambda _, settings: (
        f"does not allow kafka.session_timeout_ms = {settings.session_ms}",
        "Set it between the broker's group.min.session.timeout.ms and group.max.session.timeout.ms.",
    ),
    errors.UnsupportedVersionError: lambda error, _: (
        f"is too old for what was asked of it ({_short(error)})", "Use Kafka 2.8 or newer.",
    ),
    errors.InvalidGroupIdError: lambda _, settings: (
        f"does not take kafka.group = {settings.group!r}", "Choose another name.",
    ),
    errors.GroupMaxSizeReachedError: lambda _, settings: (
        f"takes no more members into the group {settings.group!r}", "Raise the broker's group.max.size.",
    ),
}  # fmt: skip


def _short(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
