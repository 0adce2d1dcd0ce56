"""Tokens of a real service over HTTPS, and of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from monitor.adapters.kafka import oauth
from monitor.adapters.kafka.oauth import TokenAwayError, TokenFile, TokenRefusedError, TokenService
from monitor.adapters.kafka.refusals import refusal
from monitor.adapters.kafka.security import trusting
from monitor.settings import KafkaSettings
from tests.integration.secured_kafka import SECRET, Certificates, token_endpoint


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def settings_of(url: str) -> KafkaSettings:
    return KafkaSettings(
        security_protocol="SASL_SSL",
        sasl_mechanism="OAUTHBEARER",
        oauth_token_url=url,
        oauth_client_id="line-1",
        oauth_client_secret=SECRET,  # type: ignore[arg-type]
    )


def service_of(url: str, ca: Path | None) -> TokenService:
    return TokenService(settings_of(url), lambda: trusting("kafka.oauth_ca_file", ca))


def test_a_token_is_used_until_a_quarter_of_its_life_is_left_and_longer_while_the_service_is_away(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(oauth, "time", clock)
    with token_endpoint(certificates.server) as endpoint:
        service = service_of(endpoint.url, certificates.ca)
        endpoint.answer = lambda: (200, {"access_token": f"token-{len(endpoint.asked)}", "expires_in": 100})
        assert [service.token(), service.token()] == ["token-1", "token-1"]
        clock.now += 74
        assert service.token() == "token-1"
        clock.now += 2
        assert service.token() == "token-2"
        endpoint.answer = lambda: (503, {})
        clock.now += 99
        assert service.token() == "token-2"
        clock.now += 2
        with pytest.raises(TokenAwayError, match="503"):
            service.token()
        endpoint.answer = lambda: (200, {"access_token": "new", "expires_in": 100})
        assert service.token() == "new"


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        ((401, {"error": "invalid_client"}), TokenRefusedError, "401 Unauthorized (invalid_client)"),
        ((400, {"error": "invalid_scope"}), TokenRefusedError, "(invalid_scope)"),
        ((403, "<html>"), TokenRefusedError, "403"),
        ((302, "https://elsewhere.example/"), TokenAwayError, "302"),
        ((500, {}), TokenAwayError, "500"),
        ((200, {"token": "x"}), TokenAwayError, "without an access_token"),
        ((200, ["x"]), TokenAwayError, "without an access_token"),
        ((200, {"access_token": "x", "expires_in": "soon"}), TokenAwayError, "without an access_token"),
    ],
)
def test_what_is_no_token_is_an_outage_or_a_refusal(
    answer: tuple[int, Any], kind: type[Exception], says: str, certificates: Certificates
) -> None:
    with token_endpoint(certificates.server) as endpoint:
        endpoint.answer = lambda: answer
        with pytest.raises(kind) as caught:
            service_of(endpoint.url, certificates.ca).token()
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(endpoint.asked) == 1
    refused = refusal(caught.value, settings_of(endpoint.url))
    assert (refused is not None) == (kind is TokenRefusedError)


def test_a_service_that_is_not_trusted_is_refused_by_name_and_one_that_is_away_is_waited_for(
    certificates: Certificates,
) -> None:
    with token_endpoint(certificates.server) as endpoint, pytest.raises(TokenAwayError) as caught:
        service_of(endpoint.url, certificates.strange_ca).token()
    line = str(refusal(caught.value, settings_of(endpoint.url)))
    assert f"The token service at kafka.oauth_token_url = '{endpoint.url}' is not to be trusted" in line
    assert "Set kafka.oauth_ca_file" in line
    with pytest.raises(TokenAwayError) as caught:  # it has ended
        service_of(endpoint.url, certificates.ca).token()
    assert refusal(caught.value, settings_of(endpoint.url)) is None


def test_a_token_file_is_read_again_each_time(tmp_path: Path) -> None:
    path = tmp_path / "token"
    tokens = TokenFile(path)
    with pytest.raises(TokenAwayError, match="No such file"):
        tokens.token()
    path.write_text(" first\n")
    assert tokens.token() == "first"
    path.write_text("second")
    assert tokens.token() == "second"
    for content in (b"", b"\n", b"\xff\xfe", b"a\x01auth=b"):
        path.write_bytes(content)
        with pytest.raises(TokenAwayError, match="token"):
            tokens.token()
