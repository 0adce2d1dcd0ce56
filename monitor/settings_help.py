"""``paedid-monitor settings``: the settings in force, as the YAML file one would write, each explained."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, SecretStr

from monitor.settings import CONFIG_VARIABLE, PREFIX, Settings


def explain_settings(settings: Settings) -> Iterator[str]:
    """Yield the lines of a YAML file with all settings; secrets stay secret."""
    yield f"# A file of any of these is named by --config or {CONFIG_VARIABLE}. The variables in brackets override it;"
    yield "# with _FILE appended, a variable names a file that holds the value."
    for section in Settings.model_fields:
        values: BaseModel = getattr(settings, section)
        yield ""
        yield f"# {inspect.getdoc(type(values))}"
        yield f"{section}:"
        for key, field in type(values).model_fields.items():
            yield f"  # {field.description} [{PREFIX}{section.upper()}__{key.upper()}]"
            yield f"  {key}: {_as_yaml(getattr(values, key))}"


def _as_yaml(value: object) -> str:
    if isinstance(value, SecretStr):
        # Without a password it is no secret, and people must be able to see where their data goes.
        value = value.get_secret_value() if "@" not in value.get_secret_value() else str(value)
    if isinstance(value, Path):
        value = str(value)
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    return yaml.safe_dump(value).removesuffix("...\n").strip()
