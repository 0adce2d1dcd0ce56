"""A line tells of its frames as its view has it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from structlog.testing import capture_logs

from monitor.core.view import Placement, Prepared
from schemas.artifacts import Roi, View
from schemas.errors import UnregistrableError
from tests.unit.cells import Image
from tests.unit.pipeline_fakes import Bench, ToyInspector, png


class RegisteringInspector(ToyInspector):
    def prepare(self, image: Image) -> Prepared:
        if image[0, 0] == 77:
            problem = "the part is turned by 30.0 degrees, farther than 10.0"
            raise UnregistrableError(problem)
        return super().prepare(image)


def test_a_frame_that_cannot_be_registered_is_stored_uninspected_with_its_reason() -> None:
    bench = Bench(inspector=RegisteringInspector())
    for name, grey in (("f0", 50), ("f1", 77), ("f2", 200)):
        bench.line.send(name, png(grey))
    with capture_logs() as logs:
        bench.run()
    assert bench.store.verdicts == {"f0": "normal", "f1": "uninspected", "f2": "defect"}
    reasons = {record.frame.frame_id: record.reason for record in bench.store.records}
    assert reasons == {"f0": None, "f1": "unregistered", "f2": None}
    assert bench.line.committed["cam"] == 3
    assert not bench.store.dead_letters
    (said,) = (entry for entry in logs if entry.get("frame") == "f1")
    assert said["log_level"] == "warning"
    assert "30.0 degrees" in said["problem"]


def test_the_defect_area_is_a_share_of_what_is_inspected() -> None:
    inspector = ToyInspector()
    view = View.model_validate({"ignored": {"share": 0.75, "paint": [0.5]}})
    inspector.manifest = inspector.manifest.model_copy(update={"view": view})
    image = np.full((16, 16), 50, np.uint8)
    image[4:8, 4:8] = 200
    bench = Bench(inspector=inspector)
    bench.line.send("f", cv2.imencode(".png", image)[1].tobytes())
    bench.run()
    (record,) = bench.store.records
    assert record.defect_area == pytest.approx(16 / 64)


def test_a_region_of_interest_shifts_what_is_reported_into_the_cameras_frame() -> None:
    roi = Roi(x=20, y=8, width=32, height=16)

    class Cropping(ToyInspector):
        def prepare(self, image: Image) -> Prepared:
            placement = Placement(image.shape[:2], roi)
            return replace(super().prepare(placement.look(image)), placement=placement)

    image = np.full((40, 80), 50, np.uint8)
    image[10:14, 24:32] = 200
    image[0:4, 0:8] = 200  # outside
    bench = Bench(inspector=Cropping())
    bench.line.send("f", cv2.imencode(".png", image)[1].tobytes())
    bench.run()
    (record,) = bench.store.records
    (region,) = record.regions
    assert (region.x, region.y, region.width, region.height, region.area) == (24, 10, 8, 4, 32)
    assert (region.centroid_x, region.centroid_y) == (27.5, 11.5)
    mask = cv2.imdecode(np.frombuffer(record.mask_png, np.uint8), cv2.IMREAD_UNCHANGED)
    large = cv2.resize(mask, (80, 40), interpolation=cv2.INTER_NEAREST) > 0
    expected = np.zeros((40, 80), np.bool_)
    expected[10:14, 24:32] = True
    np.testing.assert_array_equal(large, expected)
