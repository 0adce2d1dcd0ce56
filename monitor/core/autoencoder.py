"""The convolutional autoencoder E, D trained on normal images (paper, section 3.1, eq. 1)."""

from __future__ import annotations

import hashlib

from torch import Tensor, nn

from monitor.core.tiles import Reach, seen_beyond
from schemas.artifacts import Architecture


class PatchAutoencoder(nn.Module):
    """Encoder E and decoder D; each location of the latent map is the feature of one patch of the frame.

    A narrow, deep latent is on purpose: each P3-vector must see a patch large enough that a crack in it looks like
    nothing normal (at a quarter of the resolution it does not, and retrieval then restricts nothing).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        channels = architecture.input.channels
        widths = architecture.widths
        down: list[nn.Module] = []
        for inner, outer in zip((channels, *widths), widths, strict=False):
            down += [*_block(inner, outer), nn.MaxPool2d(2)]
        up: list[nn.Module] = []
        for inner, outer in zip(reversed(widths), (*reversed(widths[:-1]), widths[0]), strict=True):
            up += [nn.Upsample(scale_factor=2, mode="nearest"), *_block(inner, outer)]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up, nn.Conv2d(widths[0], channels, 3, padding=1))

    @property
    def encoding(self) -> Reach:
        """How far E sees."""
        cell = self.architecture.cell
        return Reach.of(seen_beyond(self.encoder), cell, leaving=cell)

    @property
    def decoding(self) -> Reach:
        """How far D sees."""
        cell = self.architecture.cell
        return Reach.of(cell * seen_beyond(self.decoder), cell, entering=cell)

    @property
    def rebuilding(self) -> Reach:
        """How far D after E sees."""
        return Reach(self.architecture.cell, self.encoding.halo + self.decoding.halo)

    def encode(self, frames: Tensor) -> Tensor:
        """Return M = E(X): (B, C, H, W) in [0, 1] to (B, P3, P1, P2)."""
        features: Tensor = self.encoder(frames)
        return features.contiguous()

    def decode(self, features: Tensor) -> Tensor:
        """Return D(M): (B, P3, P1, P2) to (B, C, H, W), clamped to [0, 1] when not training."""
        frames: Tensor = self.decoder(features).contiguous()
        return frames if self.training else frames.clamp(0.0, 1.0)

    def forward(self, frames: Tensor) -> Tensor:
        """Return D(E(X))."""
        return self.decode(self.encode(frames))


def _block(inner: int, outer: int) -> list[nn.Module]:
    # Plain ReLU without normalisation collapsed in training (every unit dead); these two keep gradients alive.
    return [
        nn.Conv2d(inner, outer, 3, padding=1, bias=False),
        nn.BatchNorm2d(outer),
        nn.LeakyReLU(0.1),
    ]


def encoder_hash(autoencoder: PatchAutoencoder) -> str:
    """Return the SHA-256 of the encoder's weights: features of two encoders with different hashes do not compare."""
    digest = hashlib.sha256()
    for name, value in sorted(autoencoder.encoder.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
