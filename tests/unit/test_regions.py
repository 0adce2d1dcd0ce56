from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import label

from monitor.core.regions import extract_regions, threshold

anomalies = arrays(
    np.float32, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0])
)
TOUCHING = np.ones((3, 3))  # corners count


@given(anomalies, st.sampled_from((0.0, 0.5, 1.0, 2.0)), st.integers(1, 6))
def test_a_mask_holds_what_is_above_the_level_in_regions_large_enough(
    anomaly: NDArray[np.float32], level: float, min_area: int
) -> None:
    labels, count = label(anomaly > level, structure=TOUCHING)
    expected = np.zeros(anomaly.shape, bool)
    for number in range(1, count + 1):
        if (labels == number).sum() >= min_area:
            expected |= labels == number
    mask = threshold(anomaly, level, min_area)
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, expected)


@given(anomalies, st.sampled_from((0.0, 0.5, 2.0)))
def test_regions_are_the_connected_parts_of_the_mask(anomaly: NDArray[np.float32], level: float) -> None:
    mask = anomaly > level
    labels, count = label(mask, structure=TOUCHING)
    expected = []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(labels == number)
        values = anomaly[rows, columns]
        box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1, len(rows))
        expected.append((*box, columns.mean(), rows.mean(), values.mean(dtype=np.float64), values.max()))
    found = [
        (r.x, r.y, r.width, r.height, r.area, r.centroid_x, r.centroid_y, r.mean_residual, r.max_residual)
        for r in extract_regions(mask, anomaly)
    ]
    assert len(found) == count
    if count:
        np.testing.assert_allclose(np.array(sorted(found)), np.array(sorted(expected)), rtol=1e-5)


@given(anomalies)
def test_the_largest_region_comes_first(anomaly: NDArray[np.float32]) -> None:
    areas = [region.area for region in extract_regions(anomaly > 0.5, anomaly)]
    assert areas == sorted(areas, reverse=True)
    assert sum(areas) == (anomaly > 0.5).sum()


def test_no_defect_is_no_region() -> None:
    nothing = np.zeros((8, 8), np.float32)
    assert not threshold(nothing, 0.5, 4).any()
    assert extract_regions(nothing > 0.5, nothing) == ()


def test_two_pixels_that_touch_at_a_corner_are_one_region() -> None:
    anomaly = np.eye(4, dtype=np.float32)
    (region,) = extract_regions(threshold(anomaly, 0.5, 4), anomaly)
    assert (region.x, region.y, region.width, region.height, region.area) == (0, 0, 4, 4, 4)
