"""A frame, its mask and both together, as files to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.adapters.images import FsspecImageStore
from monitor.comparison import read_mask
from monitor.core.bank_entry import unpack
from monitor.ports import BankEntry
from monitor.settings import Settings
from schemas.artifacts import read_manifest
from schemas.errors import OperatorError

if TYPE_CHECKING:
    from monitor.adapters.review_desk import FrameDetails
    from monitor.adapters.shadow_desk import Disagreement

CONTOUR = (40, 40, 230)  # BGR
SHADOW_CONTOUR = (230, 140, 20)
OVERLAY_SIDE = 600  # smaller frames are enlarged, so that the line goes round the defect and not over it


def save_pictures(settings: Settings, details: FrameDetails, folder: Path) -> list[Path]:
    """Write ``<frame>-frame``, ``-mask`` and ``-overlay`` into ``folder`` and return their paths.

    Raises:
        OperatorError: the frame's image was not kept, or is no longer there.
    """
    sha256 = details.frame.image_sha256
    content = _kept(settings, sha256)
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
    review = details.frame.review
    if review and (patches := _kept(settings, review.hidden_picture)):
        paths.append(folder / f"{details.frame.frame_id}-would-hide.png")
        paths[-1].write_bytes(patches)
    return paths


def save_taught(settings: Settings, entry: BankEntry, bundle: Path, folder: Path) -> Path:
    """Write a frame that a bank of a bundle's model was taught, greyed out where it is not kept; return the path.

    Raises:
        OperatorError: its image is no longer there.
    """
    content = _kept(settings, entry.image_sha256)
    if not content:
        msg = f"{entry.frame_id}: its image is no longer in the image store."
        raise OperatorError(msg)
    frame = np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    kept = _locations(bundle, entry)
    side = frame.shape[1], frame.shape[0]
    mask = np.asarray(cv2.resize(kept.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST)) > 0
    faded = (0.35 * frame + 140).clip(0, 255).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{entry.frame_id}-taught.png"
    cv2.imwrite(str(path), overlay(np.where(mask[..., None], frame, faded), mask))
    return path


def _locations(bundle: Path, entry: BankEntry) -> NDArray[np.bool_]:
    p1, p2, _ = read_manifest(bundle).architecture.latent_shape
    if entry.locations is None or len(entry.locations) != -(-p1 * p2 // 8):
        return np.ones((p1, p2), np.bool_)
    return unpack(entry.locations, (p1, p2))


def _kept(settings: Settings, sha256: str | None) -> bytes:
    """Return what the image store has at an address; nothing if it was not kept, or is gone."""
    try:
        return FsspecImageStore(settings.images.url).get(sha256) if sha256 else b""
    except KeyError:
        return b""


def save_disagreement(settings: Settings, found: Disagreement, folder: Path) -> Path | None:
    """Write ``<frame>-<shadow>``: the frame, the active model's regions in red, the shadow's in blue; return the path.

    None if the frame's image was not kept, or is gone.
    """
    content = _kept(settings, found.image_sha256)
    frame = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if content else None
    if frame is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{found.frame_id}-{found.shadow.model_id}.png"
    masks = [(read_mask(found.active.mask_png), CONTOUR), (read_mask(found.shadow.mask_png), SHADOW_CONTOUR)]
    cv2.imwrite(str(path), outlined(np.asarray(frame, np.uint8), masks))
    return path


def overlay(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the frame (H, W, 3), enlarged if it is small, with a line around the mask's (H, W) regions."""
    return outlined(frame, [(mask, CONTOUR)])


def outlined(
    frame: NDArray[np.uint8], masks: Sequence[tuple[NDArray[np.bool_], tuple[int, int, int]]]
) -> NDArray[np.uint8]:
    """Return the frame (H, W, 3), enlarged if it is small, with a line of its colour (BGR) around each mask's regions.

    A mask is of the whole frame, at any size; an empty one has no regions.
    """
    scale = max(1, -(-OVERLAY_SIDE // max(frame.shape[:2])))
    size = frame.shape[1] * scale, frame.shape[0] * scale
    canvas = np.array(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC))
    for mask, colour in masks:
        if not mask.size:
            continue
        large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        around = cv2.dilate(large, np.ones((2 * scale + 3, 2 * scale + 3), np.uint8))
        contours, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        canvas = np.asarray(cv2.drawContours(canvas, contours, -1, colour, 1))
    return canvas.astype(np.uint8)
