"""The bank while servers fail over and slots move: an outage each time, the right topology afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import redis

from deploy.local.servers import HOST, ValkeyServer
from monitor.adapters import redis_bank_wire as wire
from monitor.adapters.redis_bank import RedisBankStore
from monitor.errors import StoreRefusedError, StoreUnavailableError
from monitor.ports import Addition, BankKey, BankShape
from monitor.settings import RedisSettings
from schemas.errors import ServiceUnavailableError
from tests.integration.records import teach
from tests.redis_cluster import MASTER, ClusterNode, RedisClusterServers, SentinelServers, wait_for
from tests.servers import NO_REDIS8, RedisServer

SHAPE = BankShape("a" * 64, (1, 1, 4))
SEED = np.ones((2, *SHAPE.features), np.float16)
KEYS = [BankKey(f"cam{number}", "model-1") for number in range(9)]


class Redis8Node(ClusterNode, RedisServer):
    """A node that is a real Redis 8."""

    name = "redis8-node"


KINDS = [ClusterNode, pytest.param(Redis8Node, marks=[NO_REDIS8, pytest.mark.long])]


@pytest.fixture(params=KINDS, ids=["valkey", "redis8"], scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisClusterServers]:
    with RedisClusterServers(tmp_path_factory.mktemp("cluster"), 3, 1, request.param) as servers:
        yield servers


def meta(key: BankKey) -> str:
    return wire.keys(key)[0]


def outages_until(action: Callable[[], object]) -> int:
    """Try until it works; return how often it was an outage. Anything else is a failure, and so is a refusal."""
    outages = 0

    def attempt() -> bool:
        nonlocal outages
        try:
            action()
        except StoreRefusedError:
            raise
        except StoreUnavailableError:
            outages += 1
            return False
        return True

    wait_for(attempt, "it works again")
    return outages


def test_when_a_primary_dies_its_banks_are_away_until_a_replica_is_promoted_and_others_never(
    cluster: RedisClusterServers,
) -> None:
    with closing(RedisBankStore(RedisSettings(url=cluster.url, timeout_s=1))) as store:
        for key in KEYS:
            store.open(key, SHAPE, SEED)
        dying = cluster.primary_of(meta(KEYS[0]))
        spared = next(key for key in KEYS if cluster.primary_of(meta(key)) is not dying)
        # What is not replicated yet is lost, and that is the learner's to mend.
        with dying.client() as client:
            client.execute_command("WAIT", 1, 5000)
        dying.kill()

        def edit() -> None:
            teach(store, spared, SHAPE, f"frame-{store.version(spared)}", SEED[0])
            teach(store, KEYS[0], SHAPE, "frame", SEED[0])

        assert outages_until(edit) > 0
        assert store.version(KEYS[0]) == 1
        assert len(store.all_learned(spared)) > 1
        assert cluster.primary_of(meta(KEYS[0])) is not dying
        dying.start()
        cluster.wait_until_it_serves()
        teach(store, KEYS[0], SHAPE, "another frame", SEED[0])


def test_a_cluster_that_was_away_as_a_whole_is_found_again(cluster: RedisClusterServers) -> None:
    named, *others = cluster.nodes
    with closing(RedisBankStore(RedisSettings(url=named.url, timeout_s=1))) as store:
        key = next(key for key in KEYS if cluster.primary_of(meta(key)) is not named)
        store.open(key, SHAPE, SEED)
        version = store.version(key)
        for node in cluster.nodes:
            node.stop()
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                store.version(key)
        # All but the one that is named.
        for node in others:
            node.start()
        outages_until(lambda: store.changes(key, version))
        assert store.version(key) == version
        named.start()
        cluster.wait_until_it_serves()


def test_a_cluster_is_reached_although_the_first_node_that_is_named_is_away(cluster: RedisClusterServers) -> None:
    url = cluster.cluster_url.replace("redis+cluster://", "redis+cluster://127.0.0.1:1,")
    with closing(RedisBankStore(RedisSettings(url=url, timeout_s=1))) as store:
        store.ping()


def test_a_slot_that_moves_to_a_new_node_is_waited_for(tmp_path: Path) -> None:
    # The new node serves no slot yet: clients do not know it, and are sent to it by ASK all the same.
    with RedisClusterServers(tmp_path / "cluster", 1) as cluster, ClusterNode(tmp_path / "new") as new:
        [old] = cluster.nodes
        store = RedisBankStore(RedisSettings(url=cluster.url, timeout_s=1))
        with closing(store), old.client() as source, new.client() as target:
            target.execute_command("CLUSTER MEET", HOST, old.port, old.bus_port)
            wait_for(lambda: len(source.execute_command("CLUSTER NODES")) == 2, "they know each other")
            wait_for(lambda: target.cluster("INFO")["cluster_state"] == "ok", "it serves")
            key, fresh = KEYS[0], KEYS[1]
            store.open(key, SHAPE, SEED)
            teach(store, key, SHAPE, "frame-1", SEED[0])
            version = store.changes(key, None).version
            ids = [client.execute_command("CLUSTER MYID") for client in (source, target)]
            slots = {each: source.execute_command("CLUSTER KEYSLOT", meta(each)) for each in (key, fresh)}
            for slot in slots.values():
                target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[0])
                source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[1])
            names = sorted(source.execute_command("CLUSTER GETKEYSINSLOT", slots[key], 100))
            # Some are here and some are there.
            for number, moving in enumerate((names[:2], names[2:])):
                for name in moving:
                    source.execute_command("MIGRATE", HOST, new.port, name, 0, 5000)
                for call in (
                    lambda: store.changes(key, version),
                    lambda number=number: teach(store, key, SHAPE, f"late-{number}", SEED[0]),
                    lambda: store.open(fresh, SHAPE, SEED),
                    lambda: store.all_learned(key),
                ):
                    try:
                        call()
                    except StoreRefusedError:
                        raise
                    except StoreUnavailableError:
                        continue
            for slot in slots.values():
                for client in (target, source):
                    client.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[1])
            assert store.open(fresh, SHAPE, SEED) == 0
            taught = teach(store, key, SHAPE, "frame-2", SEED[0])
            learned = store.all_learned(key)
            assert learned["frame-2"] == taught.version
            assert sorted(learned.values()) == list(range(1, taught.version + 1))
            assert len(store.changes(key, version).slots) == taught.version - 1
            with target:
                assert target.exists(meta(key)) == 1


@pytest.mark.long
def test_a_server_that_has_become_a_cluster_is_found_out_by_its_first_redirection(tmp_path: Path) -> None:
    # A name that leads elsewhere by and by: here a port that another server listens on.
    with ValkeyServer(tmp_path / "server") as server, closing(RedisBankStore(RedisSettings(url=server.url))) as store:
        store.open(KEYS[0], SHAPE, SEED)
        server.stop()
        # Not by what it says of itself.
        with RedisClusterServers(tmp_path / "cluster", 3, arguments=("--rename-command", "HELLO", "")) as cluster:
            cluster.nodes[0].stop()
            cluster.nodes[0].port = server.port
            cluster.nodes[0].start()
            cluster.wait_until_it_serves()
            for key in KEYS:
                outages_until(lambda key=key: store.open(key, SHAPE, SEED))
            assert [store.version(key) for key in KEYS] == [0] * len(KEYS)


def test_a_primary_that_was_demoted_behind_its_name_is_an_outage(tmp_path: Path) -> None:
    with (
        ValkeyServer(tmp_path / "a") as server,
        ValkeyServer(tmp_path / "b") as other,
        redis.Redis(HOST, server.port) as client,
        closing(RedisBankStore(RedisSettings(url=server.url))) as store,
    ):
        store.open(KEYS[0], SHAPE, SEED)
        client.replicaof(HOST, other.port)
        with pytest.raises(StoreUnavailableError, match="replica"):
            store.add(KEYS[0], SHAPE, Addition("frame-1", SEED[0], at=0, slot=2))
        client.config_set("replica-serve-stale-data", "no")
        other.kill()
        with pytest.raises(StoreUnavailableError, match=r"(?i)link with (MASTER|PRIMARY) is down|MASTERDOWN"):
            store.version(KEYS[0])
        newcomer = RedisBankStore(RedisSettings(url=server.url))
        with closing(newcomer), pytest.raises(ServiceUnavailableError):
            newcomer.ping()
        client.replicaof("NO", "ONE")
        store.open(KEYS[0], SHAPE, SEED)
        teach(store, KEYS[0], SHAPE, "frame-1", SEED[0])


def test_behind_sentinels_the_new_master_is_found(tmp_path: Path) -> None:
    with SentinelServers(tmp_path, 1) as servers:
        with closing(RedisBankStore(RedisSettings(url=servers.url, timeout_s=1))) as store:
            store.ping()
            store.open(KEYS[0], SHAPE, SEED)
            first = servers.primary()
            with redis.Redis(HOST, first.port) as client:
                client.execute_command("WAIT", 1, 5000)
            first.kill()
            assert outages_until(lambda: teach(store, KEYS[0], SHAPE, "frame-1", SEED[0])) > 0
            assert servers.primary() is not first
            # The old one comes back, takes itself for the master for a moment, and is told better.
            first.start()
            outages_until(lambda: teach(store, KEYS[0], SHAPE, "frame-2", SEED[0]))
            assert set(store.all_learned(KEYS[0])) == {"frame-1", "frame-2"}
            servers.sentinels[0].kill()
            # Who is connected stays so.
            assert store.version(KEYS[0]) == 2
        late = RedisBankStore(RedisSettings(url=servers.url, timeout_s=1))
        with closing(late), pytest.raises(ServiceUnavailableError, match=f"No master found for '{MASTER}'"):
            late.ping()
