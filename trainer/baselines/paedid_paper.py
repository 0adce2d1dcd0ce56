"""PAEDID as in the paper (section 4.1), the reference for our own: its networks, α, λ and Adam for the decomposition.

Where the paper leaves it open, or it cannot be done: the networks have BatchNorm and leaky ReLU, for plain ReLU
died in training; the decoder mirrors the encoder; L starts at X̂; |S| is not rescaled per frame, for that would make
every frame's largest residual alike. Its network is large for a CPU (half a second to a second a step), and its latent
map larger than the frame, so that it soon copies: 200 steps are the default.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from pytorch_msssim import ssim
from torch import Tensor

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.decomposition import Decomposition, pixel_lambda
from monitor.core.folding import for_inference
from monitor.core.memory_bank import MemoryBank
from trainer.bank import bank_normals, entries_of
from trainer.baselines.base import Images, Layers, Progress, Scores, register, top_mean
from trainer.baselines.paedid import feature_bank, parameter_bytes, prior_of, train_autoencoder
from trainer.dataset import split
from trainer.training import TrainingSettings

NO_FLIPS = ((),)


@dataclass(frozen=True, slots=True)
class PaperSettings:
    """The paper's numbers for the BTAD products.

    Attributes:
        training: conv 64 - pool - conv 128 - pool, on normals as they are, without mirroring or pasted defects.
        bank_images: N.
        alpha: share of the locations that are restricted.
        lam: λ, per 128x128 images.
        adam_steps, adam_rate: of the decomposition; measured, a hundred such steps come within 1 % of the minimum and
            a thousand no nearer.
    """

    training: TrainingSettings = field(
        default_factory=lambda: TrainingSettings(
            widths=(64, 128), steps=200, batch=4, learning_rate=2e-3, corrupted=0.0
        )
    )
    bank_images: int = 900
    alpha: float = 0.03
    lam: float = 1e-5
    adam_steps: int = 100
    adam_rate: float = 5e-3


class PaperPaedid:
    """The paper's PAEDID."""

    name = "paedid-paper"

    def __init__(self, settings: PaperSettings | None = None) -> None:
        self._settings = settings or PaperSettings()
        self._autoencoder: PatchAutoencoder | None = None
        self._bank: MemoryBank | None = None

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Train on the normals (N, C, H, W), but for a few that show whether training collapsed; fill the bank."""
        parts = split(normals, 0.0, seed)  # the least there is
        training = replace(self._settings.training, seed=seed)
        self._autoencoder = for_inference(train_autoencoder(parts, NO_FLIPS, training, progress))
        kept = bank_normals(parts.train, self._settings.bank_images, NO_FLIPS, seed)
        self._bank = feature_bank(self._autoencoder, kept)

    def score(self, images: Images) -> Scores:
        """Return |S| of frames (B, C, H, W), its mean over channels; by its largest values the image."""
        _, parts = self._decompose(images)
        maps = parts.residual.abs().mean(dim=1).numpy()
        return Scores(maps, top_mean(maps))

    def layers(self, images: Images) -> Layers:
        """Return X̂, L and S."""
        prior, parts = self._decompose(images)
        return Layers(prior.numpy(), parts.background.numpy(), parts.residual.numpy())

    def size_bytes(self) -> int:
        """Return the bytes of the networks, and of the bank in half precision."""
        assert self._autoencoder is not None, "fit comes before size_bytes"
        assert self._bank is not None
        return parameter_bytes(self._autoencoder) + entries_of(self._bank).nbytes

    def _decompose(self, images: Images) -> tuple[Tensor, Decomposition]:
        assert self._autoencoder is not None, "fit comes before score"
        assert self._bank is not None
        settings = self._settings
        frames = torch.from_numpy(images)
        prior = prior_of(self._autoencoder, self._bank, frames, settings.alpha)
        return prior, decompose_by_adam(frames, prior, settings.lam, settings.adam_steps, settings.adam_rate)


def decompose_by_adam(frames: Tensor, prior: Tensor, lam: float, steps: int, rate: float) -> Decomposition:
    """Split frames (B, C, H, W) into background and defect (eq. 3) by Adam on ``pytorch_msssim``'s objective.

    Its windows are 'valid' ones, as the paper's: the outer 5 pixels hardly count. Each frame by itself, so that its
    result does not depend on its batch.
    """
    weight = pixel_lambda(lam, frames)
    backgrounds = []
    for frame, target in zip(frames[:, None], prior[:, None], strict=True):
        background = target.clone().requires_grad_()
        optimiser = torch.optim.Adam([background], lr=rate)
        for _ in range(steps):
            loss = 1.0 - ssim(background, target, data_range=1.0) + weight * (frame - background).abs().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        backgrounds.append(background.detach())
    background = torch.cat(backgrounds)
    return Decomposition(background, frames - background)


register("paedid-paper", PaperPaedid)
