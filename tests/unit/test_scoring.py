from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from monitor.core.gaussian import blur
from monitor.core.scoring import (
    SILENCE,
    Normality,
    Witnesses,
    anomaly_map,
    excess_residual,
    fine_detail,
    image_score,
    known_residual,
    residual_strength,
    smooth,
)
from schemas.artifacts import Polarity

seeds = st.integers(0, 2**32)


def drawn(shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3])
def test_polarity_says_which_residuals_count(channels: int) -> None:
    residual = torch.zeros(1, channels, 1, 3)
    residual[0, :, 0, 0], residual[0, :, 0, 1] = -0.5, 0.25
    expected = {Polarity.BOTH: (0.5, 0.25, 0), Polarity.DARK: (0.5, 0, 0), Polarity.BRIGHT: (0, 0.25, 0)}
    for polarity, strengths in expected.items():
        assert residual_strength(residual, polarity)[0, 0].tolist() == pytest.approx(strengths)


def test_the_strength_of_a_residual_is_its_mean_over_the_channels() -> None:
    residual = torch.tensor([-0.3, 0.6, 0.0]).reshape(1, 3, 1, 1)
    assert residual_strength(residual, Polarity.BOTH).item() == pytest.approx(0.3)
    assert residual_strength(residual, Polarity.DARK).item() == pytest.approx(0.1)
    assert residual_strength(residual, Polarity.BRIGHT).item() == pytest.approx(0.2)


@given(seeds)
def test_dark_and_bright_add_up_to_both(seed: int) -> None:
    residual = drawn((2, 3, 8, 8), seed) - 0.5
    dark, bright, both = (residual_strength(residual, p) for p in (Polarity.DARK, Polarity.BRIGHT, Polarity.BOTH))
    torch.testing.assert_close(dark + bright, both)


def test_the_spread_is_large_where_normals_differ_and_never_zero() -> None:
    excess = torch.zeros(10, 32, 32)
    excess[:, 8:24, 8:24] = 0.1
    spread = Normality.fit(excess, torch.zeros_like(excess)).spread
    assert (spread > 0).all()
    assert spread[16, 16] > 4 * spread[0, 0]
    assert spread[16, 16].item() == pytest.approx(0.1, rel=0.4)
    nothing = torch.zeros(4, 32, 32)
    assert (Normality.fit(nothing, nothing).spread > 0).all()
    assert torch.equal(Normality.fit(nothing, excess).detail, spread)


def test_the_spread_scales_with_the_residuals() -> None:
    excess = drawn((6, 32, 32))
    once, thrice = (Normality.fit(each, each).spread for each in (excess, 3 * excess))
    torch.testing.assert_close(thrice - 1e-4, 3 * (once - 1e-4))


@given(seeds, st.sampled_from(((2, 4), (4, 2), (1, 1), (8, 8))), st.sampled_from((0.75, 1.25)))
def test_what_the_bank_keeps_are_the_residuals_of_each_location(
    seed: int, cells: tuple[int, int], share: float
) -> None:
    strength = drawn((2, 16, 32), seed)
    known = known_residual(strength, cells, share)
    rows, columns = 16 // cells[0], 32 // cells[1]
    assert known.shape == (2, *cells, rows * columns // 4)
    for i in range(cells[0]):
        for j in range(cells[1]):
            patch = strength[1, i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].numpy()
            largest = patch.reshape(rows // 2, 2, columns // 2, 2).max(axis=(1, 3))
            np.testing.assert_allclose(known[1, i, j], share * largest.ravel(), rtol=1e-6)


@given(seeds)
def test_a_residual_that_a_normal_left_alike_is_excused(seed: int) -> None:
    strength = blur(drawn((2, 1, 16, 32), seed))[:, 0]  # as smooth as residuals are
    excused = excess_residual(strength, known_residual(strength, (2, 4), 1.25))
    assert excused.mean() < 0.02 * strength.mean()
    half = excess_residual(strength, known_residual(strength, (2, 4), 0.5))
    assert 0.2 * strength.mean() < half.mean() < 0.6 * strength.mean()


@given(seeds)
def test_nothing_known_excuses_nothing_and_no_excess_is_negative(seed: int) -> None:
    strength = drawn((2, 16, 32), seed)
    assert torch.equal(excess_residual(strength, torch.zeros(2, 2, 4, 16)), strength)
    excess = excess_residual(strength, known_residual(drawn((2, 16, 32), seed + 1), (2, 4), 1.0))
    assert (excess >= 0).all()
    assert (excess <= strength).all()


def test_a_normal_excuses_only_where_it_left_a_residual() -> None:
    strength = torch.zeros(1, 32, 32)
    strength[0, 4:8, 20:24] = 0.5
    strength[0, 20:24, 4:8] = 0.5
    seen = torch.zeros(1, 32, 32)
    seen[0, 4:8, 20:24] = 0.5
    excess = excess_residual(strength, known_residual(seen, (4, 4), 1.25))
    # Bilinear between locations, so that the last pixel of an excused patch keeps a little.
    assert excess[0, 5:7, 21:23].max() == 0
    assert torch.equal(excess[0, 12:], strength[0, 12:])


def test_smoothing_evens_out_and_zero_does_nothing() -> None:
    excess = torch.zeros(1, 17, 17)
    excess[0, 8, 8] = 1.0
    assert torch.equal(smooth(excess, 0.0), excess)
    peaks = [smooth(excess, sigma)[0, 8, 8].item() for sigma in (0.6, 0.9, 1.3)]
    assert 1.0 > peaks[0] > peaks[1] > peaks[2] > 0.05
    assert smooth(excess, 1.3).sum().item() == pytest.approx(1.0, rel=1e-5)


@given(seeds, st.integers(1, 64))
def test_the_score_of_a_frame_is_the_mean_of_its_largest_anomalies(seed: int, pixels: int) -> None:
    anomaly = drawn((3, 8, 8), seed)
    expected = np.sort(anomaly.reshape(3, -1).numpy(), axis=1)[:, -pixels:].mean(axis=1)
    np.testing.assert_allclose(image_score(anomaly, pixels), expected, rtol=1e-5)


def witnesses(excess: torch.Tensor, detail: float = 1.0, suspicion: float = 0.0) -> Witnesses:
    return Witnesses(excess, torch.full_like(excess, detail), torch.full_like(excess, suspicion))


ONES = Normality(torch.ones(4, 4), torch.ones(4, 4))


@given(st.floats(0.0, 1e3), st.floats(-1e3, 1e3))
def test_without_a_residual_no_sharpness_and_no_suspicion_makes_a_defect(detail: float, suspicion: float) -> None:
    silent = anomaly_map(witnesses(torch.zeros(1, 4, 4), detail, suspicion), ONES, 0.0)
    assert (silent > 0).all()
    assert (silent < SILENCE * 0.9995).all()


def test_of_two_pixels_without_a_residual_the_one_that_looks_like_a_defect_is_the_likelier() -> None:
    sound, odd = (anomaly_map(witnesses(torch.zeros(1, 4, 4), 1.0, each), ONES, 0.0) for each in (-3.0, 3.0))
    assert (odd > sound).all()


@given(st.floats(0.1, 50.0), st.floats(0.0, 20.0), st.floats(0.0, 20.0))
def test_a_sharp_residual_is_odder_than_a_dull_one_of_the_same_strength(
    strength: float, less: float, more: float
) -> None:
    dull, sharp = (
        anomaly_map(witnesses(torch.full((1, 4, 4), strength), each), ONES, 0.0)[0, 0, 0].item()
        for each in sorted((less, more))
    )
    assert dull <= sharp
    # However dull, it keeps most of itself: a broad stain is a defect too.
    assert dull >= 0.7 * strength


def test_the_detail_of_a_residual_is_at_its_edges_and_a_shadow_has_none() -> None:
    column = torch.arange(64.0)
    shadow = (0.3 * torch.sigmoid((column - 32) / 8)).expand(1, 1, 64, 64)
    step = torch.where(column < 32, 0.0, 0.3).expand(1, 1, 64, 64)
    soft, hard = (fine_detail(each, Polarity.BOTH) for each in (shadow, step))
    assert hard[0, 32, 30:34].min() > 20 * soft.max()
    assert hard[0, 32, :20].max() < 1e-6
    assert fine_detail(step, Polarity.DARK).max() == 0
    assert torch.equal(fine_detail(-step, Polarity.DARK), fine_detail(step, Polarity.BRIGHT))


def test_the_detail_of_a_colour_residual_is_its_mean_over_the_channels() -> None:
    residual = drawn((2, 3, 16, 16)) - 0.5
    alone = [fine_detail(residual[:, channel : channel + 1], Polarity.BOTH) for channel in range(3)]
    torch.testing.assert_close(fine_detail(residual, Polarity.BOTH), torch.stack(alone).mean(dim=0))
