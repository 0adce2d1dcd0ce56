"""From the camera's pixels to the network's and back: training and line see alike, and people see where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from structlog.testing import capture_logs

from monitor.adapters.artifacts import load_bundle
from monitor.core.inspector import Inspection, Inspector
from monitor.core.preprocessing import prepare
from monitor.core.scoring import Normality
from monitor.core.view import Placement, Prepared, Viewer
from monitor.inspecting import where_it_lies
from schemas.artifacts import MANIFEST, NORMALITY, VIEW, InputSpec, Lighting, Manifest, Roi, View, sha256_file
from schemas.errors import BundleError, ConfigurationError, DataError, TrainingError, UnregistrableError
from schemas.messages import RegionMessage
from tests.unit.cells import cell, moved, write
from tests.unit.pipeline_fakes import Bench, ToyInspector, png
from trainer.__main__ import tell_view
from trainer.baselines.base import Scores
from trainer.build import BuildSettings, build
from trainer.calibrate import CalibrationSettings
from trainer.dataset import load_dataset
from trainer.protocol import ProtocolSettings, load_material, measure
from trainer.segmenting import SegmenterSettings
from trainer.symmetry import find_flips
from trainer.test_set import load_test_set
from trainer.training import TrainingSettings
from trainer.view_settings import ViewSettings, parse_roi, read_ignored
from trainer.visible_defects import paste_visible_defect

Image = NDArray[np.uint8]
ROI = "40,30,160,120"  # of 240 x 180 pixels
HEIGHT, WIDTH = 180, 240


class Quiet:
    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        pass


def frame(number: int, *, colour: bool = False) -> Image:
    """Return a cell in the region, in a frame whose rest is different every time."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3) if colour else (HEIGHT, WIDTH), dtype=np.uint8)
    image[30:150, 40:200] = cell(number, 120, 160, colour=colour)
    return image


TRAINING = TrainingSettings(widths=(8, 16, 32), steps=200, batch=4, learning_rate=1e-2, segmenter=(8, 16))


def train(
    images: list[Image], place: Path, view: ViewSettings, size: str = "64", training: TrainingSettings = TRAINING
) -> tuple[Inspector, Manifest]:
    """Train a tiny network and load what was saved."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = BuildSettings(
        size=size,
        view=view,
        training=training,
        segmenter=SegmenterSettings(steps=30, batch=8, piece=32),
        calibration=CalibrationSettings(lambdas=(3e-4,), smoothings=(0.0, 0.9), defects=16, false_reject_rate=0.05),
    )
    manifest = build(write(place / "images", images), place / "bundle", wanted, Quiet())
    torch.set_num_threads(threads)
    return Inspector(load_bundle(place / "bundle")), manifest


def inspect(inspector: Inspector, image: Image) -> tuple[Inspection, tuple[RegionMessage, ...]]:
    """Return what is found in a frame, and where the camera saw the oddest of it."""
    prepared = inspector.prepare(image)
    inspection = inspector.inspect(prepared.pixels[None], inspector.new_bank())[0]
    return inspection, where_it_lies(core_of(inspection), prepared.placement)[1].measured


def core_of(inspection: Inspection) -> Inspection:
    """Return what is at least half as odd as the oddest: of a network that hardly learnt, the rest is its own doing."""
    return replace(inspection, mask=inspection.anomaly > 0.5 * inspection.anomaly.max())


def draw_mask(place: Path, height: int = HEIGHT, width: int = WIDTH) -> tuple[Path, NDArray[np.bool_]]:
    """Write a mask that ignores a block of the cell; no multiple of anything."""
    white = np.zeros((height, width), np.bool_)
    white[51:93, 67:119] = True
    place.mkdir(parents=True, exist_ok=True)
    path = place / "mask.png"
    cv2.imwrite(str(path), white.astype(np.uint8) * 255)
    return path, white


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inspector, NDArray[np.bool_], Path]:
    place = tmp_path_factory.mktemp("masked")
    path, white = draw_mask(place)
    view = ViewSettings(roi=ROI, ignore=path, lighting=Lighting.LEVEL)
    inspector, _ = train([frame(number) for number in range(30)], place, view)
    return inspector, white, place / "bundle"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Inspector:
    rng = np.random.default_rng(0)
    images = [moved(cell(n, 160, 200), *rng.uniform(-6, 6, 2), rng.uniform(-3, 3)) for n in range(40)]
    place = tmp_path_factory.mktemp("registered")
    return train(images, place, ViewSettings(register=True), size="80x96")[0]


@pytest.fixture(scope="module")
def registered_and_masked(tmp_path_factory: pytest.TempPathFactory) -> Viewer:
    place = tmp_path_factory.mktemp("both")
    images = [moved(cell(n, HEIGHT, WIDTH), n % 5 - 2, n % 3 - 1, n % 4 - 1.5) for n in range(24)]
    view = ViewSettings(register=True, ignore=draw_mask(place)[0])
    return load_dataset(write(place / "images", images), "48x64", view=view).viewer


def test_by_default_a_frame_is_only_resized_and_nothing_is_copied_on_the_way() -> None:
    spec = InputSpec(height=64, width=96, channels=1)
    image = frame(0)
    viewer = Viewer(spec)
    prepared = viewer.prepare(image)
    np.testing.assert_array_equal(prepared.pixels, prepare(image, spec))
    assert np.shares_memory(prepared.placement.look(image), image)
    assert viewer.finish(prepared.pixels) is prepared.pixels
    mask = np.zeros((64, 96), np.bool_)
    assert prepared.placement.whole(mask) is mask
    assert tell_view(Manifest.model_construct(view=View())) == []


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
    spread = Normality.fit(excess, inspected).spread
    assert torch.equal(torch.isinf(spread), ~inspected)
    assert torch.equal(Normality.fit(excess, torch.ones_like(inspected)).spread, Normality.fit(excess).spread)


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


VIEWS: dict[str, dict[str, Any]] = {
    "roi": {"roi": ROI},
    "register": {"register": True},
    "level": {"lighting": Lighting.LEVEL},
    "flat, ignored": {"lighting": Lighting.FLAT, "ignore": True},
    "all": {"roi": ROI, "register": True, "lighting": Lighting.LEVEL, "ignore": True},
}


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("colour", [False, True])
def test_training_and_line_prepare_alike(tmp_path: Path, name: str, *, colour: bool) -> None:
    asked = dict(VIEWS[name])
    if "ignore" in asked:
        asked["ignore"] = draw_mask(tmp_path)[0]
    images = [moved(frame(n, colour=colour), n % 4 - 2, n % 3 - 1, n % 5 - 2) for n in range(24)]
    data = load_dataset(write(tmp_path / "data", images), "48x64", view=ViewSettings(**asked))
    assert data.images.shape == (24, 3 if colour else 1, 48, 64)
    for image, known in zip(images, data.images, strict=True):
        np.testing.assert_array_equal(data.viewer.prepare(image).pixels, known)


def test_the_test_images_and_their_truth_are_seen_as_the_line_sees_them(tmp_path: Path) -> None:
    path, _ = draw_mask(tmp_path)
    write(tmp_path / "train" / "good", [moved(frame(n), n % 4 - 2, n % 3 - 1, 0) for n in range(24)])
    write(tmp_path / "test" / "good", [frame(50)])
    bad, truth = frame(51), np.zeros((HEIGHT, WIDTH), np.uint8)
    bad[96:120, 140:170], truth[96:120, 140:170] = 0, 255
    bad[60:80, 80:100], truth[60:80, 80:100] = 0, 255  # ignored
    bad, truth = (moved(each, 9, -5, 4) for each in (bad, truth))
    write(tmp_path / "test" / "crack", [bad, np.zeros_like(bad)])
    write(tmp_path / "ground_truth" / "crack", [truth, truth])
    for index in range(2):
        (tmp_path / "ground_truth" / "crack" / f"00{index}.png").rename(
            tmp_path / "ground_truth" / "crack" / f"00{index}_mask.png"
        )
    view = ViewSettings(roi=ROI, register=True, ignore=path)
    data = load_dataset(tmp_path, "48x64", view=view)
    test = load_test_set(tmp_path, None, data.viewer, None, 0)
    assert test.unregistered == 1
    np.testing.assert_array_equal(test.images[1], data.viewer.prepare(bad).pixels)
    # Where the defect was painted, before the part was shifted: in the region, 160 x 120 pixels at 64 x 48.
    expected = np.zeros((48, 64), np.bool_)
    expected[26:36, 40:52] = True
    both = (test.truth[1] & expected).sum()
    assert 2 * both / (test.truth[1].sum() + expected.sum()) > 0.85
    assert not (test.truth[:, ~data.viewer.inspected]).any()


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


# --- where things lie ---


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


def plate(number: int, height: int, width: int, *, colour: bool) -> Image:
    """Return a plate in light of its own, brighter to the right: a network learns that in a moment."""
    rng = np.random.default_rng(number)
    light = rng.uniform(50, 130) * (0.8 + 0.4 * np.arange(width) / width) + rng.normal(0, 1, (height, width))
    return (light[:, :, None] * (0.6, 0.8, 1.0) if colour else light).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("size", "colour", "height", "width"),
    [("64x96", False, 130, 190), ("64x96", True, 100, 100), ("96x48", True, 200, 90), ("256", False, 300, 280)],
)
def test_any_size_and_colour_trains_and_finds_a_defect_where_it_is(
    tmp_path: Path, size: str, height: int, width: int, *, colour: bool
) -> None:
    images = [plate(number, height, width, colour=colour) for number in range(20)]
    quick = replace(TRAINING, widths=(4, 8, 16), steps=60, batch=2) if size == "256" else TRAINING
    inspector, manifest = train(images, tmp_path, ViewSettings(), size, quick)
    spec = manifest.architecture.input
    assert (spec.height, spec.width) == tuple(int(each) for each in (f"{size}x{size}").split("x")[:2])
    assert spec.channels == (3 if colour else 1)
    bad = plate(60, height, width, colour=colour)
    top, left = round(0.45 * height), round(0.30 * width)
    deep, wide = round(0.1 * height), round(0.12 * width)
    bad[top : top + deep, left : left + wide] = 255
    inspection, regions = inspect(inspector, bad)
    assert inspection.flagged
    assert inspection.mask.shape == (spec.height, spec.width)
    region = regions[0]
    # Two of the network's pixels either way.
    down, across = 2.5 * height / spec.height, 2.5 * width / spec.width
    assert region.x == pytest.approx(left, abs=across)
    assert region.y == pytest.approx(top, abs=down)
    assert region.x + region.width == pytest.approx(left + wide, abs=across)
    assert region.y + region.height == pytest.approx(top + deep, abs=down)


# --- what is refused ---


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("10,20,30", "not a region"),
        ("1,2,8,64", "not a region"),
        ("-1,2,64,64", "not a region"),
        ("200,0,64,64", "reaches beyond the images, which are 240 x 180"),
        ("0,150,64,31", "reaches beyond"),
    ],
)
def test_a_region_that_cannot_be_is_refused(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"--roi = '{text}': {problem}"):
        parse_roi(text, (180, 240))


def test_a_region_needs_images_of_one_size() -> None:
    assert parse_roi(" 1, 2,64,100", (180, 240)) == Roi(x=1, y=2, width=64, height=100)
    with pytest.raises(ConfigurationError, match="the images differ in size"):
        parse_roi("0,0,64,64", None)


def test_a_mask_may_be_of_the_cameras_size_or_of_the_regions_aspect(tmp_path: Path) -> None:
    spec = InputSpec(height=48, width=64, channels=3, source_size=(HEIGHT, WIDTH))
    roi = parse_roi(ROI, (HEIGHT, WIDTH))
    white = np.zeros((HEIGHT, WIDTH), np.uint8)
    white[60:90, 80:120] = 255
    cv2.imwrite(str(tmp_path / "camera.png"), white)
    cv2.imwrite(str(tmp_path / "region.png"), np.kron(white[30:150, 40:200][::2, ::2], np.ones((1, 1), np.uint8)))
    left, right = (read_ignored(tmp_path / f"{n}.png", roi, spec, registered=False) for n in ("camera", "region"))
    np.testing.assert_array_equal(left, right)
    expected = np.zeros((48, 64), np.bool_)
    expected[12:24, 16:32] = True
    np.testing.assert_array_equal(left, expected)
    wider = read_ignored(tmp_path / "camera.png", roi, spec, registered=True)
    assert (wider >= left).all()
    assert wider.sum() > left.sum()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (np.zeros((HEIGHT, WIDTH), np.uint8), "has no white pixels"),
        (np.full((HEIGHT, WIDTH), 255, np.uint8), "leaves nothing to inspect"),
        (np.full((100, 100), 255, np.uint8), "is 100 x 100 pixels, the camera's frame is 240 x 180"),
        (None, "cannot be read"),
        (b"no image", "not an image"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path: Path, content: Image | bytes | None, problem: str) -> None:
    spec = InputSpec(height=48, width=64, channels=1, source_size=(HEIGHT, WIDTH))
    path = tmp_path / "mask.png"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        cv2.imwrite(str(path), content)
    with pytest.raises(ConfigurationError, match=rf"--ignore = .*{problem}"):
        read_ignored(path, None, spec, registered=False)


def test_a_test_image_of_another_size_cannot_be_cropped(tmp_path: Path) -> None:
    write(tmp_path / "train" / "good", [frame(n) for n in range(20)])
    write(tmp_path / "test" / "crack", [np.zeros((200, 260), np.uint8)])
    data = load_dataset(tmp_path, "48x64", view=ViewSettings(roi=ROI))
    with pytest.raises(DataError, match="260 x 200 pixels, unlike the normals"):
        load_test_set(tmp_path, None, data.viewer, None, 0)
    with pytest.raises(ValueError, match="does not hold the region"):
        data.viewer.prepare(np.zeros((100, 100), np.uint8))


# --- the bundle ---


def test_a_bundle_without_a_view_has_no_file_for_it(tmp_path: Path) -> None:
    _, manifest = train([cell(n, 64, 64) for n in range(20)], tmp_path, ViewSettings(), "32")
    assert manifest.view == View()
    assert VIEW not in manifest.files
    assert not (tmp_path / "bundle" / VIEW).exists()


def test_a_bundle_keeps_its_view_and_tells_it(masked: tuple[Inspector, NDArray[np.bool_], Path]) -> None:
    inspector, _, path = masked
    model = load_bundle(path)
    assert model.manifest.view == inspector.manifest.view
    assert VIEW in model.manifest.files
    ignored = model.view.ignored
    assert ignored is not None
    assert model.manifest.view.inspected_share == pytest.approx(1 - ignored.mean())
    told = "\n".join(tell_view(model.manifest))
    assert "looks at 160 x 120 camera pixels, the left upper one at 40,30" in told
    assert f"ignores {ignored.mean():.1%}" in told
    assert "light: level" in told


def vouch(bundle: Path, name: str, arrays: dict[str, NDArray[Any]]) -> None:
    save_arrays(arrays, bundle / name)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = sha256_file(bundle / name)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


BROKEN: dict[str, Callable[[NDArray[np.bool_]], tuple[str, dict[str, NDArray[Any]]]]] = {
    "'ignored'": lambda ignored: (VIEW, {"ignored": ignored[:32].astype(np.uint8)}),
    "no tensor 'ignored'": lambda ignored: (VIEW, {"other": ignored.astype(np.uint8)}),
    "'ignored' ": lambda ignored: (VIEW, {"ignored": np.ones(ignored.shape, np.uint8)}),
    "'spread'": lambda ignored: (NORMALITY, {"spread": np.ones(ignored.shape, np.float32)}),
    "'spread' ": lambda ignored: (NORMALITY, {"spread": np.full(ignored.shape, np.inf, np.float32)}),
    "'spread' .* positive": lambda ignored: (NORMALITY, {"spread": np.where(ignored, np.inf, np.nan)}),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_view_that_does_not_fit_its_bundle_is_refused(
    masked: tuple[Inspector, NDArray[np.bool_], Path], problem: str, tmp_path: Path
) -> None:
    shutil.copytree(masked[2], tmp_path / "bundle")
    ignored = load_arrays(masked[2] / VIEW)["ignored"].astype(np.bool_)
    vouch(tmp_path / "bundle", *BROKEN[problem](ignored))
    with pytest.raises(BundleError, match=problem):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("view.roi.width", {"roi": {"x": 0, "y": 0, "width": 3, "height": 100}}),
        ("the document: .*does not lie in the camera's frame", {"roi": {"x": 100, "y": 0, "width": 160, "height": 99}}),
        ("the document: .*paints 3 channels, the network sees 1", {"ignored": {"share": 0.1, "paint": [0, 0, 0]}}),
        ("view.light.kind", {"light": {"kind": "none", "mean": 0.5, "deviation": 0.1}}),
    ],
)
def test_a_manifest_whose_view_cannot_be_is_refused(
    masked: tuple[Inspector, NDArray[np.bool_], Path], place: str, change: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(masked[2], tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / MANIFEST).read_text())
    manifest["view"].update(change)
    (tmp_path / "bundle" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=place):
        load_bundle(tmp_path / "bundle")


# --- the line ---


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
