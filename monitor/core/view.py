"""The way from the camera's pixels to the network's, the same in training and on the line, and the way back.

A frame is cropped to the region of interest, registered, resized, brought to the normals' light, and painted where it
is ignored; each step only if the view asks for it. What is found is reported where it lies in the camera's own frame.

What is ignored changes nothing at all, with one exception: a view that registers ignores a place of the part, and until
the part is found nobody knows what lies there. The comparison leaves it out, but the search for the part may end
elsewhere within its accuracy, a fraction of one of the network's pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.lighting import restore_light
from monitor.core.preprocessing import prepare
from monitor.core.registration import Registrar, features_of, rescaled
from schemas.artifacts import InputSpec, Roi, View

# A region small beside its frame would make the mask of the whole frame larger than any picture of it is worth.
MOST_MASK_PIXELS = 4_000_000

Shade = TypeVar("Shade", np.uint8, np.float32)


@dataclass(frozen=True, slots=True)
class ViewArrays:
    """What a view needs beside its numbers.

    Attributes:
        ignored: (H, W) at the network's size, True where nothing counts; None: everything does.
        reference: (h, w) gradient magnitudes of the part in its place; None: nothing is registered.
    """

    ignored: NDArray[np.bool_] | None = None
    reference: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Placement:
    """Where what the network saw lies in the camera's frame.

    Attributes:
        frame: (height, width) of the camera's frame.
        roi: the region that was looked at; None: all of it.
        moved: (2, 3) from a pixel's (x, y) in the region as the network saw it to that in the region as the camera
            did, in camera pixels; None: the same.
    """

    frame: tuple[int, int]
    roi: Roi | None = None
    moved: NDArray[np.float64] | None = field(default=None, compare=False)

    @property
    def origin(self) -> tuple[int, int]:
        """The region's left upper pixel (x, y) in the frame."""
        return (self.roi.x, self.roi.y) if self.roi else (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """The region's (height, width) in camera pixels."""
        return (self.roi.height, self.roi.width) if self.roi else self.frame

    def look(self, image: NDArray[Shade]) -> NDArray[Shade]:
        """Return an image of the camera's size (h, w) or (h, w, 3) as the network is to see it, not resized yet.

        A part that was shifted is completed by the camera's pixels beside the region, and by its outermost ones where
        the camera saw no more.
        """
        (left, top), (height, width) = self.origin, self.size
        if self.moved is None:
            return image[top : top + height, left : left + width]
        matrix = self.moved + np.array([[0, 0, left], [0, 0, top]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        warped = cv2.warpAffine(image, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(warped, dtype=image.dtype)

    def restore(self, plane: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return a map (H, W) of the network's size with everything where it lies in the region the camera saw.

        What the map says nothing of, as it lay outside of what the network saw, is 0.
        """
        if self.moved is None:
            return plane
        matrix = rescaled(self.moved, self.size, (plane.shape[0], plane.shape[1]))
        size = plane.shape[1], plane.shape[0]
        return np.asarray(cv2.warpAffine(plane, matrix, size, flags=cv2.INTER_NEAREST), dtype=np.float32)

    def whole(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a region's mask (H, W) as one of the whole frame: at the same scale, or less if that were huge."""
        if self.roi is None:
            return mask
        scales = [min(1.0, mask.shape[axis] / self.size[axis]) for axis in (0, 1)]
        pixels = scales[0] * self.frame[0] * scales[1] * self.frame[1]
        less = min(1.0, (MOST_MASK_PIXELS / pixels) ** 0.5)
        places = []
        for axis, origin in enumerate((self.roi.y, self.roi.x)):
            length = max(1, round(less * scales[axis] * self.frame[axis]))
            camera = (np.arange(length) + 0.5) * self.frame[axis] / length - origin  # the centres' camera pixels
            places.append(np.floor(camera * mask.shape[axis] / self.size[axis]).astype(np.intp))
        rows, columns = ((each, (each >= 0) & (each < mask.shape[axis])) for axis, each in enumerate(places))
        canvas = np.zeros((len(places[0]), len(places[1])), np.bool_)
        canvas[np.ix_(rows[1], columns[1])] = mask[np.ix_(rows[0][rows[1]], columns[0][columns[1]])]
        return canvas


@dataclass(frozen=True, slots=True)
class Prepared:
    """A frame as the network sees it, ``pixels`` (C, H, W) in [0, 1], and where that lies in the camera's frame."""

    pixels: NDArray[np.float32]
    placement: Placement


class Viewer:
    """Prepares a camera's frames. Holds no state between frames, so any number of threads may use one.

    Args:
        spec: what the network sees.
        view: what is done on the way there.
        arrays: what that needs.
    """

    def __init__(self, spec: InputSpec, view: View | None = None, arrays: ViewArrays | None = None) -> None:
        self.spec = spec
        self.view = view or View()
        self.arrays = arrays or ViewArrays()
        self.inspected = None if self.arrays.ignored is None else ~self.arrays.ignored
        self._registrar: Registrar | None = None
        if self.view.registration:
            assert self.arrays.reference is not None, "a view that registers has a reference"
            self._registrar = Registrar(self.arrays.reference, self.view.registration, self.inspected)

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """Return the network's input of a decoded frame (h, w) or (h, w, 3) BGR.

        Raises:
            UnregistrableError: the part cannot be brought to the reference's place.
        """
        return self.prepare_at(self.place(image), image)

    def place(self, image: NDArray[np.uint8]) -> Placement:
        """Return where the part lies in a frame.

        Raises:
            UnregistrableError: nowhere near the reference's place.
        """
        size = image.shape[0], image.shape[1]
        roi = self.view.roi
        if roi and not roi.fits(size):
            msg = f"a frame of {size[1]} x {size[0]} pixels does not hold the region {roi}"
            raise ValueError(msg)
        placement = Placement(size, roi)
        if self._registrar is None:
            return placement
        found = self._registrar.find(features_of(placement.look(image), self._registrar.size))
        return Placement(size, roi, rescaled(found.matrix, self._registrar.size, placement.size))

    def prepare_at(self, placement: Placement, image: NDArray[np.uint8]) -> Prepared:
        """Return the network's input of a frame whose part lies there."""
        return Prepared(self.finish(prepare(placement.look(image), self.spec)), placement)

    def finish(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return resized pixels (C, H, W) in the normals' light, and painted where they are ignored."""
        if self.view.light:
            pixels = restore_light(pixels, self.view.light, self.inspected)
        if self.view.ignored and self.arrays.ignored is not None:
            paint = np.array(self.view.ignored.paint, np.float32)[:, None, None]  # (C, 1, 1)
            pixels = np.where(self.arrays.ignored, paint, pixels)
        return pixels
