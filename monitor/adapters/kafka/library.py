"""All of kafka-python's private members that this product uses, each with the reason.

Tested with kafka-python 3.0.12, on the embedded broker and on Apache Kafka (``tests/integration/test_kafka_library.py``
fails if one of them changes its meaning). Reading what was fetched: ``library_records.py``.
"""

from __future__ import annotations

import threading
from typing import Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

REJOIN_PAUSE_S: Final = 0.005


def topic_id(client: KafkaConsumer | KafkaProducer, topic: str) -> str:
    """Return the id by which a topic is told from one of the same name before it; '' where the broker gives none.

    ``_cluster``, ``_metadata``: no public method tells ids.
    """
    cluster = client._metadata if isinstance(client, KafkaProducer) else client._cluster  # noqa: SLF001
    return str(cluster.topic_id(topic) or "")


def know_topic(consumer: KafkaConsumer, topic: str, timeout_s: float) -> bool:
    """Ask for a topic's metadata and return whether it came in time.

    ``_cluster``: the public ``partitions_for_topic`` asks for all topics of the cluster, without a time limit.
    """
    cluster = consumer._cluster  # noqa: SLF001
    cluster.add_topic(topic)
    return refresh_metadata(consumer, timeout_s)


def refresh_metadata(consumer: KafkaConsumer, timeout_s: float) -> bool:
    """Ask for the metadata of the topics that are known and return whether it came in time.

    ``_cluster``: see :func:`know_topic`.
    """
    update = consumer._cluster.request_update()  # noqa: SLF001
    arrived = threading.Event()
    update.add_both(lambda _: arrived.set())
    return arrived.wait(timeout_s) and bool(update.succeeded())


def partition_count(consumer: KafkaConsumer, topic: str) -> int:
    """Return how many partitions a topic has, as far as is known.

    ``_cluster``: the public ``partitions_for_topic`` blocks where it does not know the topic.
    """
    return len(consumer._cluster.partitions_for_topic(topic) or ())  # noqa: SLF001


def position(consumer: KafkaConsumer, partition: TopicPartition) -> int | None:
    """Return the offset that is fetched next of an assigned partition, or None while that is not known.

    ``_subscription``: the public ``position`` asks the coordinator, and raises where nothing was committed.
    """
    state = consumer._subscription.assignment.get(partition)  # noqa: SLF001
    return None if state is None or state.position is None else int(state.position.offset)


def keep_join(consumer: KafkaConsumer) -> bool:
    """Return whether a join of the group is unfinished, and see to it that the next poll finishes it.

    ``_coordinator``: where a change of metadata asked for the join, the library forgets it when a poll times out
    between the leader's assignment and the answer to SyncGroup: both of its snapshots are equal by then,
    ``need_rejoin()`` is false, and nobody takes the finished ``_join_task``. The member then has no partitions for
    good, and its heartbeats go on. Asked to rejoin, the next poll takes the task up again.
    """
    coordinator = consumer._coordinator  # noqa: SLF001
    if coordinator._join_task is not None:  # noqa: SLF001
        coordinator.request_rejoin()
    return bool(coordinator.need_rejoin())


async def pause_in_loop(consumer: KafkaConsumer) -> None:
    """Let the library's loop go on for a moment.

    ``_net``: a rebalance listener that waits must wait on this loop, which has its own ``sleep``.
    """
    await consumer._net.sleep(REJOIN_PAUSE_S)  # noqa: SLF001


def discard_pending_sends(producer: KafkaProducer) -> None:
    """Let a producer's ``close`` drop what was not sent.

    ``_sender``: the public ``close`` waits for the messages first; without a broker it would raise and leave its
    thread sending them.
    """
    producer._sender.force_close()  # noqa: SLF001
