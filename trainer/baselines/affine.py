"""Images under affine transforms, and how they change with them: what RASL's Gauss-Newton steps are made of."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

Array = NDArray[np.float64]
PARAMETERS = 6


@dataclass(frozen=True, slots=True)
class Window:
    """The part of a frame (height, width) that is looked at: all but a border of ``inset`` pixels.

    A transform is τ (6,): the pixel at x, measured from the frame's centre in units of half its longer side, is read
    from x + (τ₀ x + τ₁ y + τ₂, τ₃ x + τ₄ y + τ₅). Zeros leave the frame as it is.
    """

    height: int
    width: int
    inset: int

    @property
    def shape(self) -> tuple[int, int]:
        """(h, w) of the window."""
        return self.height - 2 * self.inset, self.width - 2 * self.inset

    @property
    def unit(self) -> float:
        """Pixels per unit of length."""
        return max(self.height, self.width) / 2

    def grid(self) -> tuple[Array, Array]:
        """Return (x, y), each (h·w,), of the window's pixels."""
        rows, columns = np.mgrid[self.inset : self.height - self.inset, self.inset : self.width - self.inset]
        return (
            (columns.ravel() - (self.width - 1) / 2) / self.unit,
            (rows.ravel() - (self.height - 1) / 2) / self.unit,
        )

    def sample(self, planes: Array, transform: Array, order: int) -> Array:
        """Return (C, h·w): planes (C, H, W) read at the window's pixels under τ, by splines of an order."""
        x, y = self.grid()
        at_x = x + transform[0] * x + transform[1] * y + transform[2]
        at_y = y + transform[3] * x + transform[4] * y + transform[5]
        where = np.stack([at_y * self.unit + (self.height - 1) / 2, at_x * self.unit + (self.width - 1) / 2])
        return np.stack([map_coordinates(plane, where, order=order, mode="nearest") for plane in planes])

    def put_back(self, values: Array, transform: Array) -> NDArray[np.float32]:
        """Return (H, W): values (h, w) of the window, at the pixels of the frame they were read from; 0 elsewhere."""
        a, b, c, d, e, f = transform
        linear = np.array([[1 + a, b], [d, 1 + e]])
        centre = np.array([(self.width - 1) / 2, (self.height - 1) / 2])
        # From the window's own pixel coordinates to the frame's.
        offset = linear @ (self.inset - centre) + centre + self.unit * np.array([c, f])
        matrix = np.column_stack([linear, offset])
        frame = cv2.warpAffine(values.astype(np.float32), matrix, (self.width, self.height), flags=cv2.INTER_LINEAR)
        return np.asarray(frame, dtype=np.float32)


def linearise(frame: NDArray[np.float32], transform: Array, window: Window) -> tuple[Array, Array, float]:
    """Return the frame under τ as a unit vector, its Jacobian by τ, and the length it had.

    Args:
        frame: (C, H, W).
        transform: τ, (6,).
        window: what is looked at.

    Returns:
        (m,), (m, 6) and a number, m = C·h·w. Unit vectors, as in the paper (section 2.3): or else shrinking the
        images would make the low-rank part cheaper.
    """
    planes = frame.astype(np.float64)
    x, y = window.grid()
    values = window.sample(planes, transform, order=3).ravel()
    gradients = [window.sample(np.gradient(planes, axis=axis) * window.unit, transform, order=1) for axis in (2, 1)]
    by_x, by_y = (gradient.reshape(len(planes), -1) for gradient in gradients)  # (C, h·w)
    columns = [by_x * x, by_x * y, by_x, by_y * x, by_y * y, by_y]
    jacobian = np.stack([column.ravel() for column in columns], axis=1)
    length = max(float(np.linalg.norm(values)), 1e-12)
    unit = values / length
    return unit, (jacobian - np.outer(unit, unit @ jacobian)) / length, length
