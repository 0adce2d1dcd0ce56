"""From an encoded camera frame to the network's input: the same pixels in training and on the line."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import InputSpec

GREY_DIMENSIONS = 2

# What cannot be decoded is reported by this program, once, with the image's name.
if hasattr(cv2.utils, "logging"):
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
else:  # before OpenCV 5
    cv2.setLogLevel(0)  # type: ignore[attr-defined]


def decode_pixels(data: bytes, channels: int) -> NDArray[np.uint8] | None:
    """Decode an image to (H, W), or to (H, W, 3) BGR where ``channels`` is 3; None if it is damaged or none.

    The pixels are those the camera sent: an orientation tag does not turn them, transparency is dropped, and 16 bits
    become 8 over the full range (65535 becomes 255).

    Raises:
        ValueError: its pixels are neither 8 nor 16 bits without sign.
    """
    colour = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    flags = colour | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except cv2.error:
        return None
    if image is None:
        return None
    if image.dtype == np.uint16:
        return np.asarray(cv2.convertScaleAbs(image, alpha=1 / 257), dtype=np.uint8)
    if image.dtype != np.uint8:
        msg = f"pixels of type {image.dtype}, expected 8 or 16 bits without sign"
        raise ValueError(msg)
    return np.asarray(image, dtype=np.uint8)


def prepare(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.float32]:
    """Return (C, H, W) in [0, 1] of an image (h, w) or (h, w, 3) BGR, uint8, of any size.

    Shrinking averages areas, so that thin cracks fade rather than vanish between sampled pixels.
    """
    if spec.channels == 1 and image.ndim > GREY_DIMENSIONS:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    elif spec.channels > 1 and image.ndim == GREY_DIMENSIONS:
        image = np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    pixels: NDArray[np.float32] = image.astype(np.float32) / 255.0
    # First what shrinks, then what grows: OpenCV averages areas only where neither axis grows.
    pixels = _resize(pixels, min(image.shape[0], spec.height), min(image.shape[1], spec.width), cv2.INTER_AREA)
    pixels = _resize(pixels, spec.height, spec.width, cv2.INTER_LINEAR)
    if pixels.ndim == GREY_DIMENSIONS:
        return np.ascontiguousarray(pixels[None])
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _resize(pixels: NDArray[np.float32], height: int, width: int, method: int) -> NDArray[np.float32]:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=method), dtype=np.float32)
