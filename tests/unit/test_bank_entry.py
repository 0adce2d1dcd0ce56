"""An entry's bytes: what is kept, exactly, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.core.bank_entry import (
    from_bytes,
    is_sound,
    keep_only,
    kept,
    most_bytes,
    pack,
    size_in_bytes,
    to_bytes,
    unpack,
)

SHAPE = (3, 5, 4)
cells = st.lists(st.booleans(), min_size=15, max_size=15).map(lambda flags: np.array(flags).reshape(3, 5))


def entry(seed: int = 0) -> NDArray[np.float16]:
    return np.random.default_rng(seed).normal(size=SHAPE).astype(np.float16)


@given(cells, st.integers(0, 1000))
def test_bytes_bring_back_what_was_kept_bit_for_bit(locations: NDArray[np.bool_], seed: int) -> None:
    stored = keep_only(entry(seed), locations)
    data = to_bytes(stored)
    back = from_bytes(data, SHAPE)
    np.testing.assert_array_equal(kept(back), locations)
    assert back[locations].tobytes() == entry(seed)[locations].tobytes()
    assert to_bytes(back) == data
    assert len(data) == size_in_bytes(locations, 4) <= most_bytes(SHAPE)
    assert back.flags.writeable


@given(cells)
def test_locations_are_a_bit_each(locations: NDArray[np.bool_]) -> None:
    assert len(pack(locations)) == 2
    np.testing.assert_array_equal(unpack(pack(locations), (3, 5)), locations)


def test_the_bytes_are_the_same_on_every_machine() -> None:
    small = np.full((1, 2, 2), np.nan, np.float16)
    small[0, 1] = (1.0, -2.0)
    assert to_bytes(small) == bytes([0b01000000, 0x00, 0x3C, 0x00, 0xC0])


@given(st.binary(max_size=150))
def test_bytes_that_are_no_entry_are_refused_or_are_one(data: bytes) -> None:
    whole = len(data) >= 2 and len(data) == size_in_bytes(unpack(data[:2], (3, 5)), 4)
    if whole:
        assert from_bytes(data, SHAPE).shape == SHAPE
    else:
        with pytest.raises(ValueError, match="no entry of shape"):
            from_bytes(data, SHAPE)


def test_a_sound_entry_keeps_something_and_is_finite_there() -> None:
    nothing = np.zeros((3, 5), np.bool_)
    assert is_sound(entry())
    assert not is_sound(keep_only(entry(), nothing))
    broken = entry()
    broken[1, 1, 1] = np.nan
    assert not is_sound(broken)
    broken[1, 1, 1] = np.inf
    assert not is_sound(broken)


@pytest.mark.parametrize("length", [0, 1, 2, 9])
def test_what_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="no entry"):
        from_bytes(to_bytes(entry())[:length], SHAPE)
