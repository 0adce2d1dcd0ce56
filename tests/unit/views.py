"""Frames whose part is seen through a view, and tiny networks trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from monitor.adapters.artifacts import load_bundle
from monitor.core.inspector import Inspection, Inspector
from monitor.inspecting import where_it_lies
from schemas.artifacts import Manifest
from schemas.messages import RegionMessage
from tests.unit.cells import Image, cell, write
from trainer.build import BuildSettings, build
from trainer.calibrate import CalibrationSettings
from trainer.segmenting import SegmenterSettings
from trainer.training import TrainingSettings
from trainer.view_settings import ViewSettings

ROI = "40,30,160,120"  # of 240 x 180 pixels
HEIGHT, WIDTH = 180, 240


class Quiet:
    def stage(self, name: str, done: int, total: int, note: str = "") -> None:
        pass


def frame(number: int, *, colour: bool = False) -> Image:
    """Return a cell in the region, in a frame whose rest is different every time."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3) if colour else (HEIGHT, WIDTH), dtype=np.uint8)
    image[30:150, 40:200] = cell(number, 120, 160, colour=colour)
    return image


TRAINING = TrainingSettings(widths=(8, 16, 32), steps=200, batch=4, learning_rate=1e-2, segmenter=(8, 16))


def train(
    images: list[Image], place: Path, view: ViewSettings, size: str = "64", training: TrainingSettings = TRAINING
) -> tuple[Inspector, Manifest]:
    """Train a tiny network and load what was saved."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    wanted = BuildSettings(
        size=size,
        view=view,
        training=training,
        segmenter=SegmenterSettings(steps=30, batch=8, piece=32),
        calibration=CalibrationSettings(trials=1, smoothings=(0.0, 0.9), defects=16, false_reject_rate=0.05),
    )
    manifest = build(write(place / "images", images), place / "bundle", wanted, Quiet())
    torch.set_num_threads(threads)
    return Inspector(load_bundle(place / "bundle")), manifest


def inspect(inspector: Inspector, image: Image) -> tuple[Inspection, tuple[RegionMessage, ...]]:
    """Return what is found in a frame, and where the camera saw the oddest of it."""
    prepared = inspector.prepare(image)
    inspection = inspector.inspect(prepared.pixels[None], inspector.new_bank())[0]
    return inspection, where_it_lies(core_of(inspection), prepared.placement)[1].measured


def core_of(inspection: Inspection) -> Inspection:
    """Return the oddest part: of a network that hardly learnt, the rest is its own doing.

    A third as odd as its edges is the inside of a defect, which is less sharp.
    """
    return replace(inspection, mask=inspection.anomaly > inspection.anomaly.max() / 3)


def draw_mask(place: Path, height: int = HEIGHT, width: int = WIDTH) -> tuple[Path, NDArray[np.bool_]]:
    """Write a mask that ignores a block of the cell; no multiple of anything."""
    white = np.zeros((height, width), np.bool_)
    white[51:93, 67:119] = True
    place.mkdir(parents=True, exist_ok=True)
    path = place / "mask.png"
    cv2.imwrite(str(path), white.astype(np.uint8) * 255)
    return path, white
