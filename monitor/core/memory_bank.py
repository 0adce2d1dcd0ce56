"""The memory bank: for each latent location, the features of normal frames at that same location.

An entry is what one normal frame gives to the bank. Those of training give all of their locations; of what the line
confirms, only the locations that the bank did not explain are kept, so that memory and search grow with the variety of
normals and not with their number. See ``monitor.core.bank_entry``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.core.bank_entry import is_sound, kept
from monitor.core.per_frame import per_frame

Device = torch.device | str

NOBODY: Final = -1  # the slot of a row that holds nothing


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


def row_bytes(shape: tuple[int, int, int], residual: int) -> int:
    """Return what a row takes in memory: features, the same as units, and residual, in float32; and its slot."""
    p1, p2, depth = shape
    return p1 * p2 * (4 * (depth + depth - residual) + 8)


class MemoryBank:
    """Slots; a slot holds one normal frame's entry: its feature map and the residual it left. One owner, no lock.

    Scoring reads, learning writes: ``query`` leaves the bank as it was; ``put`` and ``remove`` change it.
    ``version`` is the owner's bookmark in the online store.

    On the device each location has rows of its own, N of them: it is searched through what is kept of it alone.

    Args:
        shape: (P1, P2, P3 + R) of an entry.
        rows: entries that there is room for from the start; more room is made when it is needed.
        device: where the tensors live.
        residual: R, how much of an entry's depth is its residual; the rest are features.
    """

    def __init__(
        self, shape: tuple[int, int, int], rows: int = 0, device: Device = "cpu", *, residual: int = 0
    ) -> None:
        p1, p2, depth = shape
        p3 = depth - residual
        if not 0 <= residual < depth:
            msg = f"a residual of {residual} values does not fit entries of shape {shape}"
            raise ValueError(msg)
        self.shape = shape
        self.latent_shape = p1, p2, p3
        self.version = 0
        self._cells: dict[int, NDArray[np.bool_]] = {}  # slot -> the locations (P1*P2) that its entry keeps
        self._used = 0  # rows beyond the last one that was ever filled are not searched
        self._slots = torch.full((p1 * p2, rows), NOBODY, dtype=torch.int64, device=device)  # whose row it is
        self._features = torch.zeros(p1 * p2, rows, p3, device=device)  # (P1*P2, N, P3)
        self._units = torch.zeros(p1 * p2, rows, p3, device=device)  # the same, each of length 1
        self._known = torch.zeros(p1 * p2, rows, residual, device=device)  # (P1*P2, N, R)

    def __len__(self) -> int:
        """Return the number of filled slots."""
        return len(self._cells)

    @property
    def slots(self) -> list[int]:
        """The filled slots, in order."""
        return sorted(self._cells)

    @property
    def by_age(self) -> list[int]:
        """The filled slots in the order in which this object was given them."""
        return list(self._cells)

    @property
    def rows(self) -> int:
        """N, how many rows each location is searched through."""
        return self._used

    def locations(self, slot: int) -> NDArray[np.bool_]:
        """Return which locations (P1, P2) a slot's entry keeps; none if it is empty."""
        p1, p2, _ = self.latent_shape
        return self._cells.get(slot, np.zeros(p1 * p2, np.bool_)).reshape(p1, p2).copy()

    def put(self, slot: int, entry: NDArray[np.float16]) -> None:
        """Fill a slot with a normal's (P1, P2, P3 + R) entry, NaN where it keeps nothing.

        Raises:
            IndexError: the slot is negative.
            ValueError: the entry has another shape, keeps nothing, or is not finite where it keeps something.
        """
        if slot < 0:
            msg = f"slot {slot}: slots are counted from 0"
            raise IndexError(msg)
        if entry.shape != self.shape or not is_sound(entry):
            msg = f"entry {entry.shape} must be of shape {self.shape} (P1, P2, P3 + R), and finite where it is not NaN"
            raise ValueError(msg)
        self.remove(slot)
        there = kept(entry)
        cells = there.ravel()
        where = torch.from_numpy(np.flatnonzero(cells)).to(self._slots.device)
        row = self._free_rows(where)
        _, _, p3 = self.latent_shape
        vectors = torch.from_numpy(entry[there].astype(np.float32)).to(self._features.device)
        self._slots[where, row] = slot
        self._features[where, row] = vectors[:, :p3]
        self._units[where, row] = torch.nn.functional.normalize(vectors[:, :p3], dim=-1)
        self._known[where, row] = vectors[:, p3:]
        self._cells[slot] = cells

    def remove(self, slot: int) -> None:
        """Empty a slot; emptying an empty one changes nothing."""
        if self._cells.pop(slot, None) is not None:
            self._slots[self._slots == slot] = NOBODY

    def clear(self) -> None:
        """Empty every slot."""
        self._cells.clear()
        self._slots.fill_(NOBODY)
        self._used = 0

    def entry(self, slot: int) -> NDArray[np.float16] | None:
        """Return a slot's (P1, P2, P3 + R) entry, NaN where it keeps nothing, or None if it is empty."""
        if slot not in self._cells:
            return None
        where, row = (self._slots == slot).nonzero(as_tuple=True)
        parts = torch.cat([self._features[where, row], self._known[where, row]], dim=1)
        entry = np.full((len(self._slots), self.shape[2]), np.nan, np.float16)
        entry[where.cpu().numpy()] = parts.cpu().numpy().astype(np.float16)
        return entry.reshape(self.shape)

    @contextmanager
    def trying(self, entry: NDArray[np.float16]) -> Iterator[None]:
        """Within, the bank has this entry too, in a slot of its own."""
        slot = max(self._cells, default=0) + 1
        self.put(slot, entry)
        try:
            yield
        finally:
            self.remove(slot)

    @contextmanager
    def without(self, slot: int) -> Iterator[None]:
        """Within, a slot is empty."""
        entry = self.entry(slot)
        self.remove(slot)
        try:
            yield
        finally:
            if entry is not None:
                self.put(slot, entry)

    def query(self, features: Tensor, exclude: Tensor | None = None) -> Retrieval:
        """Retrieve the nearest normal at every location (eq. 2); of equally near ones, that of the lowest slot.

        Args:
            features: M, (B, P3, P1, P2).
            exclude: (B,) a slot each frame must not find (its own, when normals are held against each other).

        Raises:
            ValueError: a location has nothing in the bank but what is excluded, or the features do not fit it.
        """
        batch = features.shape[0]
        p1, p2, p3 = self.latent_shape
        if features.shape[1:] != (p3, p1, p2):
            msg = f"queries {tuple(features.shape[1:])} must be of shape {(p3, p1, p2)} (P3, P1, P2)"
            raise ValueError(msg)
        slots = self._slots[:, : self._used]
        if not (slots != NOBODY).any(dim=1).all():
            msg = "the memory bank is empty: nothing is normal to it" + (", at some locations" if self._cells else "")
            raise ValueError(msg)
        vectors = features.permute(0, 2, 3, 1).reshape(batch, p1 * p2, p3)
        similarity = per_frame(self._similarity, vectors).transpose(0, 1)  # (P1*P2, B, N)
        hidden = (slots == NOBODY).unsqueeze(1)
        if exclude is not None:
            hidden = hidden | (slots.unsqueeze(1) == exclude.view(1, batch, 1))
        similarity.masked_fill_(hidden, -torch.inf)
        best = similarity.amax(dim=2, keepdim=True)  # (P1*P2, B, 1)
        if exclude is not None and best.isneginf().any():
            msg = "nothing is left in the memory bank without the excluded slot"
            raise ValueError(msg)
        # Rows lie in the order of edits, which copies that were read at different times need not share.
        equal = torch.where(similarity == best, slots.unsqueeze(1), torch.iinfo(torch.int64).max)
        slot, row = equal.min(dim=2)  # (P1*P2, B)
        location = torch.arange(p1 * p2, device=row.device).unsqueeze(1)
        nearest = self._features[location, row]  # (P1*P2, B, P3)
        known = self._known[location, row]  # (P1*P2, B, R)
        return Retrieval(
            # Rounding may put a cosine a little above 1; a score below 0 would mean nothing.
            score=(1.0 - best[..., 0]).clamp_min(0.0).T.reshape(batch, p1, p2),
            nearest=nearest.permute(1, 2, 0).reshape(batch, p3, p1, p2),
            slot=slot.T.reshape(batch, p1, p2),
            known=known.transpose(0, 1).reshape(batch, p1, p2, known.shape[2]),
        )

    def distances_to_others(self, slots: Sequence[int]) -> NDArray[np.float32]:
        """Return (n, P1, P2): how far each slot's entry is from the nearest other one, NaN at locations not kept."""
        p1, p2, _ = self.latent_shape
        asked = torch.tensor(list(slots), device=self._slots.device)
        own = self._slots[:, : self._used].unsqueeze(1) == asked.view(1, -1, 1)  # (P1*P2, n, N)
        units = own.to(self._units.dtype) @ self._units[:, : self._used]  # (P1*P2, n, P3)
        similarity = units @ self._units[:, : self._used].transpose(1, 2)
        similarity.masked_fill_(own | (self._slots[:, : self._used] == NOBODY).unsqueeze(1), -1.0)
        distance = 1.0 - similarity.amax(dim=2)  # (P1*P2, n)
        distance[~own.any(dim=2)] = torch.nan
        return np.asarray(distance.T.reshape(-1, p1, p2).cpu().numpy(), dtype=np.float32)

    def _similarity(self, vectors: Tensor) -> Tensor:
        """Return cos (B, P1*P2, N) between queries (B, P1*P2, P3) and every row of the same location."""
        units = torch.nn.functional.normalize(vectors, dim=-1).transpose(0, 1)  # (P1*P2, B, P3)
        return (units @ self._units[:, : self._used].transpose(1, 2)).transpose(0, 1)

    def _free_rows(self, where: Tensor) -> Tensor:
        """Return the first free row of each location (n,) in ``where``, making room where there is none."""
        free = self._slots[where] == NOBODY  # (n, N)
        if free.shape[1] == 0 or not free.any(dim=1).all():
            self._make_room()
            return self._free_rows(where)
        row = free.to(torch.uint8).argmax(dim=1)
        self._used = max(self._used, int(row.max()) + 1)
        return row

    def _make_room(self) -> None:
        """Give every location a quarter more rows, at least eight."""
        more = max(8, self._slots.shape[1] // 4)
        self._slots = torch.nn.functional.pad(self._slots, (0, more), value=NOBODY)
        self._features, self._units, self._known = (
            torch.nn.functional.pad(each, (0, 0, 0, more)) for each in (self._features, self._units, self._known)
        )
