"""Whatever a settings file or a variable holds: settings, or one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from monitor.settings import Settings, load_settings
from monitor.settings_help import explain_settings
from schemas.errors import ConfigurationError
from tests.fuzz.bounds import bounded, fuzzed
from tests.fuzz.damage import damaged

KEYS = [(section, key) for section, field in Settings.model_fields.items() for key in type(field.default).model_fields]
VALID = "\n".join(explain_settings(Settings())).encode()
PIECES = [
    "- ", "? ", ": ", "&a ", "*a", "[", "]", "{", "}", ", ", "'", '"', "# ", "| ", "<<: ", "\n", "  ", "\t", "---\n",
    "!!int ", "!!timestamp ", "!!binary ", "!!set ", "%YAML 9", "\\ud800", "\0", "0x", "0b", "1:", "59", "2001-99-99",
    ".inf", ".nan", "1e999", "9" * 5000, "log", "kafka", "limits", "cameras", "known", "level",
]  # fmt: skip
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.binary(max_size=9), st.dates(),
    st.sampled_from([10**4200, "line-1", "host:9092", "sqlite:///x", "redis://[x", "postgresql://u:p@h:x", "[" * 3000]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "monitor.yaml"


def load(file: Path, text: bytes, environment: Mapping[str, str] | None = None) -> None:
    file.write_bytes(text)
    try:
        with bounded():
            settings = load_settings(file, environment or {})
    except ConfigurationError as error:
        assert "\n" not in str(error)  # noqa: PT017 - or anything else was raised
        assert len(str(error)) < 1500  # noqa: PT017
    else:
        assert isinstance(settings, Settings)


@fuzzed
@given(text=st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=20).map("".join))
def test_any_text_is_settings_or_one_line(file: Path, text: str) -> None:
    load(file, text.encode(errors="surrogatepass"))


@fuzzed
@given(text=damaged([VALID]))
def test_a_damaged_settings_file_is_settings_or_one_line(file: Path, text: bytes) -> None:
    load(file, text)


@fuzzed
@given(key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_is_a_setting_or_one_line(file: Path, key: tuple[str, str], value: object) -> None:
    load(file, yaml.safe_dump({key[0]: {key[1]: value}}, allow_unicode=True).encode(errors="surrogatepass"))


@fuzzed
@given(key=st.sampled_from(KEYS), text=st.lists(st.sampled_from(PIECES) | st.text(max_size=9), max_size=8).map("".join))
def test_any_variable_is_a_setting_or_one_line(file: Path, key: tuple[str, str], text: str) -> None:
    load(file, b"", {f"PAEDID_{key[0]}__{key[1]}".upper(): text})
