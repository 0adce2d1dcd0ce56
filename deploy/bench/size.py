"""Search and accuracy against the number of confirmed parts: every part kept whole, and what admission keeps."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from deploy.bench.learning import Figures, Learning, defects_of, judge_bank, learner_of, line_of
from deploy.bench.pictures import Curve, chart, stack
from deploy.simulation import SimulatedLine
from monitor.core.inspector import Inspector

START: Final = 500
AT_ONCE: Final = 64
QUERIED: Final = 16
REPEATS: Final = 9
EVALUATED: Final = 120
CHECKPOINTS: Final = (0, 10, 30, 100, 300, 1000, 3000, 10_000)


def run_size(
    inspector: Inspector, frames: int, seed: int, progress: Callable[[int], None]
) -> tuple[Figures, NDArray[np.uint8]]:
    """Confirm ``frames`` good parts to two banks; return the figures at each checkpoint and a picture.

    Args:
        inspector: a model of the line.
        frames: how many good parts are confirmed.
        seed: which line.
        progress: called with how many parts more are confirmed.
    """
    line = line_of(
        inspector, seed=seed, lighting_sway=0.1, sway_period=700, lighting_drift=-0.05, drift_parts=10_000,
        novelty_from=0, novelty_rate=0.05,
    )  # fmt: skip
    banks = {"whole": learner_of(inspector), "compact": learner_of(inspector)}
    rows: list[Figures] = []
    done = 0
    for checkpoint in [each for each in CHECKPOINTS if each < frames] + [frames]:
        while done < checkpoint:
            count = min(AT_ONCE, checkpoint - done)
            _confirm(banks, line, START + done, count)
            done += count
            progress(count)
        rows.append({"confirmed": done} | {name: _measure(bank, line) for name, bank in banks.items()})
    _time_side_by_side(rows, banks, line)
    return {"rows": rows}, _picture(rows)


def _confirm(banks: dict[str, Learning], line: SimulatedLine, first: int, count: int) -> None:
    whole, compact = banks["whole"], banks["compact"]
    frames = whole.see([line.good_part(first + index) for index in range(count)])
    for entry in whole.inspector.remember(frames):
        whole.bank.put(len(whole.bank), entry)
    usual = whole.inspector.drift_baseline.usual_score
    for frame, found in zip(frames, compact.inspect(frames), strict=True):
        compact.confirmed += 1
        # Admission would look again and say that it adds nothing.
        if found.score > usual:
            compact.confirm(frame)


def _measure(learning: Learning, line: SimulatedLine) -> Figures:
    good = [line.good_part(20_000 + 7 * index) for index in range(EVALUATED)]
    found = judge_bank(learning, good, defects_of(line, 21_000, EVALUATED))
    frames = learning.see(good[:QUERIED])
    return {
        "entries": learning.learned,
        "rows": learning.bank.rows,
        "bytes": learning.size_bytes,
        "query_ms": round(1000 * _seconds(lambda: _query(learning, frames)) / QUERIED, 3),
        "inspect_ms": round(1000 * _seconds(lambda: learning.inspect(frames)) / QUERIED, 2),
        **found,
    }


def _time_side_by_side(rows: list[Figures], banks: dict[str, Learning], line: SimulatedLine) -> None:
    """Add the ratio of the two banks' search times at the end, taken in turns."""
    frames = banks["whole"].see([line.good_part(index) for index in range(QUERIED)])
    ratios = [
        _seconds(lambda: _query(banks["whole"], frames)) / _seconds(lambda: _query(banks["compact"], frames))
        for _ in range(REPEATS)
    ]
    rows[-1]["whole_search_by_compact"] = round(median(ratios), 2)


def _query(learning: Learning, frames: NDArray[np.float32]) -> None:
    features = torch.from_numpy(learning.inspector.features(frames)).permute(0, 3, 1, 2)
    learning.bank.query(features)


def _seconds(action: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        started = perf_counter()
        action()
        taken.append(perf_counter() - started)
    return median(taken)


def _picture(rows: list[Figures]) -> NDArray[np.uint8]:
    def of(name: str, value: Callable[[dict[str, dict[str, float]]], float], most: float = 1.0) -> list[float]:
        return [value(row[name]) / most for row in rows]  # type: ignore[arg-type]

    most = max(of("whole", lambda found: found["bytes"]))  # type: ignore[arg-type,return-value]
    most = max(most, 1.0)
    names = {"whole": (60, 60, 210), "compact": (70, 150, 40)}
    memory = [Curve(name, of(name, lambda found: found["bytes"], most), colour) for name, colour in names.items()]  # type: ignore[arg-type,return-value]
    dice = [Curve(name, of(name, lambda found: found["dice"]["mean"]), colour) for name, colour in names.items()]
    below = "confirmed parts: " + ", ".join(str(row["confirmed"]) for row in rows)
    return stack(
        [
            chart(f"What the bank takes, of {most / 1e6:.0f} MB", memory, below),
            chart("Dice of defects", dice, below),
        ]
    )
