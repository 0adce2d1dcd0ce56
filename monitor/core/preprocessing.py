"""From a decoded camera frame to the network's input."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import InputSpec

GREY_DIMENSIONS = 2


def prepare(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Return (C, H, W) in [0, 1] of an image (h, w) or (h, w, 3) BGR, uint8, of any size.

    Shrinking averages areas, so that thin cracks fade rather than vanish between sampled pixels.
    """
    if spec.channels == 1 and image.ndim > GREY_DIMENSIONS:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    elif spec.channels > 1 and image.ndim == GREY_DIMENSIONS:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    pixels: NDArray[np.float32] = image.astype(np.float32) / 255.0
    if image.shape[:2] != (spec.height, spec.width):
        shrinks = image.shape[0] >= spec.height and image.shape[1] >= spec.width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        pixels = np.asarray(cv2.resize(pixels, (spec.width, spec.height), interpolation=method), dtype=np.float32)
    if pixels.ndim == GREY_DIMENSIONS:
        return np.ascontiguousarray(pixels[None])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
