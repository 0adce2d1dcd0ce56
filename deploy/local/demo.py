"""The demo, top to bottom: train, start the stack, stream, teach, report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from deploy.local.feed import Feed
from deploy.local.live import LiveView
from deploy.local.operator import Operator
from deploy.local.scoreboard import Scoreboard
from deploy.local.sheet import write_sheet
from deploy.local.show import Show
from deploy.local.stack import Stack
from deploy.local.story import Story, of_dataset, of_simulation
from monitor.adapters.artifacts import load_bundle
from monitor.adapters.database import connect
from monitor.adapters.review_desk import ReviewDesk
from monitor.core.inspector import Inspector
from schemas.messages import Verdict
from trainer.build import BuildSettings, build
from trainer.progress import ProgressReporter
from trainer.segmenting import STEPS_EACH, SegmenterSettings
from trainer.training import TrainingSettings

CAMERA = "demo-camera"


@dataclass(frozen=True)
class DemoSettings:
    """What ``python -m deploy.local demo`` may be told.

    Attributes:
        directory: where everything goes.
        data: a data set in MVTec layout; None: the simulated line.
        frames: parts to measure; None: all of the data set, or 400 simulated ones.
        rate: parts a second; None: as fast as they are inspected.
        steps: gradient steps of training, as of ``paedid-trainer train``; None: its default.
        lessons: good parts to confirm.
        exit: whether to end by itself.
        report: where to write the figures as JSON, beside ``directory/report.json``.
        seed: of everything random.
    """

    directory: Path
    data: Path | None = None
    frames: int | None = None
    rate: float | None = None
    steps: int | None = None
    lessons: int = 5
    exit: bool = False
    report: Path | None = None
    seed: int = 0


def run_demo(settings: DemoSettings, console: Console) -> dict[str, Any]:
    """Run the demo and return its report.

    Raises:
        OperatorError: something is missing or broke; the message says what.
    """
    if settings.data is not None:
        story = of_dataset(settings.data, settings.frames, settings.seed)
    else:
        story = of_simulation(settings.directory, settings.frames, settings.seed)
    bundle = settings.directory / "bundle"
    console.print(f"Training on the normal images of {story.normals} (about eight minutes on two cores) ...")
    train_seconds = _train(story.normals, bundle, settings)
    console.print("Starting a Kafka broker, Valkey, a worker and the learner ...")
    with Stack(settings.directory / "stack", bundle, keep_images="all") as stack:
        stack.wait_until_ready()
        engine = connect(stack.settings.database)
        board = Scoreboard(engine)
        feed = Feed(stack.settings.kafka, CAMERA, story.parts(), settings.rate)
        operator = Operator(ReviewDesk(engine), feed, board, settings.lessons)
        show = Show(stack, board, feed, operator, LiveView(console, feed, board, operator))
        try:
            _play(settings, story, show, train_seconds, console)
        finally:
            feed.stop()
            engine.dispose()
        return _finish(settings, show, train_seconds)


def _train(normals: Path, bundle: Path, settings: DemoSettings) -> float:
    started = time.monotonic()
    training, segmenter = TrainingSettings(seed=settings.seed), SegmenterSettings()
    if settings.steps is not None:
        training = replace(training, steps=settings.steps)
        segmenter = replace(segmenter, steps=STEPS_EACH * settings.steps)
    with ProgressReporter() as reporter:
        build(normals, bundle, BuildSettings(training=training, segmenter=segmenter), reporter)
    return time.monotonic() - started


def _play(settings: DemoSettings, story: Story, show: Show, train_seconds: float, console: Console) -> None:
    """Stream and teach; Ctrl-C goes straight to the end."""
    show.feed.start()
    try:
        with show.heeding_ctrl_c():
            with show.view:
                show.measure(story.count)
                show.teach()
                if settings.exit:
                    show.drain()  # the figures told are then those of the report
            _tell_results(settings, show, train_seconds, console)
            if not settings.exit:
                console.print("The line goes on; Ctrl-C ends it.")
                with show.view:
                    show.linger()
    except KeyboardInterrupt:
        console.print("Finishing what is under way ...")
    show.drain()


def _finish(settings: DemoSettings, show: Show, train_seconds: float) -> dict[str, Any]:
    report = make_report(show, train_seconds)
    text = json.dumps(report, indent=2) + "\n"
    for path in filter(None, (settings.directory / "report.json", settings.report)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return report


def _tell_results(settings: DemoSettings, show: Show, train_seconds: float, console: Console) -> None:
    sheet = settings.directory / "contact-sheet.png"
    order = sorted(show.samples, key=lambda part: (part.defect or "~", part.serial))
    stamped = [lesson.part for lesson in show.operator.lessons[:1]]
    write_sheet(sheet, Inspector(load_bundle(show.stack.bundle)), [*order, *stamped])
    report = make_report(show, train_seconds)
    table = Table(title="What was measured", title_justify="left", show_header=False)
    for name, value in report.items():
        table.add_row(name, f"{value:.3f}" if isinstance(value, float) else str(value))
    console.print(table)
    stack = show.stack
    console.print(f"Contact sheet   {sheet}", soft_wrap=True)
    console.print(f"Model bundle    {stack.bundle}", soft_wrap=True)
    console.print(f"Database        {stack.directory / 'monitor.db'} (SQLite)", soft_wrap=True)
    console.print(f"Images, logs    {stack.directory}", soft_wrap=True)
    console.print(f"Review it       paedid-monitor --config {stack.config} review list", soft_wrap=True)


def make_report(show: Show, train_seconds: float) -> dict[str, Any]:
    """Return the demo's figures; Dice, AUROC, fps and latencies are of the measured parts only."""
    board = show.board
    feedback = [lesson.feedback_seconds for lesson in show.operator.lessons if lesson.feedback_seconds is not None]
    interval = board.dice_interval()
    return {
        "frames_sent": show.feed.count,
        "stored": board.inspected,
        "dead_lettered": board.dead_lettered,
        "uninspected": board.verdicts[Verdict.UNINSPECTED],
        "flagged": board.flagged,
        "measured": len(board.latencies),
        "dice_mean": board.dice_mean(),
        "dice_low": interval[0] if interval else None,
        "dice_high": interval[1] if interval else None,
        "image_auroc": board.image_auroc(),
        "defects_missed": board.missed,
        "good_flagged": board.false_flags,
        "bank_version_start": board.first_version,
        "bank_version_end": board.version,
        "lessons": len(show.operator.lessons),
        "lessons_passed": sum(bool(lesson.passed) for lesson in show.operator.lessons),
        "feedback_seconds": sorted(feedback)[len(feedback) // 2] if feedback else None,
        "fps": board.fps(),
        "latency_ms_p50": board.latency_ms(0.5),
        "latency_ms_p95": board.latency_ms(0.95),
        "train_seconds": train_seconds,
    }
