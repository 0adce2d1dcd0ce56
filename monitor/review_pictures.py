"""A frame, its mask and both together, as files to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.adapters.images import FsspecImageStore
from monitor.core.bank_entry import unpack
from monitor.ports import BankEntry
from monitor.settings import Settings
from schemas.artifacts import read_manifest
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


def overlay(frame: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the frame (H, W, 3), enlarged if it is small, with a line around the mask's (H, W) regions."""
    scale = max(1, -(-OVERLAY_SIDE // max(frame.shape[:2])))
    size = frame.shape[1] * scale, frame.shape[0] * scale
    canvas = np.array(cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC))
    large = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    around = cv2.dilate(large, np.ones((2 * scale + 3, 2 * scale + 3), np.uint8))
    contours, _ = cv2.findContours(around, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(canvas, contours, -1, CONTOUR, 1), dtype=np.uint8)
