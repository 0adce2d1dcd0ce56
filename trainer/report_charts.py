"""The geometry of the report's pictures, in the units of their SVG: what the template writes down as it is."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.artifacts import VerdictCalibration
from trainer.report_data import CalibrationReport, Example

WIDTH, LEFT, RIGHT = 760.0, 46.0, 14.0
BINS, BAR_ROOM = 44, 110.0  # the tallest bar of each half of the histogram
CURVE_HEIGHT = 210.0
MARGIN, CLOSEST = 1.5, 0.3  # a close-up: times the defect's extent, but no less than this share of the frame
MOST_TICKS = 9
LEAST_SPAN = 4.0  # the ends of an axis lie at least so many times apart: there is a tick between them
SMALLEST_SHARE = 1e-4  # scores below this share of the largest are drawn there: a logarithm has no zero


@dataclass(frozen=True, slots=True)
class LogAxis:
    """A logarithmic axis from ``low`` to ``high`` across the picture."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Return where a value stands; what lies outside stands at the end."""
        share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        return round(LEFT + min(share, 1.0) * (WIDTH - LEFT - RIGHT), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return places and labels at 1, 2 and 5 times the powers of ten, or at these alone where it gets crowded."""
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for steps in ((1, 2, 5), (1, 3), (1,)):
            values = [step * 10.0**decade for decade in decades for step in steps]
            values = [value for value in values if self.low <= value <= self.high]
            if len(values) <= MOST_TICKS:
                break
        return [(self.place(value), f"{value:g}") for value in values]


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of the histogram: left edge, width, height, and how many it stands for."""

    x: float
    width: float
    height: float
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """Scores of good parts, upwards, and of defective ones, downwards, on one axis with the verdict line."""

    good: list[Bar]
    defective: list[Bar]
    most_good: int
    most_defective: int
    line: float
    ticks: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Curve:
    """Dice against the level: the points of a polyline, the chosen level, and the ticks of both axes."""

    points: str
    chosen: tuple[float, float]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Picture:
    """An example: the image as a data URI, the part of it to show, the truth's outline and the found mask's area."""

    example: Example
    width: int
    height: int
    view: tuple[float, float, float]  # left, top and side of the square
    uri: str
    truth: str
    found: str


def score_histogram(report: CalibrationReport, verdict: VerdictCalibration) -> Histogram:
    """Count the scores in bins that are alike for both, one of which ends at the verdict line."""
    scores = [np.asarray(each, np.float64) for each in (report.normal_scores, report.defective_scores)]
    axis = _axis(np.concatenate([*scores, [verdict.threshold]]))
    edges = _edges(axis, verdict.threshold)
    good, defective = (_count(each, edges) for each in scores)
    return Histogram(
        good=_bars(good, edges, axis),
        defective=_bars(defective, edges, axis),
        most_good=int(good.max()),
        most_defective=int(defective.max()),
        line=axis.place(verdict.threshold),
        ticks=axis.ticks(),
    )


def level_curve(curve: Sequence[tuple[float, float]], level: float) -> Curve:
    """Draw the curve, and mark the level that was chosen."""
    axis = _axis(np.array([level, *(each for each, _ in curve)]))
    points = [(axis.place(each), _height(dice)) for each, dice in curve]
    _, dice = min(curve, key=lambda point: abs(math.log(point[0] / level)))
    return Curve(
        points=" ".join(f"{x},{y}" for x, y in points),
        chosen=(axis.place(level), _height(dice)),
        x_ticks=axis.ticks(),
        y_ticks=[(_height(share), f"{share:g}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)],
    )


def draw_example(example: Example) -> Picture:
    """Return an example's picture; a channel's 8 bits are enough for the eye."""
    pixels = np.clip(example.image.transpose(1, 2, 0) * 255, 0, 255).round().astype(np.uint8)
    _, png = cv2.imencode(".png", pixels)
    uri = "data:image/png;base64," + base64.b64encode(png.tobytes()).decode()
    height, width = example.truth.shape
    view = _close_up(example.truth | example.found)
    return Picture(example, width, height, view, uri, outline(example.truth), area(example.found))


def _close_up(mask: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return (left, top, side) of the square around a mask (H, W), with a margin, within the frame where it fits."""
    height, width = mask.shape
    if not mask.any():
        return 0.0, 0.0, float(max(height, width))
    rows, columns = np.nonzero(mask)
    extent = 1 + max(float(np.ptp(rows)), float(np.ptp(columns)))
    side = min(max(extent * MARGIN, CLOSEST * max(height, width)), float(max(height, width)))
    left, top = (
        min(max((float(each.min()) + float(each.max()) + 1 - side) / 2, 0.0), max(0.0, size - side))
        for each, size in ((columns, width), (rows, height))
    )
    return round(left, 1), round(top, 1), round(side, 1)


def outline(mask: NDArray[np.bool_]) -> str:
    """Return the edges between the pixels inside and outside of a mask (H, W), as an SVG path; '' without any."""
    padded = np.pad(mask, 1)
    return "".join(
        [
            *(_runs(padded[1:] ^ padded[:-1], "M{1} {0}h{2}")),
            *(_runs((padded[:, 1:] ^ padded[:, :-1]).T, "M{0} {1}v{2}")),
        ]
    )


def area(mask: NDArray[np.bool_]) -> str:
    """Return the pixels of a mask (H, W) as the SVG path of their rows; '' without any."""
    return "".join(_runs(np.pad(mask, ((0, 0), (1, 1))), "M{1} {0}h{2}v1h-{2}z"))


def _runs(edges: NDArray[np.bool_], form: str) -> list[str]:
    """Return each run along the lines of an array, written as (line, start, length); lines have a margin of one."""
    steps = np.diff(np.pad(edges, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    lines, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    return [form.format(line, start - 1, end - start) for line, start, end in zip(lines, starts, ends, strict=True)]


def _axis(values: NDArray[np.float64]) -> LogAxis:
    """Return an axis that holds the values with a little room at the ends."""
    positive = values[values > 0]
    if not len(positive):
        return LogAxis(0.1, 10.0)
    high = float(positive.max())
    low = max(float(positive.min()), SMALLEST_SHARE * high)
    room = max(1.15, math.sqrt(LEAST_SPAN * low / high))
    return LogAxis(low / room, high * room)


def _edges(axis: LogAxis, line: float) -> NDArray[np.float64]:
    """Return the edges of bins that cover the axis; the verdict line is one of them, where it lies on the axis."""
    edges = np.geomspace(axis.low, axis.high, BINS + 1)
    if axis.low < line < axis.high:
        inner = edges[1:-1]
        nearest = int(np.argmin(np.abs(np.log(inner / line))))
        inner *= line / inner[nearest]
        inner[nearest] = line  # to the bit: a score on the line is not above it
        inner = inner[(inner > axis.low) & (inner < axis.high)]
        edges = np.concatenate([[axis.low], inner, [axis.high]])
    return edges


def _count(scores: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return how many scores each bin (from, to] holds; the outermost ones hold also what lies beyond."""
    bins = np.searchsorted(edges[1:-1], scores, side="left")
    return np.bincount(bins, minlength=len(edges) - 1).astype(np.int64)


def _bars(counts: NDArray[np.int64], edges: NDArray[np.float64], axis: LogAxis) -> list[Bar]:
    tallest = max(1, int(counts.max()))
    places = [axis.place(float(edge)) for edge in edges]
    return [
        Bar(left, round(right - left - 1, 1), round(BAR_ROOM * int(count) / tallest, 1), int(count))
        for left, right, count in zip(places[:-1], places[1:], counts, strict=True)
        if count
    ]


def _height(dice: float) -> float:
    return round(CURVE_HEIGHT * (1 - dice), 1)
