"""PaDiM (Defard et al. 2021, ICPR, arXiv:2011.08785): one Gaussian of patch features per location.

Faithful but for the backbone (any, see ``backbone``) and no centre crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.baselines.backbone import SIDE, STRIDES, Backbone, in_batches, to_pixels
from trainer.baselines.base import Images, OnBackbone, Progress, Scores, register


@dataclass(frozen=True, slots=True)
class PadimSettings:
    """The paper's, section IV.

    Attributes:
        side: the shorter side of what the network sees, in pixels.
        channels: how many of all feature channels are kept, at random (section III-D: as good as PCA, or better).
        regularisation: ε of eq. 1, which keeps the covariance of few normals invertible.
    """

    side: int = SIDE
    channels: int = 100
    regularisation: float = 0.01


class Padim:
    """Scores: Mahalanobis distance of each patch to the normals at its place."""

    name = "padim"

    def __init__(self, backbone: Backbone, settings: PadimSettings | None = None) -> None:
        self.backbone = backbone
        self._settings = settings or PadimSettings()
        self._kept = torch.empty(0, dtype=torch.long)
        self._mean = torch.empty(0)  # (h·w, d)
        self._whitening = torch.empty(0)  # (h·w, d, d)

    @torch.inference_mode()
    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Estimate mean and covariance (eq. 1) at each location of normals (N, C, H, W) in [0, 1], N >= 2."""
        generator = torch.Generator().manual_seed(seed)
        self._kept = torch.empty(0, dtype=torch.long)
        total = products = offset = torch.empty(0)
        done = 0
        for frames in in_batches(normals, self._settings.side):
            if not done:
                everything = self._embed(frames).flatten(1, 2)
                self._kept = torch.randperm(everything.shape[2], generator=generator)[: self._settings.channels]
                offset = everything[..., self._kept].mean(dim=0).double()  # close to the mean: sums then cancel little
                total = torch.zeros_like(offset)
                products = torch.zeros((*offset.shape, offset.shape[1]), dtype=torch.float64)
            centred = self._embed(frames).flatten(1, 2).double().sub_(offset).transpose(0, 1)  # (h·w, b, d)
            total += centred.sum(dim=1)
            products.baddbmm_(centred.mT, centred)
            done += len(frames)
            if progress:
                progress(done, len(normals))
        self._mean = (offset + total / done).float()
        products.baddbmm_(total[:, :, None], total[:, None, :], alpha=-1.0 / done).div_(done - 1)
        products.diagonal(dim1=1, dim2=2).add_(self._settings.regularisation)
        self._whitening = _whitening(products)

    @torch.inference_mode()
    def score(self, images: Images) -> Scores:
        """Score frames (B, C, H, W) in [0, 1], see ``Scores``; the image score is the map's largest value."""
        maps = []
        for frames in in_batches(images, self._settings.side):
            seen = (frames.shape[2], frames.shape[3])
            maps.append(to_pixels(self.distances(frames), seen, images.shape[2:]))
        together = np.concatenate(maps)
        return Scores(maps=together, images=together.max(axis=(1, 2)))

    def distances(self, frames: Tensor) -> Tensor:
        """Return the Mahalanobis distances (B, h, w), eq. 2, of frames (B, C, H, W)."""
        patches = self._embed(frames)  # (B, h, w, d)
        centred = (patches.flatten(1, 2) - self._mean).permute(1, 2, 0)  # (h·w, d, B)
        distances: Tensor = torch.linalg.vector_norm(torch.bmm(self._whitening, centred), dim=1)
        return distances.T.reshape(patches.shape[:3])

    def _embed(self, frames: Tensor) -> Tensor:
        """Return (B, h, w, d) on the finest map's grid: each cell with those of the coarser maps that cover it."""
        maps = self.backbone.features(frames)
        grid = maps[STRIDES[0]].shape[2:]
        aligned = torch.cat([functional.interpolate(maps[stride], grid, mode="nearest") for stride in STRIDES], dim=1)
        if len(self._kept):
            aligned = aligned[:, self._kept]
        return aligned.permute(0, 2, 3, 1)

    def size_bytes(self) -> int:
        """Return the bytes of network, means and covariances (symmetric: counted once)."""
        cells, channels = self._mean.shape if self._mean.ndim > 1 else (0, 0)
        return self.backbone.size_bytes() + 4 * cells * (channels + channels * (channels + 1) // 2)


def _whitening(covariances: Tensor) -> Tensor:
    """Return W (L, d, d) in single precision, of covariances Σ = K Kᵀ (L, d, d): W = K⁻¹, so xᵀΣ⁻¹x = |W x|²."""
    identity = torch.eye(covariances.shape[1], dtype=covariances.dtype)
    chunks = torch.split(covariances, 256)  # double precision for a few locations at a time: all at once is a gigabyte
    return torch.cat(
        [
            torch.linalg.solve_triangular(torch.linalg.cholesky(chunk), identity.expand_as(chunk), upper=False).float()
            for chunk in chunks
        ]
    )


register("padim", OnBackbone(Padim))
