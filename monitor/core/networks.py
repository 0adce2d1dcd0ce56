"""The networks of a model, together."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.folding import for_inference
from monitor.core.prior import BankPrior, Prior
from monitor.core.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class Networks:
    """What looks at a frame.

    Attributes:
        autoencoder: E and D, for the bank's features and its prior.
        segmenter: tells what looks like a defect.
        prior: imagines the frame without its defect.
    """

    autoencoder: PatchAutoencoder
    segmenter: Segmenter
    prior: Prior = field(default_factory=BankPrior)

    def for_inference(self, device: torch.device | str = "cpu") -> Networks:
        """Return copies on ``device`` that compute the same faster."""
        return Networks(
            for_inference(self.autoencoder).to(device),
            for_inference(self.segmenter).to(device),
            self.prior.for_inference().to(device),
        )
