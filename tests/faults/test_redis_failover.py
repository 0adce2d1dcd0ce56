"""A day on a Redis Cluster, and one behind Sentinels: a right is revoked, and a primary dies with its last edit."""

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
from tests.faults.operated import said, sayings
from tests.faults.test_model_swap import Changing, rename
from tests.redis_cluster import RedisClusterServers, SentinelServers, wait_for
from tests.redis_user import PASSWORD, documented_lines

FIRST = "press-1"
CAMERAS = (FIRST, "press-2")
# Frames a second of each camera: no more than a busy machine inspects at once.
RATE = 5

MakeOperated = Callable[[str], Changing]


@pytest.fixture
def operated(
    make_line: MakeLine,
    sqlite_url: str,
    tmp_path: Path,
    forks: None,  # noqa: ARG001 - what commands are run with
    monkeypatch: pytest.MonkeyPatch,
) -> MakeOperated:
    """Make a line on a Redis, as the user of the document, all of whose frames may be clicked."""
    monkeypatch.setattr("tests.faults.operated.FLOW_S", 1 / RATE)

    def make(url: str) -> Changing:
        images = {"url": str(tmp_path / "images"), "keep": "all"}
        line = make_line(sqlite_url, kind=Changing, redis={"url": as_user(url), "timeout_s": 1.0}, images=images)
        assert isinstance(line, Changing)
        return line

    return make


def as_user(url: str) -> str:
    return url.replace("://", f"://line:{PASSWORD}@")


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


def give(servers: Sequence[ValkeyServer], *lines: Sequence[str]) -> None:
    """Give each server, which has users of its own, these ACL lines."""
    for server in servers:
        with redis.Redis(HOST, server.port) as client:
            for line in lines:
                client.execute_command("ACL", *line)


def live_through_a_day(
    line: Changing, primary: Callable[[str], ValkeyServer], servers: Sequence[ValkeyServer], successor: Path
) -> None:
    """Teach, take back, lose rights and a primary, change the model: nothing is lost, and nothing there twice."""
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    give(servers, *documented_lines())
    with line.operating(worker, learner, cameras=CAMERAS):
        taught, _ = [line.teach(camera) for camera in CAMERAS]
        refused = live_through_a_refusal(line, servers, taught)
        undone = line.click(FIRST)
        line.learnt(undone)
        quarantined = line.run("bank", "quarantine", undone)
        assert quarantined.returncode == 0, quarantined.stderr
        saved = live_through_a_failover(line, primary, servers)
        line.wait(lambda: said(learner, "Redis had lost edits of the bank; restored it as version"))
        for camera in CAMERAS:
            line.teach(camera)
        [(first_model,)] = line.query("SELECT DISTINCT model_id FROM inspections")
        change_model(line, successor)
    assert len(sayings(worker, "Redis is back; following the banks again")) >= 2
    assert said(worker, "Redis unreachable; inspecting with bank version")
    # A server that comes back may take itself for the primary, for a moment.
    assert len(sayings(learner, "Learning again")) == len(sayings(learner, "Learning pauses")) >= 2
    check_refusal(sayings(worker, "Redis refuses") + sayings(learner, "Learning pauses: a server refuses"))
    held = {frame for camera in CAMERAS for frame in line.taught(first_model, camera)}
    assert len(held) == line.clicks - 1
    # The new model's banks hold what people taught the old one.
    assert {frame for camera in CAMERAS for frame in line.taught(successor.name, camera)} == held
    assert {refused, *saved} <= held
    assert undone not in held
    engine = create_engine(line.settings.database.url.get_secret_value())
    try:
        assert bank_problems(engine, line.config, CAMERAS) == []
    finally:
        engine.dispose()


def change_model(line: Changing, successor: Path) -> None:
    """Change to another model, which inherits the banks of the one before."""
    assert f"Model {successor.name} is active" in line.model("activate", str(successor), "--by", "Bob")
    for camera in CAMERAS:
        line.wait_for_model(successor.name, camera)


def live_through_a_refusal(line: Changing, servers: Sequence[ValkeyServer], taught: int) -> str:
    """Take the user's keys away for a while; return a click of that time."""
    worker, learner = line.programs
    give(servers, ["SETUSER", "line", "resetkeys"])
    event = "Redis refuses the bank; until that is mended, inspecting with bank version"
    line.wait(lambda: said(worker, event))
    click = line.click(FIRST)
    line.wait(lambda: said(learner, "Learning pauses: a server refuses, which a person must mend"))
    line.inspect_more(RATE)
    assert line.review(click).outcome == "pending"
    status = line.run("bank", "status")
    assert (status.returncode, len(status.stderr.splitlines())) == (2, 1)
    assert "error: Redis refuses: user line may not use the bank's keys" in status.stderr
    give(servers, ["SETUSER", "line", "~paedid:bank:*"])
    assert line.learnt(click) == taught + 1
    line.follow(taught + 1, FIRST)
    return click


def check_refusal(told: Sequence[dict[str, Any]]) -> None:
    assert len(told) == 2
    for each in told:
        assert "ACL SETUSER line ~paedid:bank:*" in each["error"]
        assert PASSWORD not in each["error"]


def live_through_a_failover(
    line: Changing, primary: Callable[[str], ValkeyServer], servers: Sequence[ValkeyServer]
) -> set[str]:
    """Kill the primary of a bank with an edit that no replica has; return the clicks that must be there at the end."""
    [(model_id,)] = line.query("SELECT DISTINCT model_id FROM inspections")
    dying = primary(f"paedid:bank:{{{FIRST}:{model_id}}}:meta")
    with behind(dying, replica_of(dying, servers)):
        lost = line.click(FIRST)
        version = line.learnt(lost)
        line.follow(version, FIRST)
        dying.kill()
        killed = datetime.now(UTC)
    waiting = [line.click(camera) for camera in CAMERAS]
    line.inspect_more(RATE)
    # The replica is one edit behind, for a moment.
    assert set(line.versions_between(killed, datetime.now(UTC), FIRST)) <= set(range(version - 1, version + 9))
    line.learnt(*waiting)
    dying.start()
    give([dying], *documented_lines())
    return {lost, *waiting}


@pytest.mark.long
def test_a_day_on_a_cluster_whose_primary_dies(operated: MakeOperated, bundle: Path, tmp_path: Path) -> None:
    successor = rename(bundle, tmp_path / "successor-1")
    with RedisClusterServers(tmp_path / "cluster", primaries=3, replicas=1) as servers:
        # One node is named: the programs find out what it is, and the others.
        live_through_a_day(operated(servers.url), servers.primary_of, servers.nodes, successor)


@pytest.mark.long
def test_a_day_behind_sentinels_whose_master_dies(operated: MakeOperated, bundle: Path, tmp_path: Path) -> None:
    successor = rename(bundle, tmp_path / "successor-1")
    with SentinelServers(tmp_path / "sentinels") as servers:
        first = servers.primary()
        live_through_a_day(operated(servers.url), lambda _: servers.primary(), servers.servers, successor)
        wait_for(lambda: servers.primary() is not first, "another master")
