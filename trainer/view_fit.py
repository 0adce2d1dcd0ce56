"""Learning a line's view from its normals: the reference that parts are registered to, the light, and the paint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.lighting import measure
from monitor.core.registration import Features, Found, Registrar, compared, features_of
from monitor.core.view import Placement, ViewArrays, Viewer
from schemas.artifacts import Ignored, InputSpec, Light, Lighting, Registration, Roi, View
from schemas.errors import ConfigurationError, DataError, UnregistrableError
from trainer.view_settings import ViewSettings, read_ignored

# ECC at 160x160 already finds a shift to hundredths of the network's pixel; more only takes longer.
MOST_REFERENCE_PIXELS = 160 * 160
# A normal that correlates less than this share of what the middle one does shows something else.
STRANGE = 0.5
# A frame on the line may correlate this share of what the worst normal does: defects cost correlation too.
LEAST = 0.5
MOST_LEFT_OUT = 0.1
LEAST_COMPARED = 0.05
NAMED = 10

Read = Callable[[int], NDArray[np.uint8]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class FittedView:
    """The view of a line.

    Attributes:
        viewer: prepares frames by it.
        images: (K, C, H, W) the normals, prepared.
        kept: (K,) which those are: all but the ones that could not be registered.
    """

    viewer: Viewer
    images: NDArray[np.float32]
    kept: NDArray[np.intp]


def fit_view(
    read: Read,
    paths: Sequence[Path],
    spec: InputSpec,
    roi: Roi | None,
    settings: ViewSettings,
    progress: Progress | None = None,
) -> FittedView:
    """Learn a view from normals and prepare them by it.

    Args:
        read: the normal of an index, as the camera sent it.
        paths: the normals' files, for what is said of them.
        spec: what the network sees.
        roi: the region that is looked at.
        settings: what the user wants.
        progress: called with (images read, how often one is read in all).

    Raises:
        DataError: more than a tenth of the normals cannot be registered.
        ConfigurationError: the ignore mask does not fit.
    """
    rounds = 1 + settings.register
    told = progress or (lambda _done, _total: None)
    ignored = read_ignored(settings.ignore, roi, spec, registered=settings.register) if settings.ignore else None
    view, arrays, kept = View(roi=roi), ViewArrays(ignored), np.arange(len(paths))
    if settings.register:
        size = _reference_size(roi, spec)
        _check_enough_compared(arrays, size, settings)
        features = np.empty((len(paths), *size), np.float32)
        for index in range(len(paths)):
            image = read(index)
            features[index] = features_of(Placement((image.shape[0], image.shape[1]), roi).look(image), size)
            told(index + 1, rounds * len(paths))
        registration, reference, kept = fit_registration(features, settings, arrays, paths)
        view = view.model_copy(update={"registration": registration})
        arrays = ViewArrays(ignored, reference)
    images = np.empty((len(kept), spec.channels, spec.height, spec.width), np.float32)
    viewer = Viewer(spec, view, arrays)
    for place, chosen in enumerate(kept.tolist()):
        images[place] = viewer.prepare(read(chosen)).pixels
        told((rounds - 1) * len(paths) + chosen + 1, rounds * len(paths))
    told(rounds * len(paths), rounds * len(paths))
    view = _fit_colours(viewer, images, settings.lighting)
    return FittedView(Viewer(spec, view, arrays), images, kept)


def fit_registration(
    features: Features, settings: ViewSettings, arrays: ViewArrays, paths: Sequence[Path]
) -> tuple[Registration, Features, NDArray[np.intp]]:
    """Return how parts are registered, to what reference (h, w), and which normals (K,) can be.

    The first reference is the normal that most resembles the others; the second, the mean of all that can be brought
    to it. What correlates with that less than half as well as the middle normal shows something else. On the line, the
    least correlation is half of the worst normal's: a defect takes some of it away, and another product most.

    Args:
        features: (N, h, w) gradient magnitudes of the normals.
        settings: the limits.
        arrays: the pixels to leave out.
        paths: (N,) the normals' files.

    Raises:
        DataError: more than a tenth of the normals cannot be registered.
    """
    inspected = None if arrays.ignored is None else ~arrays.ignored
    limits = Registration(max_shift=settings.max_shift, max_rotation=settings.max_rotation, least_correlation=0.0)
    reference = features[_medoid(features, compared(inspected, features.shape[1:]))]
    found = _find_all(features, Registrar(reference, limits, inspected))
    reference = np.mean([_moved(features[index], found[index]) for index in _alike(found)], axis=0, dtype=np.float32)
    found = _find_all(features, Registrar(reference, limits, inspected))
    kept = _alike(found)
    _check_few_left_out(np.setdiff1d(np.arange(len(paths)), kept), paths, settings)
    least = LEAST * min(found[index].correlation for index in kept)
    return limits.model_copy(update={"least_correlation": float(least)}), reference, kept


def _reference_size(roi: Roi | None, spec: InputSpec) -> tuple[int, int]:
    """Return the reference's (h, w): about as many pixels as the network's, none squeezed where that is known."""
    region = (roi.height, roi.width) if roi else spec.source_size or (spec.height, spec.width)
    pixels = min(spec.height * spec.width, MOST_REFERENCE_PIXELS)
    scale = min(1.0, (pixels / (region[0] * region[1])) ** 0.5)
    return max(16, round(scale * region[0])), max(16, round(scale * region[1]))


def _check_enough_compared(arrays: ViewArrays, size: tuple[int, int], settings: ViewSettings) -> None:
    if arrays.ignored is None or compared(~arrays.ignored, size).mean() >= LEAST_COMPARED:
        return
    problem = "leaves too little to register parts by"
    raise ConfigurationError("--ignore", str(settings.ignore), problem, "Ignore less, or leave --register out.")


def _medoid(features: Features, used: NDArray[np.bool_]) -> int:
    """Return the index of the one that correlates best with the others, by its pixels (h, w) that are used."""
    vectors = features[:, used] - features[:, used].mean(axis=1, keepdims=True)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return int(np.argmax(vectors @ vectors.sum(axis=0)))


def _find_all(features: Features, registrar: Registrar) -> dict[int, Found]:
    found = {}
    for index, each in enumerate(features):
        try:
            found[index] = registrar.find(each)
        except UnregistrableError:
            continue
    return found


def _alike(found: dict[int, Found]) -> NDArray[np.intp]:
    """Return the indices (K,), rising, of those that show the same as the middle one."""
    middle = float(np.median([each.correlation for each in found.values()])) if found else 0.0
    return np.array([index for index, each in found.items() if each.correlation >= STRANGE * middle], np.intp)


def _moved(features: Features, found: Found) -> Features:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    size = features.shape[1], features.shape[0]
    moved = cv2.warpAffine(features, found.matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved, dtype=np.float32)


def _check_few_left_out(left_out: NDArray[np.intp], paths: Sequence[Path], settings: ViewSettings) -> None:
    if len(left_out) <= MOST_LEFT_OUT * len(paths):
        return
    names = ", ".join(paths[index].name for index in left_out[:NAMED])
    more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    msg = (
        f"{paths[0].parent}: {len(left_out)} of {len(paths)} normals cannot be brought to one place, for they are "
        f"shifted by more than {settings.max_shift:.0%} of the side, turned by more than "
        f"{settings.max_rotation:g} degrees, or show something else: {names}{more}. Take them out of the folder, "
        "raise --max-shift or --max-rotation, or leave --register out."
    )
    raise DataError(msg)


def _fit_colours(viewer: Viewer, images: NDArray[np.float32], lighting: Lighting) -> View:
    """Return the view with its light and its paint, and bring the normals (K, C, H, W) to them in place."""
    view, arrays, inspected = viewer.view, viewer.arrays, viewer.inspected
    if lighting is not Lighting.NONE:
        measured = np.array([measure(image, inspected) for image in images])  # (K, 2)
        mean, deviation = (float(value) for value in measured.mean(axis=0))
        if not deviation > 0:
            problem = "the normals are of one brightness throughout, so there is no light to bring frames to"
            raise ConfigurationError("--lighting", lighting.value, problem, "Use none.")
        view = view.model_copy(update={"light": Light(kind=lighting, mean=mean, deviation=deviation)})
        _finish(Viewer(viewer.spec, View(light=view.light), arrays), images)
    if arrays.ignored is not None and inspected is not None:
        paint = np.mean([image[:, inspected].mean(axis=1, dtype=np.float64) for image in images], axis=0)  # (C,)
        ignored = Ignored(share=float(arrays.ignored.mean()), paint=tuple(float(value) for value in paint.clip(0, 1)))
        view = view.model_copy(update={"ignored": ignored})
        _finish(Viewer(viewer.spec, View(ignored=ignored), arrays), images)
    return view


def _finish(viewer: Viewer, images: NDArray[np.float32]) -> None:
    for image in images:
        image[...] = viewer.finish(image)
