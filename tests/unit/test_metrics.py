from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import f1_score, roc_auc_score

from trainer.metrics import aupro, auroc, dice, estimate, mean_dice, pixel_auroc, shrink


def random_case(seed: int, levels: int = 12) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Maps with many ties, and truth with regions of many sizes; the first frame is good."""
    rng = np.random.default_rng(seed)
    truth = ndimage.gaussian_filter(rng.normal(size=(5, 24, 20)), (0, 1.5, 1.5)) > 0.25
    truth[0] = False
    maps = truth + rng.normal(0, 1, truth.shape)
    return np.round(maps * levels / 4).astype(np.float32), truth


def literal_aupro(maps: NDArray[np.float32], truth: NDArray[np.bool_], limit: float) -> float:
    """By its definition: for every threshold, every region's overlap, and the area by tiny steps."""
    points = [(0.0, 0.0)]
    labelled = [ndimage.label(mask, np.ones((3, 3))) for mask in truth]
    for level in np.unique(maps)[::-1]:
        overlaps = [
            (each >= level)[labels == label].mean()
            for each, (labels, count) in zip(maps, labelled, strict=True)
            for label in range(1, count + 1)
        ]
        points.append(((maps >= level)[~truth].mean(), float(np.mean(overlaps))))
    x, y = np.array(points).T
    fine = (np.arange(200_000) + 0.5) / 200_000 * limit
    return float(np.interp(fine, x, y).mean())


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_is_its_definition(seed: int, limit: float) -> None:
    maps, truth = random_case(seed)

    assert aupro(maps, truth, limit) == pytest.approx(literal_aupro(maps, truth, limit), abs=1e-4)


def test_aupro_counts_a_small_region_as_much_as_a_large_one() -> None:
    truth = np.zeros((1, 20, 20), bool)
    truth[0, :10, :10] = True
    truth[0, 15, 15] = True
    finds_large = np.where(truth, 1.0, 0.0).astype(np.float32)
    finds_large[0, 15, 15] = -1.0

    assert aupro(finds_large, truth) == pytest.approx(0.5)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    truth = np.zeros((1, 8, 8), bool)
    truth[0, 1, 1] = truth[0, 2, 2] = truth[0, 6, 6] = True
    maps = np.zeros((1, 8, 8), np.float32)
    maps[0, 1, 1] = maps[0, 2, 2] = 1.0
    maps[0, 6, 6] = -1.0

    assert aupro(maps, truth) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", range(4))
def test_aurocs_agree_with_scikit_learn(seed: int) -> None:
    maps, truth = random_case(seed)
    expected = roc_auc_score(truth.ravel(), maps.ravel())

    assert pixel_auroc(maps, truth) == pytest.approx(expected, abs=1e-12)
    assert auroc(maps[~truth], maps[truth]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_dice_of_each_frame_is_its_f1(seed: int) -> None:
    maps, truth = random_case(seed)
    masks = maps > 1

    values = dice(masks, truth)

    expected = [f1_score(t.ravel(), m.ravel(), zero_division=1.0) for m, t in zip(masks, truth, strict=True)]
    np.testing.assert_allclose(values, expected)
    assert mean_dice(masks, truth) == pytest.approx(np.mean(expected))


def test_dice_of_two_empty_masks_is_one() -> None:
    empty = np.zeros((1, 4, 4), bool)

    assert dice(empty, empty).tolist() == [1.0]


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [estimate(rng.beta(5, 2, 60)) for _ in range(200)]

    covered = np.mean([each.low <= 5 / 7 <= each.high for each in intervals])

    assert 0.89 <= covered <= 0.99
    assert all(each.low < each.mean < each.high and each.frames == 60 for each in intervals)


def test_the_interval_of_the_same_values_is_the_same_twice() -> None:
    values = np.random.default_rng(1).uniform(size=40)

    assert estimate(values) == estimate(values)


def test_one_value_has_an_interval_without_width() -> None:
    assert estimate(np.array([0.4])).low == estimate(np.array([0.4])).high == 0.4


def test_a_shrunk_mask_keeps_the_pixels_covered_by_half() -> None:
    truth = np.zeros((4, 4), bool)
    truth[0, :2] = True  # half of the first pixel
    truth[2, 2] = True  # a quarter of the last

    assert shrink(truth, (2, 2)).tolist() == [[True, False], [False, False]]
