"""Where a part lies in the image: the step between part units and pixels.

A part unit is 1/128 of the image's width, so the nominal product is drawn once and rendered at any
size. The origin is the part's centre, u runs right and v runs down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]
UNITS = 128


@dataclass(frozen=True)
class Pose:
    """Misplacement of one part: `du`, `dv` in part units, `angle` in radians, at `size` pixels."""

    size: int
    du: float
    dv: float
    angle: float

    @property
    def scale(self) -> float:
        """Pixels per part unit."""
        return self.size / UNITS

    def part_grid(self) -> tuple[Field, Field]:
        """Return the part coordinates (u, v) under each pixel's centre, both (H, W)."""
        x, y = image_grid(self.size)
        cos, sin = np.float32(math.cos(self.angle)), np.float32(math.sin(self.angle))
        x, y = x - np.float32(self.du), y - np.float32(self.dv)
        return cos * x + sin * y, cos * y - sin * x

    def to_pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return pixel coordinates (N, 2) of `points` (N, 2) in part units; pixel centres are whole numbers."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        u, v = points[:, 0], points[:, 1]
        x, y = cos * u - sin * v + self.du, sin * u + cos * v + self.dv
        return np.stack((x, y), axis=1) * self.scale + (self.size - 1) / 2

    def coverage(self, distance: Field) -> Field:
        """Return how much of each pixel lies inside, 0..1, from a signed distance (H, W) in part units."""
        inside: Field = np.clip(np.float32(0.5) - distance * np.float32(self.scale), 0.0, 1.0)
        return inside


def make_pose(rng: np.random.Generator, size: int, shift: float, rotation: float) -> Pose:
    """Draw a misplacement of at most `shift` part units along each axis and `rotation` degrees."""
    du, dv, turn = rng.uniform(-1.0, 1.0, 3).tolist()
    return Pose(size, shift * du, shift * dv, math.radians(rotation * turn))


@lru_cache(maxsize=8)
def image_grid(size: int) -> tuple[Field, Field]:
    """Return (x, y), both (H, W), of the pixel centres in part units from the image's centre; read-only."""
    axis = ((np.arange(size) - (size - 1) / 2) * (UNITS / size)).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    x.flags.writeable = y.flags.writeable = False
    return x, y


def box_distance(u: Field, v: Field, half_u: float, half_v: float, radius: float = 0.0) -> Field:
    """Return the signed distance to a box with rounded corners about the origin, negative inside."""
    qu = np.abs(u) - np.float32(half_u - radius)
    qv = np.abs(v) - np.float32(half_v - radius)
    outside = np.hypot(np.maximum(qu, 0), np.maximum(qv, 0))
    return outside + np.minimum(np.maximum(qu, qv), 0) - np.float32(radius)
