"""The deep image prior X̂ = D(M''): what this part would look like without its defect (paper, section 3.2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from monitor.core.memory_bank import Retrieval


def abnormal_locations(score: Tensor, alpha: float) -> Tensor:
    """Return A as a mask (B, P1, P2): the share ``alpha`` of the locations with the largest scores, at least one.

    ``alpha`` = 0 selects none, so that the prior is the autoencoder's plain reconstruction.
    """
    batch, p1, p2 = score.shape
    # Less a rounding error: 0.07 of 100 locations are 7, though 0.07 * 100 > 7.
    count = max(math.ceil(alpha * p1 * p2 - 1e-9), int(alpha > 0))
    chosen = torch.zeros(batch, p1 * p2, dtype=torch.bool, device=score.device)
    if count:
        # Stable, so that equal scores are chosen alike whatever stands beside the frame in its batch.
        order = score.flatten(1).argsort(dim=1, descending=True, stable=True)
        chosen.scatter_(1, order[:, :count], value=True)
    return chosen.reshape(batch, p1, p2)


def restrict(features: Tensor, retrieval: Retrieval, alpha: float) -> Tensor:
    """Return M'' (B, P3, P1, P2): M' on A, M elsewhere."""
    chosen = abnormal_locations(retrieval.score, alpha).unsqueeze(1)  # (B, 1, P1, P2)
    return torch.where(chosen, retrieval.nearest, features)
