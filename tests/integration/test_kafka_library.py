"""The private members of kafka-python that ``library.py`` and ``library_records.py`` use mean what they say there.

On the embedded broker and on Apache Kafka: should a release change one of them, this fails before a line stands still.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from deploy.local.apache_kafka import ApacheKafka
from deploy.local.servers import TansuBroker
from monitor.adapters.kafka import ensure_topics, library
from monitor.adapters.kafka.library_records import Fetches
from monitor.adapters.kafka.reader import TopicReader
from monitor.settings import KafkaSettings, LimitSettings

PARTITIONS = 4


@pytest.fixture(params=["embedded", "apache"])
def each_kafka(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "apache":
        yield request.getfixturevalue("apache_kafka").address
        return
    with TansuBroker(tmp_path / "tansu") as server:
        yield server.address


@pytest.fixture
def topic(each_kafka: str, topics: Callable[[str], str]) -> str:
    names = {key: topics(key) for key in ("group", "frames_topic", "dead_topic", "inspections_topic")}
    settings = KafkaSettings(bootstrap_servers=each_kafka, partitions=PARTITIONS, **names)
    ensure_topics(settings, LimitSettings())
    return settings.frames_topic


def member(servers: str, topic: str) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=servers,
        group_id=topic,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        partition_assignment_strategy=(CooperativeStickyAssignor,),
        session_timeout_ms=6000,
    )


def poll_until(consumer: KafkaConsumer, condition: Callable[[], object], poll_ms: int = 100) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        consumer.poll(poll_ms)


def test_a_join_that_the_library_forgot_is_seen_and_taken_up_again(each_kafka: str, topic: str) -> None:
    with closing(member(each_kafka, topic)) as consumer:
        consumer.subscribe([topic])
        coordinator = consumer._coordinator
        # A join that nobody waits for, as after a poll that timed out in its midst; then what the leader's assignment
        # does to the two snapshots, and with them to need_rejoin().
        poll_until(consumer, lambda: coordinator._join_task is not None, poll_ms=1)
        deadline = time.monotonic() + 30
        while not coordinator._join_task.is_done:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        coordinator.rejoin_needed = False
        coordinator._assignment_snapshot = coordinator._metadata_snapshot
        assert library.keep_join(consumer)
        poll_until(consumer, lambda: len(consumer.assignment()) == PARTITIONS)
        assert not library.keep_join(consumer)


def test_metadata_of_a_topic_is_asked_for_and_told(each_kafka: str, topic: str) -> None:
    with closing(member(each_kafka, topic)) as consumer:
        assert library.know_topic(consumer, topic, 10)
        assert library.partition_count(consumer, topic) == PARTITIONS
        assert library.refresh_metadata(consumer, 10)
        assert len(library.topic_id(consumer, topic)) == 36
        with KafkaProducer(bootstrap_servers=each_kafka) as producer:
            producer.send(topic, b"x").get(10)
            assert library.topic_id(producer, topic) == library.topic_id(consumer, topic)


def test_positions_are_those_of_the_next_fetch(each_kafka: str, topic: str) -> None:
    partition = TopicPartition(topic, 0)
    with KafkaProducer(bootstrap_servers=each_kafka) as producer:
        for _ in range(3):
            producer.send(topic, b"x", partition=0).get(10)
    with closing(member(each_kafka, topic)) as consumer:
        consumer.assign([partition])
        assert library.position(consumer, partition) is None
        consumer.seek(partition, 1)
        assert library.position(consumer, partition) == 1
        poll_until(consumer, lambda: library.position(consumer, partition) == 3)
        assert library.position(consumer, TopicPartition(topic, 1)) is None


class NotUtf8(str):
    """A header's name that the client library writes as bytes that are no UTF-8."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        return b"\xff\xfe"


def test_a_message_that_the_library_cannot_read_has_a_stand_in(each_kafka: str, topic: str) -> None:
    unreadable, readable = TopicPartition(topic, 0), TopicPartition(topic, 1)
    with KafkaProducer(bootstrap_servers=each_kafka) as producer:
        producer.send(topic, b"x", headers=[(NotUtf8("name"), b"")], partition=0).get(10)
        producer.send(topic, b"x", partition=1).get(10)
    with closing(member(each_kafka, topic)) as consumer:
        fetches = Fetches(consumer, 1000)
        consumer.assign([unreadable, readable])
        consumer.seek_to_beginning()
        found: dict[TopicPartition, list[object]] = {}
        deadline = time.monotonic() + 30
        while len(found) < 2:
            assert time.monotonic() < deadline
            found |= consumer.poll(100)
        assert [type(record).__name__ for record in found[unreadable]] == ["UnreadableRecord"]
        assert fetches.take_errors() == []


def test_a_fetch_where_nothing_is_is_noted(apache_kafka: ApacheKafka, topics: Callable[[str], str]) -> None:
    topic = topics("frames")
    settings = KafkaSettings(bootstrap_servers=apache_kafka.address, frames_topic=topic, group=topic)
    ensure_topics(settings, LimitSettings())
    reader = TopicReader(settings)
    with closing(reader.consumer) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek(TopicPartition(topic, 0), 5)
        errors: list[tuple[TopicPartition, int, Exception]] = []
        poll_until(consumer, lambda: errors.extend(reader._fetches.take_errors()) or errors)
    (partition, offset, error) = errors[0]
    assert (partition, offset, type(error).__name__) == (TopicPartition(topic, 0), 5, "OffsetOutOfRangeError")
