"""A small model of the simulated line, trained in seconds: enough to tell good parts from odd ones."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from deploy.local.parts import write_normals
from deploy.simulation import LineSettings, SimulatedLine
from trainer.build import BuildSettings, build
from trainer.calibrate import CalibrationSettings
from trainer.segmenting import SegmenterSettings
from trainer.training import TrainingSettings

SIZE: Final = 64
LINE: Final = SimulatedLine(LineSettings(size=SIZE, seed=3))
NORMALS: Final = 48

QUICK_TRAINING: Final = TrainingSettings(
    widths=(16, 32), steps=200, learning_rate=2e-2, corrupted=0.2, segmenter=(8, 16)
)
QUICK_SEGMENTER: Final = SegmenterSettings(steps=100, batch=8, piece=32, learning_rate=1e-2)
QUICK_CALIBRATION: Final = CalibrationSettings(trials=1, smoothings=(0.9,), defects=32, false_reject_rate=0.02)
QUICK_BUILD: Final = BuildSettings(
    size=str(SIZE), training=QUICK_TRAINING, segmenter=QUICK_SEGMENTER, calibration=QUICK_CALIBRATION
)


class _Quiet:
    """A reporter that reports nothing."""

    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        pass


def train_quickly(folder: Path) -> Path:
    """Train a small bundle on ``LINE`` in a folder, and return the bundle's folder."""
    write_normals(LINE, folder / "normals", NORMALS)
    build(folder / "normals", folder / "bundle", QUICK_BUILD, _Quiet())
    return folder / "bundle"
