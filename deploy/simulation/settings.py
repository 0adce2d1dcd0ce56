"""What a simulated line can be told, and the checks that refuse a line that cannot be built."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

DEFECT_KINDS = ("crack", "scratch", "stain", "missing_spot")

# Each number's lowest and highest value, and what to do about one outside them.
_RANGES: dict[str, tuple[float, float, str]] = {
    "seed": (0, 2**63 - 1, "use a non-negative integer"),
    "size": (64, 512, "render at 64 to 512 px and resize afterwards"),
    "defect_rate": (0.0, 1.0, "give the share of defective parts, such as 0.1"),
    "lighting_drift": (-0.5, 0.5, "give the relative change of brightness, such as -0.2 for a fifth darker"),
    "drift_parts": (1, 2**31, "give the number of parts over which the drift builds up, such as 2000"),
    "lighting_sway": (0.0, 0.2, "give the relative amplitude of the slow sinusoid, such as 0.03"),
    "sway_period": (2, 2**31, "give the parts in one cycle of the sinusoid, such as 600"),
    "shift": (0.0, 4.0, "keep the part inside the image: at most 4 px of a 128 px image"),
    "rotation": (0.0, 3.0, "keep the part inside the image: at most 3 degrees"),
    "novelty_rate": (0.0, 1.0, "give the share of good parts that carry the stamp, such as 0.3"),
}
_WHOLE = frozenset({"seed", "size", "drift_parts", "sway_period"})


@dataclass(frozen=True)
class LineSettings:
    """One simulated line; every part follows from these settings and its index alone.

    Attributes:
        seed: Which line; two lines with the same settings make the same bytes.
        size: Height and width of the image in pixels, 64 to 512.
        colour: BGR images (H, W, 3) rather than grey ones (H, W).
        defect_rate: Share of parts with a defect, 0 to 1.
        defects: The kinds that occur, all equally likely.
        lighting_drift: Relative change of brightness reached after `drift_parts` parts, then held, -0.5 to 0.5.
        drift_parts: Number of parts over which `lighting_drift` builds up linearly.
        lighting_sway: Relative amplitude of the slow sinusoid of the lighting, 0 to 0.2.
        sway_period: Parts in one cycle of that sinusoid.
        shift: Largest misplacement along each axis, in pixels of a 128 px image (it scales with `size`).
        rotation: Largest misplacement about the centre, in degrees.
        novelty_from: First index at which a good part may carry the ink stamp; None for never.
        novelty_rate: Share of the good parts from there on that carry it, 0 to 1.

    Raises:
        ValueError: A setting is out of range; the message names the key, the value and the remedy.
    """

    seed: int = 0
    size: int = 128
    colour: bool = False
    defect_rate: float = 0.1
    defects: tuple[str, ...] = DEFECT_KINDS
    lighting_drift: float = 0.0
    drift_parts: int = 2000
    lighting_sway: float = 0.03
    sway_period: int = 600
    shift: float = 1.0
    rotation: float = 0.4
    novelty_from: int | None = None
    novelty_rate: float = 0.3

    def __post_init__(self) -> None:
        """Refuse the first setting that is out of range."""
        for key, (low, high, remedy) in _RANGES.items():
            check_number(key, getattr(self, key), low, high, remedy, whole=key in _WHOLE)
        if self.novelty_from is not None:
            remedy = "give the index of the first stamped part, or None for no stamps"
            check_number("novelty_from", self.novelty_from, 0, 2**63 - 1, remedy, whole=True)
        for kind in self.defects:
            check_kind("defects", kind)
        if not self.defects and self.defect_rate > 0.0:
            message = f"defects=() leaves nothing to draw at defect_rate={self.defect_rate}: name a kind or set it to 0"
            raise ValueError(message)


def check_number(key: str, value: float, low: float, high: float, remedy: str, *, whole: bool) -> None:
    """Raise ValueError unless `value` is a number in [low, high], and an integer where `whole`."""
    is_number = isinstance(value, (int, np.integer) if whole else (int, float, np.number))
    # A NaN compares false, so it is refused here too; True is an int to Python and a slip to us.
    if isinstance(value, bool) or not is_number or not low <= value <= high:
        noun = "an integer" if whole else "a number"
        message = f"{key}={value!r} is not {noun} in {low:g}..{high:g}: {remedy}"
        raise ValueError(message)


def check_kind(key: str, kind: str) -> None:
    """Raise ValueError unless `kind` is a defect this line can draw."""
    if kind not in DEFECT_KINDS:
        message = f"{key}: {kind!r} is no kind of defect here: choose from {', '.join(DEFECT_KINDS)}"
        raise ValueError(message)


class Stream(IntEnum):
    """One source of chance per concern, so that drawing more in one leaves the others as they were."""

    FATE = 0
    VARIANT = 1
    CARRIER = 2
    DEFECT = 3
    SENSOR = 4
    LAMP = 5


def chance(seed: int, index: int, stream: Stream) -> np.random.Generator:
    """Return the generator of one concern of one part: a function of its arguments alone."""
    return np.random.default_rng((seed, index, int(stream)))
