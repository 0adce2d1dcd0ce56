"""A prior that takes defects away: X̂ = X - R(X), with a small U-Net behind R that has learnt what to take.

On normals with synthetic defects pasted in, it learns to give back the normal. Its skip connections carry every pixel
through, so that what is sound stays sharp, where the decoder of a narrow latent blurs it; and it needs no memory of the
place, so that a random texture is no harder to it. What it was never shown the like of it may leave in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from monitor.core.bands import BANDS, BEYOND, bands
from monitor.core.folding import for_inference
from monitor.core.prior import Prior, Seen
from monitor.core.tiles import Reach, per_tile
from monitor.core.unet import UNet
from schemas.artifacts import Architecture


class DenoisingPrior(Prior):
    """X̂ = clamp(X - R(X)) with R(X) = G (X - F): a gate G in (0, 1) opens where F, the normal, is to be painted over X.

    Without the gate, R as the U-Net's plain output restored as well but touched every sound pixel a little: by 0.006 on
    the simulated line instead of 0.001.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels = architecture.input.channels
        self.network = UNet(BANDS * channels, channels + 1, architecture.segmenter)
        head = self.network.head
        # F begins at grey, and G so that little of it shows.
        with torch.no_grad():
            head.weight[:channels].zero_()
            assert isinstance(head.bias, nn.Parameter)
            head.bias.zero_()
            head.bias[channels] = -1.0

    @property
    def seeing(self) -> Reach:
        """How far it sees."""
        return self.network.reach(BEYOND)

    def forward(self, frames: Tensor) -> Tensor:
        """Return X - R(X), (B, C, H, W), not clamped: what is learnt from must say which way it errs."""
        planes = self.network.planes(bands(frames)).contiguous()
        paint, gate = planes[:, :-1] + 0.5, planes[:, -1:].sigmoid()  # F (B, C, H, W), G (B, 1, H, W)
        return frames - gate * (frames - paint)

    def imagine(self, seen: Seen) -> Tensor:
        """Return the frames less their defects; the bank is not asked."""
        return per_tile(self, seen.frames, self.seeing).clamp(0.0, 1.0)

    def for_inference(self) -> DenoisingPrior:
        """Return a copy with its normalisation folded away."""
        return for_inference(self)
