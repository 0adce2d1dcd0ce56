"""A line whose lighting changes: a frozen bank beside one that learns what the operator confirms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from deploy.bench.learning import AT_ONCE, Figures, Learning, defects_of, judge_bank, learner_of, line_of, rate
from deploy.bench.pictures import Curve, chart, overlays, stack
from deploy.simulation import Part, SimulatedLine
from monitor.core.inspector import Inspector

START: Final = 500  # training has seen the parts before
EVALUATED: Final = 200
BIN: Final = 100


@dataclass
class _Run:
    """One bank's way along the line: which good parts it flagged."""

    learning: Learning
    teaches: bool
    flagged: list[bool]


def run_drift(
    inspector: Inspector, amplitude: float, frames: int, seed: int, progress: Callable[[int], None]
) -> tuple[Figures, NDArray[np.uint8]]:
    """Run both banks along the line; return the figures and a picture.

    Args:
        inspector: a model of the undrifted line.
        amplitude: the change of brightness over all frames, such as -0.15.
        frames: how many parts pass.
        seed: which line.
        progress: called with how many parts more have passed.
    """
    line = line_of(inspector, seed=seed, lighting_drift=amplitude, drift_parts=START + frames, defect_rate=0.1)
    still = line_of(inspector, seed=seed, defect_rate=0.1)
    runs = {name: _Run(learner_of(inspector), name == "online", []) for name in ("frozen", "online")}
    before = _evaluate(runs["frozen"].learning, still, START + frames)
    for first in range(START, START + frames, AT_ONCE):
        parts = [line.part(index) for index in range(first, min(first + AT_ONCE, START + frames))]
        for run in runs.values():
            _pass_by(run, parts)
        progress(len(parts))
    after = {name: _evaluate(run.learning, line, START + frames) for name, run in runs.items()}
    online = runs["online"].learning
    figures: Figures = {
        "amplitude": amplitude,
        "frames": frames,
        "start": before,
        "end": after,
        "stream_end": {name: rate(run.flagged[-300:]) for name, run in runs.items()},
        "confirmed": online.confirmed,
        "learned": online.learned,
        "learned_bytes": online.size_bytes,
        "false_rejects_by_hundred": {name: _by_hundred(run.flagged) for name, run in runs.items()},
    }
    figures["claims"] = _claims(figures)
    return figures, _picture(figures, runs, line, START + frames)


def _pass_by(run: _Run, parts: list[Part]) -> None:
    frames = run.learning.see(parts)
    for frame, part, found in zip(frames, parts, run.learning.inspect(frames), strict=True):
        if part.defect is None:
            run.flagged.append(found.flagged)
        if not run.teaches or not found.flagged:
            continue
        if part.defect is None:
            run.learning.confirm(frame)
        else:
            run.learning.guard(f"{part.serial}-{part.defect}", frame)


def _evaluate(learning: Learning, line: SimulatedLine, start: int) -> Figures:
    good = [line.good_part(start + index) for index in range(EVALUATED)]
    return judge_bank(learning, good, defects_of(line, start, EVALUATED))


def _claims(figures: Figures) -> dict[str, bool]:
    end, start = figures["end"], figures["start"]
    frozen, online = end["frozen"], end["online"]  # type: ignore[index]
    return {
        "false rejects at the end are a fifth of the frozen bank's, or less": (
            online["false_rejects"]["rate"] <= frozen["false_rejects"]["rate"] / 5
        ),
        "as many defects are detected as at the start": (
            online["detected"]["rate"] >= start["detected"]["rate"]  # type: ignore[index]
        ),
    }


def _by_hundred(flagged: list[bool]) -> list[float]:
    return [round(float(np.mean(flagged[first : first + BIN])), 3) for first in range(0, len(flagged), BIN)]


def _picture(figures: Figures, runs: dict[str, _Run], line: SimulatedLine, end: int) -> NDArray[np.uint8]:
    by_hundred: dict[str, list[float]] = figures["false_rejects_by_hundred"]  # type: ignore[assignment]
    light = np.linspace(0, 1, len(by_hundred["frozen"]))
    curves = [
        Curve("frozen bank", by_hundred["frozen"], (60, 60, 210)),
        Curve("bank that learns", by_hundred["online"], (70, 150, 40)),
        Curve(f"change of light, of {figures['amplitude']:+.0%}", light.tolist(), (190, 190, 190)),
    ]
    title = "Good parts flagged, per hundred, while the light changes"
    parts = [line.good_part(end), line.defective_part(end, "scratch"), line.defective_part(end, "crack")]
    rows = [overlays(f"at the end, {name}", run.learning, parts) for name, run in runs.items()]
    return stack([chart(title, curves, f"good parts, of {figures['frames']} in all"), *rows])
