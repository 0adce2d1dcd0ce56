from __future__ import annotations

import hashlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.adapters.images import FsspecImageStore
from monitor.errors import ImageStoreFullError, StoreUnavailableError
from schemas.errors import ConfigurationError


@pytest.fixture(params=["folder", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FsspecImageStore]:
    folder = tmp_path / "deep" / "images"
    url = {"folder": str(folder), "file": f"file://{folder}", "memory": f"memory://{folder}"}[request.param]
    yield FsspecImageStore(url)
    fsspec.filesystem("memory").store.clear()


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(st.binary(max_size=1000))
def test_what_was_put_is_got_by_its_hash(store: FsspecImageStore, data: bytes) -> None:
    address = store.put(data)
    assert address == hashlib.sha256(data).hexdigest()
    assert store.get(address) == data


def test_the_same_bytes_are_stored_once_and_nothing_else(tmp_path: Path) -> None:
    store = FsspecImageStore(str(tmp_path))
    address = store.put(b"image")
    written = (tmp_path / address[:2] / address[2:4] / address).stat().st_mtime_ns
    assert store.put(b"image") == address
    assert files_in(tmp_path) == [f"{address[:2]}/{address[2:4]}/{address}"]
    assert (tmp_path / address[:2] / address[2:4] / address).stat().st_mtime_ns == written


@pytest.mark.parametrize("address", ["0" * 64, "", "../secret", "A" * 64, "0" * 63, "../" * 21 + "x", "0" * 64 + "\n"])
def test_nothing_is_found_at_any_other_address(store: FsspecImageStore, address: str) -> None:
    with pytest.raises(KeyError):
        store.get(address)


def test_no_address_reaches_outside_the_root(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    store = FsspecImageStore(str(tmp_path / "a" / "b"))
    for address in ("../../secret", str(tmp_path / "secret"), "file://" + str(tmp_path / "secret")):
        with pytest.raises(KeyError):
            store.get(address)


def test_a_damaged_image_is_missing_and_a_cut_one_is_written_again(tmp_path: Path) -> None:
    store = FsspecImageStore(str(tmp_path))
    address = store.put(b"image")
    path = tmp_path / address[:2] / address[2:4] / address
    path.write_bytes(b"imagE")
    with pytest.raises(KeyError):
        store.get(address)
    path.write_bytes(b"im")
    store.put(b"image")
    assert store.get(address) == b"image"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FsspecImageStore(str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StoreUnavailableError, match="No space left"):
            store.put(b"image")
    assert files_in(tmp_path) == []
    assert store.get(store.put(b"image")) == b"image"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("only root may mount a file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_from_one_that_is_away_and_takes_images_again_when_there_is_room(small_disk: Path) -> None:
    store = FsspecImageStore(str(small_disk / "images"))
    (small_disk / "other").write_bytes(bytes(900_000))
    first = store.put(b"small")
    with pytest.raises(ImageStoreFullError, match="No space left"):
        store.put(os.urandom(500_000))
    assert store.get(first) == b"small"
    assert len(files_in(small_disk / "images")) == 1
    (small_disk / "other").unlink()
    store.put(os.urandom(500_000))


def test_what_is_reserved_of_a_disk_is_left_free(small_disk: Path) -> None:
    store = FsspecImageStore(str(small_disk), reserve_bytes=300_000)
    first = store.put(os.urandom(600_000))
    with pytest.raises(ImageStoreFullError, match=r"images\.reserve_mb"):
        store.put(os.urandom(600_000))
    assert len(store.get(first)) == 600_000
    assert store.put(store.get(first)) == first  # there already: no room is needed


def test_many_writers_of_the_same_image_leave_one(tmp_path: Path) -> None:
    data = os.urandom(1_000_000)
    threads = [threading.Thread(target=FsspecImageStore(str(tmp_path)).put, args=(data,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files_in(tmp_path)) == 1
    assert FsspecImageStore(str(tmp_path)).get(hashlib.sha256(data).hexdigest()) == data


def test_a_store_that_cannot_be_opened_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for url in (str(tmp_path / "file"), "nosuchstore://bucket"):
        with pytest.raises(ConfigurationError, match=r"images\.url = .*writable folder"):
            FsspecImageStore(url)
