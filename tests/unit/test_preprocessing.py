from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.core.preprocessing import decode_pixels, prepare
from schemas.artifacts import InputSpec


def spec(height: int, width: int, channels: Literal[1, 3] = 1) -> InputSpec:
    return InputSpec(height=height, width=width, channels=channels)


def photo(height: int, width: int, *, colour: bool = False, seed: int = 0) -> NDArray[np.uint8]:
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(max_examples=60)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    colour=st.booleans(),
    channels=st.sampled_from((1, 3)),
    side=st.sampled_from((16, 48)),
)
def test_any_image_becomes_what_the_network_sees(
    height: int,
    width: int,
    *,
    colour: bool,
    channels: Literal[1, 3],
    side: int,
) -> None:
    prepared = prepare(photo(height, width, colour=colour), spec(side, 32, channels))
    assert prepared.shape == (channels, side, 32)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous
    assert prepared.min() >= 0
    assert prepared.max() <= 1


def test_an_image_of_the_right_size_is_only_scaled() -> None:
    grey, colour = photo(32, 48), photo(32, 48, colour=True)
    np.testing.assert_array_equal(prepare(grey, spec(32, 48))[0], grey / np.float32(255))
    np.testing.assert_array_equal(prepare(colour, spec(32, 48, 3)), colour.transpose(2, 0, 1) / np.float32(255))


def test_grey_stands_in_for_colour_and_colour_is_weighed_to_grey() -> None:
    grey = photo(16, 16)
    np.testing.assert_array_equal(prepare(grey, spec(16, 16, 3)), np.stack([grey / np.float32(255)] * 3))
    for channel, weight in enumerate((0.114, 0.587, 0.299)):  # blue, green, red
        pure = np.zeros((16, 16, 3), np.uint8)
        pure[..., channel] = 255
        np.testing.assert_allclose(prepare(pure, spec(16, 16)), weight, atol=0.002)


@pytest.mark.parametrize(("height", "width"), [(128, 128), (128, 32), (32, 128), (128, 20), (20, 128)])
def test_a_thin_line_fades_rather_than_vanishes(height: int, width: int) -> None:
    # One pixel wide along each axis that shrinks: whatever sampling would skip, averaging must keep.
    for offset in range(4):
        image = np.zeros((height, width), np.uint8)
        if height >= width:
            image[51 + offset] = 255
        else:
            image[:, 51 + offset] = 255
        prepared = prepare(image, spec(32, 32))
        lost = abs(prepared.mean() - image.mean() / 255) / (image.mean() / 255)
        assert lost < 0.05


def test_shrinking_is_the_mean_over_the_pixels_below() -> None:
    image = photo(64, 96)
    expected = image.reshape(32, 2, 32, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(prepare(image, spec(32, 32))[0], expected, atol=1e-5)


def encoded(image: NDArray[np.uint8] | NDArray[np.uint16], suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, image)[1].tobytes()


def test_a_lossless_image_is_decoded_to_its_pixels() -> None:
    grey, colour = photo(20, 30), photo(20, 30, colour=True)
    np.testing.assert_array_equal(decode_pixels(encoded(grey), 1), grey)
    np.testing.assert_array_equal(decode_pixels(encoded(colour), 3), colour)
    np.testing.assert_array_equal(decode_pixels(encoded(grey), 3), np.stack([grey] * 3, axis=2))


def test_sixteen_bits_become_eight_over_the_full_range() -> None:
    levels = np.arange(256, dtype=np.uint16)[None]
    np.testing.assert_array_equal(decode_pixels(encoded(257 * levels), 1), levels)


@pytest.mark.parametrize("data", [b"", b"not an image", encoded(photo(20, 30))[:40]])
def test_what_is_no_image_is_none(data: bytes) -> None:
    assert decode_pixels(data, 1) is None


def test_pixels_of_another_type_are_refused() -> None:
    real = cv2.imencode(".tiff", np.zeros((4, 4), np.float32))[1].tobytes()
    with pytest.raises(ValueError, match="float32, expected 8 or 16 bits"):
        decode_pixels(real, 1)
