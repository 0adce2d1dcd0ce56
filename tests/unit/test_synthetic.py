from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from trainer.synthetic import ALL, KINDS, PLAIN, VISIBLE, Family, paste_defect

seeds = st.integers(0, 2**32)


def only(*kinds: str) -> Family:
    return Family(kinds, ALL.contrast)


def normal(channels: int, height: int = 48, width: int = 80) -> NDArray[np.float32]:
    rows, columns = np.mgrid[0:height, 0:width]
    base = 0.5 + 0.2 * np.sin(rows / 5) * np.cos(columns / 7)
    return np.stack([np.roll(base, 3 * c, axis=1) for c in range(channels)]).astype(np.float32)


@settings(max_examples=150)
@given(seeds, st.sampled_from(sorted(KINDS)), st.sampled_from((1, 3)))
def test_the_mask_is_where_the_image_visibly_changed(seed: int, kind: str, channels: int) -> None:
    image = normal(channels)
    kept = image.copy()
    defect = paste_defect(image, np.random.default_rng(seed), only(kind))
    np.testing.assert_array_equal(image, kept)
    assert defect.kind == kind
    assert defect.image.shape == image.shape
    assert defect.image.dtype == np.float32
    assert defect.mask.shape == image.shape[1:]
    assert defect.mask.dtype == np.bool_
    assert defect.image.min() >= 0
    assert defect.image.max() <= 1
    change = np.abs(defect.image - image).max(axis=0)
    assert defect.mask.any()
    assert change[defect.mask].min() > VISIBLE


def test_a_scratch_across_a_dark_bar_is_marked_along_its_whole_length() -> None:
    image = np.full((1, 64, 64), 0.6, np.float32)
    image[:, 28:36] = 0.1
    rng = np.random.default_rng(0)
    marked = []
    for _ in range(600):
        defect = paste_defect(image, rng, Family(("scratch",), (0.2, 0.9)))
        change = np.abs(defect.image - image)[0]
        beside = change[:28].max()
        if beside > 0.1 and change[28:36].max() > 0.1 and defect.image.max() > 0.7:  # bright, and over the bar
            marked.append(defect.mask[:28][change[:28] > 0.75 * beside].mean())
    assert len(marked) > 30
    assert np.mean(marked) > 0.9


def test_a_piece_of_the_same_texture_in_another_place_is_no_defect() -> None:
    rng = np.random.default_rng(0)
    fabric = np.tile(np.float32([[0.4, 0.6], [0.6, 0.4]]), (32, 32))[None]
    kinds = Counter(paste_defect(fabric, rng, only("misplaced", "specks")).kind for _ in range(100))
    assert kinds["specks"] > 75


@given(seeds)
def test_the_same_seed_pastes_the_same_defect(seed: int) -> None:
    left, right = (paste_defect(normal(1), np.random.default_rng(seed)) for _ in range(2))
    assert left.kind == right.kind
    np.testing.assert_array_equal(left.image, right.image)
    np.testing.assert_array_equal(left.mask, right.mask)


def test_every_kind_occurs_dark_and_bright_small_and_large() -> None:
    rng = np.random.default_rng(0)
    image = normal(1)
    defects = [paste_defect(image, rng) for _ in range(300)]
    kinds = Counter(defect.kind for defect in defects)
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) > 30
    for kind in KINDS:
        changes = [(d.image - image)[0][d.mask].mean() for d in defects if d.kind == kind]
        darker = np.mean(np.array(changes) < 0)
        assert 0.2 < darker < 0.8, kind
    areas = np.array([defect.mask.mean() for defect in defects])
    assert np.quantile(areas, 0.1) < 0.005
    assert np.quantile(areas, 0.9) > 0.01
    assert areas.max() < 0.3


def test_defects_lie_anywhere_the_border_included() -> None:
    rng = np.random.default_rng(1)
    seen = sum(paste_defect(normal(1), rng).mask.astype(int) for _ in range(400))
    assert isinstance(seen, np.ndarray)
    for border in (seen[0], seen[-1], seen[:, 0], seen[:, -1]):
        assert border.sum() > 0
    assert (seen > 0).mean() > 0.95


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_saturated_image_can_still_carry_a_defect(level: float) -> None:
    image = np.full((1, 48, 48), level, np.float32)
    rng = np.random.default_rng(0)
    marked = [paste_defect(image, rng, only("blob")).mask.any() for _ in range(40)]
    assert np.mean(marked) > 0.9


def test_thresholds_are_chosen_on_plainer_defects_than_are_learnt_from() -> None:
    rng = np.random.default_rng(0)
    image = normal(1)

    def changes(family: Family) -> list[float]:
        defects = [paste_defect(image, rng, family) for _ in range(150)]
        assert {defect.kind for defect in defects} == set(family.kinds)
        return [float(np.abs(defect.image - image)[0][defect.mask].mean()) for defect in defects]

    plain, every = changes(PLAIN), changes(ALL)
    assert np.quantile(plain, 0.1) > 2 * np.quantile(every, 0.1)
    assert np.quantile(every, 0.1) < 0.12
