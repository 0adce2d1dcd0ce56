"""The networks of a model, together."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.folding import for_inference
from monitor.core.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Networks:
    """What looks at a frame: ``autoencoder`` E and D for the prior, ``segmenter`` for what looks like a defect."""

    autoencoder: PatchAutoencoder
    segmenter: Segmenter

    def for_inference(self, device: torch.device | str = "cpu") -> Networks:
        """Return copies on ``device`` that compute the same faster."""
        return Networks(for_inference(self.autoencoder).to(device), for_inference(self.segmenter).to(device))
