"""Which mirror images of a normal part are normal too: found on the normals themselves, never assumed."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.float32]
Flips = tuple[tuple[int, ...], ...]  # axes of (C, H, W) to flip; () is the image itself

SIDE = 32
# A mirrored normal may lie this much farther from its nearest normal than an unmirrored one does.
TOLERANCE = 1.15
CANDIDATES: Flips = ((2,), (1,), (1, 2))


def find_flips(train: Images, validation: Images, inspected: NDArray[np.bool_] | None = None) -> Flips:
    """Return the mirrorings, the identity first, after which validation normals lie as near to ``train`` as before.

    Args:
        train: (N, C, H, W) normals.
        validation: (V, C, H, W) others.
        inspected: (H, W) what is not painted over; None: all. A mirroring must leave it where it is, or normals in the
            bank would be painted where the line's frames are not.
    """
    known, queries = _thumbnails(train), _thumbnails(validation)
    plain = _nearest(queries, known)
    candidates = [axes for axes in CANDIDATES if inspected is None or _keeps(inspected, axes)]
    kept = [axes for axes in candidates if _nearest(_flip(queries, axes), known) <= TOLERANCE * plain]
    return ((), *kept)


def flipped(images: Images, flips: Flips) -> Images:
    """Return (F·N, C, H, W): every image under every mirroring."""
    return np.ascontiguousarray(np.concatenate([_flip(images, axes) for axes in flips]))


def _keeps(inspected: NDArray[np.bool_], axes: tuple[int, ...]) -> bool:
    return bool(np.array_equal(np.flip(inspected, tuple(axis - 1 for axis in axes)), inspected))


def _flip(images: Images, axes: tuple[int, ...]) -> Images:
    """Return images (N, C, H, W) mirrored along axes of (C, H, W)."""
    return np.flip(images, tuple(axis + 1 for axis in axes))


def _thumbnails(images: Images) -> Images:
    small = [cv2.resize(image.transpose(1, 2, 0), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for image in images]
    return np.stack([image.reshape(SIDE, SIDE, -1).transpose(2, 0, 1) for image in small])


def _nearest(queries: Images, known: Images) -> float:
    """Return the mean over ``queries`` of the squared distance to the nearest image of ``known``."""
    a, b = queries.reshape(len(queries), -1), known.reshape(len(known), -1)
    distances = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return float(np.maximum(distances, 0).min(axis=1).mean())
