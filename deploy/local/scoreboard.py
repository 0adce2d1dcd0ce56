"""How the line does: read from the database, held against the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from deploy.local.parts import DemoPart
from schemas.messages import Verdict
from schemas.tables import DeadLetterRow, InspectionRow
from trainer.metrics import auroc, estimate, mean_dice, shrink


@dataclass(frozen=True)
class Judged:
    """One inspected frame, held against the truth.

    Attributes:
        dice: of the stored mask and the truth at the mask's size; None on a good part.
    """

    frame_id: str
    part: DemoPart
    verdict: Verdict
    score: float | None
    dice: float | None
    mask: NDArray[np.bool_] | None
    bank_version: int | None
    inspected_at: datetime
    latency_ms: float


class Scoreboard:
    """Reads new inspections from the database and counts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last_id = 0
        self.verdicts = dict.fromkeys(Verdict, 0)
        self.dices: list[float] = []
        self.good_scores: list[float] = []
        self.defect_scores: list[float] = []
        self.false_flags = 0
        self.missed = 0
        self.latencies: list[float] = []
        self.times: list[datetime] = []
        self.first_version: int | None = None
        self.version: int | None = None
        self.measuring = True

    @property
    def dead_lettered(self) -> int:
        """Frames in the dead letters."""
        with Session(self._engine) as session:
            return session.scalar(select(func.count()).select_from(DeadLetterRow)) or 0

    @property
    def flagged(self) -> int:
        """Frames stored as defective."""
        return self.verdicts[Verdict.DEFECT]

    @property
    def settled(self) -> int:
        """Frames stored, with a verdict or as uninspected."""
        return sum(self.verdicts.values())

    @property
    def inspected(self) -> int:
        """Frames stored with a verdict."""
        return self.verdicts[Verdict.NORMAL] + self.verdicts[Verdict.DEFECT]

    def read(self, sent: dict[str, DemoPart], most: int | None = None) -> Iterator[Judged]:
        """Yield the inspections stored since the last call, at most so many, held against what was sent."""
        query = select(InspectionRow).where(InspectionRow.id > self._last_id).order_by(InspectionRow.id).limit(most)
        with Session(self._engine) as session:
            rows = list(session.scalars(query))
            session.expunge_all()
        for row in rows:
            self._last_id = row.id
            part = sent.get(row.frame_id)
            if part is not None:
                judged = judge(row, part)
                self._count(judged)
                yield judged

    def _count(self, judged: Judged) -> None:
        self.verdicts[judged.verdict] += 1
        if judged.bank_version is not None:
            self.first_version = judged.bank_version if self.first_version is None else self.first_version
            self.version = max(self.version or 0, judged.bank_version)
        if not self.measuring:
            return
        self.latencies.append(judged.latency_ms)
        self.times.append(judged.inspected_at)
        if judged.score is None:
            return
        (self.good_scores if judged.part.good else self.defect_scores).append(judged.score)
        self.false_flags += judged.part.good and judged.verdict is Verdict.DEFECT
        self.missed += not judged.part.good and judged.verdict is Verdict.NORMAL
        if judged.dice is not None:
            self.dices.append(judged.dice)

    def first_inspected_with(self, version: int) -> datetime | None:
        """Return when a worker first inspected a frame with this bank version or a later one."""
        with Session(self._engine) as session:
            return session.scalar(
                select(func.min(InspectionRow.inspected_at)).where(InspectionRow.bank_version >= version)
            )

    def fps(self, last: int | None = None) -> float:
        """Return frames inspected a second, over the ``last`` so many or all that were measured."""
        times = self.times[-last:] if last else self.times
        seconds = (times[-1] - times[0]).total_seconds() if len(times) > 1 else 0.0
        return (len(times) - 1) / seconds if seconds > 0 else 0.0

    def latency_ms(self, share: float) -> float | None:
        """Return a quantile of the time from capture to inspected."""
        return float(np.quantile(self.latencies, share)) if self.latencies else None

    def dice_mean(self) -> float | None:
        """Return the mean Dice over the defective parts."""
        return float(np.mean(self.dices)) if self.dices else None

    def dice_interval(self) -> tuple[float, float] | None:
        """Return the 95 % bootstrap interval of the mean Dice."""
        if not self.dices:
            return None
        interval = estimate(np.asarray(self.dices))
        return interval.low, interval.high

    def image_auroc(self) -> float | None:
        """Return how often a defective part scores above a good one."""
        if not self.good_scores or not self.defect_scores:
            return None
        return auroc(np.asarray(self.good_scores), np.asarray(self.defect_scores))


def judge(row: InspectionRow, part: DemoPart) -> Judged:
    """Hold one stored inspection against the truth."""
    mask = _decode(row.mask_png) if row.mask_png else None
    dice = None
    if not part.good and mask is not None:
        truth = shrink(part.truth, (mask.shape[0], mask.shape[1]))
        dice = mean_dice(mask[None], truth[None])
    return Judged(
        frame_id=row.frame_id,
        part=part,
        verdict=Verdict(row.verdict),
        score=row.score,
        dice=dice,
        mask=mask,
        bank_version=row.bank_version,
        inspected_at=row.inspected_at,
        latency_ms=row.latency_ms,
    )


def _decode(png: bytes) -> NDArray[np.bool_]:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)) > 0
