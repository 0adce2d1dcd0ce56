"""The Kafka adapters over a real broker."""

from __future__ import annotations

import gc
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord

from deploy.local.apache_kafka import ApacheKafka
from deploy.local.servers import TansuBroker, free_port
from monitor.adapters.kafka import DeadLetterTopic, KafkaPublisher, KafkaSource, KeptLetter, ensure_topics
from monitor.errors import StoreUnavailableError
from monitor.ports import DeadLetter, LogPosition, OutboxMessage, RawRecord
from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import Reason, ServiceUnavailableError

LIMITS = LimitSettings(max_frame_bytes=100_000)
HEADERS = (("ce_id", b"1"), ("ce_type", b"t"), ("raw", b"\xff\x00"))


@pytest.fixture
def producer(kafka_settings: KafkaSettings) -> Iterator[KafkaProducer]:
    ensure_topics(kafka_settings, LIMITS)
    with KafkaProducer(bootstrap_servers=kafka_settings.bootstrap_servers, max_request_size=2**30) as producer:
        yield producer


def send(producer: KafkaProducer, topic: str, values: Sequence[bytes], partition: int = 0) -> None:
    for value in values:
        producer.send(topic, value, key=b"cam", headers=list(HEADERS), partition=partition).get(5)


def read(source: KafkaSource, count: int, timeout: float = 20.0) -> list[RawRecord]:
    records: list[RawRecord] = []
    deadline = time.monotonic() + timeout
    while len(records) < count and time.monotonic() < deadline:
        records += source.poll(0.2, count - len(records))
    return records


def wait_for(condition: Callable[[], object], source: KafkaSource, timeout: float = 20.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        source.poll(0.1, 1)


def test_a_message_arrives_with_its_bytes_key_headers_and_place(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    send(producer, kafka_settings.frames_topic, [b"\x00\xff", b""], partition=2)
    producer.send(kafka_settings.frames_topic, None, key=b"k", partition=2).get(5)
    with closing(KafkaSource(kafka_settings)) as source:
        first, second, third = read(source, 3)
    assert (first.key, first.value, first.headers) == (b"cam", b"\x00\xff", HEADERS)
    assert (second.value, third.value, third.key, third.headers) == (b"", None, b"k", ())
    assert [r.position.offset for r in (first, second, third)] == [0, 1, 2]
    assert [r.newer for r in (first, second, third)] == [2, 1, 0]
    assert (first.position.topic, first.position.partition) == (kafka_settings.frames_topic, 2)
    assert len(first.position.topic_id) == 36


def test_a_message_larger_than_a_fetch_arrives_and_so_does_the_next(
    kafka_settings: KafkaSettings,
) -> None:
    ensure_topics(kafka_settings, LimitSettings(max_frame_bytes=5_000_000))
    with KafkaProducer(bootstrap_servers=kafka_settings.bootstrap_servers, max_request_size=2**30) as producer:
        send(producer, kafka_settings.frames_topic, [b"x" * 5_000_000, b"next"])
    with closing(KafkaSource(kafka_settings)) as source:
        assert [len(r.value or b"") for r in read(source, 2)] == [5_000_000, 4]


class NotUtf8(str):
    """A header's name that the client library writes as bytes that are no UTF-8."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:  # type: ignore[override]
        return b"\xff\xfe"


def test_a_message_that_the_library_cannot_read_stops_nothing_and_is_accounted_for_by_its_place(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    topic = kafka_settings.frames_topic
    for value, headers in ((b"1", HEADERS), (b"2", ((NotUtf8("name"), b"x"),)), (b"3", HEADERS)):
        producer.send(topic, value, key=b"cam", headers=list(headers), partition=1).get(5)
    with closing(KafkaSource(kafka_settings)) as source:
        records = read(source, 3)
        assert [(record.value, record.position.offset) for record in records] == [(b"1", 0), (None, 1), (b"3", 2)]
        assert [record.problem is None for record in records] == [True, False, True]
        source.commit([record.position for record in records])
    with closing(KafkaSource(kafka_settings)) as source:
        wait_for(lambda: source.lag() == 0, source)


def test_a_message_that_the_library_cannot_read_does_not_end_its_partition_while_others_go_on(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    topic = kafka_settings.frames_topic
    # In one batch, so that the library comes to the broken one in the midst of it.
    with KafkaProducer(bootstrap_servers=kafka_settings.bootstrap_servers, linger_ms=500) as gathering:
        for value, headers in ((b"1", HEADERS), (b"2", ((NotUtf8("name"), b"x"),))):
            gathering.send(topic, value, key=b"cam", headers=list(headers), partition=1)
    send(producer, topic, [b"3"], partition=1)
    with closing(KafkaSource(kafka_settings)) as source:
        seen: list[RawRecord] = []
        deadline = time.monotonic() + 20
        while not any(record.value == b"3" for record in seen):
            assert time.monotonic() < deadline, [(r.value, r.position) for r in seen]
            send(producer, topic, [b"other"], partition=2)
            seen += source.poll(0.05, 1)
    first = [(r.value, r.position.offset) for r in seen if r.position.partition == 1]
    assert first == [(b"1", 0), (None, 1), (b"3", 2)]


def test_no_poll_returns_more_than_it_was_asked_for(kafka_settings: KafkaSettings, producer: KafkaProducer) -> None:
    send(producer, kafka_settings.frames_topic, [b"%d" % i for i in range(10)])
    with closing(KafkaSource(kafka_settings)) as source:
        first = read(source, 1)  # it has joined by then
        batches = [[r.value for r in source.poll(5, 4)] for _ in range(3)]
        assert [r.value for r in first] == [b"0"]
        assert batches == [[b"1", b"2", b"3", b"4"], [b"5", b"6", b"7", b"8"], [b"9"]]
        assert source.lag() == 0


def test_the_backlog_of_one_camera_does_not_keep_another_waiting(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    topic = kafka_settings.frames_topic
    for number in range(900):
        producer.send(topic, b"%d" % number, partition=number % 2)
    producer.flush(20)
    with closing(KafkaSource(kafka_settings)) as source:
        busy = read(source, 16)  # by now the library has fetched many more of both
        send(producer, topic, [b"quiet"], partition=2)
        ahead: list[RawRecord] = []
        while not any(record.value == b"quiet" for record in ahead):
            ahead += source.poll(0.2, 16)
            time.sleep(0.05)  # as inspecting takes its time, in which the next fetch arrives
        assert len(ahead) <= 5 * 16
        rest = read(source, 900 - len(busy) - len(ahead) + 1)
        assert source.poll(0.2, 16) == []
        assert source.lag() == 0
    for partition in (0, 1):
        offsets = [r.position.offset for r in (*busy, *ahead, *rest) if r.position.partition == partition]
        assert offsets == list(range(450))


def test_what_waits_to_be_handed_out_is_counted_as_lag_and_kept_while_paused(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    send(producer, kafka_settings.frames_topic, [b"%d" % i for i in range(10)])
    with closing(KafkaSource(kafka_settings)) as source:
        assert [r.value for r in read(source, 3)] == [b"0", b"1", b"2"]
        assert source.lag() == 7
        source.pause()
        assert [source.poll(0.1, 10) for _ in range(3)] == [[], [], []]
        source.resume()
        assert [r.value for r in read(source, 7)] == [b"%d" % i for i in range(3, 10)]


def test_a_consumer_started_again_goes_on_after_the_commit(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    send(producer, kafka_settings.frames_topic, [b"%d" % i for i in range(6)])
    with closing(KafkaSource(kafka_settings)) as source:
        records = read(source, 6)
        # Out of order: the highest counts.
        source.commit([records[3].position, records[1].position])
    with closing(KafkaSource(kafka_settings)) as source:
        assert [r.value for r in read(source, 2)] == [b"4", b"5"]


def test_an_offset_of_a_topic_that_is_no_more_is_not_committed(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    send(producer, kafka_settings.frames_topic, [b"0", b"1"])
    with closing(KafkaSource(kafka_settings)) as source:
        read(source, 2)
        source.commit([LogPosition(kafka_settings.frames_topic, "another-topic-id", 0, 1)])
    with closing(KafkaSource(kafka_settings)) as source:
        assert [r.value for r in read(source, 2)] == [b"0", b"1"]


def test_a_paused_source_gets_nothing_and_keeps_its_partitions(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    with closing(KafkaSource(kafka_settings)) as source:
        source.pause()  # before any partition was assigned: it must hold for those that come
        send(producer, kafka_settings.frames_topic, [b"0"])
        wait_for(lambda: source.partitions, source)
        assert [r.value for _ in range(5) for r in source.poll(0.2, 10)] == []
        source.resume()
        assert [r.value for r in read(source, 1)] == [b"0"]


def test_work_in_hand_is_committed_before_partitions_go_to_another_worker(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    values = [b"%d" % i for i in range(4)]
    for partition in range(4):
        send(producer, kafka_settings.frames_topic, values, partition)
    revoked_in: list[int] = []
    with closing(KafkaSource(kafka_settings)) as first:
        in_hand = read(first, 16)
        assert len(in_hand) == 16

        def finish() -> None:
            revoked_in.append(threading.get_ident())
            first.commit([record.position for record in in_hand])

        first.on_revoked(finish)
        with closing(KafkaSource(kafka_settings)) as second:
            joined = threading.Event()
            seen: list[RawRecord] = []

            def work() -> None:
                while not joined.is_set():
                    seen.extend(second.poll(0.1, 100))

            other = threading.Thread(target=work)
            other.start()
            try:
                wait_for(lambda: revoked_in and len(first.partitions) == 2, first)
                # On a busy machine the other is told of its share somewhat later.
                wait_for(lambda: len(second.partitions) == 2, first)
                time.sleep(1)  # what was not committed would arrive at the other worker now
            finally:
                joined.set()
                other.join()
            assert len(second.partitions) == 2
            assert seen == []
    # In the thread that polls, where the owner's state is.
    assert set(revoked_in) == {threading.get_ident()}


def test_a_callback_that_fails_loses_no_message(kafka_settings: KafkaSettings, producer: KafkaProducer) -> None:
    def fail() -> None:
        message = "the worker's own error"
        raise RuntimeError(message)

    with closing(KafkaSource(kafka_settings)) as source:
        wait_for(lambda: source.partitions, source)
        source.on_revoked(fail)
        with closing(KafkaSource(kafka_settings)) as second:
            joining = threading.Thread(target=second.poll, args=(0.5, 1))
            joining.start()
            with pytest.raises(RuntimeError, match="own error"):
                source.poll(20, 10)
            joining.join()
        # The poll that failed goes on in its thread, and is given these.
        send(producer, kafka_settings.frames_topic, [b"0", b"1"])
        source.on_revoked(lambda: None)
        assert [r.value for r in read(source, 2)] == [b"0", b"1"]


def test_dead_letters_keep_bytes_key_and_headers_and_name_the_reason(
    kafka_settings: KafkaSettings, producer: KafkaProducer
) -> None:
    send(producer, kafka_settings.frames_topic, [b"\xff\xd8broken" * 20_000])
    with closing(KafkaSource(kafka_settings)) as source:
        records = read(source, 1)
    records.append(RawRecord(LogPosition("frames", "", 1, 7), key=None, headers=(), value=None))
    with closing(KafkaPublisher(kafka_settings)) as publisher:
        publisher.dead_letters([DeadLetter(r, Reason.TRUNCATED, "ends early: größer") for r in records])
    dead, empty = sorted(read_topic(kafka_settings, kafka_settings.dead_topic, 2), key=lambda m: m.key is None)
    place = records[0].position
    assert (dead.key, dead.value) == (b"cam", b"\xff\xd8broken" * 20_000)
    assert dead.headers[:3] == list(HEADERS)
    assert dict(dead.headers[3:]) == {
        "dead_reason": b"truncated",
        "dead_detail": "ends early: größer".encode(),
        "dead_topic": place.topic.encode(),
        "dead_partition": b"0",
        "dead_offset": b"0",
        "dead_id": f"{place.topic_id}/0/0".encode(),
    }
    assert (empty.key, empty.value, dict(empty.headers)["dead_id"]) == (None, b"", b"/1/7")


def read_topic(settings: KafkaSettings, topic: str, count: int) -> list:  # type: ignore[type-arg]
    options = {"auto_offset_reset": "earliest", "consumer_timeout_ms": 5000}
    with KafkaConsumer(topic, bootstrap_servers=settings.bootstrap_servers, **options) as consumer:
        return list(itertools.islice(consumer, count))


def bury(settings: KafkaSettings, size: int) -> ConsumerRecord:
    """Return the dead letter that a message of this size becomes."""
    record = RawRecord(LogPosition("frames", "id", 0, 3), b"cam", HEADERS, b"x" * size)
    with closing(KafkaPublisher(settings)) as publisher:
        publisher.dead_letters([DeadLetter(record, Reason.TOO_LARGE, f"{size} bytes")])
    (dead,) = read_topic(settings, settings.dead_topic, 1)
    return dead


def test_a_dead_letter_too_large_for_its_topic_keeps_all_but_its_value(
    kafka_settings: KafkaSettings, apache_kafka: ApacheKafka
) -> None:
    # The embedded broker takes any size.
    settings = kafka_settings.model_copy(update={"bootstrap_servers": apache_kafka.address})
    ensure_topics(settings, LIMITS)
    dead = bury(settings, 300_000)
    assert (dead.key, dead.value, dead.headers[:3]) == (b"cam", None, list(HEADERS))
    assert dict(dead.headers)["dead_value_omitted"] == b"300000"


def test_one_message_that_is_too_large_takes_no_other_along(
    kafka_settings: KafkaSettings, apache_kafka: ApacheKafka
) -> None:
    settings = kafka_settings.model_copy(update={"bootstrap_servers": apache_kafka.address})
    ensure_topics(settings, LIMITS)
    sizes = [10, 300_000, 20, 400_000, 30]
    letters = [
        DeadLetter(RawRecord(LogPosition("frames", "id", 0, size), b"cam", (), b"x" * size), Reason.EMPTY, "")
        for size in sizes
    ]
    with closing(KafkaPublisher(settings)) as publisher:
        places = publisher.dead_letters(letters)
    assert len(set(places)) == 5
    assert None not in places
    found = read_topic(settings, settings.dead_topic, 5)
    values = {int(dict(message.headers)["dead_offset"]): len(message.value or b"") for message in found}
    assert values == {10: 10, 300_000: 0, 20: 20, 400_000: 0, 30: 30}
    with closing(DeadLetterTopic(settings)) as topic:
        kept = [KeptLetter(b"cam", b"x" * size, (), None, value_omitted=False) for size in sizes]
        assert topic.replay(kept) == [True, False, True, False, True]


def test_a_dead_letter_too_large_for_the_client_keeps_all_but_its_value(
    kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_topics(kafka_settings, LIMITS)
    monkeypatch.setattr("monitor.adapters.kafka.delivery.MAX_MESSAGE_BYTES", 10_000)
    dead = bury(kafka_settings, 20_000)
    assert (dead.key, dead.value, dead.headers[:3]) == (b"cam", None, list(HEADERS))
    assert dict(dead.headers)["dead_value_omitted"] == b"20000"


def test_outbox_messages_go_to_their_topics_in_order(kafka_settings: KafkaSettings, producer: KafkaProducer) -> None:
    del producer
    topic = kafka_settings.inspections_topic
    with closing(KafkaPublisher(kafka_settings)) as publisher:
        publisher.events([OutboxMessage(i, topic, "cam", (("ce_id", f"é{i}"),), b"%d" % i) for i in range(50)])
    messages = read_topic(kafka_settings, topic, 50)
    assert [m.value for m in messages] == [b"%d" % i for i in range(50)]
    assert (messages[7].key, messages[7].headers) == (b"cam", [("ce_id", "é7".encode())])


def test_topics_are_created_once_whoever_comes_first(kafka_settings: KafkaSettings) -> None:
    created: list[str] = []
    threads = [threading.Thread(target=lambda: created.extend(ensure_topics(kafka_settings, LIMITS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == sorted(
        [kafka_settings.frames_topic, kafka_settings.dead_topic, kafka_settings.inspections_topic]
    )
    assert ensure_topics(kafka_settings, LIMITS) == []
    admin = KafkaAdminClient(bootstrap_servers=kafka_settings.bootstrap_servers)
    (frames,) = admin.describe_topics([kafka_settings.frames_topic])
    admin.close()
    assert len(frames["partitions"]) == kafka_settings.partitions


@pytest.mark.parametrize("make", [KafkaSource, KafkaPublisher, lambda s: ensure_topics(s, LIMITS)])
def test_a_broker_that_is_not_there_is_named_soon_and_quietly(
    make: Callable[[KafkaSettings], object], capfd: pytest.CaptureFixture[str]
) -> None:
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}", connect_timeout_s=0.5)
    threads = threading.active_count()
    started = time.monotonic()
    with pytest.raises(ServiceUnavailableError) as caught:
        make(settings)
    assert time.monotonic() - started < 2
    assert f"kafka.bootstrap_servers = '{settings.bootstrap_servers}'" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert threading.active_count() == threads


def test_a_start_waits_for_a_broker_that_is_starting(embedded_broker: TansuBroker) -> None:
    embedded_broker.kill()
    later = threading.Timer(0.5, lambda: (embedded_broker.start(), keep.wait(10)))
    keep = threading.Event()  # the broker lives as long as the thread that started it
    later.start()
    try:
        assert ensure_topics(KafkaSettings(bootstrap_servers=embedded_broker.address), LIMITS)
    finally:
        keep.set()
        later.join()


def test_after_a_restart_that_lost_everything_frames_arrive_under_another_topic_id(
    embedded_broker: TansuBroker,
) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    ensure_topics(settings, LIMITS)
    publisher = KafkaPublisher(settings, delivery_timeout_s=3)
    letters = [OutboxMessage(i, settings.frames_topic, "cam", (), b"%d" % i) for i in range(5)]
    with closing(KafkaSource(settings)) as source, closing(publisher):
        publisher.events(letters)
        before = read(source, 5)
        source.commit([before[-1].position])
        embedded_broker.kill()
        assert source.poll(0.3, 10) == []
        with pytest.raises(StoreUnavailableError):
            publisher.events(letters)
        embedded_broker.start()
        ensure_topics(settings, LIMITS)
        publisher.events(letters[:3])
        after = read(source, 3)
        source.commit([after[-1].position])
        publisher.events(letters[3:])
        after += read(source, 2)
    assert [r.value for r in after] == [r.value for r in before]
    assert [r.position.offset for r in after] == [0, 1, 2, 3, 4]
    assert len({r.position.topic_id for r in before}) == len({r.position.topic_id for r in after}) == 1
    assert before[0].position.topic_id != after[0].position.topic_id


def test_an_outage_leaves_no_socket_open(embedded_broker: TansuBroker) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    ensure_topics(settings, LIMITS)
    process = psutil.Process()
    with closing(KafkaSource(settings)) as source, closing(KafkaPublisher(settings)):
        wait_for(lambda: source.partitions, source)
        open_before = process.num_fds()
        embedded_broker.kill()
        gc.disable()  # it would close some of them, some time
        try:
            deadline = time.monotonic() + 3
            while time.monotonic() < deadline:
                source.poll(0.3, 1)
            assert process.num_fds() <= open_before
        finally:
            gc.enable()


def test_offsets_that_go_back_wait_until_the_broker_has_told_whose_they_are(
    kafka_settings: KafkaSettings, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(producer, kafka_settings.frames_topic, [b"0", b"1", b"2"])
    with closing(KafkaSource(kafka_settings)) as source:
        read(source, 3)
        source._reader.consumer.seek(TopicPartition(kafka_settings.frames_topic, 0), 1)
        with monkeypatch.context() as patch:
            patch.setattr("monitor.adapters.kafka.library.refresh_metadata", lambda *_: False)
            assert [source.poll(0.3, 10) for _ in range(3)] == [[], [], []]
        assert [r.value for r in read(source, 2)] == [b"1", b"2"]


def test_a_publisher_gives_up_in_bounded_time_while_the_broker_is_away(embedded_broker: TansuBroker) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    ensure_topics(settings, LIMITS)
    message = OutboxMessage(1, settings.inspections_topic, "cam", (), b"1")
    with closing(KafkaPublisher(settings, delivery_timeout_s=1)) as publisher:
        publisher.events([message])
        embedded_broker.kill()
        threads = threading.active_count()
        for _ in range(3):
            started = time.monotonic()
            with pytest.raises(StoreUnavailableError):
                publisher.events([message])
            assert time.monotonic() - started < 3
        # The producer that failed is gone with its threads, and none took its place.
        deadline = time.monotonic() + 3
        while threading.active_count() >= threads and time.monotonic() < deadline:
            time.sleep(0.05)
        assert threading.active_count() < threads
