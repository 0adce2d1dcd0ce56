"""A prior that takes defects away: X̂ = X - R(X), with a small U-Net R that has learnt what to take.

On normals with synthetic defects pasted in, R learns the difference to the normal itself. Its skip connections carry
every pixel through, so that what is sound stays sharp, where the decoder of a narrow latent blurs it; and it needs no
memory of the place, so that a random texture is no harder to it. What it was never shown the like of it may leave in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monitor.core.bands import BANDS, bands
from monitor.core.folding import for_inference
from monitor.core.prior import Prior, Seen
from monitor.core.unet import UNet
from schemas.artifacts import Architecture


class DenoisingPrior(Prior):
    """X̂ = clamp(X - R(X)); R is of the segmenter's layout."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.input.channels
        self.correction = UNet(BANDS * channels, channels, architecture.segmenter)
        # It begins by leaving every frame as it is.
        with torch.no_grad():
            self.correction.head.weight.zero_()
            assert isinstance(self.correction.head.bias, nn.Parameter)
            self.correction.head.bias.zero_()

    def forward(self, frames: Tensor) -> Tensor:
        """Return X - R(X), (B, C, H, W), not clamped: what is learnt from must say which way it errs."""
        return frames - self.correction.planes(bands(frames)).contiguous()

    def imagine(self, seen: Seen) -> Tensor:
        """Return the frames less their defects; the bank is not asked."""
        restored: Tensor = self(seen.frames)
        return restored.clamp(0.0, 1.0)

    def for_inference(self) -> DenoisingPrior:
        """Return a copy with its normalisation folded away."""
        return for_inference(self)
