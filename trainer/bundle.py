"""Writing a model bundle: the files first, the manifest that pins them last, then the whole folder into place."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file as save_tensors
from torch import nn

from monitor.core.autoencoder import encoder_hash
from monitor.core.drift import DriftBaseline
from monitor.core.networks import Networks
from monitor.core.view import ViewArrays
from schemas.artifacts import (
    AUTOENCODER,
    BANK,
    DRIFT,
    MANIFEST,
    NORMALITY,
    PRIOR,
    REPORT,
    SEGMENTER,
    VIEW,
    DataSummary,
    Manifest,
    View,
    sha256_file,
)
from schemas.errors import ConfigurationError
from schemas.messages import utc_now
from trainer.bank import entries_of
from trainer.calibrate import Calibrated
from trainer.report import render_report


@dataclass(frozen=True, slots=True)
class Trained:
    """All that training made, before it is a bundle."""

    networks: Networks
    calibrated: Calibrated
    data: DataSummary
    training: dict[str, float | int | str]
    view: View = field(default_factory=View)
    view_arrays: ViewArrays = field(default_factory=ViewArrays)
    prior: str = "bank"  # the name of the networks' prior


def check_target(out: Path) -> None:
    """Refuse a folder that holds anything but an earlier bundle, before hours of training go to waste.

    Raises:
        ConfigurationError: writing there would destroy something else.
    """
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        raise ConfigurationError(
            "--out", str(out), "exists and is not a model bundle", "Name a new folder, or an earlier bundle."
        )
    parent = out.resolve().parent
    while not parent.exists():
        parent = parent.parent
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise ConfigurationError(
            "--out", str(out), f"{parent} is not a folder that can be written to", "Name a place in one that can."
        )


def save_bundle(out: Path, trained: Trained) -> Manifest:
    """Write a bundle to ``out``; an earlier bundle there is replaced once the new one is whole."""
    check_target(out)
    place = out.resolve()  # what a link points to is replaced, not the link
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        draft.chmod(0o755)
        _save_network(trained.networks.autoencoder, draft / AUTOENCODER)
        _save_network(trained.networks.segmenter, draft / SEGMENTER)
        if trained.networks.prior.state_dict():
            _save_network(trained.networks.prior, draft / PRIOR)
        save_arrays({"entries": entries_of(trained.calibrated.bank)}, draft / BANK)
        normality = trained.calibrated.normality
        save_arrays({name: getattr(normality, name).cpu().numpy() for name in ("spread", "detail")}, draft / NORMALITY)
        save_arrays(_drift_arrays(trained.calibrated.drift), draft / DRIFT)
        if view := _view_arrays(trained.view_arrays):
            save_arrays(view, draft / VIEW)
        manifest = _add_report(draft, trained, _manifest(draft, trained))
        (draft / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _put_in_place(draft, place)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _drift_arrays(drift: DriftBaseline) -> dict[str, NDArray[np.generic]]:
    """Return what the bundle keeps of the drift baseline, by name."""
    return {name: np.atleast_1d(np.asarray(value, np.float32)) for name, value in asdict(drift).items()}


def _view_arrays(view: ViewArrays) -> dict[str, NDArray[np.generic]]:
    """Return the arrays that the view needs, by their names in its file."""
    arrays: dict[str, NDArray[np.generic]] = {}
    if view.ignored is not None:
        arrays["ignored"] = view.ignored.astype(np.uint8)
    if view.reference is not None:
        arrays["reference"] = view.reference
    return arrays


def _save_network(network: nn.Module, path: Path) -> None:
    save_tensors({name: value.contiguous() for name, value in network.state_dict().items()}, path)


def _put_in_place(draft: Path, place: Path) -> None:
    """Move the draft to its place; the bundle that was there is deleted last, and comes back if the move fails."""
    if not place.exists():
        draft.rename(place)
        return
    aside = draft.with_name(f"{draft.name}-replaced")
    place.rename(aside)
    try:
        draft.rename(place)
    except BaseException:
        aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _add_report(folder: Path, trained: Trained, manifest: Manifest) -> Manifest:
    """Write the report, if calibration made one, and return the manifest that pins it too."""
    if trained.calibrated.report is None:
        return manifest
    (folder / REPORT).write_text(render_report(trained.calibrated.report, manifest), encoding="utf-8")
    return manifest.model_copy(update={"files": manifest.files | {REPORT: sha256_file(folder / REPORT)}})


def _manifest(folder: Path, trained: Trained) -> Manifest:
    written = (AUTOENCODER, SEGMENTER, PRIOR, BANK, NORMALITY, DRIFT, VIEW)
    files = {name: sha256_file(folder / name) for name in written if (folder / name).exists()}
    encoder = encoder_hash(trained.networks.autoencoder)
    now = utc_now()
    return Manifest(
        model_id=f"{now:%Y%m%d-%H%M%S}-{encoder[:8]}",
        created_at=now,
        architecture=trained.networks.autoencoder.architecture,
        encoder_hash=encoder,
        calibration=trained.calibrated.calibration,
        prior=trained.prior,
        view=trained.view,
        data=trained.data,
        training=trained.training,
        files=files,
    )
