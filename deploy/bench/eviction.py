"""Which entry should make room? Policies side by side, with budgets that are far too small for the line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from deploy.bench.learning import AT_ONCE, Figures, Learning, line_of, rate
from deploy.bench.pictures import Bar, bars
from monitor.core.inspector import Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.learning.admission import Admission
from monitor.learning.eviction import Policy, least_needed, oldest, outlived

START: Final = 500
BUDGETS: Final = (150_000, 300_000)


def streams(seed: int) -> dict[str, dict[str, Any]]:
    """Return the settings of two lines: light that comes back, and light that fades while a variant is rare."""
    return {
        "light comes and goes": {"seed": seed, "lighting_sway": 0.16, "sway_period": 600, "defect_rate": 0.05},
        "a rare variant": {
            "seed": seed, "lighting_drift": -0.2, "drift_parts": 3000, "novelty_from": 0, "novelty_rate": 0.05,
            "defect_rate": 0.05,
        },
    }  # fmt: skip


def policies() -> dict[str, Policy]:
    """Return the policies by name."""
    rng = np.random.default_rng(0)

    def any_of(bank: MemoryBank, learned: Sequence[int]) -> int:  # noqa: ARG001 - the policies' signature
        return int(rng.choice(learned))

    return {"outlived": outlived, "least needed": least_needed, "oldest": oldest, "any": any_of}


def run_eviction(
    inspector: Inspector, frames: int, seed: int, progress: Callable[[int], None]
) -> tuple[Figures, NDArray[np.uint8]]:
    """Run every policy on every stream with every budget; return the figures and a picture.

    Args:
        inspector: a model of the line.
        frames: how many parts pass in each run, every second one of the line.
        seed: which line.
        progress: called with 1 at the end.
    """
    figures: Figures = {"frames": frames}
    drawn = []
    colours = {
        "outlived": (70, 150, 40),
        "least needed": (190, 120, 40),
        "oldest": (60, 60, 210),
        "any": (170, 170, 170),
    }
    for stream, settings in streams(seed).items():
        for budget in BUDGETS:
            for name, policy in policies().items():
                found = _run(inspector, settings, policy, budget, frames)
                figures[f"{stream}, {budget // 1000} kB, {name}"] = found
                share: dict[str, float] = found["false_rejects"]  # type: ignore[assignment]
                bar = Bar(f"{name}", share["rate"], share["low"], share["high"], colours[name])
                drawn.append(bar)
    progress(1)
    groups = [f"{stream}, {budget // 1000} kB" for stream in streams(seed) for budget in BUDGETS]
    return figures, bars("Good parts flagged in the second half, by policy of eviction", drawn, groups)


def _run(inspector: Inspector, settings: dict[str, Any], policy: Policy, budget: int, frames: int) -> Figures:
    line = line_of(inspector, **settings)
    usual = inspector.drift_baseline.usual_score
    learning = Learning(inspector, Admission(inspector, budget, usual, policy))
    good: list[bool] = []
    stamped: list[bool] = []
    bad: list[bool] = []
    for first in range(0, frames, AT_ONCE):
        parts = [line.part(START + 2 * index) for index in range(first, first + AT_ONCE)]
        seen = learning.see(parts)
        for frame, part, found in zip(seen, parts, learning.inspect(seen), strict=True):
            late = first >= frames // 2
            if late:
                (good if part.defect is None else bad).append(found.flagged)
            if late and part.variant:
                stamped.append(found.flagged)
            if part.defect is None and found.flagged:
                learning.confirm(frame)
    return {
        "false_rejects": rate(good),
        "false_rejects_of_the_variant": rate(stamped) if stamped else None,
        "detected": rate(bad),
        "confirmed": learning.confirmed,
        "learned": learning.learned,
        "bytes": learning.size_bytes,
    }
