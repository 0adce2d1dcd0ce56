"""The measures of one region's shape, in camera pixels, from its pixels at the network's resolution.

Points are scaled before anything is measured on them: where a camera pixel is not as wide as it is high in the mask,
lengths and angles change with the direction, and none of them can be scaled afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

# The steps of a digital line are less than a pixel deep: an outline without them has the length of the line, not that
# of its staircase, which is up to 8 % longer. Two rows of pixels lie a whole pixel apart, and stay two.
STAIRCASE: Final = 0.95
HALF_TURN: Final = 180.0
Border = NDArray[np.float32]  # (n, 1, 2) x and y of pixels' centres


@dataclass(frozen=True, slots=True)
class Scale:
    """How many camera pixels a pixel of the mask covers, across and down."""

    across: float
    down: float


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a region; lengths in camera pixels.

    Attributes:
        length, breadth: the sides of the smallest rectangle, turned as need be, that holds the region; length >=
            breadth. Each includes the pixels' own extent, and is about one pixel of the mask too long at most.
        orientation: where ``length`` points to, in degrees in [0, 180): 0 along x (to the right), growing towards y
            (downwards), so clockwise as one sees the frame. It means little where length and breadth are alike.
        solidity: the share of its convex hull that the region fills, in (0, 1]; 1: no bay and no hole.
        path_length, mean_width: the sides of the rectangle with the region's area and outline, the geodesic length and
            the thickness of ISO 9276-6. For a curved crack this is the length along it, for a branched one that of all
            its branches together, and how wide it is on average; neither needs a skeleton, which loses the ends and
            grows spurs. A compact region has no such length: both are the square root of its area.
    """

    length: float
    breadth: float
    orientation: float
    solidity: float
    path_length: float
    mean_width: float


def measure_shape(region: NDArray[np.bool_], scale: Scale) -> Shape:
    """Return the shape of an 8-connected region (H, W), which must not be empty."""
    contours, hierarchy = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    inner = hierarchy[0, :, 3] >= 0  # holes have a parent
    borders = [np.asarray(contour, np.float32) for contour in contours]
    (outline,) = (border for border, hole in zip(borders, inner, strict=True) if not hole)
    length, breadth, orientation = _oriented_box(outline, scale)
    area = int(region.sum())
    perimeter = math.fsum(
        _perimeter(border, scale, hole=bool(hole)) for border, hole in zip(borders, inner, strict=True)
    )
    path_length, mean_width = _as_ribbon(area * scale.across * scale.down, perimeter)
    return Shape(length, breadth, orientation, min(1.0, area / _hull_area(outline)), path_length, mean_width)


def _oriented_box(outline: Border, scale: Scale) -> tuple[float, float, float]:
    """Return (length, breadth, orientation) of the smallest rectangle around pixels, each with its own extent."""
    _, (first, second), degrees = cv2.minAreaRect(_scaled(outline, scale))
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # The points are the pixels' centres. A pixel is as long in a direction as the ellipse that fills it.
    first += math.hypot(scale.across * cos, scale.down * sin)
    second += math.hypot(scale.across * sin, scale.down * cos)
    if second > first:
        first, second, degrees = second, first, degrees + HALF_TURN / 2
    degrees %= HALF_TURN
    return first, second, degrees if degrees < HALF_TURN else 0.0  # the remainder of -1e-15 is rounded up to 180


def _perimeter(border: Border, scale: Scale, *, hole: bool) -> float:
    """Return the length of a border, given by the centres of the region's pixels along it.

    The border lies half a pixel further out, on the side of a hole further in: by the sides of one pixel in all,
    however the border turns (the perimeter of a Minkowski sum is the sum of the perimeters).
    """
    straight = np.asarray(cv2.approxPolyDP(border, STAIRCASE, closed=True), np.float32)
    traced = cv2.arcLength(_scaled(straight, scale), closed=True)
    pixel = 2 * (scale.across + scale.down)
    return max(0.0, traced - pixel) if hole else traced + pixel


def _as_ribbon(area: float, perimeter: float) -> tuple[float, float]:
    """Return the sides of the rectangle with this area and perimeter; of a square where the perimeter is too short."""
    excess = perimeter * perimeter - 16 * area
    long = (perimeter + math.sqrt(excess)) / 4 if excess > 0 else math.sqrt(area)
    return long, area / long


def _hull_area(outline: Border) -> float:
    """Return the area, in pixels of the mask, of the convex hull of the pixels' squares."""
    corners = [outline + np.array((x, y), np.float32) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]
    return float(cv2.contourArea(cv2.convexHull(np.concatenate(corners))))


def _scaled(points: Border, scale: Scale) -> NDArray[np.float32]:
    return np.asarray(points * np.array((scale.across, scale.down), np.float32))
