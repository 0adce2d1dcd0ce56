"""MemAE (Gong et al. 2019, ICCV, arXiv:1904.02639): an autoencoder that may decode only what its memory holds.

Layers as the paper has them for CIFAR-10, and one query per location of the feature map, as it has for video: a frame
here is a scene of parts, not one object.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from schemas.errors import TrainingError
from trainer.baselines.base import Images, Progress, Scores, register
from trainer.baselines.reconstruction import Schedule, one_by_one, size_bytes, train

REDUCTION = 16
WIDTHS = (64, 128, 128, 256)
SCHEDULE = Schedule(steps=1500, batch=8, learning_rate=1e-3)
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class MemAeSettings:
    """The paper's, section 4, but for the schedule: it trains at 1e-4 until nothing changes.

    Attributes:
        items: N, how many the memory holds.
        shrinkage: λ in units of 1/N, in [1, 3] (section 3.3.2).
        entropy_weight: α of eq. 11.
        schedule: of the training.
    """

    items: int = 500
    shrinkage: float = 1.0
    entropy_weight: float = 2e-4
    schedule: Schedule = SCHEDULE


class Memory(nn.Module):
    """N items (N, C) that stand for whatever is asked; λ = ``shrinkage`` / N.

    Raises:
        ValueError: the threshold is not within [1/N, 3/N], the paper's interval.
    """

    def __init__(self, items: int, channels: int, shrinkage: float) -> None:
        super().__init__()
        self.threshold = shrinkage / items
        if not 1.0 <= shrinkage <= 3.0:  # noqa: PLR2004 - the paper's interval
            msg = f"the shrinkage threshold {self.threshold} is outside [1/N, 3/N] for N = {items} items"
            raise ValueError(msg)
        self.items = nn.Parameter(torch.empty(items, channels).uniform_(-1.0, 1.0) / channels**0.5)

    def address(self, queries: Tensor) -> Tensor:
        """Return the attention (Q, N) of queries (Q, C): not negative, mostly zero, each row summing to 1.

        Softmax of cosine similarities (eq. 4, 5), then hard shrinkage in its continuous form (eq. 7), normalised again.
        """
        similarity = functional.normalize(queries, dim=1) @ functional.normalize(self.items, dim=1).T
        weights = similarity.softmax(dim=1)
        above = weights - self.threshold
        kept = functional.relu(above) * weights / (above.abs() + TINY)
        # Where no weight passes the threshold the paper's formula is 0 / 0: the most similar item stands alone.
        alone = functional.one_hot(weights.argmax(dim=1), weights.shape[1]).to(weights.dtype)
        total = kept.sum(dim=1, keepdim=True)
        return torch.where(total > 0, kept / total.clamp_min(TINY), alone)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is remembered at each location, (B, C, h, w) like ``features``, and the attention (B·h·w, N)."""
        batch, channels, height, width = features.shape
        attention = self.address(features.permute(0, 2, 3, 1).reshape(-1, channels))
        read = attention @ self.items  # (B·h·w, C), eq. 3
        return read.reshape(batch, height, width, channels).permute(0, 3, 1, 2), attention


class MemoryAutoencoder(nn.Module):
    """Frames (B, C, H, W) to reconstructions of the same shape, from the memory alone."""

    def __init__(self, channels: int, settings: MemAeSettings) -> None:
        super().__init__()
        down: list[nn.Module] = []
        for inner, outer in zip((channels, *WIDTHS), WIDTHS, strict=False):
            down += [nn.Conv2d(inner, outer, 3, 2, padding=1), nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]
        up: list[nn.Module] = []
        width = WIDTHS[-1]
        for outer in (*WIDTHS[:0:-1], channels):
            convolution = nn.ConvTranspose2d(width, outer, 3, 2, padding=1, output_padding=1)
            up += [convolution, nn.BatchNorm2d(outer), nn.ReLU(inplace=True)]
            width = outer
        self.encoder = nn.Sequential(*down)
        self.memory = Memory(settings.items, WIDTHS[-1], settings.shrinkage)
        self.decoder = nn.Sequential(*up[:-2])  # the last is linear

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return the reconstruction and the attention (B·h·w, N)."""
        remembered, attention = self.memory(self.encoder(frames))
        return self.decoder(remembered), attention


def attention_entropy(attention: Tensor) -> Tensor:
    """Return the mean entropy, in nats, of the rows of (Q, N): eq. 10."""
    return -torch.xlogy(attention, attention.clamp_min(TINY)).sum(dim=1).mean()


class MemAe:
    """Scores: squared error of the reconstruction per pixel, and its mean per frame, as in the paper."""

    name = "mem-ae"

    def __init__(self, settings: MemAeSettings | None = None) -> None:
        self._settings = settings or MemAeSettings()
        self._network: nn.Module | None = None

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Train on normals (N, C, H, W) in [0, 1], H and W multiples of 16.

        Raises:
            TrainingError: of another size, or the training failed.
        """
        height, width = normals.shape[2:]
        if height % REDUCTION or width % REDUCTION:
            msg = f"mem-ae needs frames whose sides are multiples of {REDUCTION} pixels, not {height}x{width}"
            raise TrainingError(msg)
        self._network = train(
            lambda: MemoryAutoencoder(normals.shape[1], self._settings),
            self._loss,
            normals,
            self._settings.schedule,
            seed,
            progress,
        )

    def _loss(self, network: nn.Module, batch: Tensor) -> Tensor:
        """Return eq. 11: reconstruction error and α times the entropy, which makes addressing sparser still."""
        rebuilt, attention = network(batch)
        return functional.mse_loss(rebuilt, batch) + self._settings.entropy_weight * attention_entropy(attention)

    @torch.inference_mode()
    def score(self, images: Images) -> Scores:
        """Score frames (B, C, H, W) in [0, 1], see ``Scores``."""
        assert self._network is not None, "fit comes first"
        errors = [(self._network(frame)[0] - frame).square().mean(dim=1) for frame in one_by_one(images)]
        maps = torch.cat(errors)  # (B, H, W)
        return Scores(maps=maps.numpy(), images=maps.mean(dim=(1, 2)).numpy())

    def size_bytes(self) -> int:
        """Return the bytes of network and memory."""
        return size_bytes(self._network)


register(MemAe.name, MemAe)
