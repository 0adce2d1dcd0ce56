"""What a secured Kafka needs to be told: which settings belong together, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from monitor.settings import Settings, load_settings
from monitor.settings_help import explain_settings
from schemas.errors import ConfigurationError

SECRET = "hunter2"
PASSWORD = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "sasl_username": "camera",
    "sasl_password": SECRET,
}
SERVICE = {
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "OAUTHBEARER",
    "oauth_token_url": "https://login.plant.example/token",
    "oauth_client_id": "line-1",
    "oauth_client_secret": SECRET,
}
PASSWORD_LESS = {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}


def load(kafka: dict[str, Any], folder: Path) -> Settings:
    config = folder / "monitor.yaml"
    config.write_text(yaml.safe_dump({"kafka": kafka}))
    return load_settings(config, environment={})


def without(settings: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in keys}


@pytest.mark.parametrize(
    ("kafka", "key", "says"),
    [
        ({"group_instance_id": "w-1", "session_timeout_ms": 6000}, "session_timeout_ms", "set it to 45000"),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism", "without SASL; set it to SASL_SSL"),
        ({"sasl_password": SECRET}, "sasl_password", "without SASL"),
        ({"oauth_client_secret": SECRET}, "oauth_client_secret", "without SASL"),
        ({"ssl_ca_file": __file__}, "ssl_ca_file", "without TLS; set it to SSL or SASL_SSL"),
        (without(PASSWORD, "sasl_mechanism"), "sasl_mechanism", "security_protocol is SASL_SSL, which needs one"),
        (without(PASSWORD, "sasl_username"), "sasl_username", "sasl_mechanism is SCRAM-SHA-512, which needs it"),
        (without(PASSWORD, "sasl_password"), "sasl_password", "sasl_mechanism is SCRAM-SHA-512, which needs it"),
        (PASSWORD | {"sasl_password": ""}, "sasl_password", "it is empty"),
        (PASSWORD | {"sasl_mechanism": "GSSAPI"}, "sasl_mechanism", "'PLAIN', 'SCRAM-SHA-256'"),
        (PASSWORD | {"oauth_token_file": __file__}, "oauth_token_file", "tokens are for OAUTHBEARER"),
        (PASSWORD | {"ssl_certificate_file": __file__}, "ssl_key_file", "kafka.ssl_certificate_file is set"),
        (PASSWORD | {"ssl_key_file": __file__}, "ssl_certificate_file", "kafka.ssl_key_file is set"),
        (PASSWORD | {"ssl_key_password": SECRET}, "ssl_key_file", "kafka.ssl_key_password is set"),
        (PASSWORD | {"ssl_ca_file": "/no/such.pem"}, "ssl_ca_file", "No such file"),
        (PASSWORD | {"ssl_ca_file": "/"}, "ssl_ca_file", "Is a directory"),
        (PASSWORD_LESS, "oauth_token_file", "set it, or kafka.oauth_token_url"),
        (without(SERVICE, "oauth_client_id"), "oauth_client_id", "kafka.oauth_token_url is set, which needs it"),
        (SERVICE | {"oauth_token_file": __file__}, "oauth_token_url", "oauth_token_file gives the token already"),
        (SERVICE | {"sasl_username": "x"}, "sasl_username", "takes a token and no password"),
        (SERVICE | {"oauth_token_url": "http://login.plant.example"}, "oauth_token_url", "not an https:// URL"),
        (SERVICE | {"oauth_token_url": f"https://me:{SECRET}@login"}, "oauth_token_url", "settings of their own"),
        (PASSWORD | {"sasl_password": [SECRET]}, "sasl_password", "string"),
    ],
)  # fmt: skip
def test_settings_that_do_not_belong_together_are_refused_by_their_key_in_one_line(
    kafka: dict[str, Any], key: str, says: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(kafka, tmp_path)
    line = str(caught.value)
    assert line.startswith(f"kafka.{key} = ")
    assert says in line
    assert str(tmp_path / "monitor.yaml") in line
    assert SECRET not in line
    assert "\n" not in line


@pytest.mark.parametrize("kafka", [PASSWORD, SERVICE, PASSWORD | {"security_protocol": "SASL_PLAINTEXT"}])
def test_settings_that_belong_together_are_taken_and_printed_without_their_secrets(
    kafka: dict[str, Any], tmp_path: Path
) -> None:
    printed = "\n".join(explain_settings(load(kafka, tmp_path)))
    assert SECRET not in printed
    assert yaml.safe_load(printed)["kafka"]["security_protocol"] == kafka["security_protocol"]


def test_a_url_is_printed_without_what_may_be_secret_in_it(tmp_path: Path) -> None:
    settings = load(SERVICE | {"oauth_token_url": f"https://login.plant.example/token?key={SECRET}"}, tmp_path)
    printed = "\n".join(explain_settings(settings))
    assert SECRET not in printed
    assert "https://login.plant.example/token" in printed


def test_a_secret_is_read_from_a_file_and_a_file_is_named_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{SECRET}\n")
    (tmp_path / "ca.pem").write_text("any")
    kafka = load_settings(
        environment={
            "PAEDID_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
            "PAEDID_KAFKA__SASL_MECHANISM": "PLAIN",
            "PAEDID_KAFKA__SASL_USERNAME": "camera",
            "PAEDID_KAFKA__SASL_PASSWORD_FILE": str(tmp_path / "password"),
            "PAEDID_KAFKA__SSL_CA_FILE": str(tmp_path / "ca.pem"),
        }
    ).kafka
    assert kafka.sasl_password == SecretStr(SECRET)
    assert kafka.ssl_ca_file == tmp_path / "ca.pem"


def test_no_setting_is_called_like_the_file_of_another() -> None:
    for section in Settings.model_fields:
        names = set(type(getattr(Settings(), section)).model_fields)
        assert not {f"{name}_file" for name in names} & names
