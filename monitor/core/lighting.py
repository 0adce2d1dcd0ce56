"""Bringing a frame to the light of the normals, for lines whose light changes from part to part.

Each way has its price, which is why neither is on by itself:

- ``level``: a gain and an offset, so that mean and standard deviation are the normals'. A part that is wrong as a whole
  (too dark, too pale, of low contrast) is no longer seen; and a large defect shifts the rest of its part a little.
- ``flat``: division by a wide blur, the field of the light, and the normals' mean. Nothing broad is seen any more:
  neither a part that is wrong as a whole, nor a shadow or stain wider than about a fifth of the frame.

The same gain is used for all channels, so that colours stay what they are.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import Light, Lighting

# The standard deviation of the wide blur, as a share of the shorter side.
FIELD_SHARE = 0.2
# A frame that needs more was hardly lit at all: it stays darker or flatter than the normals, and is flagged.
MOST_GAIN = 4.0

Pixels = NDArray[np.float32]
Inspected = NDArray[np.bool_] | None


def measure(pixels: Pixels, inspected: Inspected) -> tuple[float, float]:
    """Return mean and standard deviation of the inspected pixels of a frame (C, H, W), over all channels."""
    values = pixels if inspected is None else pixels[:, inspected]
    # Not in float32: its rounding in sums of many pixels would depend on their order in memory.
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))


def restore_light(pixels: Pixels, light: Light, inspected: Inspected) -> Pixels:
    """Return a frame (C, H, W) in [0, 1] as in the light of the normals; pixels not inspected have no say in it."""
    if light.kind is Lighting.LEVEL:
        mean, deviation = measure(pixels, inspected)
        gain = min(MOST_GAIN, light.deviation / max(deviation, 1e-6))
        changed = (pixels - mean) * gain + light.mean
    else:
        changed = pixels * np.minimum(MOST_GAIN, light.mean / np.maximum(_field(pixels, inspected), 1e-6))
    return np.asarray(np.clip(changed, 0.0, 1.0), dtype=np.float32)


def _field(pixels: Pixels, inspected: Inspected) -> Pixels:
    """Return how bright it is around each pixel, (H, W): the mean of what is inspected there, and in the frame."""
    brightness = pixels.mean(axis=0)
    weights = np.ones_like(brightness) if inspected is None else inspected.astype(np.float32)
    sigma = FIELD_SHARE * min(brightness.shape)
    # What is ignored is taken out before it is weighed: nothing times zero is nothing, but for what is no number.
    known = np.where(weights > 0, brightness, np.float32(0))
    sums, totals = (cv2.GaussianBlur(each, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT) for each in (known, weights))
    return np.asarray(sums / np.maximum(totals, 1e-6), dtype=np.float32)
