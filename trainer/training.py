"""Training the autoencoder (paper, section 3.1): squared error, with synthetic defects to be removed (denoising)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.tiles import tiled
from schemas.artifacts import Architecture, InputSpec
from schemas.errors import TrainingError
from trainer.crops import choose_crop
from trainer.descent import Progress, descend
from trainer.symmetry import Flips
from trainer.synthetic import paste_defect

# Below this root mean square error (of a range of 1) the reconstruction is as good as a camera's noise.
NOISE_FLOOR = 2.0 / 255.0
COLLAPSED = 0.95


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How the autoencoder is trained. The defaults hold for every product.

    Attributes:
        widths: filters per encoder block; each block halves the resolution.
        segmenter: filters per stage of the network that is trained after it.
        steps: gradient steps.
        batch: frames per step.
        learning_rate: the highest of the one-cycle schedule.
        corrupted: share of the frames that carry a synthetic defect, to be reconstructed without it.
        seed: of everything random.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    segmenter: tuple[int, ...] = (16, 32, 48, 64)
    steps: int = 1200
    batch: int = 8
    learning_rate: float = 3e-3
    corrupted: float = 0.8
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """How it went: root mean square errors on validation normals, in [0, 1]."""

    rmse: float
    rmse_of_mean_image: float
    steps: int


def train(
    spec: InputSpec,
    images: NDArray[np.float32],
    validation: NDArray[np.float32],
    flips: Flips,
    settings: TrainingSettings,
    progress: Progress | None = None,
) -> tuple[PatchAutoencoder, TrainingReport]:
    """Train E and D on normal images (N, C, H, W).

    Raises:
        TrainingError: the autoencoder collapsed: it is no better than showing the mean image.
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    autoencoder = PatchAutoencoder(Architecture(input=spec, widths=settings.widths, segmenter=settings.segmenter))
    _start_at_mean(autoencoder, images)

    def loss() -> Tensor:
        inputs, targets = _draw_batch(images, flips, settings, rng)
        return torch.nn.functional.mse_loss(autoencoder(inputs), targets)

    descend(autoencoder, loss, settings.steps, settings.learning_rate, progress)
    return autoencoder, check_not_collapsed(autoencoder, images, validation, settings.steps)


@torch.inference_mode()
def check_not_collapsed(
    autoencoder: PatchAutoencoder, images: NDArray[np.float32], validation: NDArray[np.float32], steps: int = 0
) -> TrainingReport:
    """Hold the reconstruction of validation normals (V, C, H, W) against the best constant image.

    Raises:
        TrainingError: it is no better, and worse than a camera's noise: the network is dead.
    """
    rebuild = tiled(autoencoder, autoencoder.rebuilding)
    rebuilt = np.concatenate([rebuild(torch.from_numpy(image[None])).numpy() for image in validation])
    mse = float(np.mean((rebuilt - validation) ** 2))
    mse_of_mean = float(np.mean((images.mean(axis=0) - validation) ** 2))
    if not np.isfinite(mse) or (mse > COLLAPSED * mse_of_mean and mse > NOISE_FLOOR**2):
        msg = (
            f"the autoencoder collapsed, or has hardly learnt: its root mean square error on validation images is "
            f"{mse**0.5:.4f}, that of the plain mean image {mse_of_mean**0.5:.4f}. Nothing was saved. Train with more "
            "--steps or a smaller --learning-rate, and check that the images show the same product in the same place."
        )
        raise TrainingError(msg)
    return TrainingReport(rmse=mse**0.5, rmse_of_mean_image=mse_of_mean**0.5, steps=steps)


@torch.no_grad()
def _start_at_mean(autoencoder: PatchAutoencoder, images: NDArray[np.float32]) -> None:
    """Let D begin at the images' mean brightness: it needs not spend its first hundred steps on finding that."""
    last = autoencoder.decoder[-1]
    assert isinstance(last, torch.nn.Conv2d)
    assert last.bias is not None
    last.bias.copy_(torch.from_numpy(images.mean(axis=(0, 2, 3))))
    last.weight.mul_(0.1)


def _draw_batch(
    images: NDArray[np.float32], flips: Flips, settings: TrainingSettings, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return (inputs, targets), each (B, C, h, w): normals under random mirrorings, some inputs with a defect.

    Of large frames, a crop each.
    """
    inputs, targets = [], []
    for index in rng.integers(len(images), size=settings.batch):
        whole = np.flip(images[index], flips[rng.integers(len(flips))])
        clean = np.ascontiguousarray(whole[:, *choose_crop(whole.shape[1:], rng, 1 << len(settings.widths))])
        targets.append(clean)
        inputs.append(paste_defect(clean, rng).image if rng.random() < settings.corrupted else clean)
    stacked = (torch.from_numpy(np.stack(part)) for part in (inputs, targets))
    first, second = (part.contiguous(memory_format=torch.channels_last) for part in stacked)
    return first, second
