"""What all of the benchmarks share: a line, a bank that learns as the learner lets it, and what it finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deploy.simulation import LineSettings, Part, SimulatedLine
from deploy.simulation.settings import DEFECT_KINDS
from monitor.core.bank_entry import size_in_bytes
from monitor.core.calibration import clopper_pearson
from monitor.core.inspector import Inspection, Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.learning.admission import Admission, Admitted, Decision
from monitor.learning.gate import Defect
from monitor.ports import MOST_GOLDEN

AT_ONCE: Final = 16
RESAMPLES: Final = 1000

Pixels = NDArray[np.float32]
Figures = dict[str, object]


@dataclass
class Learning:
    """A bank, and the operator who teaches it.

    Attributes:
        inspector: the model.
        admission: the judge, as the learner uses it.
        bank: begins with the pinned normals.
        defects: the golden defects that guard the bank.
        confirmed: how many parts the operator confirmed as normal.
    """

    inspector: Inspector
    admission: Admission
    bank: MemoryBank = field(init=False)
    defects: list[Defect] = field(default_factory=list)
    confirmed: int = 0

    def __post_init__(self) -> None:
        self.bank = self.inspector.new_bank()

    def see(self, parts: Sequence[Part]) -> Pixels:
        """Return parts as the network sees them, (B, C, H, W)."""
        return np.stack([self.inspector.prepare(part.image).pixels for part in parts])

    def inspect(self, frames: Pixels) -> list[Inspection]:
        """Inspect frames with the bank as it is."""
        return self.inspector.inspect(frames, self.bank)

    def confirm(self, frame: Pixels) -> Decision:
        """Confirm a frame (C, H, W) as normal; return what became of it."""
        self.confirmed += 1
        decision = self.admission.consider(frame, self.bank, self.defects)
        if isinstance(decision, Admitted):
            for slot in decision.evict:
                self.bank.remove(slot)
            self.bank.put(decision.slot, decision.entry)
        return decision

    def guard(self, name: str, frame: Pixels) -> None:
        """Make a frame a golden defect, one of the last that guard the bank."""
        self.defects = [*self.defects, Defect(name, lambda: frame)][-MOST_GOLDEN:]

    @property
    def learned(self) -> int:
        """How many entries were learned and are still there."""
        return len(self.bank) - len(self.inspector.seed)

    @property
    def size_bytes(self) -> int:
        """What they take, as the store counts."""
        depth = self.bank.shape[2]
        slots = (slot for slot in self.bank.slots if slot >= len(self.inspector.seed))
        return sum(size_in_bytes(self.bank.locations(slot), depth) for slot in slots)


def line_of(inspector: Inspector, **settings: Any) -> SimulatedLine:  # noqa: ANN401 - those of LineSettings
    """Return a simulated line whose frames are as large as the network sees them, and so are its masks."""
    return SimulatedLine(LineSettings(size=inspector.manifest.architecture.input.height, **settings))


def learner_of(inspector: Inspector, budget: int = 2**30) -> Learning:
    """Return a bank that learns as on a line."""
    return Learning(inspector, Admission(inspector, budget, inspector.drift_baseline.usual_score))


def defects_of(line: SimulatedLine, start: int, count: int) -> list[Part]:
    """Return defective parts of a line, the kinds in turn."""
    draw = line.defective_part
    return [draw(start + index // len(DEFECT_KINDS), DEFECT_KINDS[index % len(DEFECT_KINDS)]) for index in range(count)]


def dice(found: Inspection, part: Part) -> float:
    """Return the Dice coefficient of a mask with the truth."""
    return float(2 * (found.mask & part.mask).sum() / max(1, found.mask.sum() + part.mask.sum()))


def judge_bank(learning: Learning, good: Sequence[Part], bad: Sequence[Part]) -> Figures:
    """Return false rejects of good parts, and detection and Dice of defective ones, each with its 95 % interval."""
    rejected = [found.flagged for found in _all(learning, good)]
    found = _all(learning, bad)
    scores = np.array([dice(each, part) for each, part in zip(found, bad, strict=True)])
    return {
        "false_rejects": rate(rejected),
        "detected": rate([each.flagged for each in found]),
        "dice": mean(scores),
        "dice_of": {kind: mean(scores[[part.defect == kind for part in bad]])["mean"] for kind in DEFECT_KINDS},
    }


def rate(flags: Sequence[bool]) -> dict[str, float]:
    """Return a share with its exact 95 % interval."""
    low, high = clopper_pearson(sum(flags), len(flags))
    return {"rate": round(sum(flags) / len(flags), 4), "low": round(low, 4), "high": round(high, 4), "of": len(flags)}


def mean(values: NDArray[np.floating]) -> dict[str, float]:
    """Return a mean with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return {"mean": round(float(values.mean()), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def _all(learning: Learning, parts: Sequence[Part]) -> list[Inspection]:
    found: list[Inspection] = []
    for first in range(0, len(parts), AT_ONCE):
        found += learning.inspect(learning.see(parts[first : first + AT_ONCE]))
    return found
