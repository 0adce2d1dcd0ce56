from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from monitor.core.bands import bands
from monitor.core.folding import for_inference
from monitor.core.scoring import MOST_SUSPICION, weigh
from monitor.core.segmenter import Segmenter
from schemas.artifacts import Architecture, InputSpec
from schemas.errors import TrainingError
from tests.unit.small_model import Parts
from trainer.bundle import Trained
from trainer.metrics import auroc
from trainer.segmenting import SegmenterSettings, draw_pieces, segmentation_loss, train_segmenter
from trainer.synthetic import paste_defect

QUICK = SegmenterSettings(steps=6, batch=8, piece=32, varied_light=0.0)


def test_on_frames_it_never_saw_it_tells_defective_pixels_from_sound_ones(trained: Trained, parts: Parts) -> None:
    rng = np.random.default_rng(5)
    defects = [paste_defect(image, rng) for image in parts.fresh]
    frames = torch.from_numpy(np.stack([defect.image for defect in defects]))
    with torch.inference_mode():
        suspicion = trained.networks.segmenter(frames).numpy()
    truth = np.stack([defect.mask for defect in defects])
    assert auroc(suspicion[~truth], suspicion[truth]) > 0.9
    # And those of the simulated line, which are drawn in another way than the ones it learnt from.
    with torch.inference_mode():
        suspicion = trained.networks.segmenter(torch.from_numpy(parts.defective)).numpy()
    assert auroc(suspicion[~parts.truth], suspicion[parts.truth]) > 0.75


def test_without_training_it_knows_nothing(parts: Parts) -> None:
    torch.manual_seed(0)
    with torch.inference_mode():
        suspicion = Segmenter(1, (8, 16)).eval()(torch.from_numpy(parts.defective)).numpy()
    assert auroc(suspicion[~parts.truth], suspicion[parts.truth]) < 0.7


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 32, 48), (3, 64, 32)])
def test_its_log_odds_lie_on_the_frames_pixels(channels: int, height: int, width: int) -> None:
    network = Segmenter(channels, (4, 8, 8)).eval()
    frames = torch.rand(2, channels, height, width)
    with torch.inference_mode():
        assert network(frames).shape == (2, height, width)
        torch.testing.assert_close(for_inference(network)(frames), network(frames), rtol=1e-3, atol=1e-4)


def test_the_bands_of_a_flat_frame_are_its_brightness_alone() -> None:
    parted = bands(torch.full((1, 1, 32, 32), 0.7))
    torch.testing.assert_close(parted[:, 0], torch.full((1, 32, 32), 0.2))
    torch.testing.assert_close(parted[:, 1:], torch.zeros(1, 2, 32, 32), atol=1e-4, rtol=0)


@settings(max_examples=50)
@given(st.floats(0, 100), st.floats(-50, 50), st.floats(-50, 50))
def test_suspicion_weighs_anomalies_but_makes_none_and_hides_none(anomaly: float, less: float, more: float) -> None:
    def weighed(value: float, log_odds: float) -> float:
        return float(weigh(torch.tensor([[[value]]]), torch.tensor([[[log_odds]]])))

    assert weighed(0.0, more) == 0.0
    low, high = sorted((less, more))
    assert weighed(anomaly, low) <= weighed(anomaly, high) * (1 + 1e-6)
    assert weighed(anomaly, 0.0) == pytest.approx(anomaly)
    if anomaly > 1e-3:
        assert weighed(anomaly, -1e9) > 0.0
        assert weighed(anomaly, 1e9) == pytest.approx(weighed(anomaly, MOST_SUSPICION))


def test_the_loss_is_cross_entropy_and_dice() -> None:
    truth = torch.zeros(2, 8, 8, dtype=torch.bool)
    truth[0, 2:4, 2:4] = True
    perfect = torch.where(truth, 30.0, -30.0)
    assert float(segmentation_loss(perfect, truth)) == pytest.approx(0.0, abs=1e-3)
    undecided = torch.zeros(2, 8, 8)
    overlap = (2 * 4 * 0.5 + 1) / (128 * 0.5 + 4 + 1)
    entropy = functional.binary_cross_entropy_with_logits(undecided, truth.float())
    assert float(segmentation_loss(undecided, truth)) == pytest.approx(float(entropy) + 0.5 * (1 - overlap))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from((16, 32, 64)))
def test_pieces_show_what_their_masks_say(seed: int, piece: int) -> None:
    normals = np.full((3, 1, 48, 80), 0.5, np.float32)
    wanted = replace(QUICK, piece=piece, defects=(1, 1))  # several may overlap, and cancel
    frames, masks = draw_pieces(normals, wanted, np.random.default_rng(seed))
    height = min(piece, 48)
    assert frames.shape == (8, 1, height, piece)
    assert masks.shape == (8, height, piece)
    assert (np.abs(frames[:, 0] - 0.5)[masks] > 0.01).all()
    assert not masks.all()


def test_most_pieces_lie_on_a_defect_and_some_are_clean() -> None:
    normals = np.full((3, 1, 128, 128), 0.5, np.float32)
    _, masks = draw_pieces(normals, replace(QUICK, batch=400), np.random.default_rng(0))
    assert 0.5 < np.mean(masks.any(axis=(1, 2))) < 0.95


def test_what_is_not_inspected_carries_no_defect() -> None:
    normals = np.full((3, 1, 64, 64), 0.5, np.float32)
    inspected = np.zeros((64, 64), np.bool_)
    inspected[:, :32] = True
    frames, masks = draw_pieces(normals, replace(QUICK, batch=64, piece=64), np.random.default_rng(0), inspected)
    touched = (frames[:, 0] != 0.5).any(axis=(1, 2)) | masks.any(axis=(1, 2))
    assert touched.any()
    for frame, mask in zip(frames[:, 0], masks, strict=True):
        sides = [(frame[:, half] != 0.5).any() or mask[:, half].any() for half in (slice(0, 32), slice(32, 64))]
        assert sum(sides) <= 1  # the inspected half, mirrored or not


@pytest.mark.usefixtures("one_thread")
def test_the_same_seed_trains_the_same_segmenter(parts: Parts) -> None:
    architecture = Architecture(input=parts.spec, widths=(8, 16, 32), segmenter=(4, 8))

    def weights(seed: int) -> list[Tensor]:
        network = train_segmenter(architecture, parts.train, replace(QUICK, seed=seed))
        assert not network.training
        return list(network.state_dict().values())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_loss_that_is_no_number_fails_loudly() -> None:
    spec = InputSpec(height=32, width=32, channels=1)
    architecture = Architecture(input=spec, widths=(8, 16), segmenter=(4, 8))
    spoilt = np.full((4, 1, 32, 32), np.nan, np.float32)
    with pytest.raises(TrainingError, match="segmenter"):
        train_segmenter(architecture, spoilt, QUICK)
