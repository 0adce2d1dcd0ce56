"""A plant's Redis user: the rights that docs/redis.md lists are enough, each is needed, and one that lacks is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
import pytest
import redis
from structlog.testing import capture_logs

from deploy.local.servers import HOST, ValkeyServer
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.redis_rights import CALLS, CLUSTER_CALLS
from monitor.errors import StoreRefusedError
from monitor.ports import BankKey, BankShape, LearnedSlot
from monitor.settings import RedisSettings
from schemas.errors import ConfigurationError
from tests.integration.records import teach
from tests.redis_cluster import RedisClusterServers
from tests.redis_user import documented_lines, documented_user

SHAPE = BankShape("a" * 64, (1, 1, 4))
KEY = BankKey("cam1", "model-1")
SEED = np.ones((2, *SHAPE.features), np.float16)

on_each = pytest.mark.usefixtures("each_redis")


def give(port: int, *arguments: str) -> None:
    with redis.Redis(HOST, port) as client:
        client.execute_command("ACL", *arguments)


def open_as(url: str, user: str = "line:secret") -> RedisBankStore:
    return RedisBankStore(RedisSettings(url=url.replace("://", f"://{user}@")))


def do_everything(store: RedisBankStore) -> None:
    """Go through all that worker, learner and commands do with a bank."""
    store.ping()
    store.open(KEY, SHAPE, SEED)
    since = store.changes(KEY, None).version
    for number in range(3):
        teach(store, KEY, SHAPE, f"frame-{number}", SEED[0])
    assert store.changes(KEY, since).version == 3
    teach(store, KEY, SHAPE, "frame-3", SEED[0], evict=(2,))
    assert store.learned(KEY, "frame-3") is not None
    assert set(store.all_learned(KEY)) == {"frame-1", "frame-2", "frame-3"}
    assert store.remove(KEY, SHAPE, "frame-1") == 5
    assert store.open(KEY, SHAPE, SEED, learned=[LearnedSlot(2, "frame-2", 3, SEED[0])], version=9) == 9
    assert store.version(KEY) == 9
    # A reader in small chunks reads slots by themselves.
    assert len(store.changes(KEY, None).slots) == 3


@pytest.fixture
def line(embedded_redis: ValkeyServer) -> Iterator[Callable[..., RedisBankStore]]:
    """Give a user rights, after those of the document, and open banks as it."""
    stores: list[RedisBankStore] = []
    give(embedded_redis.port, *documented_user())

    def make(*rights: str) -> RedisBankStore:
        if rights:
            give(embedded_redis.port, "SETUSER", "line", *rights)
        stores.append(open_as(embedded_redis.url))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@on_each
def test_the_documented_rights_are_enough(line: Callable[..., RedisBankStore]) -> None:
    do_everything(line())


def test_the_documented_rights_are_enough_on_a_cluster(cluster_server: RedisClusterServers) -> None:
    cluster_server.flush()
    for node in cluster_server.nodes:
        for arguments in documented_lines():
            give(node.port, *arguments)
    try:
        for url in (cluster_server.url, cluster_server.cluster_url):
            with closing(open_as(url)) as store:
                do_everything(store)
            cluster_server.flush()
        # One node alone lacks a right: whoever gave the line to the others is told before it matters.
        give(cluster_server.nodes[2].port, "SETUSER", "line", "-hset", "-cluster|slots")
        with closing(open_as(cluster_server.url)) as store, pytest.raises(ConfigurationError, match=r"\+hset"):
            store.ping()
    finally:
        for node in cluster_server.nodes:
            give(node.port, "DELUSER", "line")


def test_the_document_lists_what_is_needed_and_no_more() -> None:
    single, cluster = ({each[1:] for each in line if each.startswith("+")} for line in documented_lines())
    assert single == {*CALLS, "client|setname"}
    assert cluster == set(CLUSTER_CALLS)


@on_each
def test_each_right_that_lacks_is_told_at_the_start_with_what_mends_it(
    line: Callable[..., RedisBankStore], embedded_redis: ValkeyServer
) -> None:
    for command in (*CALLS, "client|setname"):
        with pytest.raises(ConfigurationError) as caught:
            line(f"-{command}").ping()
        told = str(caught.value)
        assert f"user line may not run {command}" in told
        assert "not reachable" not in told
        mended = re.search(r"ACL (SETUSER line [^(]*) \(", told)
        assert mended is not None
        give(embedded_redis.port, *mended[1].split())
        line().ping()
    do_everything(line())


@on_each
def test_all_that_lacks_is_told_at_once(line: Callable[..., RedisBankStore]) -> None:
    with pytest.raises(ConfigurationError, match=r"may not run hset, xadd\. .*ACL SETUSER line \+hset \+xadd \("):
        line("-hset", "-xadd").ping()
    with pytest.raises(ConfigurationError, match=r"the bank's keys\. .*ACL SETUSER line ~paedid:bank:\* \("):
        line("resetkeys", "~other:*").ping()


@on_each
def test_a_user_of_a_managed_server_works(line: Callable[..., RedisBankStore]) -> None:
    do_everything(line("resetkeys", "~paedid*", "+@all", "-@admin", "-@dangerous"))


@on_each
def test_a_right_that_is_revoked_meanwhile_is_a_refusal_and_no_outage(line: Callable[..., RedisBankStore]) -> None:
    store = line()
    do_everything(store)
    before = store.version(KEY)
    for given in (*(f"+{each}" for each in ("hset", "hdel", "xadd", "evalsha", "hlen")), "~paedid:bank:*"):
        line("resetkeys" if given.startswith("~") else given.replace("+", "-"))
        for edit in (lambda: teach(store, KEY, SHAPE, "frame-9", SEED[0]), lambda: store.remove(KEY, SHAPE, "frame-3")):
            with pytest.raises(StoreRefusedError, match="ACL SETUSER line") as caught:
                edit()
            assert given in str(caught.value)
        line(given)
        # No edit was made by halves.
        assert store.version(KEY) == before
    teach(store, KEY, SHAPE, "frame-9", SEED[0])


@on_each
def test_a_bank_that_may_not_be_replaced_stays_as_it_is(line: Callable[..., RedisBankStore]) -> None:
    store = line()
    do_everything(store)
    before = store.changes(KEY, None)
    for right in ("del", "rename", "persist", "expire", "hset", "xadd"):
        line(f"-{right}")
        with pytest.raises(StoreRefusedError, match=rf"ACL SETUSER line \+{right} "):
            store.open(KEY, SHAPE, SEED, version=99)
        line(f"+{right}")
        found = store.changes(KEY, None)
        assert (found.version, len(found.slots)) == (before.version, len(before.slots))
    assert store.open(KEY, SHAPE, SEED, version=99) == 99


def test_each_node_of_a_cluster_that_may_evict_is_warned_of(cluster_server: RedisClusterServers) -> None:
    evicting = cluster_server.nodes[1:]
    for node in evicting:
        with node.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with capture_logs() as logs, closing(RedisBankStore(RedisSettings(url=cluster_server.url))) as store:
            store.ping()
    finally:
        for node in evicting:
            with node.client() as client:
                client.config_set("maxmemory-policy", "noeviction")
    assert sorted(entry["redis"] for entry in logs) == sorted(node.address for node in evicting)
