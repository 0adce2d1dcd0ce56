"""Settings that nobody meant: each is one short line that names its place."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from monitor.settings import load_settings
from schemas.errors import ConfigurationError


def problem(tmp_path: Path, text: bytes) -> str:
    (tmp_path / "monitor.yaml").write_bytes(text)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(tmp_path / "monitor.yaml", environment={})
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [b"log: {level: !!int ''}", b"log: {level: 2001-99-99}", b"log: {level: 0x_}", b"log: !!timestamp x",
     b"log: {level: !!float ''}", b"log: {level: " + b"9" * 5000 + b"}", b"[" * 3000, b"\xff"],
)  # fmt: skip
def test_a_file_that_is_no_yaml_is_named(tmp_path: Path, text: bytes) -> None:
    assert "monitor.yaml': not YAML" in problem(tmp_path, text)


@pytest.mark.parametrize(
    "value",
    ["&a [*a]", "1" + ":00" * 5000, "x" * 100_000, "[" + "x, " * 10_000 + "]", f"[[{'x' * 900}, {'x' * 900}]]"],
    ids=lambda value: value[:8],
)
def test_a_large_value_makes_no_large_error(tmp_path: Path, value: str) -> None:
    told = problem(tmp_path, f"log: {{level: {value}}}".encode())
    assert told.startswith("log.level = ")
    assert len(told) < 700


def test_lists_that_name_each_other_take_no_memory(tmp_path: Path) -> None:
    names = "abcdefghijkl"
    lists = [f"  {name}: &{name} [{', '.join([f'*{before}'] * 9)}]" for before, name in pairwise(names)]
    text = "\n".join(["batch:", "  a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]", *lists, "cameras: {known: [*l]}"])
    assert "batch.a" in problem(tmp_path, text.encode())


def test_a_key_of_several_lines_makes_one(tmp_path: Path) -> None:
    assert "\n" not in problem(tmp_path, b'log: {"a\\nb": 1}')


def test_a_file_without_an_end_is_too_large() -> None:
    with pytest.raises(ConfigurationError, match="larger than 1 MB"):
        load_settings(Path("/dev/zero"), environment={})
    with pytest.raises(ConfigurationError, match=r"PAEDID_REDIS__PASSWORD_FILE.*larger than 1 MB"):
        load_settings(environment={"PAEDID_REDIS__PASSWORD_FILE": "/dev/zero"})


def test_a_secret_that_is_no_text_is_named_and_stays_secret(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xffhush")
    with pytest.raises(ConfigurationError, match="PAEDID_REDIS__PASSWORD_FILE") as caught:
        load_settings(environment={"PAEDID_REDIS__PASSWORD_FILE": str(tmp_path / "secret")})
    assert "hush" not in str(caught.value)


def test_a_database_url_that_cannot_be_read_shows_nothing_of_its_password() -> None:
    with pytest.raises(ConfigurationError, match="not an SQLAlchemy URL") as caught:
        load_settings(environment={"PAEDID_DATABASE__URL": "postgresql://user:hush:hush@host:hush/name"})
    assert "hush" not in str(caught.value)
