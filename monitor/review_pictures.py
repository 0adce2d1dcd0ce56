"""A frame, its mask and both together, as files to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.adapters.images import FsspecImageStore
from monitor.settings import Settings
from schemas.errors import OperatorError

if TYPE_CHECKING:
    from monitor.adapters.review_desk import FrameDetails

CONTOUR = (40, 40, 230)  # BGR
OVERLAY_SIDE = 600  # smaller frames are enlarged, so that the line goes round the defect and not over it


def save_pictures(settings: Settings, details: FrameDetails, folder: Path) -> list[Path]:
    """Write ``<frame>-frame``, ``-mask`` and ``-overlay`` into ``folder`` and return their paths.

    Raises:
        OperatorError: the frame's image was not kept, or is no longer there.
    """
    sha256 = details.frame.image_sha256
    try:
        content = FsspecImageStore(settings.images.url).get(sha256) if sha256 else b""
    except KeyError:
        content = b""
    if not content:
        msg = f"{details.frame.frame_id}: its image was not kept (images.keep = {settings.images.keep!r}), or is gone."
        raise OperatorError(msg)
    folder.mkdir(parents=True, exist_ok=True)
    frame = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR))
    pictures = {"frame": frame}
    if details.mask_png:
        small = np.asarray(cv2.imdecode(np.frombuffer(details.mask_png, np.uint8), cv2.IMREAD_GRAYSCALE))
        mask = np.asarray(cv2.resize(small, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST))
        pictures |= {"mask": mask, "overlay": overlay(frame, mask > 0)}
    paths = []
    for name, picture in pictures.items():
        path = folder / f"{details.frame.frame_id}-{name}.png"
        cv2.imwrite(str(path), picture)
        paths.append(path)
    return paths


def overlay(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the frame (H, W, 3), enlarged if it is small, with a line around the mask's (H, W) regions."""
    scale = max(1, -(-OVERLAY_SIDE // max(frame.shape[:2])))
    size = frame.shape[1] * scale, frame.shape[0] * scale
    canvas = np.array(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC))
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    around = cv2.dilate(large, np.ones((2 * scale + 3, 2 * scale + 3), np.uint8))
    contours, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(canvas, contours, -1, CONTOUR, 1), dtype=np.uint8)
