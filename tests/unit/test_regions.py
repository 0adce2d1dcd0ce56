from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.ndimage import label

from monitor.core.regions import MAX_REGIONS, Regions, measure_regions, peak, threshold

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
    regions = measure_regions(mask, anomaly, mask.shape)
    found = [
        (r.x, r.y, r.width, r.height, r.area, r.centroid_x, r.centroid_y, r.mean_residual, r.max_residual)
        for r in regions.measured
    ]
    assert regions.count == count
    assert len(found) == count
    if count:
        np.testing.assert_allclose(np.array(sorted(found)), np.array(sorted(expected)), rtol=1e-5)


@given(anomalies)
def test_the_largest_region_comes_first(anomaly: NDArray[np.float32]) -> None:
    areas = [region.area for region in measure_regions(anomaly > 0.5, anomaly, anomaly.shape).measured]
    assert areas == sorted(areas, reverse=True)
    assert sum(areas) == (anomaly > 0.5).sum()


def test_no_defect_is_no_region() -> None:
    nothing = np.zeros((8, 8), np.float32)
    assert not threshold(nothing, 0.5, 4).any()
    assert not threshold(nothing, 0.5, 1, 0.5).any()
    assert measure_regions(nothing > 0.5, nothing, (8, 8)) == Regions((), 0)


def test_two_pixels_that_touch_at_a_corner_are_one_region() -> None:
    anomaly = np.eye(4, dtype=np.float32)
    (region,) = measure_regions(threshold(anomaly, 0.5, 4), anomaly, (4, 4)).measured
    assert (region.x, region.y, region.width, region.height, region.area) == (0, 0, 4, 4, 4)


def test_a_region_is_measured_in_camera_pixels_across_and_down() -> None:
    mask = np.zeros((8, 8), bool)
    mask[2:4, 1:7] = True
    (region,) = measure_regions(mask, mask.astype(np.float32), (16, 40)).measured  # 5 times wider, 2 times higher
    assert (region.x, region.y, region.width, region.height, region.area) == (5, 4, 30, 4, 120)
    assert (region.centroid_x, region.centroid_y) == (19.5, 5.5)
    assert (region.length, region.breadth, region.aspect_ratio, region.orientation) == (30, 4, 7.5, 0)
    assert (region.path_length, region.mean_width, region.solidity) == pytest.approx((30, 4, 1))


def test_a_box_grows_to_whole_camera_pixels() -> None:
    mask = np.zeros((4, 4), bool)
    mask[1, 1] = True
    (region,) = measure_regions(mask, mask.astype(np.float32), (6, 6)).measured  # from 1.5 to 3
    assert (region.x, region.y, region.width, region.height, region.area) == (1, 1, 2, 2, 2.25)


def test_with_a_pixel_pitch_there_are_millimetres_and_without_there_are_none() -> None:
    mask = np.zeros((8, 8), bool)
    mask[3:5, 1:7] = True
    (told,) = measure_regions(mask, mask.astype(np.float32), (80, 80), pitch_um=50).measured  # 60 x 20 pixels
    assert (told.area_mm2, told.length_mm, told.breadth_mm) == pytest.approx((3.0, 3.0, 1.0))
    assert (told.path_length_mm, told.mean_width_mm) == pytest.approx((3.0, 1.0))
    (silent,) = measure_regions(mask, mask.astype(np.float32), (80, 80)).measured
    assert {name for name in told.model_fields_set if name.endswith(("_mm", "_mm2"))} == {
        *("area_mm2", "length_mm", "breadth_mm", "path_length_mm", "mean_width_mm")
    }
    assert {name for name, value in silent if value is None} == {name for name, _ in told if "_mm" in name}


def test_of_thousands_of_specks_the_largest_are_measured_and_all_are_counted() -> None:
    mask = np.zeros((128, 128), bool)
    mask[::2, ::2] = True  # 4096 single pixels, none touching another
    mask[60, 60:80] = True
    mask[90:93, 10] = True
    found = measure_regions(mask, np.ones(mask.shape, np.float32), mask.shape)
    assert found.count == 4096 - 11 - 2 + 2  # 11 of them lie in the line, 2 in the dash
    assert len(found.measured) == MAX_REGIONS == 200
    assert [region.area for region in found.measured[:3]] == [21, 3, 1]
    assert [(region.x, region.y) for region in found.measured[2:5]] == [(0, 0), (2, 0), (4, 0)]


def test_what_is_odd_is_held_against_the_oddest_place_of_its_frame_too() -> None:
    anomaly = np.zeros((128, 128), np.float32)
    anomaly[:5, :4] = 100.0
    anomaly[64, 64] = 2.5
    assert peak(anomaly) == 100.0
    assert threshold(anomaly, 1.0, 1).sum() == 21
    assert threshold(anomaly, 1.0, 1, 0.02).sum() == 21
    assert threshold(anomaly, 1.0, 1, 0.03).sum() == 20
    # Where nothing is odder than that, it counts.
    assert threshold(np.where(anomaly == 100.0, 0.0, anomaly), 1.0, 1, 0.03).sum() == 1


def test_a_single_hot_pixel_is_not_the_peak_of_a_frame() -> None:
    anomaly = np.zeros((256, 256), np.float32)
    anomaly[3, 3] = 400.0
    assert peak(anomaly) == 10.0  # of 40 pixels, as 10 are of 128x128
