from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tests.unit.backbone_fakes import PooledPixels
from trainer.baselines.padim import Padim, PadimSettings

SMALL = PadimSettings(side=32, channels=7)


class Remembering(PooledPixels):
    """Keeps the order of channels visible: all of them, on the finest grid."""

    def aligned(self, frames: Tensor) -> NDArray[np.float64]:
        """(B, h·w, 12)."""
        maps = self.features(frames)
        fine = [np.kron(maps[stride].numpy(), np.ones((stride // 4, stride // 4))) for stride in (4, 8, 16)]
        stacked: NDArray[np.float64] = np.concatenate(fine, axis=1).astype(np.float64)
        return stacked.reshape(*stacked.shape[:2], -1).transpose(0, 2, 1)


def frames(count: int, seed: int, side: int = 32) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, 1, side, side), dtype=np.float32)


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_distances_are_those_of_the_textbook(offset: float) -> None:
    backbone = Remembering(offset)
    method = Padim(backbone, PadimSettings(side=32, channels=12))
    normals, tests = frames(40, seed=0), frames(3, seed=1)
    method.fit(normals, seed=0)
    seen, asked = (backbone.aligned(torch.from_numpy(images)) for images in (normals, tests))
    expected = np.empty(asked.shape[:2])
    for cell in range(asked.shape[1]):
        inverse = np.linalg.inv(np.cov(seen[:, cell], rowvar=False) + 0.01 * np.eye(12))
        away = asked[:, cell] - seen[:, cell].mean(axis=0)
        expected[:, cell] = np.sqrt(np.einsum("bi,ij,bj->b", away, inverse, away))
    found = method.distances(torch.from_numpy(tests)).flatten(1).numpy()
    assert found == pytest.approx(expected, rel=2e-3 if offset else 1e-4)


def test_fewer_normals_than_channels_are_enough() -> None:
    method = Padim(PooledPixels(), PadimSettings(side=32, channels=12))
    method.fit(frames(3, seed=0), seed=0)
    assert np.isfinite(method.score(frames(2, seed=1)).maps).all()


def test_what_is_normal_at_one_place_is_abnormal_at_another() -> None:
    normals = 0.02 * frames(30, seed=0, side=64)
    normals[:, :, 16:32, 8:24] += 0.8  # a bright part that every normal has
    method = Padim(PooledPixels(), PadimSettings(side=64))
    method.fit(normals, seed=0)
    good, bad = 0.02 * frames(2, seed=1, side=64)
    good[:, 16:32, 8:24] += 0.8
    bad[:, 16:32, 8:24] += 0.8
    bad[:, 40:48, 44:52] += 0.8  # the same once more
    scores = method.score(np.stack([good, bad]))
    assert scores.images[1] > 3 * scores.images[0]
    row, column = np.unravel_index(scores.maps[1].argmax(), (64, 64))
    assert 38 <= row < 50
    assert 42 <= column < 54
    assert scores.images == pytest.approx(scores.maps.max(axis=(1, 2)))


def test_the_seed_chooses_the_channels() -> None:
    maps = []
    for seed in (0, 0, 1):
        method = Padim(PooledPixels(), SMALL)
        method.fit(frames(20, seed=0), seed=seed)
        maps.append(method.score(frames(1, seed=1)).maps)
        # 64 cells of 7 means and 28 covariances in single precision, and the network.
        assert method.size_bytes() == 100 + 64 * (7 + 28) * 4
    assert np.array_equal(maps[0], maps[1])
    assert not np.allclose(maps[0], maps[2])


def test_learning_again_forgets_what_was_learnt() -> None:
    fresh, used = Padim(PooledPixels(), SMALL), Padim(PooledPixels(), SMALL)
    used.fit(frames(20, seed=5), seed=5)
    for method in (fresh, used):
        method.fit(frames(20, seed=0), seed=0)
    assert np.array_equal(fresh.score(frames(1, seed=1)).maps, used.score(frames(1, seed=1)).maps)


def test_a_frame_scores_alone_as_in_a_batch() -> None:
    method = Padim(PooledPixels(), SMALL)
    method.fit(frames(20, seed=0), seed=0)
    images = frames(11, seed=1)
    together, alone = method.score(images), method.score(images[9:10])
    assert together.maps[9] == pytest.approx(alone.maps[0], rel=1e-4)


def test_frames_in_colour_and_not_square_are_mapped_at_their_own_size() -> None:
    method = Padim(PooledPixels(), SMALL)
    colour = functional.interpolate(torch.rand(20, 3, 24, 24), (48, 64)).numpy()
    method.fit(colour, seed=0)
    assert method.score(colour[:2]).maps.shape == (2, 48, 64)
