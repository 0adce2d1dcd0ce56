"""SSIM against a fixed image: value, gradient and a diagonal Hessian bound, in closed form.

The definition is ``pytorch_msssim.ssim`` (11x11 Gaussian window, sigma 1.5, K = 0.01 and 0.03, data range 1) of both
images padded by reflection by 5 pixels. Without the padding, border pixels lie in almost no window and a defect there
is absorbed into the background; with it, every pixel is the centre of a window.

For one window, with x = L and y = X̂::

    SSIM = l · cs,   l = (2 μx μy + C1) / (μx² + μy² + C1),   cs = (2 σxy + C2) / (σx² + σy² + C2)

With the denominators frozen, 1 - SSIM is a quadratic in x with the Hessian bounded by the diagonal
``2 Gᵀ max(l / (σx² + σy² + C2), cs / (μx² + μy² + C1)) / n``: Var_G(e) and (G e)² are each at most G(e²), and
``a Var_G(e) + b (G e)² <= max(a, b) G(e²)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from monitor.core.gaussian import blur, blur_adjoint

C1 = 0.01**2
C2 = 0.03**2


@dataclass(frozen=True, slots=True)
class Linearisation:
    """f(L) = 1 - mean SSIM(L, X̂) around a point.

    Attributes:
        value: (B,) f.
        gradient: (B, C, H, W) ∇f.
        curvature: (B, C, H, W) a positive diagonal d that bounds the Hessian of the frozen quadratic.
    """

    value: Tensor
    gradient: Tensor
    curvature: Tensor


class SsimTo:
    """f(L) = 1 - mean SSIM(L, X̂) per image, for a fixed X̂ (B, C, H, W) in [0, 1]."""

    def __init__(self, target: Tensor) -> None:
        self._y = target
        self._windows = target.shape[1:].numel()
        self._mu_y = blur(target)
        self._mu_y_sq = self._mu_y.square()
        self._var_y = blur(target.square()) - self._mu_y_sq

    def at(self, x: Tensor) -> Linearisation:
        """Linearise f at x (B, C, H, W)."""
        y, mu_y = self._y, self._mu_y
        mu_x = blur(x)
        mu_x_sq = mu_x.square()
        var_x = blur(x.square()) - mu_x_sq
        cov = blur(x * y) - mu_x * mu_y
        inv_b1 = (mu_x_sq + (self._mu_y_sq + C1)).reciprocal_()
        inv_b2 = (var_x + (self._var_y + C2)).reciprocal_()
        luminance = torch.mul(mu_x, mu_y).mul_(2.0).add_(C1).mul_(inv_b1)
        contrast = cov.mul_(2.0).add_(C2).mul_(inv_b2)
        similarity = luminance * contrast
        # Derivatives by the window's moments G(x), G(x²), G(xy); each is spread back over the window by Gᵀ.
        by_xy = luminance * inv_b2  # half of it
        by_xx = similarity * inv_b2  # minus it
        by_x = (contrast * inv_b1) * (mu_y - luminance * mu_x) + (by_xx * mu_x - by_xy * mu_y)  # half of it
        gradient = blur_adjoint(by_x) - x * blur_adjoint(by_xx) + y * blur_adjoint(by_xy)
        bound = torch.maximum(by_xy, contrast.abs() * inv_b1)
        scale = 2.0 / self._windows
        return Linearisation(
            value=1.0 - similarity.flatten(1).mean(dim=1),
            gradient=gradient.mul_(-scale),
            curvature=blur_adjoint(bound).mul_(scale),
        )


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean SSIM per image, (B,), of two (B, C, H, W) images in [0, 1], reflected at the border."""
    return 1.0 - SsimTo(y).at(x).value
