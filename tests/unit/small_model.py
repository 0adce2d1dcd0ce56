"""A product that never was, and a small model trained on it in a few seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.simulation import LineSettings, SimulatedLine
from monitor.core.networks import Networks
from monitor.core.preprocessing import prepare
from schemas.artifacts import DataSummary, InputSpec
from trainer.bundle import Trained
from trainer.calibrate import CalibrationSettings, calibrate
from trainer.segmenting import SegmenterSettings, train_segmenter
from trainer.training import TrainingSettings, train

TRAIN, VALIDATION = 40, 20
SETTINGS = TrainingSettings(
    widths=(8, 16, 32), steps=300, batch=4, learning_rate=1e-2, corrupted=0.5, segmenter=(8, 16)
)
SEGMENTER = SegmenterSettings(steps=150, batch=8, piece=32, learning_rate=1e-2)


@dataclass(frozen=True, slots=True)
class Parts:
    """Frames (N, C, H, W) of one simulated line of 64x64 pixels, and the true masks (N, H, W) of the defective ones."""

    spec: InputSpec
    train: NDArray[np.float32]
    validation: NDArray[np.float32]
    fresh: NDArray[np.float32]
    defective: NDArray[np.float32]
    truth: NDArray[np.bool_]


def simulate(*, colour: bool) -> Parts:
    """Render the parts."""
    # Well shifted and turned, so that a few hundred steps already beat the mean image.
    line = SimulatedLine(LineSettings(size=64, seed=5, colour=colour, shift=3.0, rotation=3.0))
    spec = InputSpec(height=64, width=64, channels=3 if colour else 1, source_size=(64, 64))
    good = np.stack([prepare(line.good_part(index).image, spec) for index in range(TRAIN + VALIDATION + 12)])
    kinds = ("crack", "stain", "missing_spot", "scratch")
    bad = [line.defective_part(index, kinds[index % 4]) for index in range(100, 108)]
    return Parts(
        spec=spec,
        train=good[:TRAIN],
        validation=good[TRAIN : TRAIN + VALIDATION],
        fresh=good[TRAIN + VALIDATION :],
        defective=np.stack([prepare(part.image, spec) for part in bad]),
        truth=np.stack([part.mask for part in bad]),
    )


def train_on(parts: Parts) -> Trained:
    """Train and calibrate."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine, two threads wait for each other at every one of many small steps
    autoencoder, report = train(parts.spec, parts.train, parts.validation, ((),), SETTINGS)
    segmenter = train_segmenter(autoencoder.architecture, parts.train, SEGMENTER)
    torch.set_num_threads(threads)
    networks = Networks(autoencoder, segmenter)
    wanted = CalibrationSettings(
        alpha=(0.3, 0.3), lam=(1e-4, 3e-4), trials=3, smoothings=(0.0, 0.9), defects=24, false_reject_rate=0.1
    )
    calibrated = calibrate(networks, parts.train, parts.validation, wanted)
    summary = DataSummary(
        source="simulation", train_images=TRAIN, validation_images=VALIDATION, bank_images=TRAIN, sha256="0" * 64
    )
    return Trained(networks, calibrated, summary, {"rmse": report.rmse})
