"""The product: a ground ceramic sensor carrier with solder spots, two printed tracks and a locating hole.

Reflectances are (H, W, C) in 0..1 with C = 1 (grey) or 3 (BGR); lengths are part units (see `pose`).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.simulation.pose import Field, Pose, box_distance, make_pose
from deploy.simulation.settings import LineSettings

HALF, CORNER, BEVEL = 57.0, 4.0, 2.6  # The carrier leaves 7 units of nest on every side.
ROWS, COLUMNS = 6, 7
FIRST_U, PITCH_U = -43.5, 14.5
FIRST_V, PITCH_V = -44.0, 13.2
SPOT_RADIUS = 3.3
TRACK_U = 21.75  # One track on either side of the middle, between two columns of spots.
HOLE_U, HOLE_V, HOLE_RADIUS = 0.0, 41.0, 6.0
STAMP_U, STAMP_V, STAMP_RADIUS = 41.0, 41.0, 4.2

Bgr = tuple[float, float, float]
NEST: Bgr = (0.150, 0.140, 0.132)
CERAMIC: Bgr = (0.555, 0.600, 0.620)
TRACK: Bgr = (0.330, 0.430, 0.500)
SOLDER: Bgr = (0.345, 0.335, 0.325)
INK: Bgr = (0.400, 0.190, 0.150)


@dataclass(frozen=True)
class Carrier:
    """All that chance gives one carrier.

    Attributes:
        pose: Its misplacement.
        grain: Relative brightness of the ground surface, (H, W) about 0.
        rough: Fine isotropic roughness, (H, W), zero mean, unit deviation.
        wave: Slow waviness of printed and ground edges, (H, W) in part units.
        spot_radius: Radius of each solder spot, (ROWS, COLUMNS).
        spot_tone: Relative brightness of each solder spot, (ROWS, COLUMNS).
        glint: Where the lamp mirrors in a spot, (2,) in spot radii.
        stamp: Offset of the ink stamp from its nominal place, (2,).
    """

    pose: Pose
    grain: Field
    rough: Field
    wave: Field
    spot_radius: Field
    spot_tone: Field
    glint: NDArray[np.float64]
    stamp: NDArray[np.float64]


def make_carrier(rng: np.random.Generator, settings: LineSettings) -> Carrier:
    """Draw one carrier."""
    size, spots = settings.size, (ROWS, COLUMNS)
    return Carrier(
        pose=make_pose(rng, size, settings.shift, settings.rotation),
        spot_radius=(SPOT_RADIUS * rng.normal(1.0, 0.025, spots).clip(0.93, 1.07)).astype(np.float32),
        spot_tone=rng.normal(1.0, 0.06, spots).clip(0.85, 1.15).astype(np.float32),
        glint=np.array((-0.28, -0.34)) + rng.normal(0.0, 0.02, 2),
        stamp=rng.uniform(-0.4, 0.4, 2),
        grain=_grind(rng, size),
        rough=rng.standard_normal((size, size), dtype=np.float32),
        wave=_mottle(rng, size, cells=18) * np.float32(0.13),
    )


def _mottle(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Return smooth noise (H, W) of about unit deviation with `cells` features across the image."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _grind(rng: np.random.Generator, size: int) -> Field:
    """Return the relative brightness (H, W) that the grinding wheel leaves: streaks along u over a faint mottling."""
    noise = rng.standard_normal((size, size), dtype=np.float32)
    scale = size / 128
    long = cv2.GaussianBlur(noise, (0, 0), sigmaX=14 * scale, sigmaY=0.45 * scale, borderType=cv2.BORDER_REFLECT)
    short = cv2.GaussianBlur(noise, (0, 0), sigmaX=2.5, sigmaY=0.4, borderType=cv2.BORDER_REFLECT)  # As fine as pixels.
    streaks = np.float32(0.020) * (long / long.std()) + np.float32(0.014) * (short / short.std())
    clouds = np.float32(0.013) * _mottle(rng, size, cells=7)
    return np.asarray(streaks + clouds, dtype=np.float32)


def tint(bgr: Bgr, channels: int) -> Field:
    """Return a material's reflectance (C,): its luminance (ITU-R BT.601) for a grey camera."""
    blue, green, red = bgr
    return np.array(bgr if channels > 1 else (0.114 * blue + 0.587 * green + 0.299 * red,), dtype=np.float32)


def body(carrier: Carrier) -> Field:
    """Return how much of each pixel is the carrier's own material, (H, W) in 0..1: neither nest nor hole."""
    u, v = carrier.pose.part_grid()
    hole = carrier.pose.coverage(np.hypot(u - HOLE_U, v - HOLE_V) - np.float32(HOLE_RADIUS))
    return carrier.pose.coverage(box_distance(u, v, HALF, HALF, CORNER)) * (1 - hole)


def _centres(first: float, pitch: float, count: int) -> Field:
    """Return the nominal centres (count,) of the spots along one axis."""
    return first + pitch * np.arange(count, dtype=np.float32)


def spot_disc(carrier: Carrier, row: int, column: int) -> Field:
    """Return how much of each pixel one solder spot covers, (H, W) in 0..1."""
    u, v = carrier.pose.part_grid()
    reach = np.hypot(u - _centres(FIRST_U, PITCH_U, COLUMNS)[column], v - _centres(FIRST_V, PITCH_V, ROWS)[row])
    return carrier.pose.coverage(reach - carrier.spot_radius[row, column])


def paint_bare(carrier: Carrier, channels: int) -> Field:
    """Paint the nest and the carrier without its solder spots, (H, W, C)."""
    pose, (u, v) = carrier.pose, carrier.pose.part_grid()
    edge = box_distance(u, v, HALF, HALF, CORNER) + carrier.wave
    shade = 1 + carrier.grain + np.float32(0.010) * carrier.rough
    ceramic = (shade + _bevel(u, v, edge, pose))[..., None] * tint(CERAMIC, channels)  # (H, W, C)
    printed, relief = _tracks(carrier, u, v)
    metal = (1 + np.float32(0.4) * carrier.grain + np.float32(0.035) * carrier.rough + relief)[..., None]
    part = _over(ceramic, metal * tint(TRACK, channels), printed)
    part = _hole(part, u, v, pose, channels)
    # The carrier stands proud of its nest: the nest darkens towards it, most on the side away from the lamp.
    shadow = 1 - np.float32(0.45) * np.exp(-np.maximum(edge, 0) / np.float32(2.5))
    shadow *= 1 - np.float32(0.003) * (u + v) + np.float32(0.05) * carrier.rough
    return _over(shadow[..., None] * tint(NEST, channels), part, pose.coverage(edge))


def _over(below: Field, above: Field, opacity: Field) -> Field:
    """Lay `above` over `below`, both (H, W, C) or (C,), where `opacity` (H, W) says."""
    return below + (above - below) * opacity[..., None]


def _bevel(u: Field, v: Field, edge: Field, pose: Pose) -> Field:
    """Return the relative brightness the bevelled edge adds, (H, W): lit from the upper left."""
    band = 1 - pose.coverage(edge + np.float32(BEVEL))
    facing_u = np.where(u < 0, np.float32(0.14), np.float32(-0.20))
    facing_v = np.where(v < 0, np.float32(0.20), np.float32(-0.27))
    crest = np.exp(-(((edge + np.float32(BEVEL)) / np.float32(0.6)) ** 2))  # The ground-off line glints.
    shade: Field = band * np.where(np.abs(u) > np.abs(v), facing_u, facing_v) + np.float32(0.07) * crest
    return shade


def _tracks(carrier: Carrier, u: Field, v: Field) -> tuple[Field, Field]:
    """Return the opacity of the two printed tracks and the relief of their raised edges, both (H, W)."""
    beside = np.abs(u) - np.float32(TRACK_U)
    bar = box_distance(beside, v + 3, 1.9, 48.0, 1.0)
    pad = box_distance(beside, v - 42, 5.2, 5.2, 1.2)
    printed = carrier.pose.coverage(np.minimum(bar, pad) + carrier.wave)
    relief = np.zeros_like(printed)
    relief[1:, 1:] = np.float32(0.26) * (printed[1:, 1:] - printed[:-1, :-1])
    relief[:-1, :-1] += np.float32(0.28) * (printed[:-1, :-1] - printed[1:, 1:]).clip(-1, 0)
    return printed, relief


def _hole(part: Field, u: Field, v: Field, pose: Pose, channels: int) -> Field:
    """Cut the chamfered locating hole: its far wall catches the light."""
    u, v = u - np.float32(HOLE_U), v - np.float32(HOLE_V)
    reach: Field = np.hypot(u, v)
    # 1 on the wall that faces the lamp, -1 opposite.
    away: Field = (u + v) / np.maximum(np.float32(1.414) * reach, np.float32(1e-3))
    chamfer = pose.coverage(reach - np.float32(HOLE_RADIUS + 1.1))
    chamfered = part * (1 + chamfer * np.float32(0.24) * away)[..., None]
    wall = np.float32(0.05) + np.float32(0.20) * (away * (reach / np.float32(HOLE_RADIUS)) ** 4).clip(0, 1)
    depth: Field = wall[..., None] * tint((0.9, 0.98, 1.0), channels)
    return _over(chamfered, depth, pose.coverage(reach - np.float32(HOLE_RADIUS)))


def add_spots(bare: Field, carrier: Carrier, without: tuple[int, int] | None = None) -> Field:
    """Print the grid of domed solder spots on `bare` (H, W, C), leaving out the (row, column) in `without`."""
    u, v = carrier.pose.part_grid()
    column = np.rint((u - FIRST_U) / PITCH_U).clip(0, COLUMNS - 1).astype(np.intp)
    row = np.rint((v - FIRST_V) / PITCH_V).clip(0, ROWS - 1).astype(np.intp)
    radius, tone = carrier.spot_radius[row, column], carrier.spot_tone[row, column]
    # From here on u and v count from the nearest spot's centre.
    u, v = u - _centres(FIRST_U, PITCH_U, COLUMNS)[column], v - _centres(FIRST_V, PITCH_V, ROWS)[row]
    reach = np.hypot(u, v)
    opacity = carrier.pose.coverage(reach - radius)
    if without is not None:
        opacity *= 1 - ((row == without[0]) & (column == without[1]))
    u, v = u / radius, v / radius
    height = np.sqrt(np.maximum(1 - u * u - v * v, 0))
    glint = np.exp(-((u - carrier.glint[0]) ** 2 + (v - carrier.glint[1]) ** 2) / 0.075)
    sheen = (0.55 + 0.55 * height - 0.32 * (u + v) + 0.05 * carrier.rough) * tone
    dome = sheen[..., None] * tint(SOLDER, bare.shape[-1]) + (0.62 * glint * tone)[..., None]
    return _over(bare, dome.astype(np.float32), opacity)


def add_stamp(painted: Field, carrier: Carrier) -> Field:
    """Stamp the inspector's mark, a ring with a bar, on its nominal place of `painted` (H, W, C)."""
    u, v = carrier.pose.part_grid()
    u, v = u - np.float32(STAMP_U + carrier.stamp[0]), v - np.float32(STAMP_V + carrier.stamp[1])
    ring = np.abs(np.hypot(u, v) - np.float32(STAMP_RADIUS)) - np.float32(0.7)
    bar = box_distance((u + v) * np.float32(0.7071), (u - v) * np.float32(0.7071), 0.65, STAMP_RADIUS)
    ink = carrier.pose.coverage(np.minimum(ring, bar) + carrier.wave)
    # Ink takes unevenly on a ground surface.
    return _over(painted, tint(INK, painted.shape[-1]), ink * (np.float32(0.74) + 3 * carrier.grain).clip(0.5, 0.9))
