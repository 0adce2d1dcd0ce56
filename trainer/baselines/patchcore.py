"""PatchCore (Roth et al. 2022, CVPR, arXiv:2106.08265): a memory of patch features, and the distance to the nearest.

Faithful but for: the backbone (the paper's is WideResNet-50; any, see ``backbone``), no centre crop, and a cap on the
coreset, which the paper lets grow with the number of images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer.baselines.backbone import SIDE, Backbone, in_batches, to_pixels
from trainer.baselines.base import Images, OnBackbone, Progress, Scores, register
from trainer.baselines.coreset import greedy_coreset, project


@dataclass(frozen=True, slots=True)
class PatchCoreSettings:
    """The paper's, section 4.

    Attributes:
        side: the shorter side of what the network sees, in pixels.
        strides: which two maps; mid-level ones, since early ones are generic and late ones biased to ImageNet.
        coreset_share: how much of all normal patches is kept, in (0, 1].
        coreset_limit: but no more than so many: choosing takes time proportional to normals times this.
        projection: dimensions in which the coreset is chosen.
        neighbours: b of eq. 7.
    """

    side: int = SIDE
    strides: tuple[int, int] = (8, 16)
    coreset_share: float = 0.1
    coreset_limit: int = 5_000
    projection: int = 64
    neighbours: int = 9


class PatchCore:
    """Scores: distance of each patch to the nearest of the coreset, in units of the features."""

    name = "patchcore"

    def __init__(self, backbone: Backbone, settings: PatchCoreSettings | None = None) -> None:
        self.backbone = backbone
        self._settings = settings or PatchCoreSettings()
        self._bank = torch.empty(0)

    @property
    def bank(self) -> Tensor:
        """The coreset (K, d)."""
        return self._bank

    @torch.inference_mode()
    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Keep a coreset of the patches of normals (N, C, H, W) in [0, 1]."""
        settings = self._settings
        generator = torch.Generator().manual_seed(seed)
        patches = torch.cat([self.patches(frames).flatten(0, 2) for frames in in_batches(normals, settings.side)])
        count = min(max(1, round(settings.coreset_share * len(patches))), settings.coreset_limit)
        projected = project(patches, settings.projection, generator)
        self._bank = patches[greedy_coreset(projected, count, generator, progress)]

    @torch.inference_mode()
    def score(self, images: Images) -> Scores:
        """Score frames (B, C, H, W) in [0, 1], see ``Scores``."""
        maps, verdicts = [], []
        for frames in in_batches(images, self._settings.side, batch=1):
            patches = self.patches(frames)  # (1, h, w, d)
            distances, verdict = self._compare(patches.flatten(0, 2))
            seen = (frames.shape[2], frames.shape[3])
            maps.append(to_pixels(distances.reshape(patches.shape[:3]), seen, images.shape[2:]))
            verdicts.append(verdict)
        return Scores(maps=np.concatenate(maps), images=np.array(verdicts, dtype=np.float32))

    def patches(self, frames: Tensor) -> Tensor:
        """Return locally aware patch features (B, h, w, d), eq. 1-3, of frames (B, C, H, W).

        The adaptive average over a neighbourhood's 3x3 vectors, one value per channel, is 3x3 average pooling; the
        coarser map is brought to the finer one's size.
        """
        features = self.backbone.features(frames)
        fine, coarse = (functional.avg_pool2d(features[stride], 3, 1, 1) for stride in self._settings.strides)
        coarse = functional.interpolate(coarse, fine.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([fine, coarse], dim=1).permute(0, 2, 3, 1).contiguous()

    def _compare(self, patches: Tensor) -> tuple[Tensor, float]:
        """Return the distances (P,) of one frame's patches (P, d) to the bank, eq. 6, and its image score, eq. 7."""
        distances, nearest = torch.cdist(patches, self._bank).min(dim=1)
        worst = distances.argmax()
        test, normal = patches[worst], self._bank[nearest[worst]]  # m^test,* and m*, each (d,)
        count = min(self._settings.neighbours, len(self._bank))
        around = _exact_distances(normal, self._bank).topk(count, largest=False).indices  # m* itself among them
        distance = torch.linalg.vector_norm(test - normal)
        # Where m* lies far from other normals it is rare, and the same distance to it says less against the patch.
        weight = 1.0 - torch.exp(distance - _exact_distances(test, self._bank[around]).logsumexp(dim=0))
        return distances, float(weight * distance)

    def size_bytes(self) -> int:
        """Return the bytes of network and coreset."""
        return self.backbone.size_bytes() + self._bank.numel() * self._bank.element_size()


def _exact_distances(point: Tensor, others: Tensor) -> Tensor:
    """Return (K,): distances of a point (d,) to others (K, d); no cancellation, unlike by matrix products."""
    distances: Tensor = torch.linalg.vector_norm(others - point, dim=1)
    return distances


register("patchcore", OnBackbone(PatchCore))
