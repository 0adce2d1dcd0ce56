"""Whether a topic fits what goes through it: pure, from what the brokers say of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from monitor.settings import KafkaSettings, LimitSettings

# Headers, key and the record batch around a frame.
MESSAGE_OVERHEAD_BYTES: Final = 128 * 1024
MAX_MESSAGE: Final = "max.message.bytes"
MIN_IN_SYNC: Final = "min.insync.replicas"
RETENTION_MS: Final = "retention.ms"
RETENTION_BYTES: Final = "retention.bytes"
CLEANUP: Final = "cleanup.policy"
CHECKED: Final = (MAX_MESSAGE, MIN_IN_SYNC, RETENTION_MS, RETENTION_BYTES, CLEANUP)
LEAST_RETENTION_MS: Final = 3_600_000
USUAL_RETENTION_MS: Final = 86_400_000
# Of the largest frames, in one partition.
LEAST_FRAMES_KEPT: Final = 10


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as it is.

    Attributes:
        replicas: of the partition that has fewest.
        in_sync: replicas in sync, of the partition that has fewest.
        leaders: the brokers that lead its partitions.
        configs: those of `CHECKED` that the brokers told; none where they do not tell this client.
    """

    name: str
    partitions: int
    replicas: int
    in_sync: int
    leaders: frozenset[int] = frozenset()
    configs: Mapping[str, str] = field(default_factory=dict)

    def number(self, config: str) -> int | None:
        """Return a configuration's value, if it is known."""
        value = self.configs.get(config)
        return int(value) if value is not None and value.lstrip("-").isdigit() else None


@dataclass(frozen=True, slots=True)
class Misfit:
    """What does not fit: the consequence, and the command that mends it."""

    problem: str
    command: str


def misfits(state: TopicState, settings: KafkaSettings, limits: LimitSettings, brokers: int) -> Iterator[Misfit]:
    """Yield what does not fit.

    Args:
        state: a topic of these settings.
        settings: says what the topic is for.
        limits: how large frames may be.
        brokers: how many there are.
    """
    if state.name != settings.inspections_topic:
        yield from _size(state, settings, limits)
    if state.name == settings.frames_topic and state.partitions < settings.partitions:
        yield Misfit(
            f"has {state.partitions} partitions and not kafka.partitions = {settings.partitions}: no more workers than "
            "that share the cameras",
            f"{_tool('kafka-topics', settings)} --alter --topic {state.name} --partitions {settings.partitions}",
        )
    yield from _retention(state, settings, limits)
    yield from _replicas(state, settings, brokers)


def _size(state: TopicState, settings: KafkaSettings, limits: LimitSettings) -> Iterator[Misfit]:
    wanted, allowed = limits.max_frame_bytes + MESSAGE_OVERHEAD_BYTES, state.number(MAX_MESSAGE)
    if allowed is not None and allowed < wanted:
        yield Misfit(
            f"takes messages of up to {allowed} bytes, and limits.max_frame_bytes = {limits.max_frame_bytes}: larger "
            + ("frames are dropped" if state.name == settings.frames_topic else "dead letters are kept without bytes"),
            alter_config(settings, state.name, f"{MAX_MESSAGE}={wanted}"),
        )


def _retention(state: TopicState, settings: KafkaSettings, limits: LimitSettings) -> Iterator[Misfit]:
    if "compact" in state.configs.get(CLEANUP, ""):
        yield Misfit(
            f"is compacted ({CLEANUP}={state.configs[CLEANUP]}): only the newest message of each camera is kept for "
            "certain",
            alter_config(settings, state.name, f"{CLEANUP}=delete"),
        )
    kept_ms, kept_bytes = state.number(RETENTION_MS), state.number(RETENTION_BYTES)
    if kept_ms is not None and 0 <= kept_ms < LEAST_RETENTION_MS:
        yield Misfit(
            f"keeps messages for {kept_ms / 60_000:g} minutes ({RETENTION_MS}={kept_ms}): what was not read by then is "
            "lost",
            alter_config(settings, state.name, f"{RETENTION_MS}={USUAL_RETENTION_MS}"),
        )
    if kept_bytes is not None and 0 <= kept_bytes < LEAST_FRAMES_KEPT * limits.max_frame_bytes:
        yield Misfit(
            f"keeps {kept_bytes} bytes a partition ({RETENTION_BYTES}), less than {LEAST_FRAMES_KEPT} of the largest "
            "frames: what was not read by then is lost",
            alter_config(settings, state.name, f"{RETENTION_BYTES}=-1"),
        )


def _replicas(state: TopicState, settings: KafkaSettings, brokers: int) -> Iterator[Misfit]:
    wanted = state.number(MIN_IN_SYNC)
    if wanted is not None and wanted > state.in_sync:
        live = "has" if wanted > state.replicas else "now has"
        yield Misfit(
            f"{live} {state.in_sync} replicas in sync and wants {wanted} ({MIN_IN_SYNC}): nothing can be written to it",
            alter_config(settings, state.name, f"{MIN_IN_SYNC}={max(1, state.replicas - 1)}"),
        )
    if state.replicas == 1 and brokers > 1:
        yield Misfit(
            f"has one replica, in a cluster of {brokers} brokers: with a broker that is lost, its messages are lost",
            f"{_tool('kafka-reassign-partitions', settings)} --execute --reassignment-json-file <two or more replicas>",
        )


def alter_config(settings: KafkaSettings, topic: str, config: str) -> str:
    """Return the command that sets a topic's configuration."""
    return (
        f"{_tool('kafka-configs', settings)} --alter --entity-type topics --entity-name {topic} --add-config {config}"
    )


def create_topic(settings: KafkaSettings, limits: LimitSettings, topic: str) -> str:
    """Return the command that makes a topic as these programs do."""
    config = f"{MAX_MESSAGE}={limits.max_frame_bytes + MESSAGE_OVERHEAD_BYTES}"
    options = f"--create --topic {topic} --partitions {settings.partitions} --config {config}"
    return f"{_tool('kafka-topics', settings)} {options}"


def _tool(name: str, settings: KafkaSettings) -> str:
    return f"{name} --bootstrap-server {settings.bootstrap_servers.split(',')[0].strip()}"
