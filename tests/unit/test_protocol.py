from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from deploy.simulation import LineSettings, SimulatedLine, write_mvtec
from monitor.core.view import Viewer
from schemas.artifacts import InputSpec
from schemas.errors import DataError, TrainingError
from trainer.baselines.base import Images, Progress, Scores, make_method, register
from trainer.metrics import mean_dice
from trainer.protocol import Material, MethodResult, ProtocolSettings, load_material, measure
from trainer.test_set import load_test_set
from trainer.thresholds import MaskRule, best_rule, candidate_levels, crossed_dice, dice_at

VIEWER = Viewer(InputSpec(height=64, width=64, channels=1))
SETTINGS = ProtocolSettings(size="64", synthetic=20)


class DistanceToMean:
    """|X - mean normal|: the simplest method there is."""

    name = "distance-to-mean"

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        self.normals, self.seed = normals, seed
        if progress:
            progress(1, 1)

    def score(self, images: Images) -> Scores:
        maps = np.abs(images - self.normals.mean(axis=0)).mean(axis=1)
        return Scores(maps, maps.max(axis=(1, 2)))

    def size_bytes(self) -> int:
        return 64 * 64 * 4


class KnowsItsRule(DistanceToMean):
    def mask_rule(self) -> MaskRule:
        return MaskRule(0.125, 3)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "carrier"
    write_mvtec(SimulatedLine(LineSettings(seed=1, size=64)), folder, train=40, test_good=6, test_defects=12)
    return folder


@pytest.fixture(scope="module")
def material(data: Path) -> Material:
    return load_material(data, None, SETTINGS)


def hash_rows(images: NDArray[np.float32]) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_dice_at_many_levels_is_that_of_each_mask() -> None:
    rng = np.random.default_rng(0)
    maps = rng.integers(0, 9, (4, 12, 10)).astype(np.float32)
    truth = rng.random((4, 12, 10)) < 0.2
    truth[2] = False
    levels = candidate_levels(maps)

    curves = dice_at(maps, truth, levels)

    for column, level in enumerate(levels):
        assert curves[:, column].mean() == pytest.approx(mean_dice(maps > level, truth))


def test_a_frame_is_never_reported_with_a_level_chosen_on_itself() -> None:
    # Each frame's own best level is the worst for the other.
    curves = np.array([[1.0, 0.0], [0.0, 1.0]])

    assert crossed_dice(curves, 5, 0).tolist() == [0.0, 0.0]


def test_crossed_dice_reports_every_frame_with_the_level_of_the_others() -> None:
    curves = np.tile([0.2, 0.9, 0.5], (9, 1)) + np.arange(9)[:, None] / 100

    np.testing.assert_allclose(crossed_dice(curves, 5, 0), 0.9 + np.arange(9) / 100)


def test_the_best_rule_finds_the_level_between_and_drops_specks() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((6, 64, 64), bool)
    truth[:, 20:26, 30:40] = True
    maps = rng.uniform(0, 1, truth.shape) + 5 * truth
    for each in maps:
        each[rng.integers(0, 15, 12), rng.integers(0, 64, 12)] = 6.0  # lonely bright pixels

    rule = best_rule(maps.astype(np.float32), truth)

    assert 1 <= rule.level <= 5
    assert rule.min_area > 1
    assert mean_dice(rule.masks(maps.astype(np.float32)), truth) > 0.98


def test_test_frames_carry_their_truth_and_good_ones_come_first(data: Path) -> None:
    frames = load_test_set(data, None, VIEWER, None, 0)

    assert frames.good.tolist() == [True] * 6 + [False] * 12
    assert frames.masked.all()
    assert not frames.truth[:6].any()
    expected = cv2.imread(str(data / "ground_truth/crack/000_mask.png"), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(frames.truth[frames.names.index("crack/000")], np.asarray(expected) > 0)


def test_another_test_folder_without_good_frames_borrows_them(data: Path, tmp_path: Path) -> None:
    shutil.copytree(data / "test" / "crack", tmp_path / "test" / "crack")

    frames = load_test_set(data, tmp_path, VIEWER, None, 0)

    assert frames.good.sum() == 6
    assert all(name.startswith("crack/") for name in frames.names[6:])
    assert not frames.masked[6:].any()  # no ground_truth there
    assert not frames.delineated.any()


def test_a_limit_draws_the_same_frames_every_time(data: Path) -> None:
    first, again = (load_test_set(data, None, VIEWER, 3, 7) for _ in range(2))

    assert first.names == again.names
    assert (first.good.sum(), (~first.good).sum()) == (3, 3)


def test_a_folder_without_defects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="MVTec"):
        load_test_set(tmp_path, None, VIEWER, None, 0)


def test_validation_normals_are_kept_from_a_method_unless_it_holds_them_back_itself(material: Material) -> None:
    plain, own = DistanceToMean(), KnowsItsRule()

    measure(plain, material, SETTINGS)
    result = measure(own, material, SETTINGS).result

    assert not hash_rows(plain.normals) & hash_rows(material.parts.validation)
    assert hash_rows(own.normals) == hash_rows(material.parts.train) | hash_rows(material.parts.validation)
    assert result.rule == MaskRule(0.125, 3)


def test_the_label_free_threshold_knows_nothing_of_the_test_frames(material: Material) -> None:
    changed = replace(material, test=replace(material.test, images=np.sqrt(material.test.images)))

    first, second = (measure(DistanceToMean(), each, SETTINGS).result for each in (material, changed))

    assert first.rule == second.rule
    assert first.dice != second.dice


def test_the_same_benchmark_twice_gives_the_same_figures(material: Material) -> None:
    def run() -> MethodResult:
        result = measure(DistanceToMean(), material, SETTINGS).result
        return replace(result, milliseconds=0.0, fit_seconds=0.0)

    assert run() == run()


def test_a_method_that_knows_the_truth_gets_full_marks(material: Material) -> None:
    class Oracle(DistanceToMean):
        def score(self, images: Images) -> Scores:
            known = {image.tobytes(): mask for image, mask in zip(test.images, test.truth, strict=True)}
            blank = np.zeros(images.shape[2:], bool)
            maps = np.stack([known.get(image.tobytes(), blank) for image in images]).astype(np.float32)
            return Scores(maps, maps.max(axis=(1, 2)))

        def mask_rule(self) -> MaskRule:
            return MaskRule(0.5)

    test = material.test
    result = measure(Oracle(), material, SETTINGS).result

    assert result.dice is not None
    assert result.label_free is not None
    assert result.dice.mean == result.label_free.mean == 1.0
    assert result.dice.frames == 12
    assert (result.pixel_auroc, result.aupro, result.image_auroc) == pytest.approx((1.0, 1.0, 1.0))


def test_small_defects_are_measured_by_themselves(material: Material) -> None:
    result = measure(DistanceToMean(), material, SETTINGS).result
    areas = material.test.truth[6:].mean(axis=(1, 2))

    assert result.dice_small is not None
    assert result.dice_small.frames == int(((areas >= 0.002) & (areas <= 0.06)).sum())


def test_scores_that_are_no_numbers_are_refused(material: Material) -> None:
    class Broken(DistanceToMean):
        def score(self, images: Images) -> Scores:
            return Scores(np.full((len(images), 64, 64), np.nan, np.float32), np.zeros(len(images), np.float32))

    with pytest.raises(TrainingError, match="finite"):
        measure(Broken(), material, SETTINGS)


def test_a_third_party_registers_a_method_once() -> None:
    register("distance-to-mean", DistanceToMean)

    assert make_method("distance-to-mean").name == "distance-to-mean"
    with pytest.raises(ValueError, match="registered already"):
        register("distance-to-mean", KnowsItsRule)


def test_an_unknown_method_is_refused_with_the_known_names() -> None:
    with pytest.raises(TrainingError, match=r"rasl.*ssim-ae"):
        make_method("no-such-method")
