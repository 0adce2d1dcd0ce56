from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.symmetry import find_flips, flipped

LEFT_RIGHT, UP_DOWN, BOTH = (2,), (1,), (1, 2)


def product(count: int, *, mirror: tuple[int, ...] = (), channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """Return (N, C, 48, 64) photos of one part, made symmetric along the axes of (C, H, W) in ``mirror``."""
    part = np.random.default_rng(7).random((channels, 6, 8)).repeat(8, axis=1).repeat(8, axis=2)
    for axis in mirror:
        part = (part + np.flip(part, axis)) / 2
    noise = np.random.default_rng(seed).normal(0, 0.02, (count, channels, 48, 64))
    return (part + noise).clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("mirror", "expected"),
    [
        ((), ((),)),
        (LEFT_RIGHT, ((), LEFT_RIGHT)),
        (UP_DOWN, ((), UP_DOWN)),
        ((1, 2), ((), LEFT_RIGHT, UP_DOWN, BOTH)),
    ],
)
def test_only_mirrorings_that_look_normal_are_found(
    mirror: tuple[int, ...], expected: tuple[tuple[int, ...], ...], channels: int
) -> None:
    train = product(20, mirror=mirror, channels=channels)
    validation = product(10, mirror=mirror, channels=channels, seed=1)
    assert find_flips(train, validation) == expected


def test_a_part_that_may_lie_either_way_round_may_be_turned() -> None:
    parts = product(40)
    parts[::2] = np.flip(parts[::2], (2, 3))
    assert find_flips(parts[:30], parts[30:]) == ((), BOTH)


def test_a_small_mark_on_one_side_is_enough_to_tell_left_from_right() -> None:
    parts = product(40, mirror=LEFT_RIGHT)
    parts[..., 8:16, 8:16] += 0.12
    assert find_flips(parts[:30], parts[30:]) == ((),)


def test_every_image_is_given_under_every_mirroring() -> None:
    images = product(3, channels=3)
    both = flipped(images, ((), LEFT_RIGHT, BOTH))
    assert both.shape == (9, 3, 48, 64)
    np.testing.assert_array_equal(both[:3], images)
    np.testing.assert_array_equal(both[3:6], images[..., ::-1])
    np.testing.assert_array_equal(both[6:], images[..., ::-1, ::-1])
