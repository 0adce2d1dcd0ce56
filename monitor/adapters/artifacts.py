"""Loading a model bundle. Nothing in it is executed: safetensors and JSON only, every file held to its SHA-256."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file as load_tensors
from torch import Tensor, nn

from monitor.core.autoencoder import PatchAutoencoder, encoder_hash
from monitor.core.drift import DriftBaseline
from monitor.core.inspector import Model
from monitor.core.networks import Networks
from monitor.core.prior import Prior
from monitor.core.priors import make_prior
from monitor.core.scoring import Normality
from monitor.core.segmenter import Segmenter
from monitor.core.view import ViewArrays
from schemas.artifacts import (
    AUTOENCODER,
    BANK,
    DRIFT,
    MANIFEST,
    NORMALITY,
    PRIOR,
    SEGMENTER,
    VIEW,
    Manifest,
    read_manifest,
)
from schemas.errors import BundleError, PriorError

Network = TypeVar("Network", bound=nn.Module)

SMALLEST_REFERENCE = 8
REMEDY = "Restore the bundle from its source, or train it again."


def load_bundle(path: Path) -> Model:
    """Load and verify a bundle.

    Raises:
        BundleError: a file is missing, changed, malformed or does not fit the manifest; the message names it.
    """
    manifest = read_manifest(path)
    prior = _make_prior(path / MANIFEST, manifest)
    needed = (
        AUTOENCODER,
        SEGMENTER,
        BANK,
        NORMALITY,
        DRIFT,
        *((PRIOR,) if prior.state_dict() else ()),
        *((VIEW,) if manifest.view.registration or manifest.view.ignored else ()),
    )
    for name in needed:
        if name not in manifest.files:
            msg = f"{path}: the manifest names no {name}. {REMEDY}"
            raise BundleError(msg)
    networks = Networks(
        _load_autoencoder(path / AUTOENCODER, manifest),
        _load_segmenter(path / SEGMENTER, manifest),
        _fill(prior, path / PRIOR) if PRIOR in needed else prior.eval(),
    )
    view = _load_view(path / VIEW, manifest)
    return Model(
        manifest=manifest,
        networks=networks,
        normality=_load_normality(path / NORMALITY, manifest, view.ignored),
        drift=_load_drift(path / DRIFT, manifest),
        seed=_load_seed(path / BANK, manifest),
        view=view,
    )


def _load_autoencoder(path: Path, manifest: Manifest) -> PatchAutoencoder:
    autoencoder = _fill(PatchAutoencoder(manifest.architecture), path)
    found = encoder_hash(autoencoder)
    if found != manifest.encoder_hash:
        said = manifest.encoder_hash
        msg = f"{path}: its encoder's hash is {found[:12]}..., the manifest says {said[:12]}.... {REMEDY}"
        raise BundleError(msg)
    return autoencoder


def _load_segmenter(path: Path, manifest: Manifest) -> Segmenter:
    architecture = manifest.architecture
    return _fill(Segmenter(architecture.input.channels, architecture.segmenter), path)


def _make_prior(path: Path, manifest: Manifest) -> Prior:
    """Return the prior that the manifest names, untrained: one that is installed here, or none."""
    try:
        return make_prior(manifest.prior, manifest.architecture)
    except PriorError as error:
        msg = f"{path}: prior: {error}"
        raise BundleError(msg) from error


def _fill(network: Network, path: Path) -> Network:
    """Return the network with the weights of a file, ready to be used."""
    try:
        network.load_state_dict(load_tensors(path))
    except (SafetensorError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        msg = f"{path}: does not fit the architecture in the manifest: {reason}. {REMEDY}"
        raise BundleError(msg) from error
    return network.eval().requires_grad_(requires_grad=False)


def _load_view(path: Path, manifest: Manifest) -> ViewArrays:
    ignored = reference = None
    if manifest.view.ignored:
        ignored = _load_array(path, "ignored").astype(np.bool_)
        expected = (manifest.architecture.input.height, manifest.architecture.input.width)
        if ignored.shape != expected or ignored.all() or not ignored.any():
            msg = f"{path}: 'ignored' {ignored.shape} must be {expected} (H, W) with some pixels in it. {REMEDY}"
            raise BundleError(msg)
    if manifest.view.registration:
        reference = _load_array(path, "reference").astype(np.float32)
        fits = reference.ndim == 2 and min(reference.shape) >= SMALLEST_REFERENCE  # noqa: PLR2004 - (h, w)
        if not fits or not np.isfinite(reference).all():
            side = SMALLEST_REFERENCE
            msg = f"{path}: 'reference' {reference.shape} must be (h, w), {side} or more, and finite. {REMEDY}"
            raise BundleError(msg)
    return ViewArrays(ignored, reference)


def _load_normality(path: Path, manifest: Manifest, ignored: NDArray[np.bool_] | None) -> Normality:
    return Normality(*(_load_scale(path, name, manifest, ignored) for name in ("spread", "detail")))


def _load_scale(path: Path, name: str, manifest: Manifest, ignored: NDArray[np.bool_] | None) -> Tensor:
    scale = _load_array(path, name)
    expected = (manifest.architecture.input.height, manifest.architecture.input.width)
    # Infinite where nothing is inspected, and nowhere else.
    unlimited = np.zeros(expected, np.bool_) if ignored is None else ignored
    fits = scale.shape == expected and np.array_equal(np.isposinf(scale), unlimited)
    if not fits or not np.isfinite(scale[~unlimited]).all() or not (scale > 0).all():
        msg = (
            f"{path}: {name!r} {scale.shape} must be {expected} (H, W), positive, and finite but for ignored pixels. "
            f"{REMEDY}"
        )
        raise BundleError(msg)
    return torch.from_numpy(scale.astype(np.float32))


def _load_drift(path: Path, manifest: Manifest) -> DriftBaseline:
    cells = manifest.architecture.latent_shape[:2]
    shapes = {"score_mean": (1,), "score_deviation": (1,), "distance_mean": cells, "distance_deviation": cells}
    found = {name: _load_array(path, name).astype(np.float32) for name in shapes}
    for name, shape in shapes.items():
        least = np.float32(0.0)
        fits = found[name].shape == shape and np.isfinite(found[name]).all() and (found[name] >= least).all()
        if not fits or (name.endswith("deviation") and not found[name].all()):
            msg = f"{path}: {name!r} {found[name].shape} must be {shape}, finite, and not negative. {REMEDY}"
            raise BundleError(msg)
    return DriftBaseline(
        score_mean=float(found["score_mean"][0]),
        score_deviation=float(found["score_deviation"][0]),
        distance_mean=found["distance_mean"],
        distance_deviation=found["distance_deviation"],
    )


def _load_seed(path: Path, manifest: Manifest) -> NDArray[np.float16]:
    features = _load_array(path, "entries")
    expected = manifest.architecture.entry_shape
    fits = features.dtype == np.float16 and features.shape[1:] == expected and len(features) > 0
    if not fits or not np.isfinite(features).all():
        found = f"{features.dtype} {features.shape}"
        msg = f"{path}: 'entries' {found} must be finite float16 (N, *{expected}), N >= 1. {REMEDY}"
        raise BundleError(msg)
    return np.asarray(features, dtype=np.float16)


def _load_array(path: Path, name: str) -> NDArray[np.floating]:
    try:
        return np.asarray(load_arrays(path)[name])
    except (SafetensorError, KeyError) as error:
        msg = f"{path}: cannot be read or holds no tensor {name!r}: {error}. {REMEDY}"
        raise BundleError(msg) from error
