"""Defects in part coordinates: each is an opacity on the carrier and what it does to the light there."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.simulation.pose import Field, Pose
from deploy.simulation.product import HALF, HOLE_RADIUS, HOLE_U, HOLE_V, Bgr, Carrier, body, tint

_FINE = 4  # Lines are drawn this much finer than the image and averaged down: widths below a pixel come out right.
_SHIFT = 4  # Fractional bits of the drawing routine's coordinates.
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Blemish:
    """A defect of the surface.

    Attributes:
        opacity: How much of each pixel it covers, (H, W) in 0..1.
        change: Relative change of the reflectance (B, G, R) at full opacity, above -1.
        threshold: The opacity, seen through the lens, from which a pixel belongs to its shape.
    """

    opacity: Field
    change: Bgr
    threshold: float


def apply_blemish(painted: Field, blemish: Blemish) -> Field:
    """Return `painted` (H, W, C) with the blemish on it."""
    return painted * (1 + blemish.opacity[..., None] * tint(blemish.change, painted.shape[-1]))


def draw_blemish(kind: str, rng: np.random.Generator, carrier: Carrier) -> Blemish:
    """Draw a crack, a scratch or a stain on `carrier`."""
    return _DRAW[kind](rng, carrier)


def _crack(rng: np.random.Generator, carrier: Carrier) -> Blemish:
    """Draw a branching random walk from where ceramic breaks: the outer edge, or the rim of the hole."""
    start, heading = _crack_origin(rng)
    trunk = _walk(rng, start, heading, length=rng.uniform(26.0, 58.0))
    canvas = _blank(carrier.pose)
    width = rng.uniform(1.0, 1.8)
    _stroke(canvas, carrier.pose, trunk, np.linspace(width, 0.55 * width, len(trunk) - 1))
    for _ in range(rng.integers(0, 3)):
        at = int(rng.integers(len(trunk) // 4, 3 * len(trunk) // 4))
        along = math.atan2(*(trunk[at + 1] - trunk[at])[::-1])
        side = rng.choice((-1.0, 1.0)) * rng.uniform(0.45, 0.9)
        branch = _walk(rng, trunk[at], along + side, length=rng.uniform(7.0, 18.0))
        _stroke(canvas, carrier.pose, branch, np.linspace(0.75 * width, 0.4 * width, len(branch) - 1))
    depth = -rng.uniform(0.35, 0.8)
    return Blemish(_shrink(canvas) * body(carrier), (depth, depth, depth), threshold=0.2)


def _crack_origin(rng: np.random.Generator) -> tuple[Points, float]:
    """Return a crack's first point (2,) and its heading in radians, into the ceramic."""
    if rng.integers(4) == 0:
        # Upwards, for below the hole the edge is near and the crack would be short.
        heading = rng.uniform(-math.pi, 0.0)
        rim = HOLE_RADIUS * np.array((math.cos(heading), math.sin(heading)))
        return np.array((HOLE_U, HOLE_V)) + rim, heading
    inward = float(rng.integers(4)) * math.pi / 2
    across, along = np.array((-math.sin(inward), math.cos(inward))), np.array((math.cos(inward), math.sin(inward)))
    return -HALF * along + rng.uniform(-42.0, 42.0) * across, inward + rng.uniform(-0.5, 0.5)


def _walk(rng: np.random.Generator, start: Points, heading: float, length: float, step: float = 1.6) -> Points:
    """Return a random walk (N, 2) from `start` that keeps to about its heading, as a crack between grains does."""
    count = max(int(length / step), 4)
    wander = rng.normal(0.0, 0.16, count).cumsum() + rng.normal(0.0, 0.38, count)
    turns = heading + wander - np.linspace(0.0, 0.6, count) * wander  # Leans back, so that it does not curl up.
    steps = step * np.stack((np.cos(turns), np.sin(turns)), axis=1)
    return np.concatenate((start[None], start + steps.cumsum(axis=0)))


def _scratch(rng: np.random.Generator, carrier: Carrier) -> Blemish:
    """Draw a long line, straight or slightly bent, brighter or darker than the surface."""
    centre, heading = rng.uniform(-28.0, 28.0, 2), rng.uniform(0.0, math.pi)
    half, bend = rng.uniform(14.0, 34.0), rng.normal(0.0, 2.2)
    along = np.array((math.cos(heading), math.sin(heading)))
    across = np.array((-along[1], along[0]))
    t = np.linspace(-1.0, 1.0, 25)[:, None]  # (25, 1)
    line = centre + half * t * along + bend * (1 - t * t) * across
    canvas = _blank(carrier.pose)
    middle = (t[1:, 0] + t[:-1, 0]) / 2
    pressure = (1 - middle**2) ** 0.25  # A tool touches down and lifts off.
    _stroke(canvas, carrier.pose, line, rng.uniform(0.8, 1.4) * pressure)
    change = rng.uniform(0.22, 0.5) if rng.integers(2) else -rng.uniform(0.2, 0.5)
    return Blemish(_shrink(canvas) * body(carrier), (change, change, change), threshold=0.2)


def _stain(rng: np.random.Generator, carrier: Carrier) -> Blemish:
    """Draw a soft irregular blob of flux or oil, darker at its dried rim."""
    (u, v), (at_u, at_v) = carrier.pose.part_grid(), rng.uniform(-44.0, 44.0, 2)
    u, v = u - np.float32(at_u), v - np.float32(at_v)
    radius, angle = rng.uniform(5.0, 12.0), np.arctan2(v, u)
    outline = np.ones_like(u)
    for order in range(1, 6):
        phase = np.float32(rng.uniform(0.0, math.tau))
        outline += np.float32(rng.normal(0.0, 0.16 / order**0.6)) * np.cos(order * angle + phase)
    reach = np.hypot(u, v) / (np.float32(radius) * outline.clip(0.55, 1.5))  # 1 on the outline.
    softness = np.float32(rng.uniform(0.10, 0.22))
    film = 1 / (1 + np.exp(((reach - 1) / softness).clip(-30, 30)))
    rim = np.float32(rng.uniform(0.0, 0.25)) * np.exp(-(((reach - np.float32(0.85)) / np.float32(0.12)) ** 2))
    opacity = film * np.float32(0.75) + rim + np.float32(1.5) * film * carrier.grain
    depth = rng.uniform(0.25, 0.55)
    return Blemish(opacity.clip(0, 1) * body(carrier), (-1.2 * depth, -depth, -0.8 * depth), threshold=0.3)


_DRAW: dict[str, Callable[[np.random.Generator, Carrier], Blemish]] = {
    "crack": _crack,
    "scratch": _scratch,
    "stain": _stain,
}


def _blank(pose: Pose) -> NDArray[np.uint8]:
    return np.zeros((pose.size * _FINE, pose.size * _FINE), dtype=np.uint8)


def _stroke(canvas: NDArray[np.uint8], pose: Pose, points: Points, widths: NDArray[np.float64]) -> None:
    """Draw the polyline `points` (N, 2), in part units, with `widths` (N - 1,) in pixels of a 128 px image."""
    # A line thinner than 0.8 px would vanish in a small image: a camera at that resolution would miss it.
    thickness = np.maximum(np.rint(np.maximum(widths * pose.scale, 0.8) * _FINE), 1).astype(int)
    fine = (pose.to_pixels(points) + 0.5) * _FINE - 0.5
    fixed = np.rint(fine * 2**_SHIFT).astype(int).tolist()
    for begin, end, thick in zip(fixed[:-1], fixed[1:], thickness.tolist(), strict=True):
        cv2.line(canvas, begin, end, (255,), thick, cv2.LINE_AA, _SHIFT)


def _shrink(canvas: NDArray[np.uint8]) -> Field:
    """Average the fine canvas down to the image, (H, W) in 0..1."""
    size = canvas.shape[0] // _FINE
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float32) / np.float32(255)
