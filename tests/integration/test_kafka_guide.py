"""docs/kafka.md says what is: its example loads, it knows every setting, and its rights are those that are tested."""

from __future__ import annotations

import re
from pathlib import Path

from monitor.adapters.kafka.rights import grant_command, needed_rights
from monitor.settings import KafkaSettings, load_settings

GUIDE = (Path(__file__).parents[2] / "docs" / "kafka.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, flags=re.DOTALL)


def test_the_example_is_read_as_it_stands(tmp_path: Path) -> None:
    (example,) = blocks("yaml")
    (tmp_path / "ca.pem").write_text("any")
    (tmp_path / "kafka-password").write_text("hunter2\n")
    config = tmp_path / "monitor.yaml"
    config.write_text(example.replace("/etc/paedid", str(tmp_path)))
    exports = re.findall(r"export (\w+)=(\S+)", blocks("sh")[0])
    environment = {name: value.replace("/etc/paedid", str(tmp_path)) for name, value in exports}
    kafka = load_settings(config, environment).kafka
    assert kafka.sasl_password is not None
    assert (kafka.sasl_password.get_secret_value(), kafka.ssl_ca_file) == ("hunter2", tmp_path / "ca.pem")


def test_every_setting_is_in_the_table() -> None:
    rows = [line.split("|")[1] for line in GUIDE.splitlines() if line.startswith("| `")]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(KafkaSettings.model_fields)


def test_the_rights_are_those_that_the_programs_need() -> None:
    """test_kafka_security runs each program as a user who has just these."""
    settings = KafkaSettings(bootstrap_servers="kafka-1.plant.example:9093")
    users = {"camera": "paedid-camera", "run": "paedid-worker"}
    wanted = [
        grant_command(settings, f"User:{users.get(program, 'paedid-people')}", [right])
        for program, rights in needed_rights(settings).items()
        for right in rights
    ]
    told = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("kafka-acls")]
    assert told == list(dict.fromkeys(wanted))
