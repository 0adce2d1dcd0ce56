"""A day on a Redis Cluster, and one behind Sentinels: a primary dies, and takes an edit along that no replica had."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine

from deploy.chaos.accounts import bank_problems
from deploy.local.servers import HOST, ValkeyServer
from tests.faults.line import MakeLine
from tests.faults.operated import Commanded, said, sayings
from tests.redis_cluster import RedisClusterServers, SentinelServers, wait_for

CAMERAS = ("press-1", "press-2")
# Frames a second of each camera: no more than a busy machine inspects at once.
RATE = 5

MakeOperated = Callable[[str], Commanded]


@pytest.fixture
def operated(
    make_line: MakeLine,
    sqlite_url: str,
    tmp_path: Path,
    forks: None,  # noqa: ARG001 - what commands are run with
    monkeypatch: pytest.MonkeyPatch,
) -> MakeOperated:
    """Make a line on a Redis, all of whose frames may be clicked."""
    monkeypatch.setattr("tests.faults.operated.FLOW_S", 1 / RATE)

    def make(url: str) -> Commanded:
        images = {"url": str(tmp_path / "images"), "keep": "all"}
        line = make_line(sqlite_url, kind=Commanded, redis={"url": url, "timeout_s": 1.0}, images=images)
        assert isinstance(line, Commanded)
        return line

    return make


@contextmanager
def behind(primary: ValkeyServer, replica: ValkeyServer) -> Iterator[None]:
    """Within, the replica gets nothing of what the primary is told."""
    assert replica.pid is not None
    os.kill(replica.pid, signal.SIGSTOP)
    try:
        with redis.Redis(HOST, primary.port) as client:
            # Its connection would keep for it what it cannot take now.
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        yield
    finally:
        os.kill(replica.pid, signal.SIGCONT)


def replica_of(primary: ValkeyServer, servers: Sequence[ValkeyServer]) -> ValkeyServer:
    """Return the one that follows the primary."""
    for server in servers:
        with redis.Redis(HOST, server.port) as client:
            state: Any = client.info("replication")
        if state["role"] == "slave" and int(state["master_port"]) == primary.port:
            return server
    msg = f"{primary.address} has no replica"
    raise LookupError(msg)


def live_through_a_failover(
    line: Commanded, primary: Callable[[str], ValkeyServer], servers: Sequence[ValkeyServer]
) -> None:
    """Teach, take back, and lose a primary with its last edit; in the end nothing is lost, and nothing there twice."""
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    camera, *others = CAMERAS
    with line.operating(worker, learner, cameras=CAMERAS):
        for each in CAMERAS:
            line.teach(each)
        undone = line.click(camera)
        line.learnt(undone)
        quarantined = line.run("bank", "quarantine", undone)
        assert quarantined.returncode == 0, quarantined.stderr
        [(model_id,)] = line.query("SELECT DISTINCT model_id FROM inspections")
        dying = primary(f"paedid:bank:{{{camera}:{model_id}}}:meta")
        with behind(dying, replica_of(dying, servers)):
            lost = line.click(camera)
            version = line.learnt(lost)
            line.follow(version, camera)
            dying.kill()
            killed = datetime.now(UTC)
        waiting = [line.click(each) for each in (camera, *others)]
        line.inspect_more(RATE)
        assert set(line.versions_between(killed, datetime.now(UTC), camera)) <= set(range(version - 1, version + 9))
        line.learnt(*waiting)
        line.wait(lambda: said(learner, "Redis had lost edits of the bank; restored it as version"))
        for each in CAMERAS:
            line.teach(each)
        dying.start()
        line.teach(camera)
    assert said(worker, "Redis unreachable; inspecting with bank version")
    assert said(worker, "Redis is back; following the banks again")
    assert len(sayings(learner, "Learning again")) == len(sayings(learner, "Learning pauses"))
    held = {row.frame_id for row in line.query("SELECT frame_id FROM bank_entries WHERE version_removed IS NULL")}
    assert len(held) == line.clicks - 1
    assert {lost, *waiting} <= held
    assert undone not in held
    engine = create_engine(line.settings.database.url.get_secret_value())
    try:
        assert bank_problems(engine, line.config, CAMERAS) == []
    finally:
        engine.dispose()


def test_a_day_on_a_cluster_whose_primary_dies(operated: MakeOperated, tmp_path: Path) -> None:
    with RedisClusterServers(tmp_path / "cluster", primaries=3, replicas=1) as servers:
        # One node is named, and it is not asked what the others are: the programs find out.
        live_through_a_failover(operated(servers.url), servers.primary_of, servers.nodes)


def test_a_day_behind_sentinels_whose_master_dies(operated: MakeOperated, tmp_path: Path) -> None:
    with SentinelServers(tmp_path / "sentinels") as servers:
        first = servers.primary()
        live_through_a_failover(operated(servers.url), lambda _: servers.primary(), servers.servers)
        wait_for(lambda: servers.primary() is not first, "another master")
