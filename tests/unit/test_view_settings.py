"""Regions and masks that cannot be are refused, with the reason."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from schemas.artifacts import InputSpec, Roi
from schemas.errors import ConfigurationError, DataError
from tests.unit.cells import Image, write
from tests.unit.views import HEIGHT, ROI, WIDTH, frame
from trainer.dataset import load_dataset
from trainer.test_set import load_test_set
from trainer.view_settings import ViewSettings, parse_roi, read_ignored


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
