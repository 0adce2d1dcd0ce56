"""``paedid-monitor settings``: the settings in force, as the YAML file one would write, each explained."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, SecretStr

from monitor.settings import CONFIG_VARIABLE, HIDDEN, PREFIX, Settings, redact


def explain_settings(settings: Settings) -> Iterator[str]:
    """Yield the lines of a YAML file with all settings; secrets stay secret."""
    yield f"# A file of any of these is named by --config or {CONFIG_VARIABLE}. The variables in brackets override it;"
    yield "# with _FILE appended, a variable names a file that holds the value."
    for section in Settings.model_fields:
        values: BaseModel = getattr(settings, section)
        yield ""
        yield f"# {_on_one_line(inspect.getdoc(type(values)))}"
        yield f"{section}:"
        for key, field in type(values).model_fields.items():
            yield f"  # {_on_one_line(field.description)} [{PREFIX}{section.upper()}__{key.upper()}]"
            yield f"  {key}: {_as_yaml(_without_secrets(key, getattr(values, key)))}"


def _on_one_line(text: str | None) -> str:
    """Return a docstring as a comment: a second line of it would be read as a setting."""
    return " ".join((text or "").split())


def _without_secrets(key: str, value: object) -> object:
    if value is None or not (key == "url" or key.endswith("_url")):
        return HIDDEN if isinstance(value, SecretStr) else value
    # People must be able to see where their data goes.
    return redact(value.get_secret_value() if isinstance(value, SecretStr) else str(value))


def _as_yaml(value: object) -> str:
    if isinstance(value, Path):
        value = str(value)
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, dict | tuple):
        return yaml.safe_dump(value, default_flow_style=True, width=math.inf).strip()
    return yaml.safe_dump(value).removesuffix("...\n").strip()
