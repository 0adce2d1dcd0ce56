"""From normal images to a calibrated model, read top to bottom: what a bundle keeps and the benchmark measures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from monitor.core.networks import Networks
from schemas.artifacts import InputSpec
from trainer.bank import affordable, bank_normals
from trainer.calibrate import Calibrated, CalibrationSettings, calibrate
from trainer.dataset import Split
from trainer.priors import Lesson, train_prior
from trainer.segmenting import SegmenterSettings, train_segmenter
from trainer.symmetry import Flips, find_flips
from trainer.training import TrainingReport, TrainingSettings, train

Stage = Callable[[str, int, int, str], None]  # called with (what is being done, done, total, a note)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a model is made of normals, however these were read.

    Attributes:
        validation_share: of the normals, held back for the thresholds.
        bank_images: normals in the memory bank, at most.
        prior: its name, see ``monitor.core.priors``.
        training: of the autoencoder; its seed is the segmenter's, the prior's and the bank's too.
        segmenter: of the segmenter, and of a prior that learns from pieces; its seed is not used.
        calibration: what is searched; its seed is that of the synthetic defects.
    """

    validation_share: float = 0.25
    bank_images: int = 1000
    prior: str = "bank"
    training: TrainingSettings = field(default_factory=TrainingSettings)
    segmenter: SegmenterSettings = field(default_factory=SegmenterSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)


@dataclass(frozen=True, slots=True)
class Made:
    """A model, and how it went.

    Attributes:
        networks: trained.
        calibrated: the bank, and every number that decides.
        report: of the autoencoder's training.
        flips: the mirrorings under which normals stay normal.
        bank_images: normals in the bank, mirrored ones counted.
    """

    networks: Networks
    calibrated: Calibrated
    report: TrainingReport
    flips: Flips
    bank_images: int


def make_model(
    spec: InputSpec,
    parts: Split,
    settings: ModelSettings,
    stage: Stage | None = None,
    inspected: NDArray[np.bool_] | None = None,
) -> Made:
    """Train the networks, fill the bank and calibrate.

    Args:
        spec: of the images.
        parts: normals (N, C, H, W) to learn from, and others (V, C, H, W) for the thresholds.
        settings: how.
        stage: told of the progress.
        inspected: (H, W) the pixels that count; None: all.

    Raises:
        TrainingError: a network learnt nothing.
    """
    tell: Stage = stage or (lambda *_: None)
    seed = settings.training.seed
    flips = find_flips(parts.train, parts.validation, inspected)
    autoencoder, report = train(
        spec,
        parts.train,
        parts.validation,
        flips,
        settings.training,
        lambda n, m, loss: tell("training", n, m, f"rmse {loss**0.5:.4f}"),
    )
    pieces = replace(settings.segmenter, seed=seed)
    segmenter = train_segmenter(
        autoencoder.architecture,
        parts.train,
        pieces,
        lambda n, m, loss: tell("learning defects", n, m, f"loss {loss:.3f}"),
        inspected,
    )
    lesson = Lesson(
        parts.train,
        parts.validation,
        autoencoder,
        pieces,
        seed,
        inspected,
        lambda n, m, loss: tell("learning prior", n, m, f"loss {loss:.4f}"),
    )
    networks = Networks(autoencoder, segmenter, train_prior(settings.prior, lesson))
    kept = affordable(autoencoder.architecture, settings.bank_images)
    normals = bank_normals(parts.train, kept, flips, seed)
    calibrated = calibrate(
        networks,
        normals,
        parts.validation,
        settings.calibration,
        lambda n, m: tell("calibrating", n, m, ""),
        inspected,
    )
    return Made(networks, calibrated, report, flips, len(normals))
