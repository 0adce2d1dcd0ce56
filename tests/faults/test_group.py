"""Members of a consumer group that come, go and are killed: every partition is read, whatever the moment.

``GROUP_STARTS`` and ``GROUP_REBALANCES`` say how often; the suite has a few.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer

from deploy.local.apache_kafka import ApacheKafka
from monitor.adapters.kafka import KafkaSource, ensure_topics
from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import OperatorError
from tests.faults.group_member import READY

STARTS = int(os.environ.get("GROUP_STARTS", "5"))
REBALANCES = int(os.environ.get("GROUP_REBALANCES", "4"))
POLLS_MS = (1, 3, 10, 30, 100)
READ_WITHIN_S = 10.0
SESSION_S = 6.0
PARTITIONS = 4
MOST_MEMBERS = 4
JOINED_SHARE = 0.7
ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(apache_kafka: ApacheKafka, topics: Callable[[str], str]) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=apache_kafka.address,
        group=topics("group"),
        frames_topic=topics("frames"),
        dead_topic=topics("dead"),
        inspections_topic=topics("inspections"),
        partitions=PARTITIONS,
    )


@pytest.mark.timeout(120 + 10 * STARTS)
def test_every_start_gets_its_partitions_whatever_the_poll(settings: KafkaSettings) -> None:
    longest = 0.0
    for number in range(STARTS):
        # Topics of its own: it must not help that they are known.
        names = {key: f"{getattr(settings, key)}.{number}" for key in ("group", "frames_topic")}
        own = settings.model_copy(update=names)
        ensure_topics(own, LimitSettings())
        poll_s = POLLS_MS[number % len(POLLS_MS)] / 1000
        started = time.monotonic()
        with closing(KafkaSource(own)) as source:
            while len(source.partitions) < PARTITIONS:
                assert time.monotonic() - started < READ_WITHIN_S, f"start {number} at a poll of {poll_s} s"
                source.poll(poll_s, 1)
            longest = max(longest, time.monotonic() - started)
    print(f"{STARTS} starts, the slowest had its partitions after {longest:.2f} s")  # noqa: T201 - shown by pytest -rP


class Group:
    """Processes that read one topic together."""

    def __init__(self, settings: KafkaSettings, directory: Path) -> None:
        self.settings = settings
        self._directory = directory
        self.members: dict[str, subprocess.Popen[bytes]] = {}
        self._started = 0
        self._ended: list[subprocess.Popen[bytes]] = []

    def start(self, poll_ms: int) -> str:
        name = f"member-{self._started}"
        self._started += 1
        servers, group, topic = self.settings.bootstrap_servers, self.settings.group, self.settings.frames_topic
        command = [sys.executable, "-m", "tests.faults.group_member", servers, group, topic, str(poll_ms)]
        with self._file(name).open("wb") as output:
            self.members[name] = subprocess.Popen(command, cwd=ROOT, stdout=output)
        return name

    def wait_for(self, name: str) -> None:
        """Wait until a member has joined."""
        deadline = time.monotonic() + 60
        while READY not in self._file(name).read_text().split("\n"):
            assert time.monotonic() < deadline, f"{name} did not join"
            time.sleep(0.02)

    def end(self, name: str, number: signal.Signals) -> None:
        self.members[name].send_signal(number)
        self._ended.append(self.members.pop(name))

    def close(self) -> None:
        for process in (*self.members.values(), *self._ended):
            process.kill()
            process.wait()

    def has_read(self) -> set[str]:
        return {line for file in self._directory.glob("member-*") for line in file.read_text().split("\n")}

    def _file(self, name: str) -> Path:
        return self._directory / name


@contextmanager
def running(settings: KafkaSettings, directory: Path) -> Iterator[Group]:
    group = Group(settings, directory)
    try:
        yield group
    finally:
        group.close()


@pytest.mark.timeout(120 + 30 * REBALANCES)
def test_every_partition_is_read_after_each_change_of_the_group(settings: KafkaSettings, tmp_path: Path) -> None:
    chance = random.Random(0)
    ensure_topics(settings, LimitSettings())
    slowest, killed_at = 0.0, -SESSION_S
    with running(settings, tmp_path) as group, KafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        group.wait_for(group.start(10))
        for change in range(REBALANCES):
            killed = one_change(group, chance)
            changed = time.monotonic()
            killed_at = changed if killed else killed_at
            # The group waits for a killed member until its session has ended.
            since = max(changed, killed_at + SESSION_S)
            wanted = {f"{change}/{partition}" for partition in range(PARTITIONS)}
            for partition in range(PARTITIONS):
                producer.send(settings.frames_topic, f"{change}/{partition}".encode(), partition=partition)
            producer.flush(10)
            while not wanted <= group.has_read():
                waited = time.monotonic() - since
                assert waited < READ_WITHIN_S, f"change {change}: {wanted - group.has_read()} not read, {waited:.1f} s"
                time.sleep(0.05)
            slowest = max(slowest, time.monotonic() - since)
    print(f"{REBALANCES} changes, the slowest partition was read {slowest:.2f} s after one")  # noqa: T201 - as above


def one_change(group: Group, chance: random.Random) -> bool:
    """Start, stop or kill members; return whether any was killed."""
    kinds = ["come"] if not group.members else ["come", "go", "kill"]
    if len(group.members) >= MOST_MEMBERS:
        kinds = ["go", "kill"]
    kind = chance.choice(kinds)
    # The last one is replaced: somebody must read.
    if kind == "come" or len(group.members) == 1:
        name = group.start(chance.choice(POLLS_MS))
        # Mostly: the others are ended while they start or join.
        if chance.random() < JOINED_SHARE:
            group.wait_for(name)
    if kind != "come":
        name = chance.choice(sorted(group.members)[: max(1, len(group.members) - 1)])
        group.end(name, signal.SIGTERM if kind == "go" else signal.SIGKILL)
    return kind == "kill"


def until(condition: Callable[[], bool], *sources: KafkaSource, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "nothing happened in time"
        for source in sources:
            source.poll(0.05, 100)


def test_a_member_that_joins_takes_from_the_others_no_more_than_it_is_given(settings: KafkaSettings) -> None:
    ensure_topics(settings, LimitSettings())
    with closing(KafkaSource(settings)) as first:
        until(lambda: len(first.partitions) == PARTITIONS, first)
        revoked: list[frozenset[int]] = []
        first.on_revoked(lambda: revoked.append(first.partitions))
        with closing(KafkaSource(settings)) as second:
            until(lambda: len(second.partitions) == 2, first, second)
            assert first.partitions | second.partitions == set(range(PARTITIONS))
            # What stayed was never taken away: the callback came once, for the two that went.
            assert len(revoked) == 1
            assert len(first.partitions) == 2


def test_a_worker_without_partitions_says_that_it_stands_by_and_is_ready(
    settings: KafkaSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    one = settings.model_copy(update={"partitions": 1})
    ensure_topics(one, LimitSettings())
    with closing(KafkaSource(one)) as first:
        until(lambda: len(first.partitions) == 1, first)
        assert first.ready()
        with closing(KafkaSource(one)) as second:
            assert not second.ready()
            told = ""

            def stands_by() -> bool:
                nonlocal told
                told += capsys.readouterr().out
                return "it stands by" in told

            until(stands_by, first, second)
            assert second.ready()
            first.close()
            until(lambda: len(second.partitions) == 1, second)


def test_a_static_member_that_restarts_gets_its_partitions_back_and_moves_nobodys(settings: KafkaSettings) -> None:
    ensure_topics(settings, LimitSettings())
    names = [settings.model_copy(update={"group_instance_id": f"worker-{number}"}) for number in range(2)]
    with closing(KafkaSource(names[0])) as first:
        second = KafkaSource(names[1])
        until(lambda: len(first.partitions) == len(second.partitions) == 2, first, second)
        before = first.partitions, second.partitions
        moved: list[bool] = []
        first.on_revoked(lambda: moved.append(True))
        second.close()
        closed = time.monotonic()
        until(lambda: time.monotonic() > closed + 3, first)
        with closing(KafkaSource(names[1])) as again:
            until(lambda: again.partitions == before[1], first, again)
            assert first.partitions == before[0]
            assert moved == []


@pytest.mark.parametrize("who", ["eager", "same instance"])
def test_a_member_that_the_group_refuses_says_so_in_one_line(settings: KafkaSettings, who: str) -> None:
    ensure_topics(settings, LimitSettings())
    if who == "eager":
        older = KafkaConsumer(
            settings.frames_topic, bootstrap_servers=settings.bootstrap_servers, group_id=settings.group
        )
        with closing(older):
            deadline = time.monotonic() + 30
            while not older.assignment():
                assert time.monotonic() < deadline
                older.poll(100)
            with closing(KafkaSource(settings)) as source, pytest.raises(OperatorError, match="Stop all of them"):
                until(lambda: False, source)
        return
    named = settings.model_copy(update={"group_instance_id": "worker-0"})
    with closing(KafkaSource(named)) as first:
        until(lambda: len(first.partitions) == PARTITIONS, first)
        with closing(KafkaSource(named)) as second:
            until(lambda: len(second.partitions) == PARTITIONS, second)
            with pytest.raises(OperatorError, match="group_instance_id"):
                until(lambda: False, first)
