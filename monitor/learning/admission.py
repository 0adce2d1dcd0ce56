"""Whether the bank would be better with a confirmed normal: the questions of admission, in their order.

1. Is it explained already? Then it would add nothing.
2. What of it does the bank not explain? Only these locations are kept.
3. Would it hide a confirmed defect? Then it is refused, with the defect's name (``monitor.learning.gate``).
4. Is there room? Else what has outlived its need makes room (``monitor.learning.eviction``).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.core.bank_entry import Entry, is_sound, keep_only, kept, size_in_bytes
from monitor.core.inspector import Inspection, Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.learning.eviction import Policy, outlived
from monitor.learning.gate import Defect, Gate, Hidden, Missed
from monitor.learning.keeper import free_slot

# A location is kept if it is at least so odd, as a share of what makes a pixel part of a mask. If the next such part
# would still not look usual, more of them are.
ODD_ENOUGH: Final = (0.75, 0.4, 0.0)

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Explained:
    """The bank knows such parts: this one's ``score`` is not above what is ``usual`` for normals."""

    score: float
    usual: float


@dataclass(frozen=True, slots=True)
class Admitted:
    """What to add, and where.

    Attributes:
        entry: (P1, P2, P3 + R), NaN where the bank explains the part already.
        slot: a slot that is free, or made free by ``evict``.
        evict: the slots that make room.
        score: of the part with the bank as it is; ``score_after``: with the addition.
        flagged_after: whether even then it would be flagged.
    """

    entry: Entry
    slot: int
    evict: tuple[int, ...]
    score: float
    score_after: float
    flagged_after: bool


@dataclass(frozen=True, slots=True)
class Unfit:
    """It cannot be kept, for the reason told."""

    why: str


Decision = Explained | Unfit | Hidden | Admitted


class Judge(Protocol):
    """Decides about confirmed normals; the learner asks it."""

    def consider(self, pixels: Pixels, bank: MemoryBank, defects: Sequence[Defect]) -> Decision:
        """Say what is to become of a confirmed normal, given the bank as it is and the camera's confirmed defects.

        Args:
            pixels: (C, H, W), as ``Inspector.prepare`` made them.
            bank: left as it was.
            defects: the golden defects.
        """

    def find_culprit(self, pixels: Pixels, bank: MemoryBank) -> Missed | None:
        """Say why a part (C, H, W) that was confirmed as defective passes with this bank; None: it does not."""


class Admission:
    """The ``Judge`` that looks: it inspects the part, and the defects that it touches, with and without the addition.

    Args:
        inspector: the model.
        budget: what all that was learned may take, in bytes as the store counts them.
        usual: the score that normals usually have at most.
        policy: who makes room; see ``monitor.learning.eviction``.
    """

    def __init__(
        self,
        inspector: Inspector,
        budget: int,
        usual: float,
        policy: Policy = outlived,
    ) -> None:
        self._inspector = inspector
        self._budget = budget
        self._usual = usual
        self._policy = policy
        self._pinned = len(inspector.seed)
        self._gate = Gate(inspector)

    def consider(self, pixels: Pixels, bank: MemoryBank, defects: Sequence[Defect]) -> Decision:
        """See ``Judge``."""
        before = self._look(pixels, bank)
        if before.score <= self._usual:
            return Explained(before.score, self._usual)
        whole = self._inspector.remember(pixels[None])[0]
        if not is_sound(whole):
            # One such entry would make every later comparison with the bank meaningless.
            return Unfit("its features are not finite numbers")
        entry, after = self._cut(pixels, whole, before, bank)
        size = size_in_bytes(kept(entry), entry.shape[2])
        if size > self._budget:
            return Unfit(f"it takes {size} bytes, more than all the bank may learn: raise model.bank_bytes")
        hidden = self._gate.find_hidden(before, entry, bank, defects)
        if hidden is not None:
            return hidden
        evict = self._make_room(entry, bank)
        return Admitted(entry, free_slot(bank, self._pinned, evict), evict, before.score, after.score, after.flagged)

    def find_culprit(self, pixels: Pixels, bank: MemoryBank) -> Missed | None:
        """See ``Judge``."""
        return self._gate.find_culprit(pixels, bank)

    def _look(self, pixels: Pixels, bank: MemoryBank) -> Inspection:
        return self._inspector.inspect(pixels[None], bank)[0]

    def _cut(self, pixels: Pixels, whole: Entry, before: Inspection, bank: MemoryBank) -> tuple[Entry, Inspection]:
        """Return what of an entry is to be kept, and how the part looks with it."""
        for share in ODD_ENOUGH:
            entry = keep_only(whole, self._odd_locations(before, share))
            with bank.trying(entry):
                after = self._look(pixels, bank)
            if after.score <= self._usual:
                break
        return entry, after

    def _odd_locations(self, seen: Inspection, share: float) -> NDArray[np.bool_]:
        """Return the locations (P1, P2) that are odd enough to be kept: at least the oddest."""
        cell = self._inspector.manifest.architecture.cell
        p1, p2 = seen.distance.shape
        oddest = seen.anomaly.reshape(p1, cell, p2, cell).max(axis=(1, 3))  # (P1, P2)
        level = share * self._inspector.manifest.calibration.mask_threshold
        odd: NDArray[np.bool_] = oddest >= min(level, float(oddest.max()))
        return odd

    def _make_room(self, entry: Entry, bank: MemoryBank) -> tuple[int, ...]:
        """Return the slots to evict, none if there is room."""
        depth = entry.shape[2]
        sizes = {slot: size_in_bytes(bank.locations(slot), depth) for slot in bank.slots if slot >= self._pinned}
        lacking = sum(sizes.values()) + size_in_bytes(kept(entry), depth) - self._budget
        evict: list[int] = []
        with ExitStack() as stack:
            # The addition makes dispensable what it resembles, and so does one that stays of two that are alike.
            stack.enter_context(bank.trying(entry))
            while lacking > 0 and sizes:
                slot = self._policy(bank, list(sizes))
                stack.enter_context(bank.without(slot))
                evict.append(slot)
                lacking -= sizes.pop(slot)
        return tuple(evict)
