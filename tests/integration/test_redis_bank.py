"""The bank in Redis when things go wrong: many writers, lost writes, a full or absent server."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
import redis
from numpy.typing import NDArray

from deploy.local.servers import ValkeyServer
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.redis_bank_wire import Client
from monitor.adapters.redis_connection import RedisConnection
from monitor.errors import BankMovedError, StoreUnavailableError
from monitor.ports import Addition, BankEdit, BankKey, BankShape
from monitor.settings import RedisSettings, load_settings
from schemas.errors import BankMismatchError, ConfigurationError, ServiceUnavailableError
from tests.integration.records import teach

on_each = pytest.mark.usefixtures("each_redis")
on_each_and_cluster = pytest.mark.usefixtures("each_redis_or_cluster")

SHAPE = BankShape("a" * 64, (1, 1, 4))
KEY = BankKey("cam1", "model-1")


def features(value: float) -> NDArray[np.float16]:
    return np.full(SHAPE.features, value, dtype=np.float16)


SEED = np.stack([features(-1), features(-2)])


@pytest.fixture
def stores(redis_url: str) -> Iterator[Callable[..., RedisBankStore]]:
    made: list[RedisBankStore] = []

    def make(chunk_bytes: int = 4 * 2**20) -> RedisBankStore:
        made.append(RedisBankStore(RedisSettings(url=redis_url), chunk_bytes=chunk_bytes))
        return made[-1]

    yield make
    for store in made:
        store.close()


def client_of(url: str) -> Client:
    """Return a client of a server or a cluster, whichever it is."""
    return RedisConnection(RedisSettings(url=url)).connect()


def persist(store: RedisBankStore, frame_id: str, entry: NDArray[np.float16]) -> BankEdit:
    """Teach although others do: look at the bank again until no one was faster."""
    while True:
        with contextlib.suppress(BankMovedError):
            return teach(store, KEY, SHAPE, frame_id, entry)


def run_at_once(*actions: Callable[[], None]) -> None:
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@on_each_and_cluster
def test_writers_at_once_lose_no_edit_and_share_no_version(stores: Callable[..., RedisBankStore]) -> None:
    versions: list[int] = []

    def write(store: RedisBankStore, writer: int) -> None:
        store.open(KEY, SHAPE, SEED)
        versions.extend(persist(store, f"{writer}-{n}", features(n)).version for n in range(15))

    run_at_once(*(partial(write, stores(), writer) for writer in range(4)))
    assert sorted(versions) == list(range(1, 61))
    assert len(stores().changes(KEY, None).slots) == 62


@on_each_and_cluster
def test_openers_at_once_make_one_bank_and_leave_nothing_staged(
    stores: Callable[..., RedisBankStore], redis_url: str
) -> None:
    opened: list[int] = []

    def open_and_teach(store: RedisBankStore, frame: str) -> None:
        opened.append(store.open(KEY, SHAPE, SEED))
        persist(store, frame, features(1))

    run_at_once(*(partial(open_and_teach, stores(chunk_bytes=1), f"frame-{n}") for n in range(6)))
    # An opener that came late may have found the edits of one before it; none made them undone.
    assert stores().version(KEY) == 6
    with client_of(redis_url) as client:
        names = list(client.scan_iter())
        assert {name.decode().rpartition(":")[2] for name in names} == {"meta", "slots", "log", "frames", "owners"}
        assert {client.ttl(name) for name in names} == {-1}


@on_each_and_cluster
def test_a_bank_read_in_chunks_while_it_is_edited_is_one_of_its_versions(
    stores: Callable[..., RedisBankStore],
) -> None:
    writer, reader = stores(), stores(chunk_bytes=1)
    writer.open(KEY, SHAPE, SEED)
    for number in range(98):
        writer.add(KEY, SHAPE, Addition(f"frame-{number}", features(number), at=number, slot=2 + number))
    done = threading.Event()

    def write() -> None:
        # Each in the place of the oldest.
        for number in range(98, 500):
            slot = 2 + number % 98
            writer.add(KEY, SHAPE, Addition(f"frame-{number}", features(number), number, slot, evict=(slot,)))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    versions = set()
    while not done.is_set() or not versions:
        changes = reader.changes(KEY, None)
        learned = {float(c.features.flat[0]) for c in changes.slots if c.features is not None} - {-1, -2}
        assert learned == set(range(changes.version - 98, changes.version))
        versions.add(changes.version)
    thread.join()


@on_each_and_cluster
def test_a_copy_of_writes_that_redis_lost_is_replaced(stores: Callable[..., RedisBankStore], redis_url: str) -> None:
    # Redis writes to disk once a second: after a crash, the last edits may be gone and their versions given anew.
    store = stores()
    store.open(KEY, SHAPE, SEED)
    with client_of(redis_url) as client:
        before = {name: client.dump(name) for name in client.scan_iter()}
        teach(store, KEY, SHAPE, "lost", features(1))
        version = store.changes(KEY, None).version
        client.flushdb()
        for name, dump in before.items():
            client.restore(name, 0, dump)
    teach(store, KEY, SHAPE, "kept", features(2))
    changes = store.changes(KEY, version)
    assert (changes.version, changes.reload) == (version, True)
    assert [float(c.features.flat[0]) for c in changes.slots if c.features is not None] == [-1, -2, 2]


@on_each
def test_a_full_redis_changes_nothing_and_is_waited_out(embedded_redis: ValkeyServer) -> None:
    store = RedisBankStore(RedisSettings(url=embedded_redis.url))
    store.open(KEY, SHAPE, SEED)
    with redis.Redis.from_url(embedded_redis.url) as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailableError, match="maxmemory"):
            store.add(KEY, SHAPE, Addition("frame-1", features(1), at=0, slot=2))
        with pytest.raises(StoreUnavailableError, match="maxmemory"):
            store.open(BankKey("cam2", "model-1"), SHAPE, SEED)
        assert store.changes(KEY, None).version == 0
        client.config_set("maxmemory", 0)
    assert teach(store, KEY, SHAPE, "frame-1", features(1)).version == 1
    store.close()


@on_each
def test_a_redis_that_was_killed_is_waited_out_and_found_again(embedded_redis: ValkeyServer) -> None:
    store = RedisBankStore(RedisSettings(url=embedded_redis.url, timeout_s=0.5))
    store.open(KEY, SHAPE, SEED)
    version = store.changes(KEY, None).version
    time.sleep(1.2)  # the append-only file is synced once a second
    embedded_redis.kill()
    for call in (
        lambda: store.version(KEY),
        lambda: store.changes(KEY, version),
        lambda: teach(store, KEY, SHAPE, "frame-1", features(1)),
        lambda: store.remove(KEY, SHAPE, "frame-1"),
        lambda: store.open(KEY, SHAPE, SEED),
    ):
        with pytest.raises(StoreUnavailableError):
            call()
    embedded_redis.restart()
    assert store.changes(KEY, version).slots == ()
    assert teach(store, KEY, SHAPE, "frame-1", features(1)).version == 1
    store.close()


@on_each
def test_a_redis_that_hangs_is_given_up_after_the_timeout(embedded_redis: ValkeyServer) -> None:
    store = RedisBankStore(RedisSettings(url=embedded_redis.url, timeout_s=0.2))
    store.open(KEY, SHAPE, SEED)
    with redis.Redis.from_url(embedded_redis.url) as client:
        client.execute_command("CLIENT", "PAUSE", "1500")
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError):
        store.changes(KEY, None)
    assert time.monotonic() - started < 1
    store.close()


@on_each_and_cluster
def test_a_damaged_slot_leaves_copies_as_they_are_and_names_the_remedy(
    stores: Callable[..., RedisBankStore], redis_url: str
) -> None:
    store = stores()
    store.open(KEY, SHAPE, SEED)
    store.changes(KEY, None)
    teach(store, KEY, SHAPE, "f1", features(1))
    with client_of(redis_url) as client:
        client.hset(f"paedid:bank:{{{KEY.camera}:{KEY.model_id}}}:slots", "2", b"broken")
    for since in (0, None):
        with pytest.raises(StoreUnavailableError, match=r"cam1:model-1 in Redis is damaged .*bank rebuild"):
            store.changes(KEY, since)


@on_each_and_cluster
def test_a_mismatch_names_the_key_both_hashes_and_the_remedy(stores: Callable[..., RedisBankStore]) -> None:
    store = stores()
    store.open(KEY, SHAPE, SEED)
    other = BankShape("b" * 64, SHAPE.features)
    with pytest.raises(BankMismatchError) as caught:
        store.open(KEY, other, SEED)
    for part in ("paedid:bank:{cam1:model-1}:meta", "a" * 64, "b" * 64, "model_id"):
        assert part in str(caught.value)


def test_an_absent_server_is_named_without_its_password() -> None:
    store = RedisBankStore(RedisSettings(url="redis://line:secret@127.0.0.1:1/0", timeout_s=0.5))
    with pytest.raises(ServiceUnavailableError, match=r"redis\.url = 'redis://line:\*\*\*@127\.0\.0\.1:1/0'") as caught:
        store.ping()
    assert "secret" not in str(caught.value)


def test_a_url_that_cannot_be_read_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"redis\.url"):
        load_settings(environment={"PAEDID_REDIS__URL": "redis://host:port/0"})
