"""``report.html``: one page, without scripts or anything from elsewhere, that shows how the thresholds came about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import jinja2
import numpy as np

from monitor.core.calibration import clopper_pearson
from schemas.artifacts import Manifest, VerdictCalibration
from trainer.report_charts import BAR_ROOM, CURVE_HEIGHT, LEFT, RIGHT, WIDTH, draw_example, level_curve, score_histogram
from trainer.report_data import CalibrationReport

TEMPLATE: Final = "report.html.j2"
# With none of n parts flagged, the rate is below 3 / n with 95 % confidence: the rule of three.
RULE_OF_THREE: Final = 3.0
WHAT_KINDS_ARE: Final = {
    "crack": "a thin, wandering line, often with branches",
    "scratch": "a long and nearly straight line",
    "blob": "a spot with a sharp or a soft edge",
    "specks": "a few small dots",
    "misplaced": "a piece of the part where another belongs",
}


@dataclass(frozen=True, slots=True)
class KindRow:
    """How many of one kind of synthetic defect are flagged, with the exact 95 % interval of the share."""

    name: str
    what: str
    flagged: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The flagged ones' share."""
        return self.flagged / self.total


def render_report(report: CalibrationReport, manifest: Manifest) -> str:
    """Return the page. Names from the outside (folders, kinds) are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    calibration = manifest.calibration
    pictures = [draw_example(example) for example in report.examples]
    best = max(range(len(report.candidates)), key=lambda index: report.candidates[index].dice, default=None)
    return environment.get_template(TEMPLATE).render(
        manifest=manifest,
        calibration=calibration,
        verdict=calibration.verdict,
        promise=promise(calibration.verdict, manifest),
        histogram=score_histogram(report, calibration.verdict),
        curve=level_curve(report.level_curve, calibration.mask_threshold),
        rows=kind_rows(report, calibration.verdict.threshold),
        candidates=report.candidates,
        best=best,
        sheet=[(kind, list(each)) for kind, each in groupby(pictures, key=lambda picture: picture.example.kind)],
        size={"width": WIDTH, "left": LEFT, "right": RIGHT, "bar": BAR_ROOM, "curve": CURVE_HEIGHT},
    )


def promise(verdict: VerdictCalibration, manifest: Manifest) -> str:
    """Say in a sentence whether the wanted rate of false rejects can be promised, and if not, what that would take."""
    wanted = percent(verdict.wanted_false_reject_rate)
    needed = math.ceil(RULE_OF_THREE / verdict.wanted_false_reject_rate) if verdict.wanted_false_reject_rate else 0
    if verdict.false_reject_high <= verdict.wanted_false_reject_rate:
        return f"So the wanted {wanted} is kept."
    if needed and verdict.normals >= needed:
        return f"The wanted {wanted} lies within: what was seen agrees with it."
    if not needed:
        return "No number of good parts can promise that none is ever flagged."
    held_back = verdict.normals / (manifest.data.train_images + manifest.data.validation_images)
    return (
        f"That is too little to promise the wanted {wanted}: it takes about {needed} good parts held back and none of "
        f"them flagged, so about {_rounded(needed / held_back)} images in all."
    )


def kind_rows(report: CalibrationReport, threshold: float) -> list[KindRow]:
    """Count how many of each kind score above the verdict line."""
    kinds = np.array(report.kinds)
    above = np.asarray(report.defective_scores) > threshold
    rows = []
    for name in sorted(set(report.kinds)):
        flagged, total = int(above[kinds == name].sum()), int((kinds == name).sum())
        rows.append(KindRow(name, WHAT_KINDS_ARE.get(name, ""), flagged, total, *clopper_pearson(flagged, total)))
    return rows


def percent(share: float) -> str:
    """Return a share as people write it: 0 %, 0.05 %, 4.4 %, 87 %."""
    value = 100 * share
    digits = 0 if value == 0 or value >= 10 else 1 if value >= 0.1 else 2  # noqa: PLR2004 - where digits stop telling
    text = f"{value:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text}\N{NO-BREAK SPACE}%"


def _rounded(count: float) -> int:
    """Return a number of images as roughly as it is known: two figures."""
    step: int = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / step) * step
