from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pytorch_msssim import ssim as reference_ssim
from torch import Tensor
from torch.nn import functional

from deploy.simulation import LineSettings, SimulatedLine
from monitor.core.decomposition import decompose, inner, objective, pixel_lambda, soft_threshold
from monitor.core.preprocessing import prepare
from schemas.artifacts import InputSpec

KINDS = ("crack", "scratch", "stain", "missing_spot")
lambdas = st.floats(-6, -3.5).map(lambda exponent: 10**exponent)
moderate = settings(max_examples=20, deadline=None)


def scene(channels: int, indices: range, kind: str = "crack", blur: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return defective 64x64 parts X and a prior X̂ as an autoencoder gives it: the sound part, somewhat blurred."""
    line = SimulatedLine(LineSettings(size=64, seed=3, colour=channels > 1))
    spec = InputSpec(height=64, width=64, channels=3 if channels > 1 else 1)
    frames = [prepare(line.defective_part(index, kind).image, spec) for index in indices]
    priors = [
        prepare(np.asarray(cv2.GaussianBlur(line.good_part(i).image, (0, 0), blur), np.uint8), spec) for i in indices
    ]
    return torch.from_numpy(np.stack(frames)), torch.from_numpy(np.stack(priors))


def reference_objective(background: Tensor, frames: Tensor, prior: Tensor, lam: float) -> Tensor:
    """Return eq. 3 as pytorch_msssim and autograd see it, (B,)."""
    padded = [functional.pad(images, (5, 5, 5, 5), mode="reflect") for images in (background, prior)]
    similarity = torch.as_tensor(reference_ssim(*padded, data_range=1, size_average=False))
    distance = (frames - background).abs().flatten(1).sum(dim=1)
    return 1 - similarity + lam * 128 * 128 / frames[0].numel() * distance


def by_adam(frames: Tensor, prior: Tensor, lam: float, steps: int) -> Tensor:
    """Return the best objective the paper's solver meets, (B,)."""
    background = prior.clone().requires_grad_()
    optimiser = torch.optim.Adam([background], lr=5e-3)
    best = torch.full((len(frames),), torch.inf)
    for _ in range(steps):
        values = reference_objective(background, frames, prior, lam)
        best = torch.minimum(best, values.detach())
        optimiser.zero_grad()
        values.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return best


@moderate
@given(lambdas, st.integers(0, 10_000), st.integers(0, 12))
def test_background_and_residual_add_up_to_the_frame(lam: float, seed: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    frames, prior = (torch.rand((2, 1, 16, 24), generator=generator) for _ in range(2))
    parts = decompose(frames, prior, lam, steps)
    assert torch.equal(parts.residual, frames - parts.background)
    # As exactly as single precision adds.
    torch.testing.assert_close(parts.background + parts.residual, frames, rtol=0, atol=6e-8)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_objective_is_that_of_pytorch_msssim(channels: int) -> None:
    frames, prior = scene(channels, range(2))
    background = (frames + prior) / 2
    torch.testing.assert_close(
        objective(background, frames, prior, 2e-4), reference_objective(background, frames, prior, 2e-4)
    )


@pytest.mark.parametrize(("channels", "lam"), [(1, 1e-4), (1, 3e-4), (3, 1e-4)])
def test_ten_steps_are_no_worse_than_hundreds_of_adam(channels: int, lam: float) -> None:
    frames, prior = scene(channels, range(2))
    ours = objective(decompose(frames, prior, lam, 10).background, frames, prior, lam)
    assert (ours <= 1.005 * by_adam(frames, prior, lam, 200)).all()


@settings(max_examples=8, deadline=None)
@given(lambdas, st.integers(0, 500), st.sampled_from(KINDS), st.floats(0.6, 2.0))
def test_two_hundred_steps_more_gain_three_percent_at_most(lam: float, index: int, kind: str, blur: float) -> None:
    frames, prior = scene(1, range(index, index + 1), kind, blur)
    ten, many = (objective(decompose(frames, prior, lam, steps).background, frames, prior, lam) for steps in (10, 210))
    assert (ten <= 1.03 * many).all()


@pytest.mark.parametrize("lam", [1e-5, 1e-4, 3e-4])
def test_two_hundred_steps_more_mostly_gain_less_than_one_percent(lam: float) -> None:
    frames, prior = scene(1, range(8))
    ten, many = (objective(decompose(frames, prior, lam, steps).background, frames, prior, lam) for steps in (10, 210))
    assert (ten / many - 1).median() < 0.01


def test_restarting_the_momentum_keeps_twenty_steps_from_overshooting() -> None:
    frames, prior = scene(1, range(4), blur=1.5)
    some, many = (
        objective(decompose(frames, prior, 1e-4, steps).background, frames, prior, 1e-4) for steps in (20, 600)
    )
    assert (some <= 1.0001 * many).all()


@settings(max_examples=60, deadline=None)
@given(lambdas, st.integers(0, 500), st.sampled_from(KINDS), st.floats(0.6, 2.0), st.sampled_from((1, 3)))
def test_it_is_never_worse_than_taking_all_or_nothing_for_defect(
    lam: float, index: int, kind: str, blur: float, channels: int
) -> None:
    frames, prior = scene(channels, range(index, index + 1), kind, blur)
    ours = objective(decompose(frames, prior, lam, 10).background, frames, prior, lam)
    for trivial in (frames, prior):
        assert (ours <= objective(trivial, frames, prior, lam) + 1e-6).all()


def test_lambda_is_the_papers_on_the_papers_images_and_converted_on_others() -> None:
    assert pixel_lambda(1e-5, torch.zeros(7, 1, 128, 128)) == pytest.approx(1e-5)
    assert pixel_lambda(1e-5, torch.zeros(7, 1, 256, 256)) == pytest.approx(1e-5 / 4)
    assert pixel_lambda(1e-5, torch.zeros(7, 3, 64, 64)) == pytest.approx(1e-5 * 4 / 3)


def test_the_same_lambda_acts_alike_on_a_larger_image_and_on_more_channels() -> None:
    frames, prior = scene(1, range(2))
    alone = decompose(frames, prior, 2e-4, 10).residual

    def mirrored(images: Tensor) -> Tensor:
        return functional.pad(images, (63, 0, 63, 0), mode="reflect")  # (B, 1, 127, 127)

    large = decompose(mirrored(frames), mirrored(prior), 2e-4, 10).residual[..., 63:, 63:]
    inside = (slice(None), slice(None), slice(12, -12), slice(12, -12))
    torch.testing.assert_close(large[inside], alone[inside], rtol=0, atol=0.02)
    assert large[inside].abs().sum() == pytest.approx(alone[inside].abs().sum().item(), rel=0.02)
    coloured = decompose(frames.expand(-1, 3, -1, -1), prior.expand(-1, 3, -1, -1), 2e-4, 10).residual
    torch.testing.assert_close(coloured, alone.expand(-1, 3, -1, -1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_lambda_leaves_no_defect_and_a_tiny_one_leaves_the_prior(channels: int) -> None:
    frames, prior = scene(channels, range(3))
    assert not decompose(frames, prior, 1e3, 10).residual.any()
    tiny = decompose(frames, prior, 1e-9, 10)
    torch.testing.assert_close(tiny.background, prior, rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_a_defect_in_the_outermost_pixels_is_found(channels: int, side: str) -> None:
    _, sound = scene(channels, range(1), blur=0.6)
    place = {
        "top": (slice(0, 3), slice(20, 40)),
        "bottom": (slice(61, 64), slice(20, 40)),
        "left": (slice(20, 40), slice(0, 3)),
        "right": (slice(20, 40), slice(61, 64)),
    }[side]
    defect = torch.zeros(64, 64, dtype=torch.bool)
    defect[place] = True
    frames = torch.where(defect, (sound + 0.5) % 1.0, sound)
    change = (frames - sound).abs()
    found = decompose(frames, sound, 1e-4, 10).residual.abs()
    assert found[..., defect].sum() > 0.7 * change[..., defect].sum()
    assert found[..., ~defect].mean() < 0.02


@given(
    arrays(np.float32, (3, 5), elements=st.floats(-2, 2, width=32)),
    arrays(np.float32, (3, 5), elements=st.floats(0, 2, width=32)),
)
def test_soft_thresholding_shrinks_towards_zero_by_the_threshold(
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]], limits: np.ndarray[tuple[int, int], np.dtype[np.float32]]
) -> None:
    shrunk = soft_threshold(torch.from_numpy(values), torch.from_numpy(limits)).numpy()
    np.testing.assert_allclose(shrunk, np.sign(values) * np.maximum(np.abs(values) - limits, 0), atol=1e-6)
    assert not shrunk[np.abs(values) <= limits].any()


@pytest.mark.parametrize("shape", [(3, 64, 64), (3, 128, 128), (1, 256, 256)])
def test_a_frame_is_decomposed_alike_alone_or_in_a_batch(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(20)
    frames, prior = (torch.rand((3, *shape), generator=generator) for _ in range(2))
    together = decompose(frames, prior, 3e-4, 4).background
    alone = [decompose(frames[i : i + 1], prior[i : i + 1], 3e-4, 4).background for i in range(3)]
    assert torch.equal(together, torch.cat(alone))
    # What decides on a restart of the momentum is a long sum, whose rounding must not depend on the batch either.
    sums = [inner(frames[i : i + 1], prior[i : i + 1]) for i in range(3)]
    assert torch.equal(inner(frames, prior), torch.cat(sums))


def test_each_frame_keeps_its_own_momentum() -> None:
    cases = [scene(1, range(index, index + 1), kind, 1.5) for index, kind in enumerate(KINDS)]
    frames, prior = (torch.cat(part) for part in zip(*cases, strict=True))
    together = decompose(frames, prior, 1e-4, 40).background
    assert torch.equal(together, torch.cat([decompose(*case, 1e-4, 40).background for case in cases]))


def test_no_frames_are_no_work() -> None:
    nothing = torch.zeros(0, 1, 32, 32)
    assert decompose(nothing, nothing, 1e-4, 10).residual.shape == (0, 1, 32, 32)


def test_the_frames_and_the_prior_are_left_as_they_were() -> None:
    frames, prior = scene(1, range(1))
    kept = frames.clone(), prior.clone()
    decompose(frames, prior, 1e-4, 10)
    assert torch.equal(frames, kept[0])
    assert torch.equal(prior, kept[1])
