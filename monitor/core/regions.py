"""Masks and the connected regions in them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Region:
    """One 8-connected region of a mask, in pixels of that mask; residuals in units of the normals' spread."""

    x: int
    y: int
    width: int
    height: int
    area: int
    centroid_x: float
    centroid_y: float
    mean_residual: float
    max_residual: float


def threshold(anomaly: NDArray[np.float32], level: float, min_area: int) -> NDArray[np.bool_]:
    """Return the mask (H, W) of an anomaly map: above ``level``, in regions of ``min_area`` pixels or more."""
    above = anomaly > level
    if min_area <= 1 or not above.any():
        return above
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= min_area
    large[0] = False  # the background
    kept: NDArray[np.bool_] = large[labels]
    return kept


def extract_regions(mask: NDArray[np.bool_], anomaly: NDArray[np.float32]) -> tuple[Region, ...]:
    """Return the regions of a mask (H, W), largest first, measured on the anomaly map (H, W)."""
    if not mask.any():
        return ()
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    regions = []
    for label in range(1, count):
        x, y, width, height, area = (int(value) for value in stats[label])
        box = slice(y, y + height), slice(x, x + width)
        values = anomaly[box][labels[box] == label]
        regions.append(
            Region(
                x=x, y=y, width=width, height=height, area=area,
                centroid_x=float(centroids[label, 0]), centroid_y=float(centroids[label, 1]),
                mean_residual=float(values.mean()), max_residual=float(values.max()),
            )
        )  # fmt: skip
    return tuple(sorted(regions, key=lambda region: (-region.area, region.y, region.x)))
