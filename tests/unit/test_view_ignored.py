"""What a view ignores changes nothing: no score, mask, threshold, synthetic defect or bank entry."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from monitor.core.inspector import Inspector
from monitor.core.scoring import Normality, Witnesses, anomaly_map
from monitor.core.view import Viewer
from schemas.artifacts import Lighting
from schemas.errors import TrainingError
from tests.unit.cells import Image, cell, moved, write
from tests.unit.views import HEIGHT, TRAINING, WIDTH, draw_mask, frame, inspect, train
from trainer.baselines.base import Scores
from trainer.dataset import load_dataset
from trainer.protocol import ProtocolSettings, load_material, measure
from trainer.symmetry import find_flips
from trainer.view_settings import ViewSettings
from trainer.visible_defects import paste_visible_defect


@pytest.fixture(scope="module")
def registered_and_masked(tmp_path_factory: pytest.TempPathFactory) -> Viewer:
    place = tmp_path_factory.mktemp("both")
    images = [moved(cell(n, HEIGHT, WIDTH), n % 5 - 2, n % 3 - 1, n % 4 - 1.5) for n in range(24)]
    view = ViewSettings(register=True, ignore=draw_mask(place)[0])
    return load_dataset(write(place / "images", images), "48x64", view=view).viewer


@given(hnp.arrays(np.uint8, (HEIGHT, WIDTH)), st.integers(0, 29))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_ignored_pixels_and_those_outside_the_region_change_nothing_at_all(
    masked: tuple[Inspector, NDArray[np.bool_], Path], junk: Image, number: int
) -> None:
    inspector, white, _ = masked
    image = frame(number)
    image[100:112, 150:165] = 0  # a defect, so that there is something to change
    outside = np.ones_like(white)
    outside[30:150, 40:200] = False
    changed = np.where(white | outside, junk, image)
    (left, regions), (right, others) = (inspect(inspector, each) for each in (image, changed))
    assert left.score == right.score
    assert regions == others
    assert regions
    for name in ("mask", "anomaly", "prior", "background", "residual"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
    pixels = [inspector.prepare(each).pixels[None] for each in (image, changed)]
    np.testing.assert_array_equal(*(inspector.remember(each) for each in pixels))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_ignored_on_a_registered_part_moves_it_by_a_fraction_of_a_pixel(
    registered_and_masked: Viewer, seed: int
) -> None:
    viewer = registered_and_masked
    image = cell(40, HEIGHT, WIDTH)
    block = np.random.default_rng(seed).integers(0, 256, (4, 5), dtype=np.uint8)
    junk = image.copy()
    junk[53:91, 69:117] = cv2.resize(block, (48, 38), interpolation=cv2.INTER_NEAREST)
    still, changed = (viewer.prepare(moved(each, 6, -4, 3)) for each in (image, junk))
    corners = np.array([[0, WIDTH, 0, WIDTH], [0, 0, HEIGHT, HEIGHT], [1, 1, 1, 1]])
    assert still.placement.moved is not None
    assert changed.placement.moved is not None
    apart = (still.placement.moved - changed.placement.moved) @ corners
    assert np.hypot(*apart).max() < 0.3 * HEIGHT / 48  # of the network's pixels
    ignored = viewer.arrays.ignored
    assert ignored is not None
    np.testing.assert_array_equal(still.pixels[:, ignored], changed.pixels[:, ignored])


def test_a_defect_in_the_ignored_part_is_not_seen_and_one_beside_it_is(
    masked: tuple[Inspector, NDArray[np.bool_], Path],
) -> None:
    inspector, white, _ = masked
    clean, hidden, seen = (frame(40) for _ in range(3))
    hidden[white] = 0
    seen[100:116, 150:170] = 0
    found = [inspect(inspector, image) for image in (clean, hidden, seen)]
    assert found[0][0].score == found[1][0].score
    assert found[2][0].flagged
    box = found[2][1][0]
    assert box.x <= 152
    assert box.y <= 102
    assert box.x + box.width >= 164
    assert box.y + box.height >= 114
    assert box.width <= 32
    assert box.height <= 28
    assert (found[2][0].anomaly[inspector._viewer.arrays.ignored] == 0).all()


def test_calibration_and_bank_never_saw_what_is_ignored(tmp_path: Path) -> None:
    path, white = draw_mask(tmp_path)
    view = ViewSettings(ignore=path, lighting=Lighting.FLAT)
    images = [cell(number, HEIGHT, WIDTH) for number in range(24)]
    rng = np.random.default_rng(0)
    changed = [np.where(white, rng.integers(0, 256, white.shape, dtype=np.uint8), image) for image in images]
    quick = replace(TRAINING, steps=100)
    left, right = (train(each, tmp_path / name, view, "32", quick) for name, each in (("a", images), ("b", changed)))
    assert left[1].calibration == right[1].calibration
    assert left[1].view == right[1].view
    assert left[1].encoder_hash == right[1].encoder_hash
    np.testing.assert_array_equal(left[0].seed, right[0].seed)


def test_a_spread_is_infinite_where_nothing_is_inspected_and_the_rest_does_not_mind() -> None:
    excess = torch.rand(6, 32, 32)
    inspected = torch.ones(32, 32, dtype=torch.bool)
    inspected[:12, :20] = False
    found = Normality.fit(excess, excess / 2, inspected)
    assert torch.equal(torch.isinf(found.spread), ~inspected)
    assert torch.equal(torch.isinf(found.detail), ~inspected)
    everything = Normality.fit(excess, excess / 2, torch.ones_like(inspected))
    assert torch.equal(everything.spread, Normality.fit(excess, excess / 2).spread)
    # Not even the floor that every inspected pixel has, however odd the pixel looks.
    seen = Witnesses(excess + 1.0, excess + 1.0, torch.full_like(excess, 9.0))
    anomaly = anomaly_map(seen, found, 0.6)
    assert (anomaly[:, ~inspected] == 0).all()
    assert (anomaly[:, inspected] > 0).all()


def test_synthetic_defects_lie_where_they_count() -> None:
    inspected = np.zeros((64, 64), np.bool_)
    inspected[20:44, 20:44] = True
    image = np.full((1, 64, 64), 0.5, np.float32)
    rng = np.random.default_rng(0)
    for _ in range(30):
        defect = paste_visible_defect(image, rng, inspected)
        assert defect.mask.any()
        assert not (defect.mask & ~inspected).any()
        assert (defect.image[:, ~inspected] == 0.5).all()
        assert (defect.image[:, inspected] != 0.5).any()
    with pytest.raises(TrainingError, match=r"none of 200 synthetic defects lies in the 0\.0%"):
        paste_visible_defect(image, rng, np.zeros((64, 64), np.bool_))


def test_a_mirroring_that_moves_the_ignored_part_is_none() -> None:
    parts = np.random.default_rng(0).normal(0.5, 0.1, (40, 1, 1, 1)) * np.ones((1, 64, 64))
    train_, validation = parts[:30].astype(np.float32), parts[30:].astype(np.float32)
    inspected = np.ones((64, 64), np.bool_)
    inspected[10:20, 28:36] = False  # left and right alike
    assert find_flips(train_, validation) == ((), (2,), (1,), (1, 2))
    assert find_flips(train_, validation, inspected) == ((), (2,))


class Constant:
    """A method that calls everything ignored abnormal, and is told what is."""

    name = "constant"

    def fit(self, normals: NDArray[np.float32], seed: int, progress: object = None) -> None:  # noqa: ARG002
        self.normals = normals

    def inspect_only(self, inspected: NDArray[np.bool_]) -> None:
        self.inspected = inspected

    def score(self, images: NDArray[np.float32]) -> Scores:
        maps = np.abs(images - self.normals.mean(axis=0))[:, 0]
        maps[:, ~self.inspected] = 100.0
        return Scores(maps, maps.max(axis=(1, 2)))

    def size_bytes(self) -> int:
        return 1


def test_what_a_method_says_of_ignored_pixels_does_not_count_in_the_benchmark(tmp_path: Path) -> None:
    path, _ = draw_mask(tmp_path)
    write(tmp_path / "train" / "good", [cell(n, HEIGHT, WIDTH) for n in range(24)])
    write(tmp_path / "test" / "good", [cell(50, HEIGHT, WIDTH)])
    bad, truth = cell(51, HEIGHT, WIDTH), np.zeros((HEIGHT, WIDTH), np.uint8)
    bad[100:130, 140:180], truth[100:130, 140:180] = 0, 255
    write(tmp_path / "test" / "crack", [bad, bad])
    write(tmp_path / "ground_truth" / "crack", [truth, truth])
    asked = ProtocolSettings(size="48x64", synthetic=20, view=ViewSettings(ignore=path))
    material = load_material(tmp_path, None, asked)
    method = Constant()
    measured = measure(method, material, asked)
    np.testing.assert_array_equal(method.inspected, material.inspected)
    assert measured.maps.max() < 1
    assert measured.result.pixel_auroc > 0.95
