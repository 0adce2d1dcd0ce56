"""How two models judge the same frames: where they agree, and which is right where a person said what the part is."""

from __future__ import annotations

import statistics
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from schemas.messages import Verdict

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many, and the 95 % interval of the share behind it (Wilson 1927)."""

    count: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> Self | None:
        """Return the share; None of nothing."""
        if not total:
            return None
        interval = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
        return cls(count, total, float(interval.low), float(interval.high))


@dataclass(frozen=True, slots=True)
class Judged:
    """How one of the two did.

    Attributes:
        false_rejects: defects that it saw on parts that a person called normal; None: no such part was reviewed.
        misses: normals that it saw in parts that a person called defective; likewise.
        median_ratio: of score / threshold, over all frames; None where no threshold is above 0.
    """

    model_id: str
    false_rejects: Share | None
    misses: Share | None
    median_ratio: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """An active model and a shadow on the frames that both inspected.

    Attributes:
        only_active: frames on which the active model alone saw a defect; ``only_shadow``: the shadow alone.
        dice: mean overlap of the two masks where both saw a defect, 0 to 1; None without ``dice_frames``.
        dice_frames: so many of these have a mask that is not empty.
    """

    active: Judged
    shadow: Judged
    frames: int
    both_normal: int
    both_defect: int
    only_active: int
    only_shadow: int
    dice: float | None
    dice_frames: int


@dataclass(slots=True)
class Tally:
    """Counts frames of one pair of models, one by one, in little memory."""

    active_model: str
    shadow_model: str
    _counts: Counter[tuple[bool, bool, str | None]] = field(default_factory=Counter)
    _ratios: tuple[array[float], array[float]] = field(default_factory=lambda: (array("d"), array("d")))
    _dice: array[float] = field(default_factory=lambda: array("d"))

    def add(
        self, *, active: bool, shadow: bool, truth: str | None, active_ratio: float | None, shadow_ratio: float | None
    ) -> None:
        """Count a frame: whether each saw a defect, what a person says it is, and score / threshold of each."""
        self._counts[active, shadow, truth] += 1
        for ratios, ratio in zip(self._ratios, (active_ratio, shadow_ratio), strict=True):
            if ratio is not None:
                ratios.append(ratio)

    def add_masks(self, active_png: bytes | None, shadow_png: bytes | None) -> None:
        """Count the two masks of a frame on which both saw a defect."""
        overlap = dice(active_png, shadow_png)
        if overlap is not None:
            self._dice.append(overlap)

    def result(self) -> Comparison:
        """Return what was counted, at least one frame."""
        agreement: Counter[tuple[bool, bool]] = Counter()
        for (active, shadow, _), count in self._counts.items():
            agreement[active, shadow] += count
        return Comparison(
            active=self._judged(0),
            shadow=self._judged(1),
            frames=agreement.total(),
            both_normal=agreement[False, False],
            both_defect=agreement[True, True],
            only_active=agreement[True, False],
            only_shadow=agreement[False, True],
            dice=statistics.fmean(self._dice) if self._dice else None,
            dice_frames=len(self._dice),
        )

    def _judged(self, which: int) -> Judged:
        said: Counter[tuple[str | None, bool]] = Counter()
        for (active, shadow, truth), count in self._counts.items():
            said[truth, (active, shadow)[which]] += count
        good, bad = Verdict.NORMAL.value, Verdict.DEFECT.value
        return Judged(
            model_id=(self.active_model, self.shadow_model)[which],
            false_rejects=Share.of(said[good, True], said[good, True] + said[good, False]),
            misses=Share.of(said[bad, False], said[bad, True] + said[bad, False]),
            median_ratio=statistics.median(self._ratios[which]) if self._ratios[which] else None,
        )


def dice(first_png: bytes | None, second_png: bytes | None) -> float | None:
    """Return the overlap of two masks of a frame, 0 to 1, at the larger one's size; None if both are empty."""
    first, second = (read_mask(each) for each in (first_png, second_png))
    if first.size < second.size:
        first, second = second, first
    if not second.size:
        return None
    second = fit_mask(second, (first.shape[0], first.shape[1]))
    total = int(first.sum()) + int(second.sum())
    return 2 * int((first & second).sum()) / total if total else None


def read_mask(png: bytes | None) -> NDArray[np.bool_]:
    """Return a stored mask (H, W); an empty array if there is none, or if it cannot be read."""
    image = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE) if png else None
    return np.zeros((0, 0), np.bool_) if image is None else np.asarray(image) > 0


def fit_mask(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return a mask at another (height, width)."""
    return np.asarray(cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST)) > 0
