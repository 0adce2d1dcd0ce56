"""From residuals to an anomaly map, a mask and an image score: how odd is this residual *for normals at this place*.

A residual alone is a poor sign: normals leave residuals too, on their own edges. So from each residual is taken what
the nearest normal of the bank left itself at that place, and the rest is divided by its spread over validation normals.
That is also how a person's click teaches: the autoencoder never learns of the part that was confirmed, and what it
cannot draw stays a residual; but the next such part is nearest to this one, and its residual is known.

Of a confirmed part the mean residual of each location is known with its sign, and taken off as it is. Where the light
has changed, all of a part is a little too dark to the autoencoder; to excuse residuals of that size, of either sign,
would hide the defects that are no larger.

Two more witnesses weigh what is left: how sharp the residual is for normals at this place, for defects have edges and
shading has none; and the segmenter, which knows what defects look like in this texture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from monitor.core.gaussian import blur
from schemas.artifacts import Polarity

# How much of its own residual a normal of the bank excuses: those of training are what usually happens; one that was
# confirmed is to be believed, with a margin for the next of its kind.
PINNED_SHARE = 0.75
CONFIRMED_SHARE = 1.25
# Of the mean residual of a location, which is taken off before, with its sign: this much is excused as well.
CONFIRMED_LEVEL_SHARE = 0.2
# How far the segmenter's log-odds weigh a residual: by the power of this, ...
SUSPICION = 0.25
# ... and not beyond this many log-odds, so that a residual never vanishes on its word alone.
MOST_SUSPICION = 8.0
# How far the sharpness of a residual weighs it: by the power of this. With 1 the inside of a large defect is hollow.
SHARPNESS = 0.5
# What is smooth is weighed down to the power of this at most: a broad stain stays a defect.
DULL = 0.5
# The residual's detail is evened out by so many pixels, that an edge is one line and not two.
EDGE = 0.6
# Every inspected pixel has this much anomaly before the segmenter weighs it. Most residuals are exactly zero, and of
# two such pixels the one that looks like a defect is the likelier to be one.
FLOOR = 0.3
# What FLOOR can come to: with no residual, a pixel is never in a mask and a frame never flagged, whatever the segmenter
# says. So what a person confirmed stays quiet. (A thousandth more, for rounding.)
SILENCE = 1.001 * FLOOR * math.exp(SUSPICION * MOST_SUSPICION)
# Spread below this share of the mean spread is noise of its estimate from few normals, not precision.
SPREAD_FLOOR = 0.25


@dataclass(frozen=True, slots=True)
class Witnesses:
    """What an anomaly map is made of, each (B, H, W).

    Attributes:
        excess: the residual that counts, beyond what the nearest normals left themselves.
        detail: the fine detail of the residual that counts.
        suspicion: the segmenter's log-odds of a defect.
    """

    excess: Tensor
    detail: Tensor
    suspicion: Tensor

    @classmethod
    def join(cls, parts: Sequence[Witnesses]) -> Witnesses:
        """Return those of all frames together."""
        excess, detail, suspicion = zip(*((each.excess, each.detail, each.suspicion) for each in parts), strict=True)
        return cls(torch.cat(excess), torch.cat(detail), torch.cat(suspicion))

    def at(self, frames: Tensor) -> Witnesses:
        """Return those of the frames where ``frames`` (B,) is True."""
        return Witnesses(self.excess[frames], self.detail[frames], self.suspicion[frames])


@dataclass(frozen=True, slots=True)
class Normality:
    """What is normal at each pixel: root mean squares over validation normals, (H, W), > 0.

    Where nothing is inspected both are infinite, so that no anomaly, score or mask is anything but 0 there.

    Attributes:
        spread: of the excess residuals.
        detail: of the residuals' fine detail.
    """

    spread: Tensor
    detail: Tensor

    @classmethod
    def fit(cls, excess: Tensor, detail: Tensor, inspected: Tensor | None = None) -> Normality:
        """Estimate from the smoothed excess residuals (B, H, W) and the details (B, H, W) of normals.

        ``inspected``: (H, W) bool; None: all.
        """
        return cls(_spread(excess, inspected), _spread(detail, inspected))

    def to(self, device: torch.device) -> Normality:
        """Return the same on a device."""
        return Normality(self.spread.to(device), self.detail.to(device))


def _spread(values: Tensor, inspected: Tensor | None) -> Tensor:
    """Return the root mean square (H, W) of values (B, H, W), smoothed since B is small."""
    spread = blur(values.square().mean(dim=0)[None, None])[0, 0].clamp_min(0.0).sqrt()
    if inspected is None:
        return spread + SPREAD_FLOOR * spread.mean() + 1e-4
    spread = spread + SPREAD_FLOOR * spread[inspected].mean() + 1e-4
    return torch.where(inspected, spread, torch.inf)


def residual_strength(residual: Tensor, polarity: Polarity) -> Tensor:
    """Return |S| (B, H, W) of S (B, C, H, W): the mean over channels of the part that ``polarity`` lets count."""
    return _counted(residual, polarity).abs().mean(dim=1)


def fine_detail(residual: Tensor, polarity: Polarity) -> Tensor:
    """Return (B, H, W): how far S (B, C, H, W) differs from its surroundings, of the part that ``polarity`` counts."""
    counted = _counted(residual, polarity)
    detail = (counted - blur(counted)).abs().mean(dim=1, keepdim=True)
    return blur(detail, EDGE)[:, 0]


def _counted(residual: Tensor, polarity: Polarity) -> Tensor:
    if polarity is Polarity.DARK:
        return residual.clamp_max(0.0)
    return residual.clamp_min(0.0) if polarity is Polarity.BRIGHT else residual


def known_residual(strength: Tensor, cells: tuple[int, int], share: float) -> Tensor:
    """Return what the bank keeps of a normal's residual: (B, P1, P2, R) of |S| (B, H, W).

    The largest of every two by two pixels, so that a part a pixel aside is excused alike; R are the (H / 2P1)(W / 2P2)
    values of one location. ``share`` is how much of it is excused.
    """
    p1, p2 = cells
    half = functional.max_pool2d(strength.unsqueeze(1), 2)[:, 0]  # (B, H/2, W/2)
    batch, height, width = half.shape
    tiles = half.reshape(batch, p1, height // p1, p2, width // p2).transpose(2, 3)
    return share * tiles.reshape(batch, p1, p2, (height // p1) * (width // p2))


def residual_level(residual: Tensor, cells: tuple[int, int]) -> Tensor:
    """Return the mean residual of each location, (B, P1, P2, C), of S (B, C, H, W)."""
    return functional.adaptive_avg_pool2d(residual, cells).permute(0, 2, 3, 1)


def spread_level(level: Tensor, residual: Tensor) -> Tensor:
    """Return the level (B, P1, P2, C) of each location as a smooth map, the size of S (B, C, H, W)."""
    size = residual.shape[2:]
    return functional.interpolate(level.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)


def excess_residual(strength: Tensor, known: Tensor) -> Tensor:
    """Return max(|S| - what the nearest normals left themselves, 0), (B, H, W), from known (B, P1, P2, R)."""
    batch, height, width = strength.shape
    p1, p2 = known.shape[1:3]
    tiles = known.reshape(batch, p1, p2, height // (2 * p1), width // (2 * p2)).transpose(2, 3)
    half = tiles.reshape(batch, 1, height // 2, width // 2)
    excused = functional.interpolate(half, size=(height, width), mode="bilinear", align_corners=False)[:, 0]
    return (strength - excused).clamp_min(0.0)


def anomaly_map(seen: Witnesses, normality: Normality, smoothing: float) -> Tensor:
    """Return (B, H, W): the smoothed excess in units of the normals' spread, weighed by its sharpness and suspicion."""
    excess = smooth(seen.excess, smoothing) / normality.spread
    sharpness = (seen.detail / normality.detail + DULL).pow(SHARPNESS)
    floor = torch.where(normality.spread.isinf(), 0.0, FLOOR)
    return weigh(excess * sharpness + floor, seen.suspicion)


def novelty(excess: Tensor, normality: Normality, smoothing: float, cell: int) -> Tensor:
    """Return (B, P1, P2): the largest smoothed excess (B, H, W) of each ``cell`` x ``cell`` location, in spreads.

    What the bank does not explain, before the segmenter and the sharpness say how much it looks like a defect.
    """
    spreads = smooth(excess, smoothing) / normality.spread
    return functional.max_pool2d(spreads.unsqueeze(1), cell)[:, 0]


def weigh(anomaly: Tensor, suspicion: Tensor) -> Tensor:
    """Return anomalies (B, H, W) times a power of the odds of a defect, from log-odds (B, H, W).

    Two witnesses that know different things agree in a product.
    """
    return anomaly * (SUSPICION * suspicion.clamp(-MOST_SUSPICION, MOST_SUSPICION)).exp()


def smooth(excess: Tensor, sigma: float) -> Tensor:
    """Return excess residuals (B, H, W) evened out by a Gaussian of ``sigma`` pixels; 0 leaves them as they are."""
    return blur(excess.unsqueeze(1), sigma)[:, 0] if sigma > 0 else excess


def image_score(anomaly: Tensor, pixels: int) -> Tensor:
    """Return (B,): the mean of the ``pixels`` largest values of each anomaly map (B, H, W)."""
    return anomaly.flatten(1).topk(pixels, dim=1).values.mean(dim=1)
