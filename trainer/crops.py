"""Crops of large frames: what networks learn from, so that a step costs the same however large the frames are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# The side of a crop. It is four to eight times as wide as what the networks see around a place, so that most of it is
# seen as in the whole frame; and a multiple of every grid of poolings that an architecture may have.
CROP = 256


def choose_crop(
    size: tuple[int, ...], rng: np.random.Generator, step: int = 1, inspected: NDArray[np.bool_] | None = None
) -> tuple[slice, slice]:
    """Return the rows and columns of a random crop of a frame; a frame no larger than a crop whole, drawing nothing.

    Args:
        size: (H, W) of the frame, multiples of ``step``.
        rng: draws the place.
        step: the crop begins at a multiple of it, so that poolings halve the same pixels as in the whole frame.
        inspected: (H, W), somewhere True, the pixels around which crops are taken; None: all.
    """
    height, width = size
    if max(height, width) <= CROP:
        return slice(0, height), slice(0, width)
    # By its middle, moved inside: by its corner, the frame's border would hardly ever be shown.
    if inspected is None:
        row, column = rng.integers(height), rng.integers(width)
    else:
        pixels = np.flatnonzero(inspected)
        row, column = divmod(pixels[rng.integers(len(pixels))], width)
    return _around(int(row), height, step), _around(int(column), width, step)


def _around(middle: int, side: int, step: int) -> slice:
    length = min(CROP, side)
    start = min(max(0, middle - length // 2), side - length) // step * step
    return slice(start, start + length)
