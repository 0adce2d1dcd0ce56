"""What ``paedid-monitor review show`` says of a region."""

from __future__ import annotations

from monitor.review_commands import _measures
from schemas.messages import RegionMessage

OLD = RegionMessage(
    x=1, y=2, width=30, height=4, area=60, centroid_x=1, centroid_y=2, mean_residual=1.5, max_residual=2.5
)
SHAPE = {"length": 30.2, "breadth": 3.1, "orientation": 12.4, "path_length": 31.5, "mean_width": 1.9}
SIZE = {"length_mm": 1.208, "breadth_mm": 0.124, "area_mm2": 0.096, "path_length_mm": 1.26, "mean_width_mm": 0.076}


def test_a_region_is_told_with_what_was_measured_of_it() -> None:
    assert _measures(OLD) == ("region at (1, 2), 30x4 px, area 60 px, residual 1.5 (max 2.5) times the normal spread")
    assert _measures(OLD.model_copy(update=SHAPE)) == (
        "region at (1, 2), 30x4 px, area 60 px, 30.2 x 3.1 px at 12 degrees, 31.5 px along it, 1.9 px wide, "
        "residual 1.5 (max 2.5) times the normal spread"
    )
    assert "that is 1.21 x 0.124 mm, 0.096 mm2, 1.26 mm along it, 0.076 mm wide, residual" in _measures(
        OLD.model_copy(update=SHAPE | SIZE)
    )
