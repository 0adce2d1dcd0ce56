"""Normal images from a folder: an MVTec layout (``train/good``) or a plain folder of images."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from monitor.core.preprocessing import decode_pixels
from monitor.core.view import Viewer
from schemas.artifacts import InputSpec
from schemas.errors import ConfigurationError, DataError
from trainer.view_fit import fit_view
from trainer.view_settings import ViewSettings, parse_roi

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
MIN_IMAGES = 20
DEFAULT_SIDE = 128
STEP = 16
MAX_ASPECT = 4.0
# Grey cameras often deliver colour files; JPEG rounding may tell their channels apart by a few levels.
GREY_TOLERANCE = 3.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Dataset:
    """Normal images, prepared for the network.

    Attributes:
        spec: what the network sees.
        images: (N, C, H, W) float32 in [0, 1].
        paths: the files, in the same order.
        sha256: over all files' bytes, in order.
        viewer: what prepared them, and prepares the line's frames.
        unregistered: how many files were left out, for they could not be registered.
    """

    spec: InputSpec
    images: NDArray[np.float32]
    paths: tuple[Path, ...]
    sha256: str
    viewer: Viewer
    unregistered: int = 0


@dataclass(frozen=True, slots=True)
class Split:
    """Disjoint normals: ``train`` for the network and the bank, ``validation`` for every threshold."""

    train: NDArray[np.float32]
    validation: NDArray[np.float32]


def find_images(data: Path) -> tuple[Path, ...]:
    """Return the normal images of ``data``, sorted by name.

    Raises:
        DataError: there is no such folder, or too few images in it.
    """
    if not data.is_dir():
        msg = f"{data}: no such folder. Name a folder of normal images, or one in MVTec layout (train/good inside)."
        raise DataError(msg)
    folder = data / "train" / "good"
    folder = folder if folder.is_dir() else data
    paths = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.is_dir()))
    if len(paths) < MIN_IMAGES:
        msg = (
            f"{folder}: {len(paths)} images ({', '.join(sorted(SUFFIXES))}), at least {MIN_IMAGES} normal ones are "
            "needed; a few hundred are better."
        )
        raise DataError(msg)
    return paths


def load_dataset(
    data: Path,
    size: str = "auto",
    colour: str = "auto",
    progress: Progress | None = None,
    view: ViewSettings | None = None,
) -> Dataset:
    """Read all normal images below ``data``.

    Args:
        data: a folder, see ``find_images``.
        size: ``auto`` (short side 128, aspect kept), ``N`` or ``HEIGHTxWIDTH``, in multiples of 16 pixels.
        colour: ``auto`` (colour if any image is), ``grey`` or ``colour``.
        progress: called with (images read, how often one is read in all).
        view: how the line is looked at.

    Raises:
        DataError, ConfigurationError.
    """
    view = view or ViewSettings()
    paths = find_images(data)
    rounds = 2 + view.register
    sizes, digest, coloured = set(), hashlib.sha256(), False
    for done, path in enumerate(paths, 1):
        content = path.read_bytes()
        digest.update(hashlib.sha256(content).digest())
        image = _decode(path, content, channels=3)
        sizes.add(image.shape[:2])
        coloured = coloured or _is_coloured(image)
        if progress:
            progress(done, rounds * len(paths))
    source = next(iter(sizes)) if len(sizes) == 1 else None
    roi = parse_roi(view.roi, source)
    height, width = parse_size(size, (roi.height, roi.width) if roi else source)
    spec = InputSpec(height=height, width=width, channels=_channels(colour, coloured=coloured), source_size=source)
    # Read again rather than kept: the camera's pixels of a thousand images need not fit into memory.
    fitted = fit_view(
        lambda index: _decode(paths[index], paths[index].read_bytes(), spec.channels),
        paths,
        spec,
        roi,
        view,
        (lambda done, _: progress(len(paths) + done, rounds * len(paths))) if progress else None,
    )
    return Dataset(
        spec=spec,
        images=fitted.images,
        paths=tuple(paths[index] for index in fitted.kept),
        sha256=digest.hexdigest(),
        viewer=fitted.viewer,
        unregistered=len(paths) - len(fitted.kept),
    )


def split(images: NDArray[np.float32], share: float, seed: int) -> Split:
    """Hold out ``share`` of the images (at least 8, at most 200) for validation, at random by ``seed``."""
    count = int(np.clip(round(share * len(images)), 8, 200))
    order = np.random.default_rng(seed).permutation(len(images))
    return Split(train=images[order[count:]], validation=images[order[:count]])


def parse_size(size: str, source: tuple[int, int] | None) -> tuple[int, int]:
    """Return the network's (height, width); ``source`` is the camera's, when all images agree."""
    if size == "auto":
        aspect = 1.0 if source is None else float(np.clip(source[1] / source[0], 1 / MAX_ASPECT, MAX_ASPECT))
        short = DEFAULT_SIDE
        return (short, _round(short * aspect)) if aspect >= 1 else (_round(short / aspect), short)
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", size)
    values = [int(value) for value in match.groups() if value] if match else []
    if not values or any(value % STEP or not STEP <= value <= 2048 for value in values):  # noqa: PLR2004 - sane limit
        remedy = f"Use 'auto', N or HEIGHTxWIDTH in multiples of {STEP}, up to 2048, such as 128 or 128x192."
        raise ConfigurationError("--size", size, "not a size the network can have", remedy)
    return values[0], values[-1]


def _round(length: float) -> int:
    return STEP * max(1, round(length / STEP))


def _decode(path: Path, content: bytes, channels: int) -> NDArray[np.uint8]:
    try:
        image = decode_pixels(content, channels)
    except ValueError as error:
        msg = f"{path}: {error}. Convert it, or take it out of the folder."
        raise DataError(msg) from error
    if image is None:
        msg = f"{path}: not an image that can be read. Take it out of the folder, or restore it from the camera."
        raise DataError(msg)
    return image


def _channels(colour: str, *, coloured: bool) -> Literal[1, 3]:
    if colour not in {"auto", "grey", "colour"}:
        raise ConfigurationError("--colour", colour, "unknown", "Use auto, grey or colour.")
    return 3 if colour == "colour" or (colour == "auto" and coloured) else 1


def _is_coloured(image: NDArray[np.uint8]) -> bool:
    signed = image.astype(np.int16)
    return bool((signed.max(axis=2) - signed.min(axis=2)).mean() > GREY_TOLERANCE)
