"""Unpacks compressed record batches, to so many bytes at most: a few kilobytes can hold gigabytes."""

from __future__ import annotations

import gzip
import importlib
import io
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from kafka.record.util import decode_varint

# The codec of a batch by the lowest bits of its attributes.
NAMES: Final = {1: "gzip", 2: "snappy", 3: "lz4", 4: "zstd"}
PACKAGES: Final = {"snappy": "python-snappy", "lz4.frame": "lz4", "zstandard": "zstandard"}
# The framing of snappy-java: its magic bytes with two version numbers, then blocks, each after its length.
XERIAL: Final = b"\x82SNAPPY\x00"
XERIAL_HEADER_BYTES: Final = 16


class UnpackError(Exception):
    """A batch cannot be unpacked; says why in words for people."""


class _Reader(Protocol):
    def read(self, size: int, /) -> bytes: ...


def unpack(codec: int, data: bytes, most: int) -> bytes:
    """Return what ``data`` holds.

    Args:
        codec: the lowest three bits of the batch's attributes, not 0.
        data: the records of a batch, compressed together.
        most: bytes that the result may have.

    Raises:
        UnpackError: the codec is unknown or its package missing, the data are damaged, or hold more than ``most``.
    """
    name = NAMES.get(codec)
    if name is None:
        msg = f"it is compressed by an unknown codec, number {codec}"
        raise UnpackError(msg)
    try:
        unpacked = _UNPACKERS[name](data, most)
    except (UnpackError, MemoryError):
        raise
    # Each library has errors of its own, and some let out what they ran into.
    except Exception as error:
        msg = f"its {name} data are damaged ({error or type(error).__name__})"
        raise UnpackError(msg) from error
    if len(unpacked) > most:
        msg = f"its {name} data hold more than {most} bytes, the most that a batch may have"
        raise UnpackError(msg)
    return unpacked


def _package(module: str) -> Any:  # noqa: ANN401 - a module
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = PACKAGES[module]
        msg = f"the package that unpacks it is not installed: pip install {package}"
        raise UnpackError(msg) from error


def _read(reader: _Reader, most: int) -> bytes:
    return reader.read(most + 1)


def _gzip(data: bytes, most: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as reader:
        return _read(reader, most)


def _lz4(data: bytes, most: int) -> bytes:
    with _package("lz4.frame").open(io.BytesIO(data), "rb") as reader:
        return _read(reader, most)


def _zstd(data: bytes, most: int) -> bytes:
    decompressor = _package("zstandard").ZstdDecompressor()
    with decompressor.stream_reader(io.BytesIO(data), read_across_frames=True) as reader:
        return _read(reader, most)


def _snappy(data: bytes, most: int) -> bytes:
    snappy = _package("snappy")
    blocks = list(_snappy_blocks(data))
    # A block begins with the number of bytes that it holds, and is unpacked at once: so that is asked first.
    if sum(decode_varint_unsigned(block) for block in blocks) > most:
        return bytes(most + 1)
    return b"".join(snappy.uncompress(block) for block in blocks)


def _snappy_blocks(data: bytes) -> Iterator[bytes]:
    if not data.startswith(XERIAL):
        yield data
        return
    at = XERIAL_HEADER_BYTES
    while at < len(data):
        (size,) = struct.unpack_from(">i", data, at)
        at += 4
        if not 0 < size <= len(data) - at:
            msg = f"a block of {size} bytes where {len(data) - at} are left"
            raise ValueError(msg)
        yield data[at : at + size]
        at += size


def decode_varint_unsigned(data: bytes) -> int:
    """Return the number at the beginning of ``data``, seven bits a byte, the lowest first."""
    # The library's are zigzag: the lowest bit is the sign.
    value, _ = decode_varint(bytearray(data[:10]), 0)
    return int(2 * value if value >= 0 else -2 * value - 1)


_UNPACKERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "gzip": _gzip,
    "snappy": _snappy,
    "lz4": _lz4,
    "zstd": _zstd,
}
