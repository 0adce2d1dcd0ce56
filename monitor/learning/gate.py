"""The golden-defect gate: an addition that would hide a confirmed defect is refused, and the defect is named.

A part confirmed as normal by mistake hides defects in two ways, and the gate looks for both:

* *Here.* The addition excuses a confirmed defect where that one lies. Each golden defect that it touches is inspected
  again with it: if it would pass, or most of its mask would be gone, the addition is refused.
* *Elsewhere.* The bank excuses a place at a time, so a missing solder spot in one place hides no golden one in another.
  But if the odd thing about the part looks the same as a golden defect, in size, sign and shape wherever either of them
  lies, then it is that defect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from monitor.core.bank_entry import Entry
from monitor.core.inspector import Inspection, Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.ports import MOST_GOLDEN

# Of the mask that the model alone gives a golden defect, this much has to stay.
KEPT_SHARE: Final = 0.75
# Residuals so alike are the same thing (1: equal). Measured on the simulated line: missing spots in other places have
# 0.97 and more, stains up to 0.94; an ink stamp that is harmless has up to 0.84 with stains, light that changes 0.82.
ALIKE: Final = 0.88
# Only what has at least a quarter of the other's energy, and the largest few parts of a defect, are compared.
ENERGY_RATIO: Final = 4.0
MOST_PARTS: Final = 3
# Odd places no farther apart than this, in pixels, are one shape.
MARGIN: Final = 1

# Golden defects remembered over all cameras. One takes about a hundred kilobytes at 128x128.
MOST_REMEMBERED: Final = 8 * MOST_GOLDEN

# Large frames are looked at a few at a time.
AT_ONCE: Final = 16

Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the network's input


@dataclass(frozen=True, slots=True)
class Defect:
    """A golden defect: a frame that a person confirmed as defective, and how to look at it.

    ``look`` returns it as (C, H, W), or None if its image is gone. Large frames are not kept in memory for the gate.
    """

    frame_id: str
    look: Callable[[], NDArray[np.float32] | None]


@dataclass(frozen=True, slots=True)
class Hidden:
    """Why an addition is refused: which defect it would hide, how, and where on both frames to look."""

    defect: Defect
    why: str
    box: Box
    defect_box: Box


@dataclass(frozen=True, slots=True)
class Missed:
    """Why a confirmed defect passes: its score, and the slot without which it would not.

    Without a slot: with ``learned``, no single entry but several together hide it; else the model itself does not see
    it.
    """

    score: float
    slot: int | None
    learned: bool = False


@dataclass(frozen=True, slots=True)
class _Shape:
    """A connected odd place: its residual (C, h, w), 0 outside its mask, that residual's energy, and where it lies."""

    residual: NDArray[np.float32]
    energy: float
    box: Box


@dataclass(frozen=True, slots=True)
class _Golden:
    """A golden defect as the model alone sees it, whatever the line has learnt."""

    defect: Defect
    features: NDArray[np.float32]  # M (P1, P2, P3)
    mask: NDArray[np.bool_]  # (H, W)
    cells: NDArray[np.bool_]  # (P1, P2) the locations at or beside its mask
    shapes: tuple[_Shape, ...]


class Gate:
    """Looks for golden defects that an addition would hide. Remembers what it has seen of them.

    Args:
        inspector: the model.
    """

    def __init__(self, inspector: Inspector) -> None:
        self._inspector = inspector
        self._seen: dict[str, _Golden | None] = {}

    def find_hidden(
        self, candidate: Inspection, entry: Entry, bank: MemoryBank, defects: Sequence[Defect]
    ) -> Hidden | None:
        """Return the first golden defect that the addition would hide, or None.

        Args:
            candidate: of the confirmed normal, with the bank as it is.
            entry: the addition.
            bank: as it is; left so.
            defects: the golden defects. Those that the model itself does not see cannot be hidden and are left out.
        """
        golden = [known for known in map(self._golden, defects) if known is not None]
        return self._find_alike(candidate, golden) or self._find_covered(entry, bank, golden)

    def find_culprit(self, pixels: NDArray[np.float32], bank: MemoryBank) -> Missed | None:
        """Return why a defect (C, H, W) passes with this bank, or None: it does not."""
        (seen,) = self._inspector.inspect(pixels[None], bank)
        if seen.flagged:
            return None
        (alone,) = self._inspector.inspect(pixels[None], self._inspector.pinned)
        if not alone.flagged:
            return Missed(seen.score, None)
        pinned = len(self._inspector.seed)
        for slot in self._inspector.nearest_slots(pixels, bank):
            if slot < pinned:
                continue
            with bank.without(slot):
                (without,) = self._inspector.inspect(pixels[None], bank)
            if without.flagged:
                return Missed(seen.score, slot)
        return Missed(seen.score, None, learned=True)

    def _golden(self, defect: Defect) -> _Golden | None:
        if defect.frame_id not in self._seen:
            pixels = defect.look()
            if pixels is None:
                return None
            (seen,) = self._inspector.inspect(pixels[None], self._inspector.pinned)
            features = self._inspector.features(pixels[None])[0] if seen.flagged else None
            if len(self._seen) >= MOST_REMEMBERED:
                del self._seen[next(iter(self._seen))]
            self._seen[defect.frame_id] = None if features is None else _as_golden(defect, features, seen)
        return self._seen[defect.frame_id]

    def _find_alike(self, candidate: Inspection, golden: Sequence[_Golden]) -> Hidden | None:
        shapes = _shapes(candidate)
        best, pair = 0.0, None
        for known in golden:
            for theirs in known.shapes:
                for ours in shapes:
                    similarity = _similarity(ours, theirs)
                    if similarity > best:
                        best, pair = similarity, (known, ours, theirs)
        if pair is None or best < ALIKE:
            return None
        known, ours, theirs = pair
        why = f"what is odd about it looks like defect {known.defect.frame_id} ({best:.0%} alike)"
        return Hidden(known.defect, why, ours.box, theirs.box)

    def _find_covered(self, entry: Entry, bank: MemoryBank, golden: Sequence[_Golden]) -> Hidden | None:
        touched = self._touched(entry, bank, golden)
        looks = [(known, pixels) for known in touched if (pixels := known.defect.look()) is not None]
        for first in range(0, len(looks), AT_ONCE):
            some = looks[first : first + AT_ONCE]
            with bank.trying(entry):
                after = self._inspector.inspect(np.stack([pixels for _, pixels in some]), bank)
            for (known, pixels), seen in zip(some, after, strict=True):
                if not (why := _loss(known, seen)):
                    continue
                # What was hidden before is not this addition's doing.
                (before,) = self._inspector.inspect(pixels[None], bank)
                if not _loss(known, before):
                    return Hidden(known.defect, why, _box_of(known.mask), _box_of(known.mask))
        return None

    def _touched(self, entry: Entry, bank: MemoryBank, golden: Sequence[_Golden]) -> list[_Golden]:
        """Return those with a location at their mask that is nearer to the addition than to the bank."""
        if not golden:
            return []
        features = np.stack([known.features for known in golden])
        before = self._inspector.distances(features, bank)  # (B, P1, P2)
        with bank.trying(entry):
            nearer = self._inspector.distances(features, bank) < before
        return [known for known, cells in zip(golden, nearer, strict=True) if (cells & known.cells).any()]


def _odd_places(seen: Inspection) -> NDArray[np.bool_]:
    """Return the mask (H, W), or where a frame is odd although its mask is empty: flagged for many faint pixels."""
    return seen.mask if seen.mask.any() else seen.anomaly >= 0.5 * seen.anomaly.max()


def _as_golden(defect: Defect, features: NDArray[np.float32], seen: Inspection) -> _Golden:
    p1, p2 = seen.distance.shape
    height, width = seen.mask.shape
    mask = _odd_places(seen)
    cells = np.asarray(mask.reshape(p1, height // p1, p2, width // p2).any(axis=(1, 3)), np.uint8)
    beside = np.asarray(cv2.dilate(cells, np.ones((3, 3), np.uint8)) > 0)
    return _Golden(defect, features, mask, beside, tuple(_shapes(seen)))


def _loss(golden: _Golden, seen: Inspection) -> str:
    """Say what is lost of a golden defect that is now seen like this; '' if nothing is."""
    if not seen.flagged:
        return f"defect {golden.defect.frame_id} would pass (score {seen.score:.2f})"
    share = float((_odd_places(seen) & golden.mask).sum() / max(1, golden.mask.sum()))
    if share < KEPT_SHARE:
        return f"of the outline of defect {golden.defect.frame_id} {share:.0%} would be left"
    return ""


def _shapes(seen: Inspection) -> list[_Shape]:
    """Return the connected odd places with the most energy."""
    near = cv2.dilate(_odd_places(seen).astype(np.uint8), np.ones((2 * MARGIN + 1,) * 2, np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(near, connectivity=8)
    shapes = []
    for label in range(1, count):
        x, y, width, height = (int(value) for value in stats[label, :4])
        place = np.s_[y : y + height, x : x + width]
        residual = seen.residual[(slice(None), *place)] * (labels[place] == label)
        shapes.append(_Shape(residual, float(np.square(residual).sum()), (x, y, width, height)))
    shapes.sort(key=lambda shape: -shape.energy)
    return [shape for shape in shapes[:MOST_PARTS] if shape.energy * ENERGY_RATIO >= shapes[0].energy]


def _similarity(ours: _Shape, theirs: _Shape) -> float:
    """Return how alike two residuals are, wherever they lie: the largest 2<a, b> / (|a|^2 + |b|^2) of any shift."""
    total = ours.energy + theirs.energy
    if not ours.energy < ENERGY_RATIO * theirs.energy < ENERGY_RATIO**2 * ours.energy:
        return 0.0
    _, height, width = theirs.residual.shape
    # From a shift that only touches to the last one that does.
    padded = np.pad(ours.residual, ((0, 0), (height - 1,) * 2, (width - 1,) * 2))
    product = sum(
        cv2.matchTemplate(plane, template, cv2.TM_CCORR)
        for plane, template in zip(padded, theirs.residual, strict=True)
    )
    return 2.0 * float(np.max(product)) / total


def _box_of(mask: NDArray[np.bool_]) -> Box:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, max(1, width), max(1, height)
