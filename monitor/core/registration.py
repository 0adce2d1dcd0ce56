"""Bringing a part to the place of a reference: a coarse search, then ECC (Evangelidis and Psarakis 2008).

What is compared are gradient magnitudes, so that neither the light's level nor a slow change across the part matters.
The coarse search tries every shift and, in steps, every rotation within the limits at about 32 pixels a side; so a
repeated pattern is not mistaken for its neighbour for want of a good start. ECC refines the best to a few hundredths
of a pixel, again of the reference's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.preprocessing import GREY_DIMENSIONS
from schemas.artifacts import Registration
from schemas.errors import UnregistrableError

COARSE_SIDE = 32
ANGLE_STEP = 2.0  # degrees: at the rim of the coarse image half a step is half a pixel
BLUR = 1.0
# A gradient depends on no pixel farther than this: Gaussian, Sobel, and ECC's own smoothing.
REACH = 6
CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-4)
SMOOTHING = 3

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Found:
    """Where the part lies.

    Attributes:
        matrix: (2, 3) from a pixel's (x, y) in the reference to that in the frame, at the reference's size.
        correlation: of reference and frame, once they lie on each other; at most 1.
        shift: (x, y) of the centre, as shares of the width and height.
        rotation: in degrees.
    """

    matrix: NDArray[np.float64]
    correlation: float
    shift: tuple[float, float]
    rotation: float


def features_of(image: NDArray[np.uint8], size: tuple[int, int]) -> Features:
    """Return the gradient magnitudes (h, w) of an image (H, W) or (H, W, 3) BGR at ``size`` = (h, w)."""
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    small = np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=method))
    if small.ndim > GREY_DIMENSIONS:
        small = np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY))
    even = cv2.GaussianBlur(small.astype(np.float32) / 255.0, (0, 0), BLUR)
    across, down = (cv2.Sobel(even, cv2.CV_32F, dx, 1 - dx) for dx in (1, 0))
    # Not by cv2.magnitude: its last bit depends on where in memory the numbers lie, so on what ran before.
    return np.asarray(np.sqrt(across * across + down * down), dtype=np.float32)


def compared(inspected: NDArray[np.bool_] | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels (h, w) whose gradient depends on inspected ones alone, of a mask (H, W); None: all."""
    if inspected is None:
        return np.ones(size, np.bool_)
    share = cv2.resize(inspected.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_AREA)
    whole = (np.asarray(share) > 1 - 1e-6).astype(np.uint8)
    # The frame's border is no ignored pixel.
    eroded = cv2.erode(whole, np.ones((2 * REACH + 1, 2 * REACH + 1)), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return np.asarray(eroded > 0)


class Registrar:
    """Finds a part by a reference. Holds no state between frames, so any number of threads may use one.

    Args:
        reference: (h, w) gradient magnitudes of the part in its place, see ``features_of``.
        limits: how far a part may lie off.
        inspected: (H, W) the pixels that may be compared, of any size and the same view; None: all.
    """

    def __init__(self, reference: Features, limits: Registration, inspected: NDArray[np.bool_] | None = None) -> None:
        self.size = (reference.shape[0], reference.shape[1])
        self._limits = limits
        self._reference = np.ascontiguousarray(reference, dtype=np.float32)
        used = compared(inspected, self.size)
        self._used = used.astype(np.uint8) * 255
        factor = max(1.0, min(self.size) / COARSE_SIDE)
        self._coarse = (round(self.size[0] / factor), round(self.size[1] / factor))
        steps = math.ceil(limits.max_rotation / ANGLE_STEP)
        angles = np.linspace(-limits.max_rotation, limits.max_rotation, 2 * steps + 1) if steps else np.zeros(1)
        weights = _shrink(used.astype(np.float32), self._coarse)
        small = _shrink(self._reference * used, self._coarse)
        self._turned = [(angle, _turn(small, angle), _turn(weights, angle)) for angle in map(float, angles)]

    def find(self, features: Features) -> Found:
        """Return where the part lies in a frame of gradient magnitudes (h, w) at the reference's size.

        Raises:
            UnregistrableError: nowhere within the limits.
        """
        start = self._search(features)
        try:
            # The reference is ECC's 'input' and the frame its 'template': the mask then lies on the reference.
            correlation, matrix = cv2.findTransformECC(
                features, self._reference, start, cv2.MOTION_EUCLIDEAN, CRITERIA, self._used, SMOOTHING
            )
        except cv2.error:
            correlation, matrix = -1.0, start
        if not (correlation >= self._limits.least_correlation and np.isfinite(matrix).all()):
            least = self._limits.least_correlation
            msg = f"the frame shows something else: correlation {correlation:.2f} with the reference, least {least:.2f}"
            raise UnregistrableError(msg)
        return self._within_limits(np.asarray(cv2.invertAffineTransform(matrix.astype(np.float64))), correlation)

    def _search(self, features: Features) -> NDArray[np.float32]:
        """Return the (2, 3) from a frame's pixel to the reference's that is best among coarse steps."""
        height, width = self._coarse
        reach = [math.ceil(self._limits.max_shift * side) + 1 for side in self._coarse]
        small = _shrink(features, self._coarse)
        padded = cv2.copyMakeBorder(small, reach[0], reach[0], reach[1], reach[1], cv2.BORDER_CONSTANT, value=0.0)
        best, place = -math.inf, (0.0, 0, 0)
        for angle, turned, weights in self._turned:
            matches = cv2.matchTemplate(padded, turned, cv2.TM_CCORR_NORMED, mask=weights)
            scores = np.nan_to_num(np.asarray(matches), nan=-1.0, posinf=-1.0, neginf=-1.0)
            row, column = divmod(int(np.argmax(scores)), scores.shape[1])
            if scores[row, column] > best:
                best, place = float(scores[row, column]), (angle, column - reach[1], row - reach[0])
        angle, right, down = place
        to_frame = cv2.getRotationMatrix2D(_centre(self.size), angle, 1.0)
        to_frame[:, 2] += (right * self.size[1] / width, down * self.size[0] / height)
        return np.asarray(cv2.invertAffineTransform(to_frame), dtype=np.float32)

    def _within_limits(self, matrix: NDArray[np.float64], correlation: float) -> Found:
        centre = np.array(_centre(self.size))
        moved = matrix[:, :2] @ centre + matrix[:, 2] - centre
        shift = float(moved[0]) / self.size[1], float(moved[1]) / self.size[0]
        rotation = math.degrees(math.atan2(matrix[0, 1], matrix[0, 0]))
        if max(map(abs, shift)) > self._limits.max_shift:
            found, limit = f"{shift[0]:+.1%} across and {shift[1]:+.1%} down", f"{self._limits.max_shift:.1%}"
            msg = f"the part is shifted by {found}, farther than {limit}"
            raise UnregistrableError(msg)
        if abs(rotation) > self._limits.max_rotation:
            msg = f"the part is turned by {rotation:+.1f} degrees, farther than {self._limits.max_rotation:.1f}"
            raise UnregistrableError(msg)
        return Found(matrix, float(correlation), shift, rotation)


def rescaled(matrix: NDArray[np.float64], size: tuple[int, int], other: tuple[int, int]) -> NDArray[np.float64]:
    """Return a transform (2, 3) between images of ``size`` (h, w) as one between the same images at ``other`` (H, W).

    Pixels have their coordinates at their centres.
    """
    down, across = other[0] / size[0], other[1] / size[1]
    scale = np.array([[across, 0, (across - 1) / 2], [0, down, (down - 1) / 2], [0, 0, 1]])
    whole = np.vstack([matrix, [0, 0, 1]])
    return np.asarray((scale @ whole @ np.linalg.inv(scale))[:2])


def _shrink(image: Features, size: tuple[int, int]) -> Features:
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA), dtype=np.float32)


def _turn(image: Features, angle: float) -> Features:
    height, width = image.shape
    matrix = cv2.getRotationMatrix2D(_centre((height, width)), angle, 1.0)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR), dtype=np.float32)


def _centre(size: tuple[int, int]) -> tuple[float, float]:
    """Return the (x, y) of the centre of (h, w) pixels."""
    return (size[1] - 1) / 2, (size[0] - 1) / 2
