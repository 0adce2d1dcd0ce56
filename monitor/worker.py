"""The worker: the pipeline on the main thread, the outbox relay beside it, signals and metrics around them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import structlog

from monitor.assignments import NO_MODEL, Assignments, Chosen, Role
from monitor.clock import SystemClock
from monitor.core.inspector import Inspector
from monitor.metrics_server import serving_metrics
from monitor.models import Models
from monitor.pipeline import Pipeline
from monitor.ports import BankStore, Clock, FrameSource, ImageStore, InspectionStore, Publisher
from monitor.post import Post, PostMaker
from monitor.publishing import OutboxRelay
from monitor.settings import Settings
from monitor.signals import stopping_on_signals
from monitor.storing import Recorder

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WorkerPorts:
    """Everything outside that a worker talks to. ``store`` and ``images`` are used from several threads at once.

    Attributes:
        source: owned by the thread that runs the worker, and closed by it.
        dead_letters: owned by the writer thread; whoever made it closes it.
        results: owned by the outbox relay's thread; whoever made it closes it.
        store: the database.
        images: the kept images.
        banks: the online memory banks; a bank is owned by the thread that runs the worker, once its model is at work.
        assignments: which model is to inspect which camera.
        load: bundle to model, on its device; may raise BundleError.
    """

    source: FrameSource
    dead_letters: Publisher
    results: Publisher
    store: InspectionStore
    images: ImageStore
    banks: BankStore
    assignments: Assignments
    load: Callable[[Path], Inspector]


def run_worker(
    settings: Settings,
    inspector: Inspector,
    ports: WorkerPorts,
    *,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Inspect frames until SIGINT, SIGTERM or ``stop``; then finish what is in hand, and return.

    A second signal ends the process at once. Called on another thread than the main one, it leaves signals alone.

    Args:
        settings: validated.
        inspector: the settings' model on its device.
        ports: the adapters, connected.
        clock: default: the system's.
        stop: set it to stop the worker, from any thread.

    Raises:
        OperatorError: a person must act. Frames not committed will be delivered again.
    """
    clock = clock or SystemClock()
    stop = stop or threading.Event()
    # Decoding has its own threads; OpenCV's would only multiply them.
    cv2.setNumThreads(1)
    relay = OutboxRelay(ports.store, ports.results, clock)
    posts = PostMaker(ports.load, ports.banks, ports.store, clock)
    default = Chosen(inspector.manifest.model_id, settings.model.bundle)
    models = Models(ports.assignments, default, posts.of(inspector), posts.load, clock, "Inspecting")
    shadows = Models[Post | None](ports.assignments, NO_MODEL, None, posts.load, clock, "Shadowing", Role.SHADOW)
    with stopping_on_signals(stop), serving_metrics(settings.metrics, ports.source.ready):
        models.start()
        pipeline = Pipeline(
            source=ports.source,
            models=models,
            shadows=shadows,
            recorder=Recorder(
                store=ports.store,
                images=ports.images,
                publisher=ports.dead_letters,
                policy=settings.images,
                clock=clock,
                on_stored=relay.poke,
            ),
            settings=settings,
            clock=clock,
        )
        relay.start()
        manifest = inspector.manifest
        log.info("Inspecting", model=manifest.model_id, device=str(inspector.device), topic=settings.kafka.frames_topic)
        try:
            pipeline.run(stop)
        finally:
            relay.stop()
    log.info("Stopped")
