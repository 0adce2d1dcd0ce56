"""Confirmations of which a tenth are really defects: what the gate keeps of the defects' masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from deploy.bench.learning import Figures, Learning, defects_of, judge_bank, learner_of, line_of
from deploy.bench.pictures import Bar, bars, stack
from deploy.simulation import Part
from deploy.simulation.settings import DEFECT_KINDS
from monitor.core.inspector import Inspector
from monitor.learning.gate import Hidden
from monitor.learning.patches import picture_of

GOLDEN: Final = 8  # of each kind
EVALUATED: Final = 240
SHARE: Final = 10  # one confirmation in so many is a defect
POINTS: Final = 0.02

CLEAN: Final = (70, 150, 40)
OPEN: Final = (60, 60, 210)
GATED: Final = (190, 120, 40)


def run_poison(
    inspector: Inspector, confirmations: int, seed: int, progress: Callable[[int], None]
) -> tuple[Figures, NDArray[np.uint8]]:
    """Teach a bank without an attack, and two with each attack, without and with the gate.

    The attacks: defects of every kind, and missing spots alone, which lie in one of 42 places and so come again.

    Args:
        inspector: a model of the line.
        confirmations: how many parts are confirmed as normal, honest ones and defects together.
        seed: which line.
        progress: called with 1 after each of the five banks.
    """
    line = line_of(inspector, seed=seed, novelty_from=0, novelty_rate=1.0, lighting_drift=-0.05)
    plain = line_of(inspector, seed=seed)
    honest = [line.good_part(1000 + index) for index in range(confirmations)]
    wrong = confirmations // SHARE
    attacks = {
        "every kind": defects_of(plain, 2000, wrong),
        "missing spots": [plain.defective_part(2000 + index, "missing_spot") for index in range(wrong)],
    }
    golden = defects_of(plain, 3000, GOLDEN * len(DEFECT_KINDS))
    good = [plain.good_part(4000 + index) for index in range(EVALUATED)]
    bad = defects_of(plain, 5000, EVALUATED)
    figures: Figures = {"confirmations": confirmations, "poisoned_share": 1 / SHARE}
    refusals: list[Refusal] = []

    def teach(name: str, attack: list[Part], *, gate: bool) -> None:
        learning = learner_of(inspector)
        for part, frame in zip(golden, learning.see(golden), strict=True):
            if gate:
                learning.guard(f"{part.serial}-{part.defect}", frame)
        told = _confirm_all(learning, honest, attack, refusals)
        figures[name] = judge_bank(learning, good, bad) | told | {"learned": learning.learned}
        progress(1)

    teach("clean", [], gate=True)
    for name, attack in attacks.items():
        teach(f"{name}, no gate", attack, gate=False)
        teach(f"{name}, gate", attack, gate=True)
    figures["claims"] = {
        f"{name}: with the gate, Dice within {POINTS} of the clean run, overall and of each kind": _near(
            figures["clean"], figures[f"{name}, gate"]
        )
        for name in attacks
    }
    return figures, _picture(figures, list(attacks), refusals)


Refusal = tuple[Hidden, NDArray[np.float32]]


def _near(clean: object, found: object) -> bool:
    kinds = [(each["dice"]["mean"], *each["dice_of"].values()) for each in (clean, found)]  # type: ignore[index]
    return all(abs(left - right) <= POINTS for left, right in zip(*kinds, strict=True))


def _confirm_all(learning: Learning, honest: list[Part], wrong: list[Part], refusals: list[Refusal]) -> Figures:
    refused_wrong: Counter[str] = Counter()
    refused_honest = 0
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
            refusals.append((decision, frame))
    return {
        "poison_given": dict(Counter(str(part.defect) for part in wrong)),
        "poison_refused": dict(refused_wrong),
        "honest_refused": refused_honest,
    }


def _picture(figures: Figures, attacks: list[str], refusals: list[Refusal]) -> NDArray[np.uint8]:
    charts = []
    for attack in attacks:
        drawn = []
        runs = {"clean": ("clean", CLEAN), "no gate": (f"{attack}, no gate", OPEN), "gate": (f"{attack}, gate", GATED)}
        for kind in ("all", *DEFECT_KINDS):
            for label, (name, colour) in runs.items():
                found: dict[str, dict[str, float]] = figures[name]  # type: ignore[assignment]
                dice = found["dice"]
                value, low, high = dice["mean"], dice["low"], dice["high"]
                if kind != "all":
                    value = low = high = found["dice_of"][kind]
                drawn.append(Bar(label, value, low, high, colour))
        title = f"Dice of defects after one confirmation in {SHARE} was a defect: {attack}"
        charts.append(bars(title, drawn, ["all defects", *(kind.replace("_", " ") for kind in DEFECT_KINDS)]))
    patches = [cv2.imdecode(np.frombuffer(picture_of(*each), np.uint8), cv2.IMREAD_COLOR) for each in refusals[:1]]
    return stack([*charts, *(np.asarray(each, np.uint8) for each in patches)])
