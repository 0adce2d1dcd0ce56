"""From a folder of normal images to a bundle."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Protocol

from schemas.artifacts import DataSummary, Manifest
from trainer.bundle import Trained, check_target, save_bundle
from trainer.dataset import load_dataset, split
from trainer.model import ModelSettings, make_model
from trainer.priors import require_prior
from trainer.view_settings import ViewSettings


class Reporter(Protocol):
    """Shows long work to people."""

    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        """Tell that ``done`` of ``total`` parts of a stage are done."""


@dataclass(frozen=True, slots=True)
class BuildSettings(ModelSettings):
    """Everything ``paedid-trainer train`` may be told: besides how a model is made, how its images are read."""

    size: str = "auto"
    colour: str = "auto"
    view: ViewSettings = field(default_factory=ViewSettings)


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
    viewer = dataset.viewer
    parts = split(dataset.images, settings.validation_share, settings.training.seed)
    made = make_model(dataset.spec, parts, settings, reporter.stage, viewer.inspected)
    summary = DataSummary(
        source=data.name,
        train_images=len(parts.train),
        validation_images=len(parts.validation),
        bank_images=made.bank_images,
        sha256=dataset.sha256,
    )
    training: dict[str, float | int | str] = {k: str(v) for k, v in asdict(settings.training).items()}
    training["segmenter_steps"] = settings.segmenter.steps
    training |= asdict(made.report) | {"mirrorings": len(made.flips), "seconds": round(monotonic() - started, 1)}
    left_out = min(settings.bank_images, len(parts.train) * len(made.flips)) - made.bank_images
    if left_out:
        training["not_in_bank"] = left_out
    if settings.view.register:
        training["unregistered"] = dataset.unregistered
    return save_bundle(
        out, Trained(made.networks, made.calibrated, summary, training, viewer.view, viewer.arrays, settings.prior)
    )
