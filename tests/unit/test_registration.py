"""A part that is shifted or turned is found to a fraction of a pixel; what is none is told apart."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.core.registration import Found, Registrar, compared, features_of, rescaled
from monitor.core.view import ViewArrays
from schemas.artifacts import Registration
from schemas.errors import ConfigurationError, DataError, UnregistrableError
from tests.unit.cells import cell, moved, write
from trainer.dataset import load_dataset
from trainer.view_fit import fit_registration
from trainer.view_settings import ViewSettings

SIDE, SIZE = 200, (128, 128)
LIMITS = Registration(max_shift=0.1, max_rotation=10.0, least_correlation=0.4)
offsets = st.floats(-0.09, 0.09)


@cache
def registrar() -> Registrar:
    normals = np.mean([features_of(cell(number, SIDE, SIDE), SIZE) for number in range(8)], axis=0)
    return Registrar(normals.astype(np.float32), LIMITS)


def find(image: NDArray[np.uint8]) -> Found:
    return registrar().find(features_of(image, SIZE))


@given(offsets, offsets, st.floats(-9, 9), st.integers(100, 120))
@settings(max_examples=40, deadline=None)
def test_a_planted_shift_and_rotation_is_recovered(right: float, down: float, degrees: float, number: int) -> None:
    found = find(moved(cell(number, SIDE, SIDE), right * SIDE, down * SIDE, degrees))
    # In pixels of the reference.
    assert math.hypot(found.shift[0] - right, found.shift[1] - down) * SIZE[0] < 0.3
    assert abs(found.rotation - degrees) < 0.2
    assert found.correlation > 0.6


@pytest.mark.parametrize("degrees", [-42.0, -27.0, 21.0, 38.0])
def test_a_large_rotation_is_recovered_where_it_is_allowed(degrees: float) -> None:
    limits = LIMITS.model_copy(update={"max_rotation": 45.0})
    reference = np.mean([features_of(cell(number, SIDE, SIDE), SIZE) for number in range(8)], axis=0)
    found = Registrar(reference.astype(np.float32), limits).find(
        features_of(moved(cell(40, SIDE, SIDE), 10, -8, degrees), SIZE)
    )
    assert found.rotation == pytest.approx(degrees, abs=0.2)
    np.testing.assert_allclose(found.shift, (10 / SIDE, -8 / SIDE), atol=0.3 / SIZE[0])


@given(st.floats(0.3, 1.3), st.floats(0, 40))
@settings(max_examples=10, deadline=None)
def test_neither_the_light_nor_a_large_defect_moves_it(gain: float, offset: float) -> None:
    image = moved(cell(30, SIDE, SIDE), 9, -6, 4)
    image[60:100, 80:140] = 10
    lit = (image * gain + offset).clip(0, 255).astype(np.uint8)
    found = find(lit)
    np.testing.assert_allclose(found.shift, (9 / SIDE, -6 / SIDE), atol=0.5 / SIZE[0])
    assert found.rotation == pytest.approx(4, abs=0.3)


def other_products() -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    disc = np.full((SIDE, SIDE), 12, np.uint8)
    cv2.circle(disc, (100, 100), 70, 160, -1)
    return {
        "nothing": np.full((SIDE, SIDE), 90, np.uint8),
        "black": np.zeros((SIDE, SIDE), np.uint8),
        "noise": rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8),
        "another product": disc,
        "an empty belt": rng.normal(60, 3, (SIDE, SIDE)).clip(0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("name", other_products())
def test_a_frame_that_shows_something_else_is_unregistrable(name: str) -> None:
    with pytest.raises(UnregistrableError, match="something else"):
        find(other_products()[name])


@pytest.mark.parametrize(
    ("right", "down", "degrees", "problem"),
    [(26, 0, 0, "shifted by"), (0, -26, 0, "shifted by"), (0, 0, 12.5, r"turned by \+12\.\d degrees, farther than 10")],
)
def test_a_part_beyond_the_limits_is_unregistrable(right: int, down: int, degrees: float, problem: str) -> None:
    with pytest.raises(UnregistrableError, match=problem):
        find(moved(cell(3, SIDE, SIDE), right, down, degrees))


def test_what_is_ignored_does_not_mislead_it() -> None:
    normals = [cell(number, SIDE, SIDE) for number in range(6)]
    reference = np.mean([features_of(image, SIZE) for image in normals], axis=0).astype(np.float32)
    inspected = np.ones((SIDE, SIDE), np.bool_)
    inspected[40:110, 50:150] = False
    squares = np.indices((50, 80)).sum(axis=0) // 12 % 2  # stripes, stronger than anything on the part
    label = (255 * squares).astype(np.uint8)
    frame = cell(50, SIDE, SIDE)
    frame[50:100, 60:140] = label
    frame = moved(frame, 7, 5, -3)
    with_mask, without = (
        Registrar(reference, LIMITS, mask).find(features_of(frame, SIZE)) for mask in (inspected, None)
    )
    assert with_mask.correlation > 0.7 > without.correlation
    np.testing.assert_allclose(with_mask.shift, (7 / SIDE, 5 / SIDE), atol=0.3 / SIZE[0])
    assert with_mask.rotation == pytest.approx(-3, abs=0.2)


def test_what_is_compared_keeps_away_from_what_is_ignored_and_not_from_the_frame() -> None:
    inspected = np.ones((64, 64), np.bool_)
    assert compared(inspected, (64, 64)).all()
    inspected[30, 30] = False
    used = compared(inspected, (64, 64))
    image = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    changed = image.copy()
    changed[30, 30] ^= 255
    differs = features_of(image, (64, 64)) != features_of(changed, (64, 64))
    assert differs.any()
    assert not (differs & used).any()
    assert used.sum() == 64**2 - 13**2


@given(st.integers(20, 400), st.integers(20, 400), st.floats(-5, 5), st.floats(-0.2, 0.2))
@settings(max_examples=30, deadline=None)
def test_a_transform_means_the_same_at_any_size(height: int, width: int, shift: float, angle: float) -> None:
    matrix = np.array([[math.cos(angle), math.sin(angle), shift], [-math.sin(angle), math.cos(angle), -shift]])
    there = rescaled(matrix, (100, 120), (height, width))
    np.testing.assert_allclose(rescaled(there, (height, width), (100, 120)), matrix, atol=1e-9)
    # The pixel's left upper corner, a place that is the same at every size.
    corner = (matrix @ np.array([-0.5, -0.5, 1]) + 0.5) / (120, 100)
    np.testing.assert_allclose((there @ np.array([-0.5, -0.5, 1]) + 0.5) / (width, height), corner, atol=1e-9)


def test_the_reference_is_where_the_normals_are_and_its_least_correlation_is_half_the_worst_ones() -> None:
    rng = np.random.default_rng(1)
    normals = [moved(cell(n, SIDE, SIDE), *rng.uniform(-8, 8, 2), rng.uniform(-3, 3)) for n in range(24)]
    features = np.stack([features_of(image, SIZE) for image in normals])
    paths = [Path(f"{index}.png") for index in range(24)]
    fitted, reference, kept = fit_registration(features, ViewSettings(register=True), ViewArrays(), paths)
    assert kept.tolist() == list(range(24))
    worst = min(Registrar(reference, fitted).find(each).correlation for each in features)
    assert fitted.least_correlation == pytest.approx(worst / 2)
    # The mean of parts that lie on each other is sharp: sharper than that of parts that do not.
    assert reference.max() > 1.5 * features.mean(axis=0).max()


def folder(place: Path, strangers: int, count: int = 30) -> Path:
    images = [moved(cell(number), number % 5 - 2, number % 3 - 1, number % 4 - 1.5) for number in range(count)]
    disc = np.full((200, 200), 12, np.uint8)
    cv2.circle(disc, (100, 100), 70, 160, -1)
    for number in range(strangers):
        images[7 + number] = disc
    return write(place, images)


def test_a_few_normals_that_cannot_be_registered_are_left_out_and_counted(tmp_path: Path) -> None:
    data = load_dataset(folder(tmp_path, 2), "64", view=ViewSettings(register=True))
    assert data.unregistered == 2
    assert data.images.shape == (28, 1, 64, 64)
    assert [path.name for path in data.paths if path.name in {"007.png", "008.png"}] == []
    assert len(data.paths) == 28


def test_more_than_a_tenth_that_cannot_be_registered_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 of 30 normals .* 007\.png, 008\.png, 009\.png, 010\.png"):
        load_dataset(folder(tmp_path, 4), "64", view=ViewSettings(register=True))


def test_a_mask_that_leaves_too_little_to_register_by_is_refused(tmp_path: Path) -> None:
    mask = np.full((200, 200), 255, np.uint8)
    mask[90:110, 90:110] = 0
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    settings_ = ViewSettings(register=True, ignore=tmp_path / "mask.png")
    with pytest.raises(ConfigurationError, match=r"--ignore.*too little to register"):
        load_dataset(folder(tmp_path / "data", 0), "64", view=settings_)
