"""The Gaussian window G of SSIM over a reflected border, and its adjoint Gᵀ: on CPU by OpenCV, elsewhere by matmul.

Both are the same linear map. OpenCV's separable filter is five to fifty times faster on CPU than torch's convolution
and treats every plane by itself, so a frame's result never depends on its neighbours in the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

PlaneFilter = Callable[[NDArray[np.float32], NDArray[np.float32]], None]

SIZE = 11
SIGMA = 1.5
RADIUS = SIZE // 2


@lru_cache(maxsize=8)
def kernel(sigma: float = SIGMA) -> NDArray[np.float64]:
    """Return the window's 11 weights; they sum to 1. ``sigma`` in pixels, above 0 and up to 1.5."""
    offsets = np.arange(SIZE) - RADIUS
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum())


def blur(images: Tensor, sigma: float = SIGMA) -> Tensor:
    """Return G x per plane: (B, C, H, W) to the same shape; the border is reflected (without the edge pixel)."""
    if _by_opencv(images):
        return _each_plane(images, partial(_blur_plane, sigma=sigma))
    rows, columns = (_cached_matrix(length, images.dtype, images.device, sigma) for length in images.shape[2:])
    return rows @ images @ columns.T


def blur_adjoint(images: Tensor) -> Tensor:
    """Return Gᵀ x per plane: (B, C, H, W) to the same shape."""
    if _by_opencv(images):
        return _each_plane(images, _blur_adjoint_plane)
    rows, columns = (_cached_matrix(length, images.dtype, images.device, SIGMA) for length in images.shape[2:])
    return rows.T @ images @ columns


def _by_opencv(images: Tensor) -> bool:
    if min(images.shape[2:]) <= RADIUS:
        msg = f"images must be larger than {RADIUS} pixels a side, not {tuple(images.shape[2:])}"
        raise ValueError(msg)
    return images.device.type == "cpu" and not images.requires_grad


def _each_plane(images: Tensor, function: PlaneFilter) -> Tensor:
    out = torch.empty_like(images, memory_format=torch.contiguous_format)
    source, target = images.contiguous().numpy(), out.numpy()
    height, width = images.shape[2:]
    for plane, result in zip(source.reshape(-1, height, width), target.reshape(-1, height, width), strict=True):
        function(plane, result)
    return out


def _blur_plane(plane: NDArray[np.float32], out: NDArray[np.float32], sigma: float) -> None:
    cv2.sepFilter2D(plane, -1, kernel(sigma), kernel(sigma), dst=out, borderType=cv2.BORDER_REFLECT_101)


def _blur_adjoint_plane(plane: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """Spread each window over its pixels; what falls outside the image is folded back where it was reflected from."""
    zero_padded = cv2.copyMakeBorder(plane, RADIUS, RADIUS, RADIUS, RADIUS, cv2.BORDER_CONSTANT, value=0.0)
    spread: NDArray[np.float32] = np.asarray(
        cv2.sepFilter2D(zero_padded, -1, kernel(), kernel(), borderType=cv2.BORDER_CONSTANT)
    )
    last = RADIUS + plane.shape[0] - 1
    spread[RADIUS + 1 : 2 * RADIUS + 1] += spread[RADIUS - 1 :: -1]
    spread[last - RADIUS : last] += spread[:last:-1]
    last = RADIUS + plane.shape[1] - 1
    spread[:, RADIUS + 1 : 2 * RADIUS + 1] += spread[:, RADIUS - 1 :: -1]
    spread[:, last - RADIUS : last] += spread[:, :last:-1]
    out[...] = spread[RADIUS:-RADIUS, RADIUS:-RADIUS]


@lru_cache(maxsize=32)
def _cached_matrix(length: int, dtype: torch.dtype, device: torch.device, sigma: float) -> Tensor:
    """Return G along one axis as a (length, length) matrix."""
    centre = np.arange(length)[:, None]
    reached = np.abs(centre + np.arange(SIZE)[None] - RADIUS)
    reached = np.minimum(reached, 2 * (length - 1) - reached)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.broadcast_to(centre, reached.shape), reached), np.broadcast_to(kernel(sigma), reached.shape))
    return torch.tensor(matrix, dtype=dtype, device=device)
