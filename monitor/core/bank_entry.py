"""An entry of the memory bank: what one normal frame gives to it, in memory and in bytes.

In memory it is (P1, P2, P3 + R) float16, features and residual of each location, NaN at locations that it does not
keep. In bytes: one bit a location (row by row, the first in the highest bit; 1: kept), then the kept locations' values
as little-endian float16. The same bytes on every machine.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Entry = NDArray[np.float16]
Shape = tuple[int, int, int]


def kept(entry: Entry) -> NDArray[np.bool_]:
    """Return which locations (P1, P2) an entry (P1, P2, P3 + R) keeps."""
    return np.asarray(~np.isnan(entry).all(axis=2))


def keep_only(entry: Entry, locations: NDArray[np.bool_]) -> Entry:
    """Return the entry with nothing but these locations (P1, P2)."""
    return np.where(locations[..., None], entry, np.float16(np.nan)).astype(np.float16)


def is_sound(entry: Entry) -> bool:
    """Return whether an entry keeps something, and is finite where it does."""
    there = kept(entry)
    return bool(there.any() and np.isfinite(entry[there]).all())


def size_in_bytes(locations: NDArray[np.bool_], depth: int) -> int:
    """Return how many bytes an entry of this depth (P3 + R) takes that keeps these locations (P1, P2)."""
    return _bitmap_bytes(locations.size) + 2 * depth * int(locations.sum())


def most_bytes(shape: Shape) -> int:
    """Return how many bytes an entry (P1, P2, P3 + R) takes that keeps everything."""
    return _bitmap_bytes(shape[0] * shape[1]) + 2 * math.prod(shape)


def pack(locations: NDArray[np.bool_]) -> bytes:
    """Return locations (P1, P2) as a bit each, row by row, the first in the highest bit."""
    return np.packbits(locations.ravel()).tobytes()


def unpack(data: bytes, cells: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the locations (P1, P2) of their bits."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=cells[0] * cells[1])
    return bits.astype(np.bool_).reshape(cells)


def to_bytes(entry: Entry) -> bytes:
    """Return an entry's bytes."""
    there = kept(entry)
    return pack(there) + np.ascontiguousarray(entry[there], dtype="<f2").tobytes()


def from_bytes(data: bytes, shape: Shape) -> Entry:
    """Return the (P1, P2, P3 + R) entry of its bytes, writable.

    Raises:
        ValueError: they are not an entry of this shape.
    """
    p1, p2, depth = shape
    head = _bitmap_bytes(p1 * p2)
    if len(data) < head:
        msg = f"{len(data)} bytes are no entry of shape {shape}"
        raise ValueError(msg)
    there = unpack(data[:head], (p1, p2))
    if len(data) != size_in_bytes(there, depth):
        msg = f"{len(data)} bytes are no entry of shape {shape} that keeps {int(there.sum())} locations"
        raise ValueError(msg)
    entry = np.full(shape, np.nan, np.float16)
    entry[there] = np.frombuffer(data[head:], dtype="<f2").reshape(-1, depth)
    return entry


def _bitmap_bytes(locations: int) -> int:
    return -(-locations // 8)
