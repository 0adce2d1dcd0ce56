from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_msssim import ssim as reference_ssim
from torch import Tensor
from torch.nn import functional

from monitor.core.ssim import C1, C2, SsimTo, ssim

shapes = st.tuples(st.integers(1, 3), st.sampled_from((1, 3)), st.integers(11, 40), st.integers(11, 40))
seeds = st.integers(0, 2**32)
quick = settings(max_examples=30, deadline=None)


def pair(shape: tuple[int, ...], seed: int, gamma: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return an image and one that resembles it here and not there, float64 in [0, 1]; a large gamma makes it night."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(shape, generator=generator, dtype=torch.float64)
    blend = torch.rand((shape[0], 1, 1, shape[3]), generator=generator, dtype=torch.float64)
    y = blend * x + (1 - blend) * torch.rand(shape, generator=generator, dtype=torch.float64)
    return x**gamma, y**gamma


def padded(images: Tensor) -> Tensor:
    return functional.pad(images, (5, 5, 5, 5), mode="reflect")


def reference(x: Tensor, y: Tensor) -> Tensor:
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    # The library makes its own window in float32.
    window = (line / line.sum()).repeat(x.shape[1], 1, 1, 1)
    return torch.as_tensor(reference_ssim(padded(x), padded(y), data_range=1, size_average=False, win=window))


def moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return l, cs and their denominators, by plain convolution."""
    from_x, from_y = window_mean(x), window_mean(y)
    variances = window_mean(x * x) - from_x**2 + window_mean(y * y) - from_y**2
    b1, b2 = from_x**2 + from_y**2 + C1, variances + C2
    return (2 * from_x * from_y + C1) / b1, (2 * (window_mean(x * y) - from_x * from_y) + C2) / b2, b1, b2


def window_mean(images: Tensor) -> Tensor:
    offsets = torch.arange(-5, 6, dtype=images.dtype)
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = torch.outer(line, line) / line.sum() ** 2
    channels = images.shape[1]
    return functional.conv2d(padded(images), window.expand(channels, 1, 11, 11), groups=channels)


def curvature_along(v: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return vᵀHv per image of the quadratic with frozen denominators: (B,)."""
    luminance, contrast, b1, b2 = moments(x, y)
    mean = window_mean(v)
    variance = window_mean(v * v) - mean**2
    return (2 * (luminance * variance / b2 + contrast * mean**2 / b1)).flatten(1).mean(dim=1)


@quick
@given(shapes, seeds)
def test_the_value_is_that_of_pytorch_msssim_on_reflected_images(shape: tuple[int, ...], seed: int) -> None:
    x, y = pair(shape, seed)
    torch.testing.assert_close(ssim(x, y), reference(x, y), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(1.0 - SsimTo(y).at(x).value, reference(x, y), rtol=1e-9, atol=1e-9)


@quick
@given(shapes, seeds)
def test_the_gradient_is_that_of_autograd_through_pytorch_msssim(shape: tuple[int, ...], seed: int) -> None:
    x, y = pair(shape, seed)
    x.requires_grad_()
    (1.0 - reference(x, y)).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(SsimTo(y).at(x.detach()).gradient, x.grad, rtol=1e-6, atol=1e-10)


def test_single_precision_keeps_four_digits_of_the_gradient() -> None:
    x, y = pair((2, 3, 32, 48), 1)
    exact, rounded = SsimTo(y).at(x), SsimTo(y.float()).at(x.float())
    scale = float(exact.gradient.abs().max())
    torch.testing.assert_close(rounded.value.double(), exact.value, rtol=0, atol=1e-5)
    torch.testing.assert_close(rounded.gradient.double(), exact.gradient, rtol=0, atol=1e-4 * scale)


@quick
@given(shapes, seeds, st.sampled_from((1.0, 80.0)))
def test_the_curvature_is_positive_and_bounds_the_frozen_quadratic(
    shape: tuple[int, ...], seed: int, gamma: float
) -> None:
    x, y = pair(shape, seed, gamma)
    curvature = SsimTo(y).at(x).curvature
    assert (curvature > 0).all()
    spike = torch.zeros_like(x)
    spike[..., shape[2] // 2, shape[3] // 2] = 1.0
    for v in (
        torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype),
        spike,
        x - y,
        torch.ones_like(x),
    ):
        bound = (curvature * v * v).flatten(1).sum(dim=1)
        assert (curvature_along(v, x, y) <= bound * (1 + 1e-9)).all()


def test_the_bound_is_no_looser_than_it_must_be() -> None:
    _, y = pair((1, 1, 32, 32), 2)
    spike = torch.zeros_like(y)
    spike[..., 16, 16] = 1.0
    bound = (SsimTo(y).at(y).curvature * spike).sum()
    assert curvature_along(spike, y, y).item() > 0.8 * bound.item()


@quick
@given(shapes, seeds)
def test_a_step_by_the_curvature_lowers_the_frozen_quadratic(shape: tuple[int, ...], seed: int) -> None:
    x, y = pair(shape, seed)
    local = SsimTo(y).at(x)
    step = -local.gradient / local.curvature
    change = (local.gradient * step).flatten(1).sum(dim=1) + curvature_along(step, x, y) / 2
    assert (change < 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_is_like_itself_and_its_gradient_there_is_zero(channels: int) -> None:
    x, _ = pair((2, channels, 20, 28), 5)
    local = SsimTo(x).at(x)
    torch.testing.assert_close(local.value, torch.zeros(2, dtype=x.dtype))
    torch.testing.assert_close(local.gradient, torch.zeros_like(x), rtol=0, atol=1e-12)


def test_a_pixel_in_the_corner_counts_as_much_as_one_inside() -> None:
    y = torch.full((1, 1, 32, 32), 0.5, dtype=torch.float64)
    values = []
    for place in ((0, 0), (16, 16)):
        x = y.clone()
        x[0, 0, place[0] : place[0] + 4, place[1] : place[1] + 4] = 0.9
        values.append(SsimTo(y).at(x).value.item())
    assert values[0] > 0.25 * values[1]
