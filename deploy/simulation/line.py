"""The line: part after part, each a function of the settings and its index alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from deploy.simulation.camera import expose, illumination, sensor_noise, soften
from deploy.simulation.defects import apply_blemish, draw_blemish
from deploy.simulation.pose import Field
from deploy.simulation.product import (
    COLUMNS,
    ROWS,
    Carrier,
    add_spots,
    add_stamp,
    make_carrier,
    paint_bare,
    spot_disc,
)
from deploy.simulation.settings import LineSettings, Stream, chance, check_kind, check_number

VISIBLE = 3  # Grey levels; a pixel that a defect changes by no more than this is not in its mask.
COVERED = 0.5  # A pixel belongs to a missing spot whose disc would cover half of it.
STAMP = "stamp"


@dataclass(frozen=True)
class Part:
    """One part as the camera saw it, and the truth about it.

    Attributes:
        index: Its place on the line, from 0.
        serial: Its serial number, unique to the seed and the index.
        image: uint8, (H, W) grey or (H, W, 3) BGR.
        mask: bool (H, W), the pixels that a defect visibly changed; all False on a good part.
        defect: Its kind of defect; None on a good part.
        variant: "stamp" on a good part with the ink stamp; None otherwise.
    """

    index: int
    serial: str
    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    defect: str | None
    variant: str | None


class SimulatedLine:
    """An endless line of sensor carriers with random access.

    >>> line = SimulatedLine(LineSettings(seed=7))
    >>> line.part(3).image.shape
    (128, 128)
    >>> line.defective_part(3, "crack").mask.any()
    np.True_
    """

    def __init__(self, settings: LineSettings | None = None) -> None:
        """Set the line up; it holds no state but its settings."""
        self.settings = settings or LineSettings()

    def __iter__(self) -> Iterator[Part]:
        """Yield the parts from index 0, without end."""
        return map(self.part, count())

    def part(self, index: int) -> Part:
        """Return the part at `index`, defective with the settings' `defect_rate`.

        Raises:
            ValueError: `index` is negative or no integer.
        """
        _check_index(index)
        fate = chance(self.settings.seed, index, Stream.FATE)
        if fate.random() >= self.settings.defect_rate:
            return self.good_part(index)
        kinds = self.settings.defects
        return self.defective_part(index, kinds[int(fate.integers(len(kinds)))])

    def good_part(self, index: int) -> Part:
        """Return the carrier at `index` without a defect; stamped where the settings' novelty says so."""
        _check_index(index)
        carrier, bare = self._bare(index)
        painted = add_spots(bare, carrier)
        variant = STAMP if self._is_stamped(index) else None
        if variant == STAMP:
            painted = add_stamp(painted, carrier)
        mask = np.zeros((self.settings.size, self.settings.size), dtype=np.bool_)
        return Part(index, self._serial(index), self._expose(index, painted), mask, None, variant)

    def defective_part(self, index: int, kind: str) -> Part:
        """Return the carrier at `index` with a defect of `kind`: the same carrier, light and noise as the good one.

        Raises:
            ValueError: `kind` is unknown, or `index` is negative or no integer.
        """
        _check_index(index)
        check_kind("kind", kind)
        rng = chance(self.settings.seed, index, Stream.DEFECT)
        carrier, bare = self._bare(index)
        sound = add_spots(bare, carrier)
        if kind == "missing_spot":
            row, column = int(rng.integers(ROWS)), int(rng.integers(COLUMNS))
            image = self._expose(index, add_spots(bare, carrier, without=(row, column)))
            mask = spot_disc(carrier, row, column) >= COVERED
        else:
            blemish = draw_blemish(kind, rng, carrier)
            image = self._expose(index, apply_blemish(sound, blemish))
            mask = _changed(image, self._expose(index, sound)) & (soften(blemish.opacity) >= blemish.threshold)
        return Part(index, self._serial(index), image, mask, kind, None)

    def _bare(self, index: int) -> tuple[Carrier, Field]:
        carrier = make_carrier(chance(self.settings.seed, index, Stream.CARRIER), self.settings)
        return carrier, paint_bare(carrier, 3 if self.settings.colour else 1)

    def _expose(self, index: int, painted: Field) -> NDArray[np.uint8]:
        return expose(painted, illumination(self.settings, index), sensor_noise(self.settings, index))

    def _is_stamped(self, index: int) -> bool:
        first = self.settings.novelty_from
        if first is None or index < first:
            return False
        return bool(chance(self.settings.seed, index, Stream.VARIANT).random() < self.settings.novelty_rate)

    def _serial(self, index: int) -> str:
        return f"SC{self.settings.seed:04d}-{index:07d}"


def _changed(image: NDArray[np.uint8], sound: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the pixels (H, W) that differ by more than VISIBLE grey levels in any channel."""
    difference = np.abs(image.astype(np.int16) - sound)
    changed: NDArray[np.bool_] = difference.reshape(*image.shape[:2], -1).max(axis=-1) > VISIBLE
    return changed


def _check_index(index: int) -> None:
    check_number("index", index, 0, 2**63 - 1, "parts are counted from 0", whole=True)
