"""What other producers write, on Apache Kafka: each frame is given once, and each that cannot be is accounted for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka import TopicPartition as Place
from kafka.admin import KafkaAdminClient

from deploy.local.apache_kafka import ApacheKafka
from monitor.adapters.kafka import KafkaSource, ensure_topics
from monitor.adapters.kafka.standstill import LOOK_EVERY_S
from monitor.ports import LogGap, RawRecord
from monitor.settings import KafkaSettings, LimitSettings

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LIMITS = LimitSettings(max_frame_bytes=1_000_000)


@pytest.fixture
def settings(apache_kafka: ApacheKafka, topics: Callable[[str], str]) -> KafkaSettings:
    return made(apache_kafka, topics)


def made(server: ApacheKafka, topics: Callable[[str], str]) -> KafkaSettings:
    """Return settings of topics of this test's own, which exist."""
    settings = KafkaSettings(
        bootstrap_servers=server.address,
        group=topics("group"),
        frames_topic=topics("frames"),
        dead_topic=topics("dead"),
        inspections_topic=topics("inspections"),
    )
    ensure_topics(settings, LIMITS)
    return settings


def producer(settings: KafkaSettings, **options: object) -> Producer:
    return Producer({"bootstrap.servers": settings.bootstrap_servers, **options})


def send(settings: KafkaSettings, values: Sequence[bytes | None], partition: int = 0, **options: object) -> None:
    """Send all values in one batch."""
    client = producer(settings, **({"linger.ms": 500} | options))
    for value in values:
        client.produce(settings.frames_topic, value, key=b"cam", partition=partition)
    assert client.flush(20) == 0


def read(source: KafkaSource, count: int, timeout: float = 30.0) -> list[RawRecord | LogGap]:
    found: list[RawRecord | LogGap] = []
    deadline = time.monotonic() + timeout
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {[item.position for item in found]}"
        found += source.poll(0.2, 1000)
    return found


def values(items: Sequence[RawRecord | LogGap]) -> list[bytes | None]:
    return [item.value for item in items if isinstance(item, RawRecord)]


@pytest.mark.parametrize("codec", CODECS)
def test_frames_in_each_codec_arrive_as_they_were_sent(settings: KafkaSettings, codec: str) -> None:
    sent = [bytes([number]) * 60_000 for number in range(5)]
    send(settings, sent, **{"compression.type": codec})
    with closing(KafkaSource(settings)) as source:
        items = read(source, 5)
        assert values(items) == sent
        assert [item.position.offset for item in items] == list(range(5))


def test_null_values_and_messages_without_headers_arrive(settings: KafkaSettings) -> None:
    send(settings, [None, b"", b"x"])
    with closing(KafkaSource(settings)) as source:
        items = read(source, 3)
    assert [(item.value, item.headers) for item in items if isinstance(item, RawRecord)] == [
        (None, ()), (b"", ()), (b"x", ()),
    ]  # fmt: skip


def test_only_what_a_transaction_committed_arrives(settings: KafkaSettings) -> None:
    client = producer(settings, **{"transactional.id": settings.group})
    client.init_transactions(20)
    for number, commit in enumerate((True, False, True)):
        client.begin_transaction()
        for index in range(3):
            client.produce(settings.frames_topic, f"{number}/{index}".encode(), partition=1)
        client.flush(20)
        (client.commit_transaction if commit else client.abort_transaction)(20)
    with closing(KafkaSource(settings)) as source:
        items = read(source, 6)
        assert source.poll(1.0, 100) == []
        assert source.lag() == 0  # past the markers
        source.commit([items[-1].position])
    assert values(items) == [f"{number}/{index}".encode() for number in (0, 2) for index in range(3)]
    # Taken back at the end of the log, they are no frames that wait either.
    client.begin_transaction()
    client.produce(settings.frames_topic, b"aborted", partition=1)
    client.flush(20)
    client.abort_transaction(20)
    with closing(KafkaSource(settings)) as source:
        assert source.poll(3.0, 100) == []


def test_an_open_transaction_that_holds_up_a_partition_is_told_of(
    settings: KafkaSettings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.adapters.kafka.standstill.LOOK_EVERY_S", LOOK_EVERY_S / 20)
    client = producer(settings, **{"transactional.id": settings.group})
    client.init_transactions(20)
    client.begin_transaction()
    client.produce(settings.frames_topic, b"open", partition=2)
    client.flush(20)
    send(settings, [b"behind"], partition=2)
    with closing(KafkaSource(settings)) as source:
        told = ""
        deadline = time.monotonic() + 30
        while "open transaction" not in told:
            assert time.monotonic() < deadline
            assert source.poll(0.2, 10) == []
            told += capsys.readouterr().out
        client.commit_transaction(20)
        assert values(read(source, 2)) == [b"open", b"behind"]
        assert "is read again" in capsys.readouterr().out


def test_what_retention_deleted_before_it_was_read_is_a_gap_in_its_place(
    settings: KafkaSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    send(settings, [b"%d" % number for number in range(50)], partition=3)
    with closing(KafkaSource(settings)) as source:
        items = read(source, 50)
        source.commit([items[9].position])
    delete_records(settings, partition=3, before=40)
    with closing(KafkaSource(settings)) as source:
        gap, *rest = read(source, 11)
        assert isinstance(gap, LogGap)
        assert (gap.position.partition, gap.position.offset, gap.count, gap.last.offset) == (3, 10, 30, 39)
        assert gap.position.topic_id == rest[0].position.topic_id
        assert values(rest) == [b"%d" % number for number in range(40, 50)]
        source.commit([gap.last])
    assert "deleted by the topic's retention before they were read" in capsys.readouterr().out
    with closing(KafkaSource(settings)) as source:  # told once, once it is committed
        assert values(read(source, 10)) == values(rest)


def delete_records(settings: KafkaSettings, partition: int, before: int) -> None:
    from confluent_kafka.admin import AdminClient  # noqa: PLC0415 - this test alone

    admin = AdminClient({"bootstrap.servers": settings.bootstrap_servers})
    for future in admin.delete_records([Place(settings.frames_topic, partition, before)]).values():
        future.result(20)


def test_messages_whose_codecs_package_is_missing_stop_nothing_else(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    send(settings, [b"1", b"2"])
    send(settings, [b"3" * 1000, b"4" * 1000], **{"compression.type": "zstd"})
    send(settings, [b"5"])
    send(settings, [b"other"], partition=1)
    with closing(KafkaSource(settings)) as source:
        items = read(source, 6)
        here = [item for item in items if isinstance(item, RawRecord) and item.position.partition == 0]
        assert [(item.position.offset, item.value) for item in here] == [
            (0, b"1"), (1, b"2"), (2, None), (3, None), (4, b"5"),
        ]  # fmt: skip
        assert "pip install zstandard" in (here[2].problem or "")
        assert b"other" in values(items)
        source.commit([item.position for item in here])
    with closing(KafkaSource(settings)) as source:
        send(settings, [b"6"])
        assert b"6" in values(read(source, 1))


def test_a_small_batch_that_unpacks_to_gigabytes_is_given_up_in_bounded_memory(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.adapters.kafka.reader.MOST_BATCH_BYTES", 1_000_000)
    for codec in CODECS[1:]:
        large = {"batch.size": 4_000_000, "message.max.bytes": 4_000_000}
        send(settings, [bytes(900_000), bytes(900_000)], **{"compression.type": codec, **large})
    send(settings, [b"next"])
    with closing(KafkaSource(settings)) as source:
        items = read(source, 9)
    assert values(items) == [None] * 8 + [b"next"]
    assert all("more than 1000000 bytes" in (i.problem or "") for i in items[:8] if isinstance(i, RawRecord))


@pytest.fixture
def own_kafka(apache_kafka: ApacheKafka, tmp_path: Path) -> Iterator[ApacheKafka]:
    """Apache Kafka of the test's own, to be stopped and damaged."""
    del apache_kafka  # where that one is skipped, so is this one
    with ApacheKafka(tmp_path / "kafka") as server:
        yield server


def damage(server: ApacheKafka, topic: str, at: int) -> None:
    """Flip a byte of a topic's first partition on the stopped broker's disk."""
    [segment] = sorted((server.data() / f"{topic}-0").glob("*.log"))
    content = bytearray(segment.read_bytes())
    content[at] ^= 0xFF
    segment.write_bytes(content)


DAMAGED = {
    # What is damaged, the codec, and which byte of the batch: its header has 61.
    "a message": ("none", 70),
    "a compressed message": ("lz4", 70),
    "the batch's length": ("none", 11),
    "the batch's last offset": ("none", 23),
    "how many it claims to have": ("none", 25),
}
# Longer than what lies between two entries of the broker's index: it finds what is behind the damage by that.
AFTER = (bytes(5000), bytes(5001))


def test_a_batch_that_was_damaged_on_the_brokers_disk_stops_nothing_else(
    own_kafka: ApacheKafka, topics: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.adapters.kafka.standstill.LOOK_EVERY_S", LOOK_EVERY_S / 20)
    lines = {what: made(own_kafka, lambda name, what=what: topics(f"{name}.{len(what)}")) for what in DAMAGED}
    places: dict[str, int] = {}
    for what, (codec, byte) in DAMAGED.items():
        send(lines[what], [b"before"])
        places[what] = byte + len(segment_of(own_kafka, lines[what]))
        send(lines[what], [b"damaged 1", b"damaged 2"], **{"compression.type": codec})
        for each in AFTER:
            send(lines[what], [each])
        send(lines[what], [b"other"], partition=1)
    own_kafka.stop()
    for what, place in places.items():
        damage(own_kafka, lines[what].frames_topic, place)
    own_kafka.start()
    for what, settings in lines.items():
        require_all_but_the_damaged(settings, broker_lost_its_way=what == "the batch's length")


def require_all_but_the_damaged(settings: KafkaSettings, *, broker_lost_its_way: bool) -> None:
    with closing(KafkaSource(settings)) as source:
        items = read(source, 6)
        assert b"other" in values(items)
        here = [item for item in items if isinstance(item, RawRecord) and item.position.partition == 0]
        assert [item.position.offset for item in here] == [0, 1, 2, 3, 4]
        assert (here[0].value, here[4].value) == (b"before", AFTER[1])
        # Where the broker itself lost its way, it finds it again with the next entry of its index.
        assert here[3].value == (None if broker_lost_its_way else AFTER[0])
        assert [bool(item.problem) for item in here] == [item.value is None for item in here]
        source.commit([item.position for item in here])
    with closing(KafkaSource(settings)) as source:
        send(settings, [b"next"])
        assert b"next" in values(read(source, 1))


def segment_of(server: ApacheKafka, settings: KafkaSettings) -> bytes:
    [segment] = sorted((server.data() / f"{settings.frames_topic}-0").glob("*.log"))
    return segment.read_bytes()


def test_partitions_that_are_added_are_read_without_a_restart(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.adapters.kafka.reader.METADATA_MAX_AGE_S", 2.0)
    with closing(KafkaSource(settings)) as source:
        while len(source.partitions) < settings.partitions:
            source.poll(0.1, 1)
        admin = KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers)
        admin.create_partitions({settings.frames_topic: 6})
        admin.close()
        deadline = time.monotonic() + 60
        while len(source.partitions) < 6:
            assert time.monotonic() < deadline
            source.poll(0.1, 1)
        send(settings, [b"new"], partition=5)
        assert values(read(source, 1)) == [b"new"]
