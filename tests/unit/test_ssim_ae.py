from __future__ import annotations

import numpy as np
import pytest
import pytorch_msssim
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from schemas.errors import TrainingError
from trainer.baselines.reconstruction import Schedule
from trainer.baselines.ssim_ae import SsimAe, SsimAeSettings, SsimAutoencoder, ssim_loss, ssim_map

QUICK = SsimAeSettings(latent=8, schedule=Schedule(steps=120, batch=8, learning_rate=3e-3))


def crosses(count: int, seed: int) -> NDArray[np.float32]:
    """(N, 1, 32, 48): a bright cross on a darker ground, of varying exposure, with a little noise."""
    rng = np.random.default_rng(seed)
    frames = np.full((count, 1, 32, 48), 0.3)
    frames[:, :, 16:22] = 0.7
    frames[..., 20:26] = 0.7
    frames *= rng.uniform(0.9, 1.1, (count, 1, 1, 1))
    return (frames + rng.normal(0, 0.005, frames.shape)).clip(0, 1).astype(np.float32)


@pytest.fixture(scope="module")
def trained() -> SsimAe:
    method = SsimAe(QUICK)
    method.fit(crosses(60, seed=0), seed=0)
    return method


@pytest.mark.parametrize("channels", [1, 3])
def test_the_loss_and_its_gradient_are_those_of_pytorch_msssim(channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, channels, 32, 48, generator=generator)
    y = (x + 0.1 * torch.randn(x.shape, generator=generator)).requires_grad_()
    ours = ssim_loss(x, y)
    padded = (functional.pad(image, (5, 5, 5, 5), mode="reflect") for image in (x, y))
    theirs = 1.0 - pytorch_msssim.ssim(*padded, data_range=1.0, win_size=11)
    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), abs=1e-6)
    (by_ours,), (by_theirs,) = torch.autograd.grad(ours, y), torch.autograd.grad(theirs, y)
    assert torch.allclose(by_ours, by_theirs, atol=1e-7, rtol=1e-3)


def test_the_map_shows_a_change_around_its_place_only() -> None:
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    y = x.clone()
    y[0, 0, 30, 40] += 0.5
    dissimilar = 1.0 - ssim_map(x, y)[0, 0]
    assert dissimilar.argmax() == 30 * 64 + 40
    dissimilar[25:36, 35:46] = 0.0  # the 11x11 windows that hold the pixel
    assert float(dissimilar.abs().max()) < 1e-4


def test_a_frame_of_128_pixels_has_the_layers_of_the_papers_table_1() -> None:
    network = SsimAutoencoder(channels=1, size=(128, 128), latent=100)
    shapes = []
    for layer in network.layers:
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            layer.register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape[1:])))
    network(torch.rand(1, 1, 128, 128))
    encoder = [(32, 64), (32, 32), (32, 32), (64, 16), (64, 16), (128, 8), (64, 8), (32, 8), (100, 1)]
    decoder = [(32, 8), (64, 8), (128, 8), (64, 16), (64, 16), (32, 32), (32, 32), (32, 64), (1, 128)]
    assert shapes == [(filters, side, side) for filters, side in encoder + decoder]
    assert isinstance(network.layers[-1], nn.ConvTranspose2d)  # linear


def test_it_learns_what_is_normal_and_maps_what_is_not(trained: SsimAe) -> None:
    frames = crosses(6, seed=1)
    frames[4, :, 4:8, 4:8] = 0.9
    scores = trained.score(frames)
    assert scores.maps.shape == (6, 32, 48)
    assert scores.images.argmax() == 4
    row, column = np.unravel_index(scores.maps[4].argmax(), (32, 48))
    assert 2 <= row < 10
    assert 2 <= column < 10
    assert scores.maps[[0, 1, 2, 3, 5]].mean() < 0.25


def test_a_frame_scores_alone_as_in_a_batch(trained: SsimAe) -> None:
    frames = crosses(5, seed=2)
    together, alone = trained.score(frames), trained.score(frames[3:4])
    assert np.array_equal(together.maps[3], alone.maps[0])
    assert together.images[3] == alone.images[0]


def test_the_same_seed_learns_the_same_and_leaves_torchs_own_randomness_alone() -> None:
    settings = SsimAeSettings(latent=8, schedule=Schedule(steps=3, batch=4, learning_rate=1e-3))
    maps = []
    for seed in (0, 0, 1):
        torch.rand(1)  # so that two trainings do not start alike by chance
        method, before = SsimAe(settings), torch.get_rng_state()
        method.fit(crosses(8, seed=0), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        maps.append(method.score(crosses(1, seed=1)).maps)
    assert np.array_equal(maps[0], maps[1])
    assert not np.array_equal(maps[0], maps[2])


def test_frames_of_a_size_it_cannot_rebuild_are_refused() -> None:
    with pytest.raises(TrainingError, match="multiples of 16 pixels, not 40x48"):
        SsimAe(QUICK).fit(np.zeros((4, 1, 40, 48), np.float32), seed=0)


def test_a_training_that_ends_in_no_number_is_an_error() -> None:
    method = SsimAe(SsimAeSettings(latent=8, schedule=Schedule(steps=2, batch=2, learning_rate=1e-3)))
    with pytest.raises(TrainingError, match="loss of nan"):
        method.fit(np.full((4, 1, 32, 32), np.nan, np.float32), seed=0)
