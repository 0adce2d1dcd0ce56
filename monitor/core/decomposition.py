"""The decomposition X = L + S (paper, section 3.3, eq. 3), by a diagonally preconditioned proximal gradient method.

Minimise over the background L, for each frame by itself::

    F(L) = f(L) + λ' ‖X - L‖₁,   f(L) = 1 - mean SSIM(L, X̂)

f is locally quadratic with a Hessian below the diagonal d (``monitor.core.ssim``), so a proximal step is separable::

    U = Z - ∇f(Z) / d,   L⁺ = X - soft(X - U, λ' / d)

with Nesterov momentum, restarted per frame when it points uphill (O'Donoghue and Candès 2015). Ten steps reach what
Adam reaches in hundreds.

The paper's λ is relative to its 128x128 images, because ‖·‖₁ is a sum and SSIM a mean. It stays the user's number;
here λ' = λ · 128² / (C · H · W), so that the same λ balances the two alike at every size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.core.per_frame import per_frame
from monitor.core.ssim import SsimTo
from schemas.artifacts import PAPER_PIXELS


@dataclass(frozen=True, slots=True)
class Decomposition:
    """X = L + S: ``background`` L and ``residual`` S, each (B, C, H, W)."""

    background: Tensor
    residual: Tensor


def pixel_lambda(lam: float, frames: Tensor) -> float:
    """Return λ' for frames (B, C, H, W): the paper's λ, converted from its 128x128 images."""
    return lam * PAPER_PIXELS / frames.shape[1:].numel()


def objective(background: Tensor, frames: Tensor, prior: Tensor, lam: float) -> Tensor:
    """Return F(L) per frame, (B,)."""
    distance = (frames - background).abs().flatten(1).sum(dim=1)
    return SsimTo(prior).at(background).value + pixel_lambda(lam, frames) * distance


def soft_threshold(values: Tensor, threshold: Tensor) -> Tensor:
    """Return sign(v) max(|v| - t, 0), the proximal operator of t‖·‖₁."""
    return values - torch.minimum(torch.maximum(values, -threshold), threshold)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the inner product per frame, (B, 1, 1, 1); a frame's does not depend on its batch."""
    # Torch shares one long sum among its threads and several sums by whole frames, which rounds differently.
    return per_frame(lambda products: products.sum(dim=(1, 2, 3), keepdim=True), a * b)


def decompose(frames: Tensor, prior: Tensor, lam: float, steps: int) -> Decomposition:
    """Split frames into background and defect.

    Args:
        frames: X, (B, C, H, W) in [0, 1].
        prior: X̂, of the same shape.
        lam: the paper's λ, > 0.
        steps: proximal steps; for lam up to 3e-4, 10 are within 1 % of the minimum mostly and 3 % at worst.
    """
    weight = pixel_lambda(lam, frames)
    ssim_to_prior = SsimTo(prior)
    background = prior.clone()  # L
    point = background  # Z
    momentum = torch.ones(frames.shape[0], 1, 1, 1, device=frames.device, dtype=frames.dtype)  # t, per frame
    for _ in range(steps):
        local = ssim_to_prior.at(point)
        step = local.curvature.clamp_min_(torch.finfo(frames.dtype).tiny).reciprocal_()
        target = point - local.gradient * step  # U
        updated = frames - soft_threshold(frames - target, step * weight)
        change = updated - background
        uphill = inner(point - updated, change) > 0
        momentum = torch.where(uphill, torch.ones_like(momentum), momentum)
        following = (1.0 + (1.0 + 4.0 * momentum.square()).sqrt()) / 2.0
        point = updated + ((momentum - 1.0) / following) * change
        background, momentum = updated, following
    return Decomposition(background=background, residual=frames - background)
