"""Several real servers that stand for each other, for tests: a Redis Cluster, and a primary watched by Sentinels."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

import redis

from deploy.local.servers import HOST, ValkeyServer

SLOTS = 16384
# After so long a silent node counts as gone. Long enough for a busy machine.
NODE_TIMEOUT_MS = 1500
MASTER = "line"


def lasting_port() -> int:
    """Return a free port below those that clients are given: a server that is killed finds it free again."""
    while True:
        port = random.randint(15_000, 30_000)
        with suppress(OSError):
            socket.create_server((HOST, port)).close()
            return port


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    """Wait until the condition holds; a server that does not answer yet holds none."""
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(redis.RedisError):
            if condition():
                return
        assert time.monotonic() < deadline, f"{what}: not in time"
        time.sleep(0.02)


class ClusterNode(ValkeyServer):
    """A node of a cluster. Restarted, it knows the others again, by its nodes.conf."""

    name = "node"

    def __init__(self, directory: Path, *arguments: str) -> None:
        super().__init__(directory, lasting_port())
        self.bus_port = lasting_port()
        self._more = arguments

    def announce(self, port: int) -> None:
        """Tell clients another port than the one that it listens on; before it starts."""
        self._more = (*self._more, "--cluster-announce-port", str(port))

    def _arguments(self) -> list[str]:
        bus = ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port), "--cluster-config-file", "nodes.conf"]
        timing = ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"]
        return [*super()._arguments(), *bus, *timing, "--repl-diskless-sync-delay", "0", *self._more]

    def client(self) -> Any:  # noqa: ANN401 - redis-py's answers are
        return redis.Redis(HOST, self.port, decode_responses=True, protocol=2)


class RedisClusterServers:
    """A Redis Cluster: a context manager that starts its nodes, and waits until they serve all slots.

    Args:
        directory: where the nodes' own folders go.
        primaries: how many; the slots are shared out evenly.
        replicas: of each primary.
        kind: what the nodes are: subclasses run another program.
        arguments: further ones of each node.
    """

    def __init__(
        self,
        directory: Path,
        primaries: int = 3,
        replicas: int = 0,
        kind: type[ClusterNode] = ClusterNode,
        arguments: Sequence[str] = (),
    ) -> None:
        count = primaries * (1 + replicas)
        self.nodes = [kind(directory / f"node-{number}", *arguments) for number in range(count)]
        self.primaries = primaries
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """``redis://`` of one node: the others are found."""
        return self.nodes[0].url

    @property
    def cluster_url(self) -> str:
        """``redis+cluster://`` with all nodes."""
        return f"redis+cluster://{','.join(node.address for node in self.nodes)}"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._form()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def each(self, do: Callable[[Any], Any]) -> None:
        """Do something with a client of each node that runs."""
        for node in self.nodes:
            if node.pid is not None:
                with node.client() as client:
                    do(client)

    def flush(self) -> None:
        """Empty it."""
        for node in self.nodes[: self.primaries]:
            with node.client() as client:
                client.flushall()

    def primary_of(self, key: str) -> ClusterNode:
        """Return the node that serves a key now."""
        found: list[ClusterNode] = []

        def look() -> bool:
            running = next(node for node in self.nodes if node.pid is not None)
            with running.client() as client:
                slot = client.execute_command("CLUSTER KEYSLOT", key)
                # [first slot, last slot, [host, port, ...of the primary], ...]
                slots = client.execute_command("CLUSTER SLOTS")
            ports = _ports_by_range(slots)
            port = next(port for (first, last), port in ports.items() if first <= slot <= last)
            found[:] = [node for node in self.nodes if node.port == port]
            return bool(found)

        wait_for(look, f"a primary of {key}")
        return found[0]

    def wait_until_it_serves(self) -> None:
        """Wait until all nodes that run agree that all slots are served."""

        def serves(node: ClusterNode) -> bool:
            with node.client() as client:
                return bool(client.cluster("INFO")["cluster_state"] == "ok")

        for node in self.nodes:
            if node.pid is not None:
                wait_for(lambda node=node: serves(node), f"{node.address} serves")

    def _form(self) -> None:
        first, *others = self.nodes
        primaries = self.nodes[: self.primaries]
        share = -(-SLOTS // len(primaries))
        for number, node in enumerate(primaries):
            with node.client() as client:
                client.execute_command("CLUSTER ADDSLOTSRANGE", number * share, min(SLOTS, (number + 1) * share) - 1)
                # Or the nodes' configurations would take turns at being the newest.
                client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        with first.client() as client:
            for node in others:
                client.execute_command("CLUSTER MEET", HOST, node.port, node.bus_port)
        for node in self.nodes:
            wait_for(lambda node=node: self._knows_all(node), f"{node.address} knows all nodes")
        for number, node in enumerate(self.nodes[self.primaries :]):
            with primaries[number % len(primaries)].client() as client:
                name = client.execute_command("CLUSTER MYID")
            with node.client() as client:
                client.execute_command("CLUSTER REPLICATE", name)
        self.wait_until_it_serves()
        for node in self.nodes[self.primaries :]:
            wait_for(lambda node=node: _is_in_step(node), f"{node.address} is a replica")

    def _knows_all(self, node: ClusterNode) -> bool:
        with node.client() as client:
            known = client.execute_command("CLUSTER NODES")
        return len(known) == len(self.nodes) and not any("handshake" in each["flags"] for each in known.values())


class SentinelServer(ValkeyServer):
    """A Sentinel that watches a primary under the name of ``MASTER``."""

    name = "sentinel"

    def __init__(self, directory: Path, primary: ValkeyServer, quorum: int, password: str | None = None) -> None:
        super().__init__(directory, lasting_port())
        self._password = password
        self._watched = [f"sentinel monitor {MASTER} {HOST} {primary.port} {quorum}"]
        self._watched += [f"sentinel down-after-milliseconds {MASTER} {NODE_TIMEOUT_MS}"]
        self._watched += [f"sentinel failover-timeout {MASTER} 10000"]
        if password is not None:
            self._watched += [f"requirepass {password}", f"sentinel sentinel-pass {password}"]

    def _arguments(self) -> list[str]:
        # It writes into its configuration what it learns, and finds it there after a restart.
        config = self.directory / "sentinel.conf"
        if not config.exists():
            config.write_text("\n".join([f"port {self.port}", f"bind {HOST}", *self._watched]) + "\n", encoding="utf-8")
        return [str(config), "--sentinel"]

    def client(self) -> Any:  # noqa: ANN401 - redis-py's answers are
        return redis.Redis(HOST, self.port, password=self._password)


class SentinelServers:
    """A primary and its replica, watched by Sentinels: a context manager that starts them in order.

    Args:
        directory: where the servers' own folders go.
        sentinels: how many; more than half of them must agree.
        password: of the Sentinels; default: they ask for none.
    """

    def __init__(self, directory: Path, sentinels: int = 3, password: str | None = None) -> None:
        self.servers: list[ValkeyServer] = [
            ReplicatedServer(directory / f"server-{number}", lasting_port()) for number in range(2)
        ]
        quorum = sentinels // 2 + 1
        self.sentinels = [
            SentinelServer(directory / f"sentinel-{number}", self.servers[0], quorum, password)
            for number in range(sentinels)
        ]
        self._stack = ExitStack()

    @property
    def url(self) -> str:
        """``redis+sentinel://`` with all Sentinels."""
        return f"redis+sentinel://{','.join(each.address for each in self.sentinels)}/{MASTER}/0"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            with redis.Redis(HOST, self.servers[1].port) as replica:
                replica.replicaof(HOST, self.servers[0].port)  # type: ignore[no-untyped-call]
            wait_for(lambda: _is_in_step(self.servers[1]), "the replica is in step")
            for sentinel in self.sentinels:
                stack.enter_context(sentinel)
            for sentinel in self.sentinels:
                wait_for(lambda each=sentinel: self._knows_all(each), f"{sentinel.address} knows all")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def primary(self) -> ValkeyServer:
        """Return the server that the Sentinels name now."""
        with self.sentinels[0].client() as client:
            _, port = client.sentinel_get_master_addr_by_name(MASTER)
        return next(server for server in self.servers if server.port == port)

    def _knows_all(self, sentinel: SentinelServer) -> bool:
        with sentinel.client() as client:
            state = client.sentinel_master(MASTER)
        return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == len(self.sentinels) - 1)


class ReplicatedServer(ValkeyServer):
    """A server that sends its data to a replica at once."""

    def _arguments(self) -> list[str]:
        return [*super()._arguments(), "--repl-diskless-sync-delay", "0"]


def _is_in_step(server: ValkeyServer) -> bool:
    with redis.Redis(HOST, server.port) as client:
        state: Any = client.info("replication")
    return bool(state["role"] == "slave" and state["master_link_status"] == "up")


def _ports_by_range(slots: Any) -> dict[tuple[int, int], int]:  # noqa: ANN401 - as redis-py reads it, or not
    if isinstance(slots, dict):
        return {span: int(each["primary"][1]) for span, each in slots.items()}
    return {(int(each[0]), int(each[1])): int(each[2][1]) for each in slots}
