"""Shapes of known size, digitised as a mask is, come back from their pixels."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from monitor.core.shape import Scale, Shape, measure_shape

SIDE = 140
ALIKE = Scale(1.0, 1.0)
Mask = NDArray[np.bool_]

angles = st.floats(0, 180, exclude_max=True)
scales = st.builds(Scale, across=st.floats(0.5, 8), down=st.floats(0.5, 8))


def draw(inside: Callable[[NDArray[np.float64], NDArray[np.float64]], Mask], scale: Scale = ALIKE) -> Mask:
    """Return the pixels whose centres are inside a figure given in camera pixels around the middle of the mask."""
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    return inside(x * scale.across, y * scale.down)


def rectangle(length: float, breadth: float, degrees: float, scale: Scale = ALIKE) -> Mask:
    """Return a filled rectangle, ``length`` along ``degrees`` from x towards y; off the grid by a part of a pixel."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))

    def inside(x: NDArray[np.float64], y: NDArray[np.float64]) -> Mask:
        x, y = x - 0.21 * scale.across, y + 0.17 * scale.down
        return (np.abs(x * cos + y * sin) <= length / 2) & (np.abs(y * cos - x * sin) <= breadth / 2)

    return draw(inside, scale)


def between(one: float, other: float) -> float:
    """Return how far two orientations are apart, in degrees."""
    return abs((one - other + 90) % 180 - 90)


def connected(mask: Mask) -> bool:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] == 2


@given(st.floats(30, 100), st.floats(1.5, 20), angles)
def test_a_rectangle_comes_back_within_a_pixel_and_a_few_degrees(length: float, breadth: float, degrees: float) -> None:
    mask = rectangle(length, breadth, degrees)
    assume(connected(mask))
    shape = measure_shape(mask, ALIKE)
    assert shape.length == pytest.approx(length, abs=1.3)
    assert shape.breadth == pytest.approx(breadth, abs=1.3)
    assert between(shape.orientation, degrees) < 4
    assert shape.path_length == pytest.approx(length, abs=2.5)
    assert shape.mean_width == pytest.approx(breadth, abs=1.3)


@given(st.floats(40, 80), st.floats(3, 12), angles, scales)
def test_length_and_direction_are_those_on_the_camera_however_the_mask_is_squeezed(
    length: float, breadth: float, degrees: float, scale: Scale
) -> None:
    pixel = max(scale.across, scale.down)
    length, breadth = length * pixel / 2, breadth * pixel
    assume(2 * breadth < length < 0.9 * SIDE * min(scale.across, scale.down))
    shape = measure_shape(rectangle(length, breadth, degrees, scale), scale)
    assert shape.length == pytest.approx(length, abs=1.3 * pixel)
    assert shape.breadth == pytest.approx(breadth, abs=1.3 * pixel)
    assert between(shape.orientation, degrees) < np.degrees(2 * pixel / length)
    assert shape.path_length == pytest.approx(length, abs=2.5 * pixel)


def test_an_orientation_grows_from_x_towards_y_downwards() -> None:
    falling = np.eye(20, dtype=bool)  # from the upper left to the lower right
    for mask, degrees in ((falling, 45), (falling[::-1], 135), (falling[:1] | True, 0), ((falling[:1] | True).T, 90)):
        assert measure_shape(mask, ALIKE).orientation == pytest.approx(degrees)
    # Twice as high as it is wide, the diagonal is steeper.
    assert measure_shape(falling, Scale(1, 2)).orientation == pytest.approx(np.degrees(np.arctan(2)))


@pytest.mark.parametrize("width", [1.5, 3.0, 6.0])
def test_the_length_of_a_curved_crack_is_that_along_it(width: float) -> None:
    radius, half = 50.0, 2.0  # two radians each way from x: a curve of 200 pixels in a box of 100
    arc = draw(
        lambda x, y: (np.abs(np.hypot(x, y) - radius) <= width / 2) & (np.abs(np.arctan2(y, x)) <= half),
    )
    shape = measure_shape(arc, ALIKE)
    assert shape.path_length == pytest.approx(2 * half * radius, rel=0.02)
    assert shape.mean_width == pytest.approx(width, rel=0.06)
    assert shape.length < 110
    assert shape.solidity < 0.2


def test_the_branches_of_a_crack_count_together() -> None:
    star = draw(
        lambda x, y: np.logical_or.reduce(
            [
                (np.abs(y * np.cos(a) - x * np.sin(a)) <= 1.5)
                & (x * np.cos(a) + y * np.sin(a) >= 0)
                & (np.hypot(x, y) < 50)
                for a in np.radians([10, 130, 250])
            ]
        )
    )
    shape = measure_shape(star, ALIKE)
    assert shape.path_length == pytest.approx(150, rel=0.03)
    assert shape.mean_width == pytest.approx(3, rel=0.05)


@given(scales)
def test_a_ring_is_as_long_as_it_is_round(scale: Scale) -> None:
    pixel = max(scale.across, scale.down)
    radius = 0.4 * SIDE * min(scale.across, scale.down)
    assume(radius > 12 * pixel)
    ring = draw(lambda x, y: np.abs(np.hypot(x, y) - radius) <= 2 * pixel, scale)
    shape = measure_shape(ring, scale)
    assert shape.path_length == pytest.approx(2 * np.pi * radius, rel=0.05)
    assert shape.mean_width == pytest.approx(4 * pixel, rel=0.08)


@given(scales, st.integers(1, 12), st.integers(1, 12))
def test_upright_rectangles_of_pixels_are_exact(scale: Scale, columns: int, rows: int) -> None:
    shape = measure_shape(np.ones((rows, columns), bool), scale)
    sides = sorted((columns * scale.across, rows * scale.down))
    assert (shape.breadth, shape.length) == pytest.approx(sides, rel=1e-5)
    assert shape.solidity == 1.0
    # So few pixels may be a slanted line as well.
    if min(columns, rows) != 2 or max(columns, rows) > 4:
        assert (shape.mean_width, shape.path_length) == pytest.approx(sides, rel=1e-3)


@pytest.mark.parametrize(
    ("scale", "length", "breadth", "degrees"), [(ALIKE, 1, 1, None), (Scale(3, 2), 3, 2, 0), (Scale(2, 3), 3, 2, 90)]
)
def test_a_single_pixel_is_as_large_as_a_pixel(
    scale: Scale, length: float, breadth: float, degrees: float | None
) -> None:
    shape = measure_shape(np.ones((1, 1), bool), scale)
    assert (shape.length, shape.breadth) == pytest.approx((length, breadth))
    assert (shape.path_length, shape.mean_width) == pytest.approx((length, breadth))
    assert shape.solidity == 1.0
    assert degrees is None or shape.orientation == degrees


def test_the_solidity_of_an_l_is_its_share_of_the_hull() -> None:
    corner = np.zeros((20, 20), bool)
    corner[:, :10] = corner[10:, :] = True  # three quarters of the square; the hull lacks half of the last quarter
    assert measure_shape(corner, ALIKE).solidity == pytest.approx(300 / 350)
    assert measure_shape(corner, Scale(3, 0.5)).solidity == pytest.approx(300 / 350)
    corner[12:18, 2:8] = False  # a hole counts as not filled
    assert measure_shape(corner, ALIKE).solidity == pytest.approx(264 / 350)


def test_a_compact_region_is_as_long_as_wide() -> None:
    shape = measure_shape(draw(lambda x, y: np.hypot(x, y) <= 20), ALIKE)
    assert shape.path_length == shape.mean_width == pytest.approx(np.sqrt(np.pi) * 20, rel=0.01)
    assert (shape.length, shape.breadth) == pytest.approx((40, 40), abs=1)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))), scales)
def test_any_region_has_measures_that_hold_together(mask: Mask, scale: Scale) -> None:
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        region = labels == label
        shape: Shape = measure_shape(region, scale)
        assert shape.length >= shape.breadth > 0
        assert 0 <= shape.orientation < 180
        assert 0 < shape.solidity <= 1
        assert shape.path_length >= 0.999 * shape.mean_width > 0
        assert shape.path_length * shape.mean_width == pytest.approx(region.sum() * scale.across * scale.down)
