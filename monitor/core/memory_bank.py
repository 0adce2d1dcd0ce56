"""The memory bank: for each latent location, the features of N normal frames at that same location."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.core.per_frame import per_frame

Device = torch.device | str


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What the bank says of a batch of queries M.

    Attributes:
        score: (B, P1, P2), s = 1 - max_k cos(M(i, j), bank(i, j, k)), 0 (known) to 2. The paper's eq. 2 with its
            argmin mended: the nearest vector is the one of the *largest* similarity.
        nearest: (B, P3, P1, P2), M': the nearest bank vector at each location.
        slot: (B, P1, P2), the slot that vector is from.
        known: (B, P1, P2, R), the residual that this normal left itself there.
    """

    score: Tensor
    nearest: Tensor
    slot: Tensor
    known: Tensor


def slot_bytes(shape: tuple[int, int, int], residual: int) -> int:
    """Return what a slot takes in memory: features, the same as units, and residual (``MemoryBank``), in float32."""
    p1, p2, depth = shape
    return 4 * p1 * p2 * (depth + depth - residual)


class MemoryBank:
    """N slots; a slot holds one normal frame's entry: its feature map and the residual it left. One owner, no lock.

    Scoring reads, learning writes: ``query`` leaves the bank as it was; ``put`` and ``remove`` change it.
    ``version`` is the owner's bookmark in the online store.

    Args:
        shape: (P1, P2, P3 + R) of an entry.
        capacity: N.
        device: where the tensors live.
        residual: R, how much of an entry's depth is its residual; the rest are features.
    """

    def __init__(
        self, shape: tuple[int, int, int], capacity: int, device: Device = "cpu", *, residual: int = 0
    ) -> None:
        p1, p2, depth = shape
        p3 = depth - residual
        if not 0 <= residual < depth:
            msg = f"a residual of {residual} values does not fit entries of shape {shape}"
            raise ValueError(msg)
        self.shape = shape
        self.latent_shape = p1, p2, p3
        self.capacity = capacity
        self.version = 0
        self._filled = torch.zeros(capacity, dtype=torch.bool, device=device)
        self._used = 0  # slots beyond the last filled one are not searched
        self._features = torch.zeros(p1 * p2, capacity, p3, device=device)  # (P1*P2, N, P3)
        self._units = torch.zeros(p1 * p2, capacity, p3, device=device)  # the same, each of length 1
        self._known = torch.zeros(p1 * p2, capacity, residual, device=device)  # (P1*P2, N, R)

    def __len__(self) -> int:
        """Return the number of filled slots."""
        return int(self._filled.sum())

    def put(self, slot: int, entry: NDArray[np.float16]) -> None:
        """Fill a slot with a normal's (P1, P2, P3 + R) entry.

        Raises:
            IndexError: there is no such slot.
            ValueError: the entry has another shape or is not finite.
        """
        self._check_slot(slot)
        if entry.shape != self.shape or not np.isfinite(entry).all():
            msg = f"entry {entry.shape} must be finite and of shape {self.shape} (P1, P2, P3 + R)"
            raise ValueError(msg)
        p1, p2, p3 = self.latent_shape
        vectors = torch.from_numpy(entry.astype(np.float32)).to(self._features.device).reshape(p1 * p2, -1)
        self._features[:, slot] = vectors[:, :p3]
        self._units[:, slot] = torch.nn.functional.normalize(vectors[:, :p3], dim=-1)
        self._known[:, slot] = vectors[:, p3:]
        self._filled[slot] = True
        self._used = max(self._used, slot + 1)

    def remove(self, slot: int) -> None:
        """Empty a slot; emptying an empty one changes nothing."""
        self._check_slot(slot)
        self._filled[slot] = False

    def clear(self) -> None:
        """Empty every slot."""
        self._filled.zero_()
        self._used = 0

    def entry(self, slot: int) -> NDArray[np.float16] | None:
        """Return a slot's (P1, P2, P3 + R) entry, or None if it is empty."""
        self._check_slot(slot)
        if not self._filled[slot]:
            return None
        parts = torch.cat([self._features[:, slot], self._known[:, slot]], dim=1)
        return parts.reshape(self.shape).cpu().numpy().astype(np.float16)

    def query(self, features: Tensor, exclude: Tensor | None = None) -> Retrieval:
        """Retrieve the nearest normal at every location (eq. 2).

        Args:
            features: M, (B, P3, P1, P2).
            exclude: (B,) a slot each frame must not find (its own, when normals are held against each other).

        Raises:
            ValueError: the bank is empty but for what is excluded, or the features do not fit it.
        """
        batch = features.shape[0]
        p1, p2, p3 = self.latent_shape
        if features.shape[1:] != (p3, p1, p2):
            msg = f"queries {tuple(features.shape[1:])} must be of shape {(p3, p1, p2)} (P3, P1, P2)"
            raise ValueError(msg)
        if not self._filled.any():
            msg = "the memory bank is empty: nothing is normal to it"
            raise ValueError(msg)
        vectors = features.permute(0, 2, 3, 1).reshape(batch, p1 * p2, p3)
        similarity = per_frame(self._similarity, vectors).transpose(0, 1)  # (P1*P2, B, N)
        similarity.masked_fill_(~self._filled[: self._used], -torch.inf)
        if exclude is not None:
            similarity.scatter_(2, exclude.view(1, batch, 1).expand(p1 * p2, -1, -1), -torch.inf)
        best, slot = similarity.max(dim=2)  # (P1*P2, B)
        if exclude is not None and best.isneginf().any():
            msg = "nothing is left in the memory bank without the excluded slot"
            raise ValueError(msg)
        location = torch.arange(p1 * p2, device=slot.device).unsqueeze(1)
        nearest = self._features[location, slot]  # (P1*P2, B, P3)
        known = self._known[location, slot]  # (P1*P2, B, R)
        return Retrieval(
            # Rounding may put a cosine a little above 1; a score below 0 would mean nothing.
            score=(1.0 - best).clamp_min(0.0).T.reshape(batch, p1, p2),
            nearest=nearest.permute(1, 2, 0).reshape(batch, p3, p1, p2),
            slot=slot.T.reshape(batch, p1, p2),
            known=known.transpose(0, 1).reshape(batch, p1, p2, known.shape[2]),
        )

    def _similarity(self, vectors: Tensor) -> Tensor:
        """Return cos (B, P1*P2, N) between queries (B, P1*P2, P3) and every slot at the same location."""
        units = torch.nn.functional.normalize(vectors, dim=-1).transpose(0, 1)  # (P1*P2, B, P3)
        return (units @ self._units[:, : self._used].transpose(1, 2)).transpose(0, 1)

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.capacity:
            msg = f"slot {slot} is not in 0..{self.capacity - 1}"
            raise IndexError(msg)
