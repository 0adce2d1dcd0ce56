"""Where a worker stands with Kafka, told once each: its partitions or why it has none, outages, and their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Final

import structlog
from kafka import TopicPartition

from monitor.adapters.kafka.reader import Polled
from monitor.metrics import PARTITIONS, READY
from monitor.settings import KafkaSettings

# A rebalance of a healthy group takes a moment; a group whose members are slow, or a coordinator that is away, longer.
PATIENCE_S: Final = 10.0
# A member of a cooperative group joins twice: what others give up comes with the second time.
STANDBY_AFTER_S: Final = 3.0

log = structlog.get_logger()


class Standing:
    """Owned by the thread that owns the source.

    Args:
        settings: the group and the topic.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._topic, self._group = settings.frames_topic, settings.group
        self._without_since: float | None = time.monotonic()
        self._told = ""
        PARTITIONS.set(0)
        self._set_ready(ready=False)

    def assigned(
        self, owned: Collection[TopicPartition], added: Collection[TopicPartition], gone: Collection[TopicPartition]
    ) -> None:
        """Tell which partitions came, which went, and which are read now."""
        PARTITIONS.set(len(owned))
        self._set_ready(ready=bool(owned))
        if added or gone:
            log.info("partitions assigned", partitions=_numbers(owned), added=_numbers(added), gone=_numbers(gone))

    def polled(self, owned: Collection[TopicPartition], polled: Polled) -> None:
        """Tell what a worker without partitions waits for."""
        now = time.monotonic()
        self._set_ready(ready=bool(owned) or polled.joined)
        if owned:
            self._without_since, self._told = None, ""
            return
        since = self._without_since = self._without_since or now
        if polled.joined and polled.partitions and now - since >= STANDBY_AFTER_S:
            self._tell_once(
                log.info,  # nothing is wrong
                "standby",
                "No partitions are left for this worker: it stands by, and takes over when another worker ends",
                partitions_of_topic=polled.partitions,
            )
        elif now - since >= PATIENCE_S and not polled.joined:
            self._tell_once(
                log.warning,
                "joining",
                "Waiting for the group's coordinator to assign partitions; no frames arrive until it does",
            )

    def away(self, error: Exception) -> None:
        """Tell that the broker cannot be reached, once until it is back."""
        self._set_ready(ready=False)
        if self._told != "away":
            self._told = "away"
            log.warning("Kafka unreachable; no frames arrive until it is back", error=str(error))

    def back(self) -> None:
        """Tell that it can be reached again."""
        self._told = ""
        log.info("Kafka is back; frames arrive again")

    def _set_ready(self, *, ready: bool) -> None:
        self.ready = ready
        READY.set(ready)

    def _tell_once(self, tell: Callable[..., None], what: str, words: str, **details: object) -> None:
        if self._told != what:
            self._told = what
            tell(words, topic=self._topic, group=self._group, **details)


def _numbers(partitions: Collection[TopicPartition]) -> list[int]:
    return sorted(partition.partition for partition in partitions)
