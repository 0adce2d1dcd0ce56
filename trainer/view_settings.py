"""What the user says of a line's view."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.preprocessing import decode_pixels, prepare
from schemas.artifacts import InputSpec, Lighting, Roi
from schemas.errors import ConfigurationError

WHITE = 127  # above it, a mask's pixel is ignored
# A cubic warp mixes pixels so far apart.
WARP_REACH = 2
SAME_ASPECT = 0.01


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """How a line is looked at; by default, frames are only resized.

    Attributes:
        roi: ``X,Y,WIDTH,HEIGHT`` in camera pixels; None: the whole frame.
        ignore: an image, white where nothing counts. With ``register``, it lies on the part, not on the frame.
        register: whether parts are brought to one place.
        max_shift, max_rotation: how far off a part may be, as a share of the side and in degrees.
        lighting: see ``monitor.core.lighting``.
    """

    roi: str | None = None
    ignore: Path | None = None
    register: bool = False
    max_shift: float = 0.1
    max_rotation: float = 10.0
    lighting: Lighting = Lighting.NONE


def parse_roi(text: str | None, source: tuple[int, int] | None) -> Roi | None:
    """Return the region that ``--roi`` names; ``source`` is the camera's (height, width), when all images agree.

    Raises:
        ConfigurationError: it is none, or does not lie in the camera's frame.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*", text)
    x, y, width, height = (int(value) for value in match.groups()) if match else (0, 0, 0, 0)
    if min(width, height) < 16:  # noqa: PLR2004 - as the schema has it
        remedy = "Use X,Y,WIDTH,HEIGHT in camera pixels, at least 16 wide and high, such as 200,120,640,480."
        raise ConfigurationError("--roi", text, "not a region", remedy)
    roi = Roi(x=x, y=y, width=width, height=height)
    if source is None:
        remedy = "Train on images of one size, as the camera sends them, or crop them yourself."
        raise ConfigurationError("--roi", text, "the images differ in size, so it means another place in each", remedy)
    if not roi.fits(source):
        problem = f"reaches beyond the images, which are {source[1]} x {source[0]} pixels"
        raise ConfigurationError("--roi", text, problem, "Choose a region that lies inside.")
    return roi


def read_ignored(path: Path, roi: Roi | None, spec: InputSpec, *, registered: bool) -> NDArray[np.bool_]:
    """Return the pixels (H, W) of the network's that draw on any camera pixel that is white in the image ``path``.

    Raises:
        ConfigurationError: it is no image, does not fit, or leaves everything or nothing to inspect.
    """
    white = _read(path) > WHITE
    if spec.source_size is not None:
        white = _fitted(white, roi, spec.source_size, path)
    camera = white.astype(np.uint8) * 255
    if registered:
        camera = np.asarray(cv2.dilate(camera, np.ones((2 * WARP_REACH + 1, 2 * WARP_REACH + 1))), dtype=np.uint8)
    touched: NDArray[np.bool_] = prepare(camera, spec.model_copy(update={"channels": 1}))[0] > 0
    if spec.source_size is None:
        # Frames of another size than the mask's are divided into pixels elsewhere, by one at most.
        touched = np.asarray(cv2.dilate(touched.astype(np.uint8), np.ones((3, 3)))) > 0
    if touched.all() or not touched.any():
        problem = "leaves nothing to inspect" if touched.all() else "has no white pixels, so ignores nothing"
        remedy = "White is ignored, black is inspected; perhaps it is the other way round."
        raise ConfigurationError("--ignore", str(path), problem, remedy)
    return touched


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        image = decode_pixels(path.read_bytes(), channels=1)
    except (OSError, ValueError) as error:
        raise ConfigurationError("--ignore", str(path), f"cannot be read: {error}", "Name an 8-bit image.") from error
    if image is None:
        raise ConfigurationError("--ignore", str(path), "not an image that can be read", "Name a PNG.")
    return image


def _fitted(white: NDArray[np.bool_], roi: Roi | None, source: tuple[int, int], path: Path) -> NDArray[np.bool_]:
    """Return a mask of the camera's size, or of the region's aspect, as one of the region's size."""
    region = (roi.height, roi.width) if roi else source
    if white.shape == source:
        return white[roi.y : roi.y + roi.height, roi.x : roi.x + roi.width] if roi else white
    aspect = (white.shape[1] / white.shape[0]) / (region[1] / region[0])
    if abs(aspect - 1) > SAME_ASPECT:
        other = f", the region {roi.width} x {roi.height}" if roi else ""
        problem = (
            f"is {white.shape[1]} x {white.shape[0]} pixels, the camera's frame is {source[1]} x {source[0]}{other}"
        )
        raise ConfigurationError("--ignore", str(path), problem, "Draw it on one of the camera's frames.")
    grown = cv2.resize(white.astype(np.uint8), (region[1], region[0]), interpolation=cv2.INTER_NEAREST)
    return np.asarray(grown) > 0
