"""The rights that each program needs in Kafka, and the commands that grant them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from monitor.settings import KafkaSettings

Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs", "IdempotentWrite"]
Resource = Literal["topic", "group", "cluster", "transactional-id"]


@dataclass(frozen=True, slots=True)
class Right:
    """One right. ``name``: of the resource; nothing for the cluster, which has none."""

    operation: Operation
    resource: Resource
    name: str = ""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.operation} on the {self.resource}" + (f" {self.name!r}" if self.name else "")


def needed_rights(settings: KafkaSettings) -> Mapping[str, Sequence[Right]]:
    """Return, by program, what its user must be granted; the topics are there already.

    Read and Write on a topic, and Read on a group, include Describe.
    """
    frames, dead, results = settings.frames_topic, settings.dead_topic, settings.inspections_topic
    return {
        "camera": (Right("Write", "topic", frames),),
        "run": (
            Right("Read", "topic", frames),
            Right("Read", "group", settings.group),
            Right("Write", "topic", dead),
            Right("Write", "topic", results),
        ),
        "dlq show": (Right("Read", "topic", dead),),
        "dlq replay": (Right("Read", "topic", dead), Right("Write", "topic", frames)),
    }


# Besides, for topics that the programs make themselves, and for them to know the topics' limits.
OPTIONAL: Final[Sequence[Operation]] = ("Create", "DescribeConfigs")


def grant_command(settings: KafkaSettings, principal: str, rights: Sequence[Right]) -> str:
    """Return the command that grants rights on one resource."""
    first = rights[0]
    operations = " ".join(f"--operation {right.operation}" for right in rights)
    resource = "--cluster" if first.resource == "cluster" else f"--{first.resource} {first.name}"
    server = settings.bootstrap_servers.split(",")[0].strip()
    who = f"--allow-principal {principal}"
    return f"kafka-acls --bootstrap-server {server} --add {who} {operations} {resource}"


def principal_of(settings: KafkaSettings) -> str:
    """Return how the brokers call this client, as far as the settings tell."""
    if settings.uses_sasl and settings.sasl_username:
        return f"User:{settings.sasl_username}"
    if settings.uses_sasl:
        return "User:<the token's subject>"
    if settings.ssl_certificate_file is not None:
        return "User:<the certificate's subject>"
    return "User:ANONYMOUS"
