from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.unit.backbone_fakes import PooledPixels
from trainer.baselines.coreset import greedy_coreset, project
from trainer.baselines.patchcore import PatchCore, PatchCoreSettings

SMALL = PatchCoreSettings(side=64, coreset_share=0.2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def covering_radius(points: torch.Tensor, chosen: list[int]) -> float:
    return float(torch.cdist(points.double(), points[chosen].double()).min(dim=1).values.max())


def stripes(count: int, seed: int) -> NDArray[np.float32]:
    """(N, 1, 64, 64): vertical stripes of period 8, brighter or darker, with noise."""
    rng = np.random.default_rng(seed)
    wave = 0.5 + 0.2 * np.sin(np.arange(64) * 2 * np.pi / 8)
    frames = wave[None, None, None, :] * rng.uniform(0.9, 1.1, (count, 1, 1, 1)) + rng.normal(
        0, 0.01, (count, 1, 64, 64)
    )
    return frames.clip(0, 1).astype(np.float32)


@pytest.mark.parametrize("seed", range(20))
def test_the_coreset_covers_within_twice_the_optimum(seed: int) -> None:
    # Clumps of unlike size: a random choice leaves small ones out.
    clumps = 5.0 * torch.randn(4, 3, generator=seeded(seed))
    points = clumps[[0, 0, 0, 0, 0, 1, 1, 1, 2, 3]] + 0.3 * torch.randn(10, 3, generator=seeded(seed + 100))
    best = min(covering_radius(points, list(chosen)) for chosen in combinations(range(10), 4))
    chosen = greedy_coreset(points, 4, seeded(seed)).tolist()
    assert covering_radius(points, chosen) <= 2 * best


def test_the_next_of_the_coreset_is_the_farthest_from_those_before() -> None:
    points = torch.randn(200, 5, generator=seeded(1)) + 100.0
    chosen = greedy_coreset(points, 12, seeded(2)).tolist()
    for position in range(1, 12):
        distances = torch.cdist(points.double(), points[chosen[:position]].double()).min(dim=1).values
        assert distances[chosen[position]] == pytest.approx(float(distances.max()), rel=1e-3)


def test_no_point_is_chosen_twice_even_of_duplicates() -> None:
    chosen = greedy_coreset(torch.ones(6, 2), 6, seeded()).tolist()
    assert sorted(chosen) == list(range(6))


def test_a_projection_about_keeps_distances() -> None:
    points = torch.randn(50, 400, generator=seeded(3))
    ratio = torch.pdist(project(points, 64, seeded(4))) / torch.pdist(points)
    assert float(ratio.mean()) == pytest.approx(1.0, abs=0.1)
    assert float(ratio.std()) < 0.15
    assert torch.equal(project(points[:, :64], 64, seeded()), points[:, :64])


def test_a_patch_is_the_mean_of_its_neighbourhood_and_of_the_coarser_one() -> None:
    backbone = PooledPixels()
    frames = torch.rand(1, 1, 64, 64, generator=seeded(5))
    patch = PatchCore(backbone, SMALL).patches(frames)[0, 3, 4]  # of (1, 8, 8, 8)
    maps = backbone.features(frames)
    assert torch.allclose(patch[:4], maps[8][0, :, 2:5, 3:6].mean(dim=(1, 2)), atol=1e-6)
    # Cell (3, 4) of the finer map lies a quarter from (1, 2) of the coarser one, towards (2, 1).
    means = {(r, c): maps[16][0, :, r - 1 : r + 2, c - 1 : c + 2].mean(dim=(1, 2)) for r in (1, 2) for c in (1, 2)}
    coarse = 0.75 * (0.75 * means[1, 2] + 0.25 * means[1, 1]) + 0.25 * (0.75 * means[2, 2] + 0.25 * means[2, 1])
    assert torch.allclose(patch[4:], coarse, atol=1e-6)


def test_the_image_score_is_equation_7() -> None:
    method = PatchCore(PooledPixels(), SMALL)
    method.fit(stripes(6, seed=0), seed=0)
    frame = stripes(1, seed=1)
    frame[0, 0, 20:30, 40:50] = 0.9
    bank = method.bank.double().numpy()
    patches = method.patches(torch.from_numpy(frame)).reshape(-1, bank.shape[1]).double().numpy()
    table = np.linalg.norm(patches[:, None] - bank[None], axis=2)
    worst = table.min(axis=1).argmax()
    nearest = table[worst].argmin()
    around = np.linalg.norm(bank - bank[nearest], axis=1).argsort()[:9]
    weight = 1 - np.exp(table[worst, nearest]) / np.exp(table[worst, around]).sum()
    assert method.score(frame).images[0] == pytest.approx(weight * table[worst, nearest], rel=1e-4)


def test_a_planted_patch_is_where_the_map_is_highest_and_its_frame_scores_highest() -> None:
    method = PatchCore(PooledPixels(), SMALL)
    method.fit(stripes(10, seed=0), seed=0)
    frames = stripes(5, seed=1)
    frames[3, 0, 16:32, 40:56] = frames[3, 0, 16:32, 40:56].T  # the same stripes, lying
    scores = method.score(frames)
    assert scores.maps.shape == (5, 64, 64)
    assert scores.images.argmax() == 3
    row, column = np.unravel_index(scores.maps[3].argmax(), (64, 64))
    assert 16 <= row < 32
    assert 40 <= column < 56
    assert scores.maps[3].max() > 2 * scores.maps[[0, 1, 2, 4]].max()


def test_the_coreset_is_the_wanted_share_up_to_its_limit_and_the_same_for_the_same_seed() -> None:
    normals = stripes(5, seed=0)  # of 64 patches each
    banks = []
    for limit, seed in ((1000, 0), (1000, 0), (1000, 1), (50, 0)):
        method = PatchCore(PooledPixels(), PatchCoreSettings(side=64, coreset_share=0.2, coreset_limit=limit))
        method.fit(normals, seed=seed)
        banks.append(method.bank)
    assert [len(bank) for bank in banks] == [64, 64, 64, 50]
    assert torch.equal(banks[0], banks[1])
    assert not torch.equal(banks[0], banks[2])


def test_a_frame_scores_alone_as_in_a_batch() -> None:
    method = PatchCore(PooledPixels(), SMALL)
    method.fit(stripes(5, seed=0), seed=0)
    frames = stripes(3, seed=1)
    together, alone = method.score(frames), method.score(frames[1:2])
    assert np.array_equal(together.maps[1], alone.maps[0])
    assert together.images[1] == alone.images[0]
