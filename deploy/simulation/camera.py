"""The camera over the line: a lamp that drifts, a lens that softens, a sensor that adds noise."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.simulation.pose import UNITS, Field, image_grid
from deploy.simulation.settings import LineSettings, Stream, chance

LENS_SIGMA = 0.55  # px; about the blur of a well-focused lens whose spot matches the pixel.
READ_NOISE, SHOT_NOISE = 1.2, 0.14  # Grey levels; shot noise grows with the root of the signal.


def illumination(settings: LineSettings, index: int) -> Field:
    """Return the light on each pixel (H, W), about 1, for the part at `index`.

    Sways sinusoidally with the index, and drifts linearly to `lighting_drift` over `drift_parts` parts.
    """
    phase_gain, phase_tilt = chance(settings.seed, 0, Stream.LAMP).uniform(0.0, math.tau, 2)
    turn = math.tau * index / settings.sway_period
    drift = settings.lighting_drift * min(index / settings.drift_parts, 1.0)
    gain = (1 + settings.lighting_sway * math.sin(turn + phase_gain)) * (1 + drift)
    # The lamp stands at the upper left; as it ages the side that it faces fades most, so the slope follows the drift.
    tilt = -0.07 + settings.lighting_sway * math.sin(0.7 * turn + phase_tilt) - 0.25 * drift
    x, y = (axis / np.float32(UNITS / 2) for axis in image_grid(settings.size))  # -1..1
    vignette = 1 - np.float32(0.07) * (x * x + y * y)
    return np.float32(gain) * vignette * (1 + np.float32(tilt) * x + np.float32(0.6 * tilt) * y)


def sensor_noise(settings: LineSettings, index: int) -> Field:
    """Return one frame's noise (H, W, C), zero mean and unit deviation; the same for every exposure of a part."""
    shape = (settings.size, settings.size, 3 if settings.colour else 1)
    return chance(settings.seed, index, Stream.SENSOR).standard_normal(shape, dtype=np.float32)


def soften(field: Field) -> Field:
    """Return what the lens makes of `field`, (H, W) or (H, W, C), in the same shape."""
    blurred = cv2.GaussianBlur(field, (5, 5), LENS_SIGMA, borderType=cv2.BORDER_REFLECT)
    return np.asarray(blurred, dtype=np.float32).reshape(field.shape)


def expose(reflectance: Field, light: Field, noise: Field) -> NDArray[np.uint8]:
    """Return the image, (H, W) for C = 1 and (H, W, 3) for C = 3, of a `reflectance` (H, W, C) under `light` (H, W)."""
    signal = np.maximum(soften(reflectance * light[..., None]) * np.float32(255), 0)
    signal += noise * np.sqrt(np.float32(READ_NOISE**2) + np.float32(SHOT_NOISE**2) * signal)
    image: NDArray[np.uint8] = np.rint(signal.clip(0, 255)).astype(np.uint8)
    return image.reshape(light.shape) if image.shape[-1] == 1 else image
