"""Tokens for SASL OAUTHBEARER: from a file that others renew, or for a client's credentials from a token service."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

from kafka.errors import KafkaConnectionError, SaslAuthenticationFailedError
from kafka.net.sasl.oauth import AbstractTokenProvider

from monitor.settings import KafkaSettings
from monitor.settings_values import read_text

# A client's thread waits for the token, and its heartbeats with it.
TIMEOUT_S: Final = 4.0
MAX_ANSWER_BYTES: Final = 1_000_000
# Renewed when this share of its life is left: the library signs on anew with 5 to 15 % of the session left.
RENEW_SHARE: Final = 0.25
USUAL_LIFE_S: Final = 300.0


class TokenAwayError(KafkaConnectionError):  # type: ignore[misc] # untyped library
    """No token now: an outage, which clients wait out."""


class TokenRefusedError(SaslAuthenticationFailedError):  # type: ignore[misc] # untyped library
    """The token service does not give this client a token."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc] # untyped library
    """The token that a file holds now."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def token(self) -> str:
        """Return the file's text.

        Raises:
            TokenAwayError: it cannot be read, or holds none.
        """
        try:
            text = read_text(self._path).strip()
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or "not a token"
            raise TokenAwayError(f"kafka.oauth_token_file {self._path}: {problem}") from None  # noqa: EM102, TRY003
        if not text or not text.isprintable():
            raise TokenAwayError(f"kafka.oauth_token_file {self._path} holds no token")  # noqa: EM102, TRY003
        return text


class TokenService(AbstractTokenProvider):  # type: ignore[misc] # untyped library
    """OAuth 2 client credentials (RFC 6749, 4.4). Used by the threads of several clients.

    Args:
        settings: the service and the client's credentials.
        tls: makes the context that the service's certificate is checked with.
    """

    def __init__(self, settings: KafkaSettings, tls: Callable[[], ssl.SSLContext]) -> None:
        super().__init__()
        self._settings = settings
        self._tls = tls
        self._lock = threading.Lock()
        self._token = ""
        self._renew_at = self._ends_at = 0.0

    def token(self) -> str:
        """Return a token with a part of its life before it; while the service is away, the last one until it ends.

        Raises:
            TokenAwayError: the service does not answer.
            TokenRefusedError: it refuses.
        """
        with self._lock:
            if time.monotonic() >= self._renew_at:
                try:
                    self._renew()
                except TokenAwayError:
                    if time.monotonic() >= self._ends_at:
                        raise
            return self._token

    def _renew(self) -> None:
        asked_at = time.monotonic()
        answer = self._ask()
        token, life_s = answer.get("access_token"), answer.get("expires_in", USUAL_LIFE_S)
        if not isinstance(token, str) or not token.isprintable() or not isinstance(life_s, int | float):
            raise TokenAwayError(f"{self._where} answered without an access_token")  # noqa: EM102, TRY003
        self._token = token
        self._ends_at = asked_at + life_s
        self._renew_at = asked_at + life_s * (1 - RENEW_SHARE)

    def _ask(self) -> dict[str, Any]:
        opener = build_opener(_NoRedirect, HTTPSHandler(context=self._tls()))
        try:
            with opener.open(self._request(), timeout=TIMEOUT_S) as response:
                answer = json.loads(response.read(MAX_ANSWER_BYTES))
        except HTTPError as error:
            with error:
                problem = f"{self._where} answered {error.code} {error.reason}{_told(error)}"
            if error.code in {400, 401, 403}:
                raise TokenRefusedError(problem) from None
            raise TokenAwayError(problem) from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise TokenAwayError(f"{self._where} does not answer: {reason}") from error  # noqa: EM102, TRY003
        return answer if isinstance(answer, dict) else {}

    def _request(self) -> Request:
        settings = self._settings
        secret = settings.oauth_client_secret.get_secret_value() if settings.oauth_client_secret else ""
        credentials = f"{quote(settings.oauth_client_id or '', safe='')}:{quote(secret, safe='')}"
        fields = {"grant_type": "client_credentials"} | (
            {"scope": settings.oauth_scope} if settings.oauth_scope else {}
        )
        return Request(  # noqa: S310 - the settings take https alone
            settings.oauth_token_url or "",
            data=urlencode(fields).encode(),
            headers={
                "Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}",
                "Accept": "application/json",
            },
        )

    @property
    def _where(self) -> str:
        return f"kafka.oauth_token_url {(self._settings.oauth_token_url or '').partition('?')[0]}"


class _NoRedirect(HTTPRedirectHandler):
    """Follows none: it would take the secret to another place."""

    def redirect_request(self, *_: object) -> None:
        """Return no request, so that the answer is an error."""


def _told(error: HTTPError) -> str:
    """Return the error code of an OAuth answer, such as invalid_client."""
    try:
        answer = json.loads(error.read(MAX_ANSWER_BYTES))
    except (OSError, ValueError):
        return ""
    code = answer.get("error") if isinstance(answer, dict) else None
    return f" ({code})" if isinstance(code, str) and code.isprintable() and len(code) < 100 else ""  # noqa: PLR2004
