"""The image prior X̂: what this part would look like without its defect. A plug: any ``Prior`` will do.

The paper's is X̂ = D(M'') (section 3.2), ``BankPrior``: the decoder shows what normals of the bank look like at the
places that look odd. It can only imagine what the bank holds. ``monitor.core.denoiser`` has one that has learnt to
take defects away; the two err differently, and ``MeanPrior`` of both sees more than one.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from monitor.core.memory_bank import Retrieval
from monitor.core.per_frame import per_frame


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is known of a batch when its prior is to be imagined.

    Attributes:
        frames: X, (B, C, H, W) in [0, 1].
        features: M = E(X), (B, P3, P1, P2).
        retrieval: what the bank says of M.
        alpha: the share of the locations whose features the bank's may replace.
        decode: D, (B, P3, P1, P2) to (B, C, H, W) in [0, 1].
    """

    frames: Tensor
    features: Tensor
    retrieval: Retrieval
    alpha: float
    decode: Callable[[Tensor], Tensor]

    def at(self, places: Tensor) -> Seen:
        """Return the frames at ``places`` (b,) of the batch, by themselves."""
        found = self.retrieval
        return Seen(
            frames=self.frames.index_select(0, places),
            features=self.features.index_select(0, places),
            retrieval=Retrieval(
                score=found.score.index_select(0, places),
                nearest=found.nearest.index_select(0, places),
                slot=found.slot.index_select(0, places),
                known=found.known.index_select(0, places),
            ),
            alpha=self.alpha,
            decode=self.decode,
        )


class Prior(nn.Module, ABC):
    """Imagines frames without their defects. A torch module: what its ``state_dict`` holds, the bundle keeps.

    It is made of nothing but an ``Architecture`` (``monitor.core.priors``), and then filled from the bundle.
    """

    @abstractmethod
    def imagine(self, seen: Seen) -> Tensor:
        """Return X̂ (B, C, H, W) in [0, 1]. Nothing is learnt by it, and nothing random."""

    def for_inference(self) -> Prior:
        """Return a copy to inspect with; one that computes the same faster, where there is a way."""
        return deepcopy(self).eval()


class BankPrior(Prior):
    """X̂ = D(M''), the paper's. It has no weights of its own."""

    def imagine(self, seen: Seen) -> Tensor:
        """Return D of the features with the bank's at the oddest locations."""
        return seen.decode(restrict(seen.features, seen.retrieval, seen.alpha))


class MeanPrior(Prior):
    """The mean of several priors: where one imagines badly, the others halve its error."""

    def __init__(self, members: Sequence[Prior]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def priors(self) -> tuple[Prior, ...]:
        """Return the priors that the mean is of."""
        return tuple(member for member in self.members if isinstance(member, Prior))

    def imagine(self, seen: Seen) -> Tensor:
        """Return the mean of what the members imagine."""
        return torch.stack([member.imagine(seen) for member in self.priors()]).mean(dim=0)

    def for_inference(self) -> MeanPrior:
        """Return a copy of fast copies."""
        return MeanPrior([member.for_inference() for member in self.priors()]).eval()


def imagine(prior: Prior, seen: Seen) -> Tensor:
    """Return X̂ (B, C, H, W); a frame's does not depend on its batch, whoever wrote the prior.

    Raises:
        ValueError: the prior returned something of another shape.
    """
    places = torch.arange(seen.frames.shape[0], device=seen.frames.device)
    imagined = per_frame(lambda some: prior.imagine(seen.at(some)), places)
    if imagined.shape != seen.frames.shape:
        name, wanted = type(prior).__name__, tuple(seen.frames.shape)
        msg = f"the prior {name} imagines {tuple(imagined.shape)}, not {wanted} (B, C, H, W) as the frames are"
        raise ValueError(msg)
    return imagined


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
