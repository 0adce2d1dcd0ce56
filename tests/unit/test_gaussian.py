from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from monitor.core.gaussian import RADIUS, SIGMA, blur, blur_adjoint

shapes = st.tuples(st.integers(1, 2), st.sampled_from((1, 3)), st.integers(6, 40), st.integers(6, 40))
seeds = st.integers(0, 2**32)
quick = settings(max_examples=40, deadline=None)


def noise(shape: tuple[int, ...], seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_convolution(images: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-5.0, 6.0, dtype=images.dtype)
    line = torch.exp(-(offsets**2) / (2 * sigma**2))
    window = torch.outer(line, line) / line.sum() ** 2
    padded = functional.pad(images, (5, 5, 5, 5), mode="reflect")
    channels = images.shape[1]
    return functional.conv2d(padded, window.expand(channels, 1, 11, 11), groups=channels)


def by_matmul(images: Tensor) -> Tensor:
    return images.clone().requires_grad_()


@quick
@given(shapes, seeds, st.sampled_from((SIGMA, 0.6, 0.9)))
def test_blurring_is_a_gaussian_convolution_of_the_reflected_image(
    shape: tuple[int, ...], seed: int, sigma: float
) -> None:
    images = noise(shape, seed)
    torch.testing.assert_close(blur(images, sigma), by_convolution(images, sigma))
    torch.testing.assert_close(blur(by_matmul(images), sigma).detach(), by_convolution(images, sigma))


def test_the_window_of_ssim_is_the_one_without_a_name() -> None:
    images = noise((1, 1, 16, 16), 1)
    torch.testing.assert_close(blur(images), by_convolution(images, 1.5))


@quick
@given(shapes, seeds)
def test_the_adjoint_is_the_transpose_of_the_blur_on_both_paths(shape: tuple[int, ...], seed: int) -> None:
    x, y = noise(shape, seed), noise(shape, seed + 1)
    for a, b in ((x, y), (by_matmul(x), by_matmul(y))):
        left, right = (blur(a) * b).sum(), (a * blur_adjoint(b)).sum()
        torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-10)


@quick
@given(shapes, seeds, st.sampled_from((torch.float32, torch.float64)))
def test_opencv_and_matrix_multiplication_are_the_same_map(
    shape: tuple[int, ...], seed: int, dtype: torch.dtype
) -> None:
    images = noise(shape, seed, dtype)
    for function in (blur, blur_adjoint):
        torch.testing.assert_close(function(images), function(by_matmul(images)).detach(), rtol=1e-5, atol=1e-5)


def test_an_image_that_needs_a_gradient_gets_one() -> None:
    images = by_matmul(noise((1, 1, 12, 17), 0))
    blur(images).sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    torch.testing.assert_close(images.grad, blur_adjoint(torch.ones_like(images).detach()))


def test_a_flat_image_stays_flat_and_spreading_loses_nothing() -> None:
    flat = torch.full((2, 3, 16, 31), 0.7)
    torch.testing.assert_close(blur(flat), flat)
    spread = blur_adjoint(noise((2, 3, 16, 31), 3))
    torch.testing.assert_close(spread.sum(dim=(2, 3)), noise((2, 3, 16, 31), 3).sum(dim=(2, 3)))


def test_the_layout_in_memory_does_not_matter_and_the_input_is_left_alone() -> None:
    images = noise((2, 3, 16, 24), 4)
    kept = images.clone()
    strided = images.contiguous(memory_format=torch.channels_last)
    for function in (blur, blur_adjoint):
        assert torch.equal(function(images), function(strided))
    assert torch.equal(images, kept)


@pytest.mark.parametrize("function", [blur, blur_adjoint])
@pytest.mark.parametrize("shape", [(1, 1, RADIUS, 20), (1, 1, 20, RADIUS)])
def test_an_image_too_small_to_reflect_is_refused_on_both_paths(function: type, shape: tuple[int, ...]) -> None:
    for images in (torch.zeros(shape), by_matmul(torch.zeros(shape))):
        with pytest.raises(ValueError, match="larger than 5 pixels a side"):
            function(images)
