"""From residuals to an anomaly map, a mask and an image score: how odd is this residual *for normals at this place*.

A residual alone is a poor sign: normals leave residuals too, on their own edges. Each pixel's residual is divided by
its own spread over validation normals, and counts only where the bank does not know the patch: a location whose latent
score is at or below ``familiar[0]`` is explained by a normal, at or above ``familiar[1]`` it is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from monitor.core.gaussian import blur
from schemas.artifacts import Polarity

# Spread below this share of the mean spread is noise of its estimate from few normals, not precision.
SPREAD_FLOOR = 0.25


@dataclass(frozen=True, slots=True)
class Normality:
    """What is normal at each pixel: ``spread`` (H, W), the root mean square residual of validation normals, > 0."""

    spread: Tensor

    @classmethod
    def fit(cls, strengths: Tensor) -> Normality:
        """Estimate from the residual strengths (B, H, W) of normals, smoothed since B is small."""
        spread = blur(strengths.square().mean(dim=0)[None, None])[0, 0].clamp_min(0.0).sqrt()
        return cls(spread + SPREAD_FLOOR * spread.mean() + 1e-4)


def residual_strength(residual: Tensor, polarity: Polarity) -> Tensor:
    """Return |S| (B, H, W) of S (B, C, H, W): the mean over channels of the part that ``polarity`` lets count."""
    if polarity is Polarity.DARK:
        residual = residual.clamp_max(0.0)
    elif polarity is Polarity.BRIGHT:
        residual = residual.clamp_min(0.0)
    return residual.abs().mean(dim=1)


def unfamiliarity(score: Tensor, familiar: tuple[float, float], size: tuple[int, int]) -> Tensor:
    """Return per pixel (B, H, W) how little the bank explains it, 0 (a known normal) to 1, from s (B, P1, P2)."""
    low, high = familiar
    ramp = ((score - low) / max(high - low, 1e-12)).clamp(0.0, 1.0)
    # Bilinear, so that a contour does not end at a patch's edge.
    return functional.interpolate(ramp.unsqueeze(1), size=size, mode="bilinear", align_corners=False)[:, 0]


def image_score(anomaly: Tensor, pixels: int) -> Tensor:
    """Return (B,): the mean of the ``pixels`` largest values of each anomaly map (B, H, W)."""
    return anomaly.flatten(1).topk(pixels, dim=1).values.mean(dim=1)
