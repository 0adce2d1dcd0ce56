from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.core.preprocessing import prepare
from schemas.errors import ConfigurationError, DataError
from trainer.dataset import find_images, load_dataset, parse_size, split


def photo(index: int, *, colour: bool = False, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    shape = (height, width, 3) if colour else (height, width)
    return np.random.default_rng(index).integers(0, 256, shape, dtype=np.uint8)


def fill(folder: Path, count: int = 22, *, colour: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:03d}.png"), photo(index, colour=colour))
    return folder


def test_a_plain_folder_and_an_mvtec_layout_give_the_same_normals(tmp_path: Path) -> None:
    plain = load_dataset(fill(tmp_path / "plain"), "32")
    fill(tmp_path / "mvtec" / "train" / "good")
    fill(tmp_path / "mvtec" / "test" / "crack", 3)
    layered = load_dataset(tmp_path / "mvtec", "32")
    np.testing.assert_array_equal(plain.images, layered.images)
    assert plain.sha256 == layered.sha256
    assert plain.spec == layered.spec
    assert len(plain.images) == len(plain.paths) == 22


def test_images_are_prepared_as_the_line_prepares_them_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = load_dataset(fill(tmp_path, colour=True), "32x48")
    assert (data.spec.height, data.spec.width, data.spec.channels) == (32, 48, 3)
    assert data.spec.source_size == (48, 64)
    assert [path.name for path in data.paths] == [f"{index:03d}.png" for index in range(22)]
    for index, image in enumerate(data.images):
        np.testing.assert_array_equal(image, prepare(photo(index, colour=True), data.spec))


def test_files_that_are_no_images_by_name_are_left_alone(tmp_path: Path) -> None:
    fill(tmp_path, 20)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "more.png").mkdir()
    (tmp_path / "upper.PNG").write_bytes((tmp_path / "000.png").read_bytes())
    assert len(find_images(tmp_path)) == 21


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_an_unreadable_image_is_named(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path)
    (tmp_path / "003.png").write_bytes(content)
    with pytest.raises(DataError, match=r"003\.png: not an image that can be read"):
        load_dataset(tmp_path, "32")


def test_too_few_images_or_no_folder_say_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"19 images .* at least 20"):
        find_images(fill(tmp_path / "few", 19))
    with pytest.raises(DataError, match="missing: no such folder"):
        find_images(tmp_path / "missing")
    with pytest.raises(DataError, match="no such folder"):
        find_images(tmp_path / "few" / "000.png")


def test_the_fingerprint_changes_with_any_file(tmp_path: Path) -> None:
    before = load_dataset(fill(tmp_path), "32").sha256
    assert load_dataset(tmp_path, "32").sha256 == before
    cv2.imwrite(str(tmp_path / "005.png"), photo(99))
    assert load_dataset(tmp_path, "32").sha256 != before


def test_images_of_several_sizes_have_no_source_size(tmp_path: Path) -> None:
    fill(tmp_path)
    cv2.imwrite(str(tmp_path / "odd.png"), photo(0, height=50))
    data = load_dataset(tmp_path)
    assert data.spec.source_size is None
    assert data.images.shape == (23, 1, 128, 128)


@pytest.mark.parametrize(
    ("asked", "coloured", "channels"),
    [("auto", True, 3), ("auto", False, 1), ("grey", True, 1), ("colour", False, 3)],
)
def test_colour_is_found_or_follows_what_was_asked(
    tmp_path: Path,
    asked: str,
    *,
    coloured: bool,
    channels: int,
) -> None:
    assert load_dataset(fill(tmp_path, colour=coloured), "32", asked).spec.channels == channels


def test_one_coloured_image_is_enough_and_jpeg_noise_is_not(tmp_path: Path) -> None:
    fill(tmp_path)
    near_grey = np.stack([photo(1)] * 3, axis=2) // 2 + np.array([0, 1, 2], np.uint8)
    cv2.imwrite(str(tmp_path / "jpeg.png"), near_grey)
    assert load_dataset(tmp_path, "32").spec.channels == 1
    cv2.imwrite(str(tmp_path / "colour.png"), photo(1, colour=True))
    assert load_dataset(tmp_path, "32").spec.channels == 3


def test_progress_ends_at_the_end(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    load_dataset(fill(tmp_path), "32", progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]


@pytest.mark.parametrize(
    ("size", "source", "expected"),
    [
        ("auto", (600, 600), (128, 128)),
        ("auto", (600, 900), (128, 192)),
        ("auto", (900, 600), (192, 128)),
        ("auto", (100, 2000), (128, 512)),
        ("auto", None, (128, 128)),
        ("64", (600, 900), (64, 64)),
        ("96x160", None, (96, 160)),
    ],
)
def test_the_network_keeps_the_cameras_aspect_or_takes_what_was_asked(
    size: str, source: tuple[int, int] | None, expected: tuple[int, int]
) -> None:
    assert parse_size(size, source) == expected


@pytest.mark.parametrize(
    "size", ["", "0", "100", "128x", "x128", "128x100", "-128", "12.8", "4096", "128x128x3", "big"]
)
def test_a_size_the_network_cannot_have_is_refused(size: str) -> None:
    with pytest.raises(ConfigurationError, match="--size"):
        parse_size(size, None)


def test_an_unknown_colour_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--colour"):
        load_dataset(fill(tmp_path), "32", "sepia")


@given(st.integers(20, 1200), st.floats(0.05, 0.5), st.integers(0, 2**31))
def test_training_and_validation_share_no_image_and_miss_none(count: int, share: float, seed: int) -> None:
    images = np.arange(count, dtype=np.float32).reshape(count, 1, 1, 1)
    parts = split(images, share, seed)
    together = np.concatenate([parts.train, parts.validation]).ravel()
    np.testing.assert_array_equal(np.sort(together), images.ravel())
    assert 8 <= len(parts.validation) <= 200
    if 8 / share < count < 200 / share:
        assert abs(len(parts.validation) - share * count) <= 0.5 + 1e-9
    np.testing.assert_array_equal(split(images, share, seed).validation, parts.validation)


def test_another_seed_splits_otherwise() -> None:
    images = np.arange(100, dtype=np.float32).reshape(100, 1, 1, 1)
    assert not np.array_equal(split(images, 0.25, 0).validation, split(images, 0.25, 1).validation)
