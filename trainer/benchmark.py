"""The benchmark: several methods, one after the other, under one protocol; written as JSON, a table and a picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError, TrainingError
from trainer.baselines.base import Decomposing, Method
from trainer.benchmark_picture import Panel, draw_picture
from trainer.build import Reporter
from trainer.metrics import Estimate
from trainer.protocol import Material, MethodResult, ProtocolSettings, load_material, measure

JSON, TABLE, PICTURE = "benchmark.json", "benchmark.md", "benchmark.jpg"
MEGABYTE = 1e6
COLUMNS = (
    "method", "Dice", "Dice, label-free", "Dice, small", "Dice, small, label-free",
    "pixel AUROC", "AUPRO", "image AUROC", "ms/frame", "fit, s", "MB",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """What a run found: a row per method, in the order asked for, and why others have none."""

    results: tuple[MethodResult, ...]
    failures: dict[str, str]


def run_benchmark(
    methods: Sequence[Method],
    data: Path,
    out: Path,
    settings: ProtocolSettings,
    reporter: Reporter,
    *,
    test: Path | None = None,
    rows: int = 8,
) -> BenchmarkReport:
    """Measure methods on a data set and write ``benchmark.json``, ``benchmark.md`` and ``benchmark.jpg`` to ``out``.

    What is done is written after each method, so that hours of work are not lost with the last.

    Args:
        methods: untrained.
        data: a folder in MVTec layout.
        out: where to write; made if missing, earlier files of these names replaced.
        settings: of the protocol.
        reporter: told of the progress.
        test: take the test images from this folder instead.
        rows: frames in the picture.

    Raises:
        DataError, ConfigurationError: the data are not there, or unreadable.
        TrainingError: a method failed; the others are measured and written all the same.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError("--out", str(out), f"cannot be made: {error}", "Name another folder.") from error
    material = load_material(data, test, settings, reporter.stage)
    shown = choose_rows(material, rows)
    results: list[MethodResult] = []
    panels: list[Panel] = []
    failures: dict[str, str] = {}
    for method in methods:
        try:
            result, panel = _measure(method, material, settings, shown, reporter)
        except TrainingError as error:
            failures[method.name] = str(error)
        else:
            results.append(result)
            panels.append(panel)
        report = BenchmarkReport(tuple(results), dict(failures))
        title = data.name if test is None else f"{data.name}, tested on {test.name}"
        _write(out, title, report, material, settings)
        _, picture = cv2.imencode(PICTURE, draw_picture(material.test, shown, panels))
        (out / PICTURE).write_bytes(picture.tobytes())
    if failures:
        told = "; ".join(f"{name}: {problem}" for name, problem in failures.items())
        msg = f"{len(failures)} of {len(methods)} methods failed, {len(results)} are in {out}. {told}"
        raise TrainingError(msg)
    return BenchmarkReport(tuple(results), failures)


def choose_rows(material: Material, rows: int) -> NDArray[np.intp]:
    """Return the indices (n,) of the frames to show: defective ones with a mask, spread evenly over the set."""
    candidates = np.flatnonzero(material.test.delineated)
    if not len(candidates):
        candidates = np.flatnonzero(~material.test.good)
    places = np.linspace(0, len(candidates) - 1, min(rows, len(candidates)))
    return np.asarray(candidates[np.round(places).astype(int)])


def markdown_table(report: BenchmarkReport) -> str:
    """Return the results as a Markdown table; the best of each column is not marked, the intervals overlap."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    for row in report.results:
        cells = [
            f"{row.method} ({row.backbone})" if row.backbone else row.method,
            *map(_interval, (row.dice, row.label_free, row.dice_small, row.label_free_small)),
            *map(_number, (row.pixel_auroc, row.aupro, row.image_auroc)),
            f"{row.milliseconds:.1f}",
            f"{row.fit_seconds:.0f}",
            f"{row.size_bytes / MEGABYTE:.1f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _measure(
    method: Method, material: Material, settings: ProtocolSettings, shown: NDArray[np.intp], reporter: Reporter
) -> tuple[MethodResult, Panel]:
    measured = measure(method, material, settings, reporter.stage)
    maps = measured.maps[shown]
    # Half of all pixels are dark in the picture, and one in two hundred as bright as can be.
    dark, bright = np.quantile(measured.maps, (0.5, 0.995))
    layers = method.layers(material.test.images[shown]) if isinstance(method, Decomposing) else None
    rule = measured.result.rule
    return measured.result, Panel(method.name, maps, (float(dark), float(bright)), rule.masks(maps), layers)


def _write(out: Path, title: str, report: BenchmarkReport, material: Material, settings: ProtocolSettings) -> None:
    test = material.test
    frames = {
        "normals": len(material.parts.train),
        "validation": len(material.parts.validation),
        "test_good": int(test.good.sum()),
        "test_defective": int((~test.good).sum()),
        "test_with_mask": int(test.delineated.sum()),
        "test_unregistered": test.unregistered,
        "height": test.images.shape[2],
        "width": test.images.shape[3],
        "channels": test.images.shape[1],
    }
    document = {"data": title, "frames": frames, "settings": asdict(settings), **asdict(report)}
    (out / JSON).write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
    small = " to ".join(f"{share:.1%}" for share in settings.small)
    text = (
        f"# {title}\n\n"
        f"{frames['normals']} normals to learn from, {frames['validation']} for thresholds; tested on "
        f"{frames['test_good']} good and {frames['test_defective']} defective frames "
        f"({frames['test_with_mask']} with a mask), {frames['height']}x{frames['width']}.\n\n"
        f"{markdown_table(report)}\n"
        "Dice: mean over defective frames, 95 % bootstrap interval; thresholds chosen on one half of them and reported "
        f"on the other, {settings.repeats} random halvings. Label-free: the threshold chosen on synthetic defects on "
        f"validation normals. Small: defects of {small} of the frame. AUPRO: to a false-positive rate of 0.3.\n"
    )
    if test.unregistered:
        text += f"\n{test.unregistered} test frames could not be registered and were measured where they lie.\n"
    if report.failures:
        text += "\n" + "".join(f"- {name} failed: {problem}\n" for name, problem in report.failures.items())
    (out / TABLE).write_text(text, encoding="utf-8")


def _interval(value: Estimate | None) -> str:
    return "–" if value is None else f"{value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
