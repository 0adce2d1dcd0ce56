"""Confirmations of which a tenth are really defects: what the gate keeps of the defects' masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.bench.learning import Figures, Learning, defects_of, judge_bank, learner_of
from deploy.bench.pictures import Bar, bars, stack
from deploy.simulation import LineSettings, Part, SimulatedLine
from deploy.simulation.settings import DEFECT_KINDS
from monitor.core.inspector import Inspector
from monitor.learning.gate import Hidden
from monitor.learning.patches import picture_of

GOLDEN: Final = 8  # of each kind
EVALUATED: Final = 240
SHARE: Final = 10  # one confirmation in so many is a defect
POINTS: Final = 0.02

COLOURS: Final = {"clean": (70, 150, 40), "no gate": (60, 60, 210), "gate": (190, 120, 40)}


def run_poison(
    inspector: Inspector, confirmations: int, seed: int, progress: Callable[[int], None]
) -> tuple[Figures, NDArray[np.uint8]]:
    """Teach three banks; return the figures and a picture.

    Args:
        inspector: a model of the line.
        confirmations: how many parts are confirmed as normal, honest ones and defects together.
        seed: which line.
        progress: called with 1 after each bank.
    """
    line = SimulatedLine(LineSettings(seed=seed, novelty_from=0, novelty_rate=1.0, lighting_drift=-0.05))
    plain = SimulatedLine(LineSettings(seed=seed))
    honest = [line.good_part(1000 + index) for index in range(confirmations)]
    wrong = defects_of(plain, 2000, confirmations // SHARE + 1)
    golden = defects_of(plain, 3000, GOLDEN * len(DEFECT_KINDS))
    good = [plain.good_part(4000 + index) for index in range(EVALUATED)]
    bad = defects_of(plain, 5000, EVALUATED)
    figures: Figures = {"confirmations": confirmations, "poisoned_share": 1 / SHARE}
    refused: Hidden | None = None
    for name in COLOURS:
        learning = learner_of(inspector)
        if name != "no gate":
            for part, frame in zip(golden, learning.see(golden), strict=True):
                learning.guard(part.serial, frame)
        told, last = _confirm_all(learning, honest, [] if name == "clean" else wrong)
        refused = last or refused
        figures[name] = judge_bank(learning, good, bad) | told | {"learned": learning.learned}
        progress(1)
    clean, gated = (figures[name]["dice"]["mean"] for name in ("clean", "gate"))  # type: ignore[index]
    figures["claims"] = {f"with the gate, Dice within {POINTS} of the clean run": abs(clean - gated) <= POINTS}
    return figures, _picture(figures, refused, wrong, learning)


def _confirm_all(learning: Learning, honest: list[Part], wrong: list[Part]) -> tuple[Figures, Hidden | None]:
    refused_wrong: Counter[str] = Counter()
    refused_honest, last = 0, None
    for number, part in enumerate(honest):
        poisoned = wrong[number // SHARE] if wrong and number % SHARE == SHARE - 1 else None
        (frame,) = learning.see([poisoned or part])
        decision = learning.confirm(frame)
        if not isinstance(decision, Hidden):
            continue
        if poisoned is None:
            refused_honest += 1
        else:
            refused_wrong[str(poisoned.defect)] += 1
            last = decision
    given = Counter(str(part.defect) for part in wrong[: len(honest) // SHARE])
    told: Figures = {
        "poison_given": dict(given),
        "poison_refused": dict(refused_wrong),
        "honest_refused": refused_honest,
    }
    return told, last


def _picture(figures: Figures, refused: Hidden | None, wrong: list[Part], learning: Learning) -> NDArray[np.uint8]:
    drawn = []
    for kind in ("all", *DEFECT_KINDS):
        for name, colour in COLOURS.items():
            found: dict[str, dict[str, float]] = figures[name]  # type: ignore[assignment]
            if kind == "all":
                value, low, high = (found["dice"][key] for key in ("mean", "low", "high"))
            else:
                value = low = high = found["dice_of"][kind]
            drawn.append(Bar(f"{kind.split('_')[0]}:{name}", value, low, high, colour))
    top = bars("Dice of defects, after a tenth of the confirmations were defects", drawn, "by kind of defect")
    if refused is None:
        return top
    frames = learning.see(wrong)
    # The part that was refused: the one whose odd place is the refused one's.
    pictures = [picture_of(refused, frame) for frame in frames[:1]]
    patches = cv2.imdecode(np.frombuffer(pictures[0], np.uint8), cv2.IMREAD_COLOR)
    return stack([top, np.asarray(patches, np.uint8)])
