"""SSIM-AE (Bergmann et al. 2019, VISAPP, arXiv:1807.02011): an autoencoder trained, and its residual taken, by SSIM.

Layers of the paper's table 1 with a latent vector of 100; the 8x8 kernel around it is as large as the last feature map
of the frames at hand, so that they need not be the paper's 128x128 crops.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monitor.core.gaussian import blur
from monitor.core.ssim import C1, C2
from schemas.errors import TrainingError
from trainer.baselines.base import Images, Progress, Scores, register, top_mean
from trainer.baselines.reconstruction import Schedule, one_by_one, size_bytes, train

REDUCTION = 16
# (filters, kernel, stride) of the encoder; the decoder is its mirror image.
LAYERS = ((32, 4, 2), (32, 4, 2), (32, 3, 1), (64, 4, 2), (64, 3, 1), (128, 4, 2), (64, 3, 1), (32, 3, 1))
SLOPE = 0.2
SCHEDULE = Schedule(steps=2000, batch=8, learning_rate=1e-3, weight_decay=1e-5)


@dataclass(frozen=True, slots=True)
class SsimAeSettings:
    """The paper's, but for the schedule: it has 200 epochs of 10 000 crops at a learning rate of 2e-4.

    Attributes:
        latent: values that describe a whole frame.
        schedule: of the training.
    """

    latent: int = 100
    schedule: Schedule = SCHEDULE


class SsimAutoencoder(nn.Module):
    """Frames (B, C, H, W) to reconstructions of the same shape, through ``latent`` values per frame."""

    def __init__(self, channels: int, size: tuple[int, int], latent: int) -> None:
        super().__init__()
        grid = (size[0] // REDUCTION, size[1] // REDUCTION)
        layers: list[nn.Module] = []
        width = channels
        for filters, kernel, stride in LAYERS:
            layers += [nn.Conv2d(width, filters, kernel, stride, padding=1), nn.LeakyReLU(SLOPE)]
            width = filters
        layers.append(nn.Conv2d(width, latent, grid))  # (B, latent, 1, 1), linear
        layers += [nn.ConvTranspose2d(latent, width, grid), nn.LeakyReLU(SLOPE)]
        outputs = (*(filters for filters, _, _ in LAYERS[-2::-1]), channels)
        for (_, kernel, stride), filters in zip(reversed(LAYERS), outputs, strict=True):
            layers += [nn.ConvTranspose2d(width, filters, kernel, stride, padding=1), nn.LeakyReLU(SLOPE)]
            width = filters
        self.layers = nn.Sequential(*layers[:-1])  # the last is linear

    def forward(self, frames: Tensor) -> Tensor:
        """Return the reconstruction."""
        rebuilt: Tensor = self.layers(frames)
        return rebuilt


def ssim_map(x: Tensor, y: Tensor) -> Tensor:
    """Return SSIM at each pixel, (B, C, H, W) in [-1, 1], of two images (B, C, H, W) in [0, 1].

    An 11x11 Gaussian window (eq. 8 of the paper) around each pixel; images are reflected at the border. The mean of
    the map is ``pytorch_msssim.ssim`` of the images padded so.
    """
    mean_x, mean_y = blur(x), blur(y)
    variance_x = blur(x.square()) - mean_x.square()
    variance_y = blur(y.square()) - mean_y.square()
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + C1) / (mean_x.square() + mean_y.square() + C1)
    return luminance * (2 * covariance + C2) / (variance_x + variance_y + C2)


def ssim_loss(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 - mean SSIM of two batches, a scalar."""
    return 1.0 - ssim_map(x, y).mean()


class SsimAe:
    """Scores: 1 - SSIM of frame and reconstruction around each pixel, in [0, 2]."""

    name = "ssim-ae"

    def __init__(self, settings: SsimAeSettings | None = None) -> None:
        self._settings = settings or SsimAeSettings()
        self._network: nn.Module | None = None

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Train on normals (N, C, H, W) in [0, 1], H and W multiples of 16.

        Raises:
            TrainingError: of another size, or the training failed.
        """
        channels, height, width = normals.shape[1:]
        if height % REDUCTION or width % REDUCTION:
            msg = f"ssim-ae needs frames whose sides are multiples of {REDUCTION} pixels, not {height}x{width}"
            raise TrainingError(msg)
        self._network = train(
            lambda: SsimAutoencoder(channels, (height, width), self._settings.latent),
            lambda network, batch: ssim_loss(batch, network(batch)),
            normals,
            self._settings.schedule,
            seed,
            progress,
        )

    @torch.inference_mode()
    def score(self, images: Images) -> Scores:
        """Score frames (B, C, H, W) in [0, 1], see ``Scores``; the paper has no image score, so ``top_mean``."""
        assert self._network is not None, "fit comes first"
        residuals = [1.0 - ssim_map(frame, self._network(frame)).mean(dim=1) for frame in one_by_one(images)]
        maps = torch.cat(residuals).numpy()
        return Scores(maps=maps, images=top_mean(maps))

    def size_bytes(self) -> int:
        """Return the bytes of the network."""
        return size_bytes(self._network)


register(SsimAe.name, SsimAe)
