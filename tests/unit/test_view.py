"""From the camera's pixels to the network's: training, benchmark and line see alike, at any size and in any colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monitor.core.preprocessing import prepare
from monitor.core.view import Viewer
from schemas.artifacts import InputSpec, Lighting, Manifest, View
from tests.unit.cells import Image, moved, write
from tests.unit.views import HEIGHT, ROI, TRAINING, WIDTH, draw_mask, frame, inspect, train
from trainer.__main__ import tell_view
from trainer.dataset import load_dataset
from trainer.test_set import load_test_set
from trainer.view_settings import ViewSettings


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
    quick = replace(TRAINING, steps=100)
    if size == "256":
        quick = replace(TRAINING, widths=(4, 8, 16), steps=40, batch=2)
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
