from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from inspect import signature
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from deploy.simulation import LineSettings, SimulatedLine, write_mvtec
from monitor.adapters.artifacts import load_bundle
from monitor.core.decomposition import decompose, objective
from monitor.core.inspector import Inspector
from monitor.core.view import Viewer
from schemas.errors import ConfigurationError, TrainingError
from tests.unit.backbone_fakes import fake_timm
from trainer.baselines.backbone import DEFAULT
from trainer.baselines.base import Images, Method, Progress, Scores, register, top_mean
from trainer.baselines.paedid import Pae, Paedid
from trainer.baselines.paedid_paper import PaperPaedid, PaperSettings, decompose_by_adam
from trainer.benchmark import BenchmarkReport, run_benchmark
from trainer.benchmark_command import benchmark
from trainer.build import BuildSettings, build
from trainer.calibrate import CalibrationSettings
from trainer.dataset import load_dataset
from trainer.protocol import ProtocolSettings, load_material
from trainer.segmenting import SegmenterSettings
from trainer.test_set import load_test_set
from trainer.training import TrainingSettings

DATASETS = Path(os.environ.get("PAEDID_DATASETS", "../shared/datasets"))
FEW_STEPS = TrainingSettings(widths=(8, 16, 32), steps=70, batch=4, segmenter=(8, 16))
FEW_PIECES = SegmenterSettings(steps=40, batch=8, piece=32)
SETTINGS = ProtocolSettings(size="64", synthetic=24)
BUILD = BuildSettings(
    size="64",
    training=FEW_STEPS,
    segmenter=FEW_PIECES,
    calibration=CalibrationSettings(trials=1, smoothings=(0.6,), defects=24),
)


class Quiet:
    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        pass


class DistanceToMedian:
    name = "distance-to-median"

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        del seed, progress  # the median is the median
        self.normal = np.median(normals, axis=0)

    def score(self, images: Images) -> Scores:
        maps = np.abs(images - self.normal).mean(axis=1).astype(np.float32)
        return Scores(maps, top_mean(maps))

    def size_bytes(self) -> int:
        return int(self.normal.nbytes)


class Failing(DistanceToMedian):
    name = "failing"

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        del normals, seed, progress
        msg = "collapsed"
        raise TrainingError(msg)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "carrier"
    # A lamp that sways quickly and much: a few steps of training are better than the mean image then.
    line = SimulatedLine(LineSettings(seed=3, size=64, lighting_sway=0.2, sway_period=11))
    write_mvtec(line, folder, train=40, test_good=8, test_defects=12)
    return folder


def methods() -> list[Method]:
    return [DistanceToMedian(), Pae(FEW_STEPS), Paedid(BUILD)]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BenchmarkReport]:
    out = tmp_path_factory.mktemp("out") / "results"
    return out, run_benchmark(methods(), data, out, SETTINGS, Quiet(), rows=3)


def untimed(report: BenchmarkReport) -> BenchmarkReport:
    return replace(report, results=tuple(replace(row, milliseconds=0.0, fit_seconds=0.0) for row in report.results))


def test_a_run_measures_every_method_and_writes_it_all(run: tuple[Path, BenchmarkReport]) -> None:
    out, report = run
    document = json.loads((out / "benchmark.json").read_text())
    table = [line for line in (out / "benchmark.md").read_text().splitlines() if line.startswith("|")]
    picture = cv2.imread(str(out / "benchmark.jpg"))

    assert [row.method for row in report.results] == ["distance-to-median", "pae", "paedid"]
    assert [row["method"] for row in document["results"]] == ["distance-to-median", "pae", "paedid"]
    assert document["frames"]["test_good"] == 8
    assert document["frames"]["test_with_mask"] == 12
    assert len(table) == 2 + 3
    assert len({line.count("|") for line in table}) == 1
    assert picture is not None
    # Frame and truth, two columns a method, three more of PAEDID's steps; three rows.
    assert picture.shape[:2] == (40 + 3 * (128 + 16 + 4), (2 + 3 * 2 + 3) * (128 + 4) + 4)
    for row in report.results:
        assert row.dice is not None
        assert row.dice.frames == 12
        assert row.size_bytes > 0
        assert row.milliseconds > 0


def test_a_trained_method_sees_more_than_chance(run: tuple[Path, BenchmarkReport]) -> None:
    paedid = run[1].results[-1]

    assert paedid.pixel_auroc is not None
    assert paedid.pixel_auroc > 0.8
    assert paedid.label_free is not None
    assert paedid.label_free.mean > 0.15


def test_the_same_run_twice_gives_the_same_table(run: tuple[Path, BenchmarkReport], data: Path, tmp_path: Path) -> None:
    again = run_benchmark(methods(), data, tmp_path, SETTINGS, Quiet(), rows=3)

    assert untimed(again) == untimed(run[1])


def test_paedid_in_the_benchmark_is_the_shipped_one(data: Path, tmp_path: Path) -> None:
    seeded = replace(BUILD, training=replace(BUILD.training, seed=1), calibration=replace(BUILD.calibration, seed=1))
    method = Paedid(BUILD)
    method.fit(load_dataset(data, "64").images, seed=1)
    build(data, tmp_path / "bundle", seeded, Quiet())
    inspector = Inspector(load_bundle(tmp_path / "bundle"))
    viewer = Viewer(inspector.manifest.architecture.input)
    frames = load_test_set(data, None, viewer, 4, 0).images

    scores, layers = method.score(frames), method.layers(frames)

    masks = method.mask_rule().masks(scores.maps)
    for index, inspection in enumerate(inspector.inspect(frames, inspector.new_bank())):
        np.testing.assert_allclose(scores.maps[index], inspection.anomaly, rtol=1e-3, atol=1e-3)
        assert scores.images[index] == pytest.approx(inspection.score, rel=1e-3)
        np.testing.assert_array_equal(masks[index], inspection.mask)
        np.testing.assert_allclose(layers.residual[index], inspection.residual, atol=1e-3)


def test_a_failed_method_is_told_of_and_costs_the_others_nothing(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"1 of 2 methods failed.*failing: collapsed"):
        run_benchmark([DistanceToMedian(), Failing()], data, tmp_path, SETTINGS, Quiet())

    document = json.loads((tmp_path / "benchmark.json").read_text())
    assert [row["method"] for row in document["results"]] == ["distance-to-median"]
    assert document["failures"] == {"failing": "collapsed"}
    assert "failing failed: collapsed" in (tmp_path / "benchmark.md").read_text()


def test_an_out_that_is_a_file_is_refused_before_any_work(data: Path, tmp_path: Path) -> None:
    taken = tmp_path / "results"
    taken.write_text("mine")

    with pytest.raises(ConfigurationError, match="--out"):
        run_benchmark([DistanceToMedian()], data, taken, SETTINGS, Quiet())


def test_the_command_takes_methods_by_name(data: Path, tmp_path: Path) -> None:
    register("distance-to-median", DistanceToMedian)
    app = typer.Typer()
    app.command()(benchmark)
    options = ["--data", data, "--out", tmp_path, "--methods", "distance-to-median", "--size", "64", "--limit", "4"]

    result = CliRunner().invoke(app, [str(option) for option in options])

    assert result.exit_code == 0, result.output
    assert "| distance-to-median |" in result.output
    assert (tmp_path / "benchmark.jpg").is_file()


def test_the_backbone_is_chosen_and_each_row_tells_which_it_looked_through(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    register("distance-to-median", DistanceToMedian)
    app = typer.Typer()
    app.command()(benchmark)
    options = ["--data", data, "--out", tmp_path, "--methods", "patchcore,padim,distance-to-median", "--size", "64"]

    result = CliRunner().invoke(app, [*map(str, options), "--limit", "4", "--backbone", "timm:tiny"])

    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "benchmark.json").read_text())["results"]
    told = [(row["method"], row["backbone"]) for row in rows]
    assert told == [("patchcore", "timm:tiny"), ("padim", "timm:tiny"), ("distance-to-median", None)]
    table = (tmp_path / "benchmark.md").read_text()
    for cell in ("patchcore (timm:tiny)", "padim (timm:tiny)", "distance-to-median"):
        assert f"| {cell} |" in table


def test_without_a_choice_the_backbone_is_the_one_of_the_extra() -> None:
    assert signature(benchmark).parameters["backbone"].default == DEFAULT


def test_adam_comes_near_the_minimum_that_our_solver_finds() -> None:
    generator = torch.Generator().manual_seed(0)
    prior = torch.nn.functional.interpolate(torch.rand(1, 1, 6, 6, generator=generator), size=48, mode="bicubic")
    prior = prior.clamp(0, 1)
    frames = prior.clone()
    frames[:, :, 20:24, 15:30] *= 0.3

    parts = decompose_by_adam(frames, prior, 1e-5, steps=100, rate=5e-3)

    minimum = objective(decompose(frames, prior, 1e-5, 100).background, frames, prior, 1e-5)
    assert float(objective(parts.background, frames, prior, 1e-5)) < 1.1 * float(minimum)
    torch.testing.assert_close(parts.background + parts.residual, frames)


def test_the_papers_method_decomposes_each_frame_by_itself(data: Path) -> None:
    training = TrainingSettings(widths=(16, 32), steps=40, batch=4, corrupted=0.0)
    material = load_material(data, None, SETTINGS)
    method = PaperPaedid(PaperSettings(training, adam_steps=30))
    method.fit(material.parts.train, seed=0)

    frames = material.test.images[-2:]
    together, alone = method.score(frames), method.score(frames[:1])

    assert PaperSettings().training.widths == (64, 128)
    np.testing.assert_allclose(together.maps[0], alone.maps[0], atol=1e-6)
    np.testing.assert_allclose(np.abs(method.layers(frames).residual).mean(axis=1), together.maps, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not DATASETS.is_dir(), reason=f"no data sets at PAEDID_DATASETS ({DATASETS})")
@pytest.mark.parametrize(("data", "other"), [("el_mono", None), ("elpv", "elpv_cracks"), ("aitex_02", None)])
def test_the_data_sets_load_with_their_masks(data: str, other: str | None) -> None:
    material = load_material(DATASETS / data, DATASETS / other if other else None, ProtocolSettings(limit=20))

    assert material.test.delineated.sum() == 20
    assert material.test.good.sum() == 20
