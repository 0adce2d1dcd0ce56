"""Dead letters are found again in their topic and sent to be inspected again: a real broker, both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from pydantic import SecretStr
from sqlalchemy import Engine, text

from deploy.local.servers import TansuBroker, free_port
from monitor import dead_letter_replay
from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.dead_letter_desk import DeadLetterDesk, Selection, State
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.kafka import DeadLetterTopic, KafkaPublisher, dead_id, ensure_topics
from monitor.dead_letter_replay import locate, replay
from monitor.errors import StoreUnavailableError
from monitor.ports import BatchOutcome, DeadLetter, LogPosition, RawRecord
from monitor.settings import DatabaseSettings, KafkaSettings, LimitSettings
from schemas.errors import OperatorError, Reason, ServiceUnavailableError
from tests.integration.records import position

NOW = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)
HEADERS = (("ce_id", b"f1"), ("ce_deadlinems", b"500"), ("raw", b"\xff\x00"))


def letter(
    offset: int, headers: tuple[tuple[str, bytes], ...] = HEADERS, value: bytes | None = b"\x00\xff"
) -> DeadLetter:
    return DeadLetter(RawRecord(position(offset), b"cam1", headers, value), Reason.TOO_LARGE, "2 bytes")


@pytest.fixture
def desk(engine: Engine) -> DeadLetterDesk:
    return DeadLetterDesk(engine, now=lambda: NOW)


@pytest.fixture
def kafka(kafka_settings: KafkaSettings) -> KafkaSettings:
    """The broker's settings; the topics exist."""
    ensure_topics(kafka_settings, LimitSettings())
    return kafka_settings


@pytest.fixture
def topic(kafka: KafkaSettings) -> Iterator[DeadLetterTopic]:
    with closing(DeadLetterTopic(kafka)) as topic:
        yield topic


def send(settings: KafkaSettings, *letters: DeadLetter) -> list[DeadLetter]:
    """Send letters to the dead-letter topic; return them with their places."""
    with closing(KafkaPublisher(settings)) as publisher:
        places = publisher.dead_letters(letters)
    assert None not in places
    return [replace(each, kept_at=place) for each, place in zip(letters, places, strict=True)]


def frames(settings: KafkaSettings, count: int) -> list[ConsumerRecord]:
    """Return what is in the frames topic once it is at least so many messages."""
    with KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(settings.frames_topic, number) for number in range(settings.partitions)])
        found: list[ConsumerRecord] = []
        for _ in range(50):
            found += [record for records in consumer.poll(200).values() for record in records]
            if len(found) >= count:
                return found
    return found


def test_a_letter_comes_back_as_it_came(kafka: KafkaSettings, topic: DeadLetterTopic) -> None:
    # The last died before, was taken from the dead letters by hand, and died again.
    sent = send(
        kafka, letter(1), letter(2, value=None), letter(3, (*HEADERS, ("dead_reason", b"x"), ("dead_id", b"y")))
    )
    kept = topic.fetch({dead_id(each.record.position): each.kept_at for each in sent if each.kept_at})
    for each in sent:
        came, found = each.record, kept[dead_id(each.record.position)]
        assert (found.key, found.value, found.headers) == (came.key, came.value, came.headers)
        assert found.has_deadline
        assert not found.value_omitted


def test_another_message_at_a_letters_place_is_not_taken_for_it(kafka: KafkaSettings, topic: DeadLetterTopic) -> None:
    [one, other] = send(kafka, letter(1), letter(2))
    assert one.kept_at
    assert other.kept_at
    beyond = replace(one.kept_at, offset=one.kept_at.offset + 100)
    nowhere = replace(one.kept_at, partition=99)
    for place in (other.kept_at, beyond, nowhere, replace(one.kept_at, topic="never-made")):
        assert topic.fetch({dead_id(one.record.position): place}) == {}


def test_a_replay_sends_what_came_but_for_the_deadline_and_says_who_wanted_it(
    kafka: KafkaSettings, topic: DeadLetterTopic, store: SqlInspectionStore, desk: DeadLetterDesk
) -> None:
    store.record(BatchOutcome(dead_letters=tuple(send(kafka, letter(1)))))
    with pytest.raises(OperatorError, match="1 to 128 printable characters"):
        list(replay(desk, topic, desk.oldest(Selection(), 9), "\0"))
    [outcome] = replay(desk, topic, desk.oldest(Selection(), 9), "Ada")
    assert (outcome.problem, outcome.had_deadline) == (None, True)
    [frame] = frames(kafka, 1)  # and not one more
    assert (frame.key, frame.value, frame.headers) == (b"cam1", b"\x00\xff", [HEADERS[0], HEADERS[2]])
    [account] = desk.oldest(Selection(), 9)
    assert (account.state, account.replayed_at, account.replayed_by) == (State.REPLAYED, NOW, "Ada")


def test_letters_that_cannot_be_sent_still_wait_and_say_why(
    kafka: KafkaSettings, topic: DeadLetterTopic, store: SqlInspectionStore, desk: DeadLetterDesk
) -> None:
    [whole, gone] = send(kafka, letter(1), letter(2, value=b"2"))
    assert gone.kept_at
    gone = replace(gone, kept_at=replace(gone.kept_at, offset=1000))
    [stripped] = send(kafka, letter(3, (*HEADERS, ("dead_reason", b"too_large")), b"3"))
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        headers = [
            ("dead_reason", b"too_large"),
            ("dead_id", dead_id(position(3)).encode()),
            ("dead_value_omitted", b"9"),
        ]
        sent = producer.send(kafka.dead_topic, key=b"cam1", headers=headers).get(5)
    place = LogPosition(kafka.dead_topic, "", sent.partition, sent.offset)
    never = letter(4, value=b"4")
    store.record(BatchOutcome(dead_letters=(whole, gone, replace(stripped, kept_at=place), never)))
    done = list(replay(desk, topic, desk.oldest(Selection(), 9), "Ada"))
    assert done[0].problem is None
    assert "the broker no longer has its bytes" in str(done[1].problem)
    assert "offset 1000" in str(done[1].problem)
    assert "too large for the dead-letter topic; they may still be in frames partition 0 offset 3" in str(
        done[2].problem
    )
    assert "were not found in the dead-letter topic" in str(done[3].problem)
    assert [each.state for each in desk.oldest(Selection(), 9)] == [State.REPLAYED, *[State.WAITING] * 3]


def test_many_letters_are_sent_in_portions_and_none_is_left_out(
    kafka: KafkaSettings,
    topic: DeadLetterTopic,
    store: SqlInspectionStore,
    desk: DeadLetterDesk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # So that letters are ended by their number (3), by their bytes (20), and by a single large one.
    monkeypatch.setattr(dead_letter_replay, "AT_ONCE", 3)
    monkeypatch.setattr(dead_letter_replay, "AT_ONCE_BYTES", 20)
    values = [b"%02d" % number + bytes(size) for number, size in enumerate([0] * 7 + [15, 15, 100, 0])]
    store.record(BatchOutcome(dead_letters=tuple(send(kafka, *(letter(n, value=v) for n, v in enumerate(values))))))
    sizes = []
    send_some = topic.replay
    monkeypatch.setattr(topic, "replay", lambda some: sizes.append(len(some)) or send_some(some))
    assert [done.problem for done in replay(desk, topic, desk.oldest(Selection(), 99), "Ada")] == [None] * len(values)
    assert sizes == [3, 3, 2, 1, 1, 1]
    assert sorted(frame.value for frame in frames(kafka, len(values))) == values


def test_letters_without_a_place_are_searched_for_and_found_for_good(
    kafka: KafkaSettings, topic: DeadLetterTopic, store: SqlInspectionStore, desk: DeadLetterDesk
) -> None:
    with KafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        producer.send(kafka.dead_topic, b"not ours", headers=[("dead_id", b"\xff")]).get(5)
    # A worker that was killed before it stored them sent them twice.
    sent = send(kafka, *(letter(number, value=b"%d" % number) for number in range(20)))
    send(kafka, *(each for each in sent[:5]))
    lost = letter(77)
    store.record(BatchOutcome(dead_letters=tuple(replace(each, kept_at=None) for each in (*sent[3:6], lost))))
    looked: list[tuple[int, int]] = []
    placed, complete = locate(desk, topic, desk.oldest(Selection(), 9), 30, lambda *at: looked.append(at))
    assert complete
    assert looked[-1] == (26, 26)
    assert [each.kept_at for each in placed] == [*(each.kept_at for each in sent[3:6]), None]
    # Written down: the next time nothing needs to be searched for.
    assert list(desk.oldest(Selection(), 9)) == placed
    kept = topic.fetch({dead_id(each.position): each.kept_at for each in placed if each.kept_at})
    assert [kept[dead_id(each.position)].value for each in placed[:3]] == [b"3", b"4", b"5"]


def test_a_search_ends_when_its_time_is_over(kafka: KafkaSettings, topic: DeadLetterTopic) -> None:
    [sent] = send(kafka, letter(1))
    assert topic.locate([dead_id(sent.record.position)], 0.0, lambda *_: None) == ({}, False)
    assert topic.locate([dead_id(sent.record.position)], 30, lambda *_: None)[1]


def test_letters_of_a_broker_that_lost_everything_are_said_to_be_gone(
    embedded_broker: TansuBroker, store: SqlInspectionStore, desk: DeadLetterDesk
) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    ensure_topics(settings, LimitSettings())
    store.record(BatchOutcome(dead_letters=tuple(send(settings, letter(1)))))
    embedded_broker.kill()
    embedded_broker.start()
    ensure_topics(settings, LimitSettings())
    send(settings, letter(2))  # at the same place, in the new topic
    with closing(DeadLetterTopic(settings, answer_timeout_s=1)) as topic:
        [outcome] = replay(desk, topic, desk.oldest(Selection(), 9), "Ada")
        assert "past its retention, or the topic was made anew since" in str(outcome.problem)
        assert frames(settings, 0) == []
        embedded_broker.kill()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            list(replay(desk, topic, desk.oldest(Selection(), 9), "Ada"))


def test_a_broker_that_is_not_there_is_named() -> None:
    settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}", connect_timeout_s=0.5)
    with pytest.raises(ServiceUnavailableError, match=r"kafka\.bootstrap_servers"):
        DeadLetterTopic(settings)


def test_letters_of_before_places_were_recorded_stay_and_are_found(
    database_url: str, kafka: KafkaSettings, topic: DeadLetterTopic
) -> None:
    migrations.upgrade(database_url)
    migrations.downgrade(database_url, "0004")
    [sent] = send(kafka, letter(5))
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    with engine.begin() as connection:
        connection.execute(
            text(
                'INSERT INTO dead_letters (topic, topic_id, partition, "offset", camera, frame_id, reason, detail, '
                "size_bytes, received_at) VALUES ('frames', 'topic-1', 0, 5, 'cam1', 'f1', 'too_large', 'x', 2, :at)"
            ),
            {"at": "2026-01-01 00:00:00"},
        )
    migrations.upgrade(database_url)
    desk = DeadLetterDesk(engine)
    [old] = desk.oldest(Selection(), 9)
    assert (old.kept_at, old.state) == (None, State.WAITING)
    [placed], _ = locate(desk, topic, [old], 30, lambda *_: None)
    assert placed.kept_at == sent.kept_at
    desk.mark_replayed([old.id], "Ada")
    # Down again: the account of the frame is what it was.
    migrations.downgrade(database_url, "0004")
    with engine.connect() as connection:
        [row] = connection.execute(text("SELECT * FROM dead_letters")).mappings()
    engine.dispose()
    assert (row["frame_id"], row["reason"], row["offset"]) == ("f1", "too_large", 5)
    assert not row.keys() & {"dead_offset", "replayed_at", "purged_at"}
