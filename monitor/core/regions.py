"""Masks, and the connected regions in them as the line is told of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.shape import Scale, Shape, measure_shape
from schemas.artifacts import PAPER_PIXELS
from schemas.messages import RegionMessage

# A noisy frame, or a camera that was knocked, gives thousands of specks. Nobody reads them, and each is a row in the
# database: beyond so many only the largest are told of, with the number that there were.
MAX_REGIONS: Final = 200
# The peak of an anomaly map is the mean of so many of its pixels, of a 128x128 frame.
PEAK_PIXELS: Final = 10
MICROMETRES: Final = 1000.0  # in a millimetre


@dataclass(frozen=True, slots=True)
class Regions:
    """The ``measured`` regions of a mask, largest first, at most ``MAX_REGIONS`` of the ``count`` that there are."""

    measured: tuple[RegionMessage, ...]
    count: int


def peak(anomaly: NDArray[np.float32]) -> float:
    """Return how odd the oddest place of an anomaly map (H, W) is: the mean of its largest values."""
    count = max(1, round(PEAK_PIXELS * anomaly.size / PAPER_PIXELS))
    return float(np.partition(anomaly, -count, axis=None)[-count:].mean())


def threshold(anomaly: NDArray[np.float32], level: float, min_area: int, relative: float = 0.0) -> NDArray[np.bool_]:
    """Return the mask (H, W) of an anomaly map.

    Args:
        anomaly: (H, W).
        level: what a pixel of the mask is above.
        min_area: the pixels that a region has at least.
        relative: the share of the frame's peak that a pixel of the mask is above as well: beside a strong defect, its
            halo and the rest of the frame look odder than they are.
    """
    above = anomaly > (max(level, relative * peak(anomaly)) if relative else level)
    if min_area <= 1 or not above.any():
        return above
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above.astype(np.uint8), connectivity=8)
    large = stats[:, cv2.CC_STAT_AREA] >= min_area
    large[0] = False  # the background
    kept: NDArray[np.bool_] = large[labels]
    return kept


def measure_regions(
    mask: NDArray[np.bool_],
    anomaly: NDArray[np.float32],
    frame: tuple[int, int],
    pitch_um: float | None = None,
) -> Regions:
    """Measure the 8-connected regions of a mask in camera pixels. The only place that knows the scale between them.

    Args:
        mask: (H, W) at the network's resolution.
        anomaly: (H, W) what the residuals are taken from, in units of the normals' spread.
        frame: (height, width) of the frame as the camera sent it; its two scales may differ.
        pitch_um: what a camera pixel covers of the part, in micrometres; without it there are no millimetres.
    """
    if not mask.any():
        return Regions((), 0)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    # Label 0 is the background. Of equal regions the upper one comes first, then the one on the left.
    order = np.lexsort((stats[1:, cv2.CC_STAT_LEFT], stats[1:, cv2.CC_STAT_TOP], -stats[1:, cv2.CC_STAT_AREA])) + 1
    scale = Scale(across=frame[1] / mask.shape[1], down=frame[0] / mask.shape[0])
    measured = []
    for label in order[:MAX_REGIONS]:
        x, y, width, height, area = (int(value) for value in stats[label])
        box = slice(y, y + height), slice(x, x + width)
        region = labels[box] == label
        values = anomaly[box][region]
        shape = measure_shape(region, scale)
        message = RegionMessage(
            **_box(x, y, width, height, scale),
            area=area * scale.across * scale.down,
            centroid_x=(float(centroids[label, 0]) + 0.5) * scale.across - 0.5,
            centroid_y=(float(centroids[label, 1]) + 0.5) * scale.down - 0.5,
            mean_residual=float(values.mean()),
            max_residual=float(values.max()),
            length=shape.length,
            breadth=shape.breadth,
            aspect_ratio=shape.length / shape.breadth,
            orientation=shape.orientation,
            solidity=shape.solidity,
            path_length=shape.path_length,
            mean_width=shape.mean_width,
        )
        measured.append(message if pitch_um is None else _in_millimetres(message, shape, pitch_um / MICROMETRES))
    return Regions(tuple(measured), count - 1)


def _box(x: int, y: int, width: int, height: int, scale: Scale) -> dict[str, int]:
    """Return a box in camera pixels; it grows to whole ones, so that it still holds the region."""
    left, top = math.floor(x * scale.across), math.floor(y * scale.down)
    right, bottom = math.ceil((x + width) * scale.across), math.ceil((y + height) * scale.down)
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def _in_millimetres(region: RegionMessage, shape: Shape, pitch: float) -> RegionMessage:
    """Return the region with its size on the part as well; ``pitch``: millimetres a camera pixel."""
    return region.model_copy(
        update={
            "area_mm2": region.area * pitch**2,
            "length_mm": shape.length * pitch,
            "breadth_mm": shape.breadth * pitch,
            "path_length_mm": shape.path_length * pitch,
            "mean_width_mm": shape.mean_width * pitch,
        }
    )
