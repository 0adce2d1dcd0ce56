"""What is found lies on the part, where the camera saw it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.core.inspector import Inspector
from monitor.core.view import Placement
from schemas.artifacts import Roi
from schemas.errors import UnregistrableError
from tests.unit.cells import cell, moved
from tests.unit.views import inspect, train
from trainer.view_settings import ViewSettings


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    rng = np.random.default_rng(0)
    images = [moved(cell(n, 160, 200), *rng.uniform(-6, 6, 2), rng.uniform(-3, 3)) for n in range(40)]
    place = tmp_path_factory.mktemp("registered")
    return train(images, place, ViewSettings(register=True), size="80x96")[0]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_mask_of_the_whole_frame_lies_where_the_region_does(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(64, 500)), data.draw(st.integers(64, 500))
    roi = Roi(
        x=(x := data.draw(st.integers(0, width - 32))),
        y=(y := data.draw(st.integers(0, height - 32))),
        width=data.draw(st.integers(32, width - x)),
        height=data.draw(st.integers(32, height - y)),
    )
    placement = Placement((height, width), roi)
    mask = np.zeros((32, 48), np.bool_)
    mask[8:24, 12:36] = True  # its middle half
    whole = placement.whole(mask)
    assert whole.shape[0] <= height
    assert whole.shape[1] <= width
    large = cv2.resize(whole.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
    rows, columns = np.flatnonzero(large.any(axis=1)), np.flatnonzero(large.any(axis=0))
    # A pixel of the mask, and one of the frame for rounding.
    down, across = 1 + height / whole.shape[0], 1 + width / whole.shape[1]
    assert abs(rows[0] - (roi.y + roi.height / 4)) <= down
    assert abs(rows[-1] + 1 - (roi.y + 3 * roi.height / 4)) <= down
    assert abs(columns[0] - (roi.x + roi.width / 4)) <= across
    assert abs(columns[-1] + 1 - (roi.x + 3 * roi.width / 4)) <= across
    np.testing.assert_array_equal(Placement((height, width)).whole(mask), mask)


def test_the_mask_of_a_huge_frame_stays_small() -> None:
    placement = Placement((12_000, 16_000), Roi(x=5000, y=4000, width=200, height=100))
    whole = placement.whole(np.ones((64, 128), np.bool_))
    assert whole.size <= 4_010_000
    assert whole.mean() == pytest.approx(200 * 100 / (12_000 * 16_000), rel=0.3)


@given(st.floats(-10, 10), st.floats(-10, 10), st.floats(-10, 10))
@settings(max_examples=25, deadline=None)
def test_what_is_found_on_a_moved_part_is_put_back_on_it(right: float, down: float, degrees: float) -> None:
    matrix = cv2.getRotationMatrix2D((99.5, 79.5), degrees, 1.0)
    matrix[:, 2] += (right, down)
    placement = Placement((160, 200), None, matrix)
    there = np.zeros((160, 200), np.float32)
    there[60:84, 110:140] = 1.0  # on the part in its place
    camera = moved(there, right, down, degrees)
    # The network sees the part in its place, and half the size.
    np.testing.assert_allclose(placement.look(camera)[62:82, 112:138], 1.0, atol=0.1)
    small = cv2.resize(there, (100, 80), interpolation=cv2.INTER_AREA)
    restored = cv2.resize(placement.restore(small), (200, 160), interpolation=cv2.INTER_NEAREST)
    overlap = np.minimum(restored, camera > 0.5).sum()
    assert 2 * overlap / (restored.sum() + (camera > 0.5).sum()) > 0.88


# No farther than that the camera still sees all of the part.
@given(right=st.integers(-12, 12), down=st.integers(-8, 8), degrees=st.floats(-5, 5))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_shifted_part_is_inspected_as_an_unshifted_one_and_its_region_lies_on_it(
    registered: Inspector, right: int, down: int, degrees: float
) -> None:
    part = cell(70, 160, 200)
    part[96:108, 74:90] = 0
    (still, boxes), (shifted, others) = (
        inspect(registered, image) for image in (part, moved(part, right, down, degrees))
    )
    assert still.flagged
    assert shifted.flagged
    # Resampling softens the finest lines a little, and this network has seen few parts.
    assert shifted.score == pytest.approx(still.score, rel=0.4)
    left, right_ = (
        registered.prepare(image).pixels[:, 8:-8, 8:-8] for image in (part, moved(part, right, down, degrees))
    )
    assert np.abs(left - right_).mean() < 0.02
    assert 2 * (still.mask & shifted.mask).sum() > 0.75 * (still.mask.sum() + shifted.mask.sum())
    matrix = cv2.getRotationMatrix2D((99.5, 79.5), degrees, 1.0)
    matrix[:, 2] += (right, down)
    for region, x, y in ((boxes[0], 81.5, 101.5), (others[0], *(matrix @ np.array([81.5, 101.5, 1])))):
        assert region.centroid_x == pytest.approx(x, abs=2.0)
        assert region.centroid_y == pytest.approx(y, abs=2.0)
        assert region.x <= x <= region.x + region.width
        assert region.y <= y <= region.y + region.height


def test_a_frame_without_the_part_has_no_verdict(registered: Inspector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (160, 200), dtype=np.uint8)
    with pytest.raises(UnregistrableError):
        registered.prepare(noise)
