"""Every knob, validated once: defaults, then one YAML file, then environment variables.

``kafka.bootstrap_servers`` in YAML is ``PAEDID_KAFKA__BOOTSTRAP_SERVERS`` in the environment; with ``_FILE`` appended
the variable names a file that holds the value (a mounted secret). A setting whose own name ends in ``_file``, such as
``kafka.ssl_ca_file``, is the path of a file: ``PAEDID_KAFKA__SSL_CA_FILE`` holds that path.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError

from monitor import settings_values as values
from monitor.settings_kafka import KafkaSettings
from monitor.settings_section import Seconds, Section
from schemas.errors import ConfigurationError
from schemas.messages import Identifier

__all__ = [
    "CONFIG_VARIABLE",
    "HIDDEN",
    "PREFIX",
    "BatchSettings",
    "CameraSettings",
    "DatabaseSettings",
    "ImageSettings",
    "KafkaSettings",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelSettings",
    "OverloadPolicy",
    "RedisSettings",
    "ReviewSettings",
    "RuleSettings",
    "Settings",
    "load_settings",
    "redact",
]

PREFIX = "PAEDID_"
CONFIG_VARIABLE = "PAEDID_CONFIG"

HIDDEN = "..."

Pitch = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]


OverloadPolicy = Literal["wait", "skip-oldest", "deadline"]


class RedisSettings(Section):
    """Where the memory bank lives online."""

    url: Annotated[str, AfterValidator(values.redis_url)] = "redis://127.0.0.1:6379/0"
    """redis://user@host:port/database, or unix:// for a socket; redis+cluster://host:port,host:port for a Redis Cluster
    (one node is enough, and redis:// finds out by itself); redis+sentinel://host:26379,host:26379/master/database for a
    master that Sentinels watch. With TLS: rediss://, rediss+cluster://, rediss+sentinel://, and a CA of one's own as
    ?ssl_ca_certs=/path/ca.pem. docs/redis.md has the rest."""
    password: SecretStr | None = None
    """Better given as a file: PAEDID_REDIS__PASSWORD_FILE."""
    sentinel_username: str | None = None
    """The user at the Sentinels, where they have users."""
    sentinel_password: SecretStr | None = None
    """The Sentinels' own password, if they ask for one. Better as a file: PAEDID_REDIS__SENTINEL_PASSWORD_FILE."""
    timeout_s: Seconds = 2.0
    """How long one answer may take before Redis counts as away."""
    log_length: Annotated[int, Field(ge=10, le=1_000_000)] = 10_000
    """Edits kept per bank; a worker further behind reads the bank as a whole."""


class DatabaseSettings(Section):
    """Where results, masks, reviews and the bank's history are kept."""

    url: Annotated[SecretStr, AfterValidator(values.database_url)] = SecretStr("sqlite:///monitor.db")
    """sqlite:///file.db or postgresql+psycopg://user:password@host/name."""
    migrate: bool = True
    """Bring the tables up to date at start. Where another job does that, turn it off: old tables are then an error."""


class ImageSettings(Section):
    """Which frames are kept for review, and where (any fsspec URL: a folder, file://, s3://)."""

    url: Annotated[str, Field(min_length=1)] = "images"
    """A folder, or any fsspec URL such as s3://bucket/folder."""
    keep: Literal["flagged", "all", "none"] = "flagged"
    """Which frames' images are kept. Only a frame whose image is kept can be confirmed normal."""
    reserve_mb: Annotated[int, Field(ge=0, le=10**9)] = 256
    """When the folder's disk has less than this left, frames are stored without their image, until there is room again:
    the rest is the database's. Such a frame has its verdict and mask, but cannot be confirmed normal."""
    sample_normal: Annotated[float, Field(ge=0, le=1)] = 0.01
    """With keep: flagged, the share of the normal frames kept as well, for people to look at a sample."""


class ModelSettings(Section):
    """Which model inspects, and on what."""

    bundle: Path = Path("bundle")
    """The folder that paedid-trainer wrote. It counts for cameras for which 'model activate' has named no other."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto (the first GPU, or else the CPU), cpu, cuda or cuda:N."""
    bank_bytes: Annotated[int, Field(ge=2**16, le=2**36)] = 32 * 2**20
    """What confirmed normals may take of each camera's memory bank, in Redis; beyond it some make room.
    A worker takes about four times as much. One normal takes at most 25 kB at 128x128, mostly far less: only what the
    bank does not know of it is kept."""


class BatchSettings(Section):
    """How frames are gathered into batches: when either limit is reached, the batch is inspected."""

    max_frames: Annotated[int, Field(ge=1, le=1024)] = 16
    """Frames inspected together at most."""
    target_s: Seconds = 0.2
    """About how long a batch may take to be inspected: on a slow machine fewer frames are inspected together, for
    whoever waits, waits for whole batches."""
    max_age_s: Seconds = 0.05
    """A frame waits for others no longer than this."""
    decode_threads: Annotated[int, Field(ge=1, le=64)] = 2
    """Threads that decode images."""


class LimitSettings(Section):
    """Limits on what comes from outside; a frame beyond them goes to the dead letters."""

    max_frame_bytes: Annotated[int, Field(ge=1024, le=512 * 2**20)] = 32 * 2**20
    """Larger messages go to the dead letters."""
    max_frame_pixels: Annotated[int, Field(ge=1024, le=10**9)] = 64_000_000
    """Images of more pixels go to the dead letters, undecoded."""
    max_clock_ahead_s: Seconds = 3600.0
    """Frames captured further in the future go to the dead letters: a clock is wrong, the camera's or the worker's."""


class CameraSettings(Section):
    """Which cameras there are, and how large things are that they see: with it, defects are measured in mm as well."""

    known: Annotated[tuple[Identifier, ...], BeforeValidator(values.names), Field(max_length=10_000)] = ()
    """Their names, [line-1, line-2]: frames of any other camera go to the dead letters. Empty: any may come."""
    most: Annotated[int, Field(ge=1, le=10_000)] = 64
    """While known is empty: a worker takes so many cameras, the first it hears of, and keeps a bank for each. Frames of
    a further one go to the dead letters."""

    overload: OverloadPolicy = "deadline"
    """Which frames are stored uninspected when more come than can be inspected. deadline: those that would get their
    verdict later than their camera waits for it (its frames say how long, in ce_deadlinems; one that does not say,
    waits). skip-oldest: those behind which most_waiting newer ones wait. wait: none, so they get later and later."""
    overload_of: Annotated[dict[Identifier, OverloadPolicy], BeforeValidator(values.by_camera)] = Field(
        default_factory=dict
    )
    """For cameras that differ, by name: {line-1: wait, line-2: skip-oldest}."""
    most_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    """For skip-oldest: so many newer frames may wait in the frame's partition of Kafka."""

    pixel_pitch_um: Pitch | None = None
    """What a pixel covers of the part (not of the sensor), in micrometres: field of view / pixels. For all cameras."""
    pixel_pitch_um_of: Annotated[dict[Identifier, Pitch], BeforeValidator(values.by_camera)] = Field(
        default_factory=dict
    )
    """For cameras that differ, by name: {line-1: 12.5, line-2: 40}."""

    def overload_at(self, camera: str) -> OverloadPolicy:
        """Return which of a camera's frames are let go under overload."""
        return self.overload_of.get(camera, self.overload)

    def pitch_of(self, camera: str) -> float | None:
        """Return what a camera's pixel covers of the part, in micrometres, if anybody said so."""
        return self.pixel_pitch_um_of.get(camera, self.pixel_pitch_um)


class ReviewSettings(Section):
    """The learner."""

    poll_interval_s: Seconds = 0.1
    """How often the learner looks for new reviews."""


class RuleSettings(Section):
    """Learning without a person: frames beyond doubt are confirmed by a rule, seen and taken back like a person's."""

    enabled: bool = False
    """Off unless you say so."""
    score_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Only frames whose score is under this share of the verdict threshold."""
    quiet_minutes: Annotated[float, Field(ge=0, le=100_000)] = 30
    """Only while the camera has been without drift for so long."""
    sample: Annotated[float, Field(gt=0, le=1)] = 0.1
    """This share of the frames that could be; of those whose image is kept (see images.sample_normal)."""
    daily_cap: Annotated[int, Field(ge=1, le=100_000)] = 20
    """At most so many a day and camera."""


class LogSettings(Section):
    """How the programs report."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """How much to tell."""
    format: Literal["auto", "console", "json"] = "auto"
    """console for people, json for machines; auto: console on a terminal."""


class MetricsSettings(Section):
    """Prometheus metrics; 0 turns the port off."""

    host: str = "127.0.0.1"
    """Where Prometheus finds the metrics; beyond 127.0.0.1 only if you say so."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0: no metrics are served."""


class Settings(Section):
    """All settings."""

    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    database: DatabaseSettings = DatabaseSettings()
    images: ImageSettings = ImageSettings()
    model: ModelSettings = ModelSettings()
    batch: BatchSettings = BatchSettings()
    limits: LimitSettings = LimitSettings()
    cameras: CameraSettings = CameraSettings()
    review: ReviewSettings = ReviewSettings()
    rule: RuleSettings = RuleSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()


def load_settings(config: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings.

    Args:
        config: a YAML file; default: the one named by ``PAEDID_CONFIG``, if any.
        environment: default: the process's.

    Raises:
        ConfigurationError: names the first wrong key, its value and the remedy.
    """
    environment = os.environ if environment is None else environment
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    found = _read_yaml(config) if config else {}
    origins = _apply_environment(found, environment)
    try:
        return Settings.model_validate(found)
    except ValidationError as error:
        raise _explain(error, origins, config) from None


def redact(url: str) -> str:
    """Return a URL without what may be secret in it: whatever stands before the host, and the options at its end."""
    return re.sub(r"\?.*", f"?{HIDDEN}", re.sub(r"//.*@", f"//{HIDDEN}@", url, flags=re.DOTALL), flags=re.DOTALL)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = values.parse_yaml(values.read_text(path))
    except OSError as error:
        raise ConfigurationError("config", str(path), error.strerror or str(error), "Name a readable file.") from None
    except ValueError as error:
        raise ConfigurationError("config", str(path), f"not YAML: {error}", "Correct the file.") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(v, dict) for v in document.values()):
        problem = "not a mapping of sections"
        raise ConfigurationError("config", str(path), problem, "Write 'section:' and its keys indented below it.")
    return {str(section): {str(k): v for k, v in keys.items()} for section, keys in document.items()}


def _apply_environment(found: dict[str, Any], environment: Mapping[str, str]) -> dict[str, str]:
    """Overlay environment variables on ``found``; return which variable set which key."""
    origins: dict[str, str] = {}
    for name, text in sorted(environment.items()):
        if not name.startswith(PREFIX) or "__" not in name:
            continue
        section, _, key = name.removeprefix(PREFIX).lower().partition("__")
        value = text
        if key.endswith("_file") and key not in _keys(section):
            key = key.removesuffix("_file")
            try:
                value = values.read_text(Path(text)).strip()
            except (OSError, ValueError) as error:
                problem = getattr(error, "strerror", None) or str(error)
                raise ConfigurationError(name, text, problem, "Name a readable file that holds the value.") from None
        found.setdefault(section, {})[key] = value
        origins[f"{section}.{key}"] = name
    return origins


def _explain(error: ValidationError, origins: Mapping[str, str], config: Path | None) -> ConfigurationError:
    first = error.errors()[0]
    context = first.get("ctx", {})
    section, *names = (str(part) for part in first["loc"])
    # Of a section as a whole: it says itself which key is wrong, and all its values, secrets among them, are the input.
    names, value = ([context["key"]], context["value"]) if "key" in context else (names[:1], first.get("input"))
    key = ".".join([section, *names])
    place = f"the environment variable {origins[key]}" if key in origins else f"{config}" if config else "the settings"
    if first["type"] == "extra_forbidden":
        known = [f"{section}.{name}" for section in _sections() for name in _keys(section)]
        close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]}?" if close else "'paedid-monitor settings' lists all keys."
        return ConfigurationError(key, "...", f"there is no such setting (in {place})", hint)
    if not names or _is_secret(section, names[0]):
        value = HIDDEN
    elif isinstance(value, Path):
        value = str(value)
    elif isinstance(value, str):
        value = redact(value)
    problem = first["msg"].removeprefix("Value error, ")
    return ConfigurationError(key, value, f"{problem} (in {place})", "'paedid-monitor settings' explains each key.")


def _is_secret(section: str, key: str) -> bool:
    return "SecretStr" in str(_sections()[section].model_fields[key].annotation)


def _keys(section: str) -> Collection[str]:
    return _sections()[section].model_fields if section in _sections() else ()


def _sections() -> dict[str, type[BaseModel]]:
    fields = Settings.model_fields.items()
    return {name: field.annotation for name, field in fields if isinstance(field.annotation, type)}
