"""From a folder of normal images to a bundle, read top to bottom."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic
from typing import Protocol

from monitor.core.networks import Networks
from schemas.artifacts import DataSummary, Manifest
from trainer.bank import affordable, bank_normals
from trainer.bundle import Trained, check_target, save_bundle
from trainer.calibrate import CalibrationSettings, calibrate
from trainer.dataset import load_dataset, split
from trainer.priors import Lesson, require_prior, train_prior
from trainer.segmenting import SegmenterSettings, train_segmenter
from trainer.symmetry import find_flips
from trainer.training import TrainingSettings, train
from trainer.view_settings import ViewSettings


class Reporter(Protocol):
    """Shows long work to people."""

    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        """Tell that ``done`` of ``total`` parts of a stage are done."""


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """Everything ``paedid-trainer train`` may be told."""

    size: str = "auto"
    colour: str = "auto"
    validation_share: float = 0.25
    bank_images: int = 1000
    prior: str = "bank"
    view: ViewSettings = field(default_factory=ViewSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)


def build(data: Path, out: Path, settings: BuildSettings, reporter: Reporter) -> Manifest:
    """Train, build the bank, calibrate and save.

    Raises:
        DataError, ConfigurationError, TrainingError: nothing was saved.
    """
    check_target(out)
    require_prior(settings.prior)
    started = monotonic()
    dataset = load_dataset(
        data, settings.size, settings.colour, lambda n, m: reporter.stage("reading images", n, m), settings.view
    )
    inspected = dataset.viewer.inspected
    parts = split(dataset.images, settings.validation_share, settings.training.seed)
    flips = find_flips(parts.train, parts.validation, inspected)
    autoencoder, report = train(
        dataset.spec,
        parts.train,
        parts.validation,
        flips,
        settings.training,
        lambda n, m, loss: reporter.stage("training", n, m, f"rmse {loss**0.5:.4f}"),
    )
    pieces = replace(settings.segmenter, seed=settings.training.seed)
    segmenter = train_segmenter(
        autoencoder.architecture,
        parts.train,
        pieces,
        lambda n, m, loss: reporter.stage("learning defects", n, m, f"loss {loss:.3f}"),
        inspected,
    )
    lesson = Lesson(
        parts.train,
        parts.validation,
        autoencoder,
        pieces,
        settings.training.seed,
        inspected,
        lambda n, m, loss: reporter.stage("learning prior", n, m, f"loss {loss:.4f}"),
    )
    networks = Networks(autoencoder, segmenter, train_prior(settings.prior, lesson))
    kept = affordable(autoencoder.architecture, settings.bank_images)
    normals = bank_normals(parts.train, kept, flips, settings.training.seed)
    calibrated = calibrate(
        networks,
        normals,
        parts.validation,
        settings.calibration,
        lambda n, m: reporter.stage("calibrating", n, m),
        inspected,
    )
    summary = DataSummary(
        source=data.name,
        train_images=len(parts.train),
        validation_images=len(parts.validation),
        bank_images=len(normals),
        sha256=dataset.sha256,
    )
    training: dict[str, float | int | str] = {k: str(v) for k, v in asdict(settings.training).items()}
    training["segmenter_steps"] = settings.segmenter.steps
    training |= asdict(report) | {"mirrorings": len(flips), "seconds": round(monotonic() - started, 1)}
    left_out = min(settings.bank_images, len(parts.train) * len(flips)) - len(normals)
    if left_out:
        training["not_in_bank"] = left_out
    if settings.view.register:
        training["unregistered"] = dataset.unregistered
    viewer = dataset.viewer
    return save_bundle(
        out, Trained(networks, calibrated, summary, training, viewer.view, viewer.arrays, settings.prior)
    )
