from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.inspector import Inspection, Inspector, Model
from monitor.core.memory_bank import MemoryBank
from monitor.core.networks import Networks
from monitor.core.per_frame import per_frame
from monitor.core.regions import measure_regions
from monitor.core.scoring import SILENCE, Normality
from monitor.core.segmenter import Segmenter
from schemas.artifacts import Architecture, InputSpec
from tests.unit.small_model import Parts
from trainer.metrics import auroc

PLANES = ("mask", "anomaly", "prior", "background", "residual")
shared = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(params=["grey", "colour"])
def case(request: pytest.FixtureRequest) -> tuple[Inspector, Parts]:
    prefix = "colour_" if request.param == "colour" else ""
    return request.getfixturevalue(f"{prefix}inspector"), request.getfixturevalue(f"{prefix}parts")


def assert_same(left: Inspection, right: Inspection) -> None:
    """To the bit."""
    assert (left.score, left.flagged) == (right.score, right.flagged)
    for name in PLANES:
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


@shared
@given(order=st.lists(st.integers(0, 7), min_size=1, max_size=9))
def test_a_frame_is_inspected_alike_alone_or_in_any_batch(case: tuple[Inspector, Parts], order: list[int]) -> None:
    inspector, parts = case
    bank = inspector.new_bank()
    together = inspector.inspect(parts.defective[order], bank)
    for number, inspection in zip(order, together, strict=True):
        assert_same(inspection, inspector.inspect(parts.defective[number : number + 1], bank)[0])


@shared
@given(order=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_what_is_remembered_of_a_frame_does_not_depend_on_its_batch(
    case: tuple[Inspector, Parts], order: list[int]
) -> None:
    inspector, parts = case
    together = inspector.remember(parts.fresh[order])
    for number, entry in zip(order, together, strict=True):
        np.testing.assert_array_equal(entry, inspector.remember(parts.fresh[number : number + 1])[0])


@pytest.mark.parametrize("shape", [(1, 128, 128), (3, 128, 192), (1, 256, 256)])
def test_large_frames_too_are_inspected_alike_in_any_batch(shape: tuple[int, int, int], model: Model) -> None:
    # Untrained, so of no use, but of the sizes at which kernels share one frame among threads.
    torch.manual_seed(0)
    spec = InputSpec(height=shape[1], width=shape[2], channels=3 if shape[0] == 3 else 1)
    architecture = Architecture(input=spec, widths=(8, 16, 32, 64))
    networks = Networks(PatchAutoencoder(architecture), Segmenter(spec.channels, architecture.segmenter))
    seed = (np.random.default_rng(0).normal(size=(12, *architecture.entry_shape)) / 4).astype(np.float16)
    manifest = model.manifest.model_copy(update={"architecture": architecture})
    scale = torch.full(shape[1:], 0.01)
    inspector = Inspector(Model(manifest, networks, Normality(scale, scale), model.drift, seed))
    frames = np.random.default_rng(1).random((3, *shape), dtype=np.float32)
    bank = inspector.new_bank()
    for number, inspection in enumerate(inspector.inspect(frames, bank)):
        assert_same(inspection, inspector.inspect(frames[number : number + 1], bank)[0])


@pytest.mark.parametrize("channels", [1, 3, 32])
def test_the_layout_in_memory_does_not_matter(channels: int, inspector: Inspector, parts: Parts) -> None:
    torch.manual_seed(0)
    convolution = torch.nn.Conv2d(channels, 16, 3, padding=1).requires_grad_(requires_grad=False)
    batch = torch.rand(4, channels, 64, 64)
    expected = per_frame(convolution, batch)
    assert torch.equal(per_frame(convolution, batch.contiguous(memory_format=torch.channels_last)), expected)
    for number in range(4):
        strided = batch[number].permute(1, 2, 0).contiguous().permute(2, 0, 1)[None]
        assert torch.equal(per_frame(convolution, strided), expected[number : number + 1])
    frames = np.asfortranarray(parts.defective)
    for left, right in zip(
        inspector.inspect(frames, inspector.new_bank()),
        inspector.inspect(parts.defective, inspector.new_bank()),
        strict=True,
    ):
        assert_same(left, right)


def test_an_anomaly_is_in_units_of_the_normals_spread(model: Model, inspector: Inspector, parts: Parts) -> None:
    restless = Inspector(replace(model, normality=replace(model.normality, spread=2 * model.normality.spread)))
    bank = inspector.new_bank()
    for left, right in zip(
        restless.inspect(parts.defective, bank), inspector.inspect(parts.defective, bank), strict=True
    ):
        # But for what a pixel has without any residual, which does not know of units.
        floor = 2 * left.anomaly - right.anomaly
        assert (floor > -1e-4).all()
        assert (floor <= SILENCE * (1 + 1e-4)).all()
        assert (left.anomaly[right.anomaly > SILENCE] < right.anomaly[right.anomaly > SILENCE]).all()
        assert right.anomaly.max() > SILENCE


def test_an_inspection_holds_together(case: tuple[Inspector, Parts]) -> None:
    inspector, parts = case
    calibration = inspector.manifest.calibration
    for frame, found in zip(parts.defective, inspector.inspect(parts.defective, inspector.new_bank()), strict=True):
        np.testing.assert_allclose(found.background + found.residual, frame, atol=1e-6)
        assert found.prior.min() >= 0
        assert found.prior.max() <= 1
        assert (found.anomaly >= 0).all()
        assert (found.anomaly[found.mask] > calibration.mask_threshold).all()
        regions = measure_regions(found.mask, found.anomaly, found.mask.shape).measured
        assert all(region.area >= calibration.min_area for region in regions)
        largest = np.sort(found.anomaly.ravel())[-calibration.score_pixels :]
        assert found.score == pytest.approx(largest.mean(), rel=1e-5)
        assert found.flagged == (found.score > calibration.verdict.threshold)


def test_defects_score_higher_than_good_parts_and_are_outlined(case: tuple[Inspector, Parts]) -> None:
    inspector, parts = case
    bank = inspector.new_bank()
    good, found = inspector.inspect(parts.fresh, bank), inspector.inspect(parts.defective, bank)
    scores = (np.array([inspection.score for inspection in each]) for each in (good, found))
    assert auroc(*scores) > 0.7
    ratios = [
        inspection.anomaly[truth].mean() / inspection.anomaly[~truth].mean()
        for inspection, truth in zip(found, parts.truth, strict=True)
    ]
    assert np.median(ratios) > 3


def taught(inspector: Inspector, frame: NDArray[np.float32]) -> MemoryBank:
    """Return the bank after an operator's click: this frame is normal."""
    bank = inspector.new_bank()
    bank.put(len(inspector.seed), inspector.remember(frame[None])[0])
    return bank


def test_a_confirmed_frame_is_no_longer_odd(case: tuple[Inspector, Parts]) -> None:
    inspector, parts = case
    before = inspector.inspect(parts.defective, inspector.new_bank())
    after = [inspector.inspect(frame[None], taught(inspector, frame))[0] for frame in parts.defective]
    for left, right in zip(before, after, strict=True):
        assert right.score < left.score
        # Beyond what no confirmation can take away, and what nobody is told of.
        left_over, was = (np.maximum(each.anomaly - SILENCE, 0.0).sum() for each in (right, left))
        assert left_over < 0.25 * was
    assert np.median([right.score / left.score for left, right in zip(before, after, strict=True)]) < 0.5
    assert sum(each.flagged for each in after) <= 1


def test_a_confirmed_frame_does_not_excuse_another_defect(case: tuple[Inspector, Parts]) -> None:
    inspector, parts = case
    before = inspector.inspect(parts.defective, inspector.new_bank())
    bank = taught(inspector, parts.defective[1])
    after = inspector.inspect(parts.defective, bank)
    kept = [after[number].score / before[number].score for number in range(8) if number != 1]
    assert np.median(kept) > 0.9


def test_what_is_remembered_does_not_depend_on_what_the_line_has_learnt(inspector: Inspector, parts: Parts) -> None:
    before = inspector.remember(parts.defective[:1])
    taught(inspector, parts.defective[0])
    inspector.new_bank().clear()
    np.testing.assert_array_equal(inspector.remember(parts.defective[:1]), before)
    assert before.shape[1:] == inspector.manifest.architecture.entry_shape


def test_inspecting_leaves_the_bank_and_the_frames_as_they_were(inspector: Inspector, parts: Parts) -> None:
    bank, frames = inspector.new_bank(), parts.defective.copy()
    first = inspector.inspect(frames, bank)
    np.testing.assert_array_equal(frames, parts.defective)
    assert len(bank) == len(inspector.seed)
    for slot, entry in enumerate(inspector.seed):
        np.testing.assert_array_equal(bank.entry(slot), entry)
    for left, right in zip(first, inspector.inspect(frames, bank), strict=True):
        assert_same(left, right)


def test_no_frames_give_no_inspections(inspector: Inspector, parts: Parts) -> None:
    assert inspector.inspect(parts.fresh[:0], inspector.new_bank()) == []


@pytest.mark.parametrize("shape", [(64, 64), (1, 64, 64), (2, 3, 64, 64), (2, 1, 64, 80), (2, 1, 128, 128)])
def test_frames_of_another_shape_are_refused_by_name(inspector: Inspector, shape: tuple[int, ...]) -> None:
    frames = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=r"must be \(B, C, H, W\) with \(C, H, W\) = \(1, 64, 64\)"):
        inspector.inspect(frames, inspector.new_bank())
    with pytest.raises(ValueError, match="must be"):
        inspector.remember(frames)


def test_an_empty_bank_is_refused(inspector: Inspector, parts: Parts) -> None:
    bank = inspector.new_bank()
    bank.clear()
    with pytest.raises(ValueError, match="empty"):
        inspector.inspect(parts.fresh, bank)


def test_a_camera_frame_is_prepared_for_this_model(inspector: Inspector, colour_inspector: Inspector) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    assert inspector.prepare(photo).pixels.shape == (1, 64, 64)
    assert colour_inspector.prepare(photo).pixels.shape == (3, 64, 64)
