"""What the demo tells: which normals it trains on, which parts it measures, and what flows while it is taught."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.local.parts import DemoPart, dataset_parts, simulated, write_normals
from deploy.simulation import LineSettings, SimulatedLine

SIMULATED_NORMALS = 240
SIMULATED_PARTS = 400
FIRST_STREAMED = 100_000  # the index of the first part streamed: none of those trained on


@dataclass(frozen=True)
class Story:
    """The plan of a demo.

    Attributes:
        normals: the images to train on.
        measured: the parts the figures are taken on, each once.
        lesson: what flows afterwards, without end: good parts among which the operator finds false flags.
    """

    normals: Path
    measured: list[DemoPart] | Iterator[DemoPart]
    count: int
    lesson: Iterator[DemoPart]

    def parts(self) -> Iterator[DemoPart]:
        """Return all parts in the order they are streamed; endless."""
        return itertools.chain(self.measured, self.lesson)


def of_dataset(data: Path, frames: int | None, seed: int) -> Story:
    """Train on ``data/train/good``, measure ``data/test`` (at most ``frames`` of it), then repeat its good parts.

    Raises:
        DataError: the folder is not in MVTec layout.
    """
    parts = dataset_parts(data, seed)[:frames]
    good = [part for part in parts if part.good]
    return Story(data, parts, len(parts), itertools.cycle(good or parts))


def of_simulation(directory: Path, frames: int | None, seed: int) -> Story:
    """Train on simulated good parts and measure others; then a harmless ink stamp appears on half of the good ones."""
    count = frames or SIMULATED_PARTS
    novelty = FIRST_STREAMED + count
    line = SimulatedLine(LineSettings(seed=seed, novelty_from=novelty, novelty_rate=0.5))
    normals = directory / "normal-images"
    write_normals(line, normals, SIMULATED_NORMALS)
    measured = (simulated(line.part(index)) for index in range(FIRST_STREAMED, novelty))
    lesson = (simulated(line.part(index)) for index in itertools.count(novelty))
    return Story(normals, measured, count, lesson)
