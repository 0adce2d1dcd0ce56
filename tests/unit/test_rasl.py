from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.metrics import roc_auc_score

from trainer.baselines.affine import Window, linearise
from trainer.baselines.low_rank import decompose_aligned, shrink_singular_values
from trainer.baselines.rasl import Rasl, align

SIZE = 64
Array = NDArray[np.float64]


def smooth_images(rng: np.random.Generator, count: int, sigma: float = 3.0) -> Array:
    """(count, SIZE + 20, SIZE + 20), larger than a frame, so that shifted frames can be cut out of them."""
    noise = gaussian_filter(rng.normal(size=(count, SIZE + 20, SIZE + 20)), (0, sigma, sigma))
    return np.asarray(noise / noise.std())


def cut(image: Array, shift: tuple[float, float]) -> Array:
    """The (SIZE, SIZE) middle, moved by (dx, dy) pixels to the right and down."""
    rows, columns = np.mgrid[10 : SIZE + 10, 10 : SIZE + 10]
    return np.asarray(map_coordinates(image, [rows - shift[1], columns - shift[0]], order=3))


def products(rng: np.random.Generator, count: int, shifts: Array) -> NDArray[np.float32]:
    """(count, 1, SIZE, SIZE): a common pattern and a second one of varying strength (rank two), each frame shifted."""
    pattern, variation = smooth_images(rng, 2)
    strengths = rng.uniform(-0.3, 0.3, count)
    frames = [
        cut(0.5 + 0.12 * (pattern + strength * variation), shift)
        for strength, shift in zip(strengths, shifts, strict=True)
    ]
    return np.stack(frames)[:, None].clip(0, 1).astype(np.float32)


def test_robust_pca_recovers_a_planted_low_rank_and_sparse_part() -> None:
    rng = np.random.default_rng(0)
    low_rank = rng.normal(size=(900, 2)) @ rng.normal(size=(2, 40)) / 30
    sparse = np.where(rng.random(low_rank.shape) < 0.08, rng.choice((-1.0, 1.0), low_rank.shape), 0.0)

    found = decompose_aligned(low_rank + sparse, np.zeros((0, 900, 6)), 1 / 30, tolerance=1e-7)

    assert np.linalg.norm(found.low_rank - low_rank) < 1e-3 * np.linalg.norm(low_rank)
    assert np.linalg.norm(found.sparse - sparse) < 1e-3 * np.linalg.norm(sparse)


def test_singular_values_are_shrunk_as_by_a_decomposition() -> None:
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(200, 12)) @ np.diag(np.geomspace(1, 1e-4, 12))
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    kept = np.maximum(s - 0.5, 0)

    found, nuclear = shrink_singular_values(matrix, 0.5)

    np.testing.assert_allclose(found, (u * kept) @ vt, atol=1e-9)
    assert nuclear == pytest.approx(kept.sum())


def test_the_jacobian_is_the_slope_of_the_unit_vector() -> None:
    rng = np.random.default_rng(2)
    ramp = np.linspace(0.1, 1.5, SIZE)[:, None]  # so that a move also changes the vector's length
    frame = (ramp * (0.5 + 0.05 * smooth_images(rng, 2, sigma=6.0)[:, :SIZE, :SIZE])).astype(np.float32)
    window = Window(SIZE, SIZE, 5)
    at = np.array([0.01, -0.02, 0.01, 0.015, 0.01, -0.02])

    _, jacobian, _ = linearise(frame, at, window)

    for index in range(6):
        step = np.zeros(6)
        step[index] = 2e-3
        slope = (linearise(frame, at + step, window)[0] - linearise(frame, at - step, window)[0]) / 4e-3
        assert np.corrcoef(slope, jacobian[:, index])[0, 1] > 0.999
        assert np.linalg.norm(slope) == pytest.approx(np.linalg.norm(jacobian[:, index]), rel=0.03)


def test_what_is_read_under_a_transform_is_put_back_where_it_was() -> None:
    rng = np.random.default_rng(3)
    frame = (0.5 + 0.1 * smooth_images(rng, 1)[:, :SIZE, :SIZE]).astype(np.float32)
    window = Window(SIZE, SIZE, 5)
    transform = np.array([0.03, -0.05, 0.02, 0.05, -0.02, -0.04])

    read = window.sample(frame.astype(np.float64), transform, order=3)[0].reshape(window.shape)
    back = window.put_back(read, transform)

    np.testing.assert_allclose(back[12:-12, 12:-12], frame[0, 12:-12, 12:-12], atol=0.01)
    assert back[0].max() == 0.0


def test_planted_shifts_defects_and_rank_are_recovered() -> None:
    rng = np.random.default_rng(4)
    shifts = rng.uniform(-1.5, 1.5, (16, 2))
    frames = products(rng, 16, shifts)
    truth = np.zeros(frames.shape, bool)
    for index, mask in enumerate(truth):
        row, column = rng.integers(10, SIZE - 18, 2)
        mask[0, row : row + 6, column : column + 6] = True
        frames[index][mask] = 1.0
    window = Window(SIZE, SIZE, 5)

    solved, transforms, _, _ = align(np.zeros((window.shape[0] ** 2, 0)), list(frames), window, 20, centred=True)

    # They meet at their mean: that is where the transforms are held.
    np.testing.assert_allclose(transforms.mean(axis=0), 0, atol=1e-12)
    found = transforms[:, [2, 5]] * window.unit
    np.testing.assert_allclose(found, shifts - shifts.mean(axis=0), atol=0.15)
    values = np.linalg.svd(solved.low_rank, compute_uv=False)
    assert values[2] < 0.02 * values[0]
    blank = np.zeros(6)
    seen = np.stack([window.sample(mask.astype(np.float64), blank, order=0)[0] for mask in truth], axis=1)
    assert roc_auc_score(seen.ravel(), np.abs(solved.sparse).ravel()) > 0.97


def test_a_shifted_frame_is_aligned_and_its_defect_mapped_in_place() -> None:
    rng = np.random.default_rng(5)
    shifts = np.zeros((21, 2))
    shifts[-1] = (3.5, -3.0)
    frames = products(rng, 21, shifts)
    defect = frames[-1].copy()
    defect[0, 30:36, 20:28] = 0.9
    method = Rasl(normals=20)
    method.fit(frames[:-1], seed=0)

    _, transforms, _, _ = align(method._aligned, [defect], method._window, 5, centred=False)
    clean, defective = method.score(np.stack([frames[-1], defect])).maps

    np.testing.assert_allclose(transforms[0, [2, 5]] * method._window.unit, shifts[-1], atol=0.1)
    truth = np.zeros((SIZE, SIZE), bool)
    truth[30:36, 20:28] = True
    assert defective[truth].mean() > 0.1
    assert np.quantile(defective[~truth], 0.99) < 0.03  # where unaligned, edges would stand out
    assert clean.max() < 0.08


def test_a_frame_scores_alike_alone_or_in_a_batch_and_the_border_is_left_out() -> None:
    rng = np.random.default_rng(6)
    frames = products(rng, 12, rng.uniform(-1, 1, (12, 2)))
    method = Rasl(normals=8)
    method.fit(frames[:8], seed=0)

    together, alone = method.score(frames[8:]), method.score(frames[9:10])

    np.testing.assert_array_equal(together.maps[1], alone.maps[0])
    assert together.images[1] == alone.images[0]
    assert together.maps[:, :3].max() == 0.0
    assert method.size_bytes() == 8 * 54 * 54 * 4
