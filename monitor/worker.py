"""The worker: the pipeline on the main thread, the outbox relay beside it, signals and metrics around them."""

from __future__ import annotations

import _thread
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import cv2
import structlog
from prometheus_client import start_http_server

from monitor.assignments import NO_MODEL, Assignments, Chosen, Role
from monitor.clock import SystemClock
from monitor.core.inspector import Inspector
from monitor.models import Models
from monitor.pipeline import Pipeline
from monitor.ports import BankStore, Clock, FrameSource, ImageStore, InspectionStore, Publisher
from monitor.post import Post, PostMaker
from monitor.publishing import OutboxRelay
from monitor.settings import MetricsSettings, Settings
from monitor.storing import Recorder
from schemas.errors import ConfigurationError

log = structlog.get_logger()

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    relay = OutboxRelay(ports.store, ports.results, clock, on_refusal=stop.set)
    posts = PostMaker(ports.load, ports.banks, ports.store, clock)
    default = Chosen(inspector.manifest.model_id, settings.model.bundle)
    models = Models(ports.assignments, default, posts.of(inspector), posts.load, clock, "Inspecting")
    shadows = Models[Post | None](ports.assignments, NO_MODEL, None, posts.load, clock, "Shadowing", Role.SHADOW)
    with stopping_on_signals(stop), serving_metrics(settings.metrics):
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
        relay.raise_refusal()
    log.info("Stopped")


@contextlib.contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """Within, the first SIGINT or SIGTERM sets ``stop``, and the second ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        # The system's default, not a handler of ours: it also ends a process that hangs outside of Python.
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        # On a thread: this one may have been interrupted inside stop.wait(), holding the lock that stop.set() takes.
        # A bare one: starting a threading.Thread takes locks of its own.
        _thread.start_new_thread(stop.set, ())

    before = {each: signal.signal(each, on_signal) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def serving_metrics(settings: MetricsSettings) -> Iterator[None]:
    """Within, Prometheus can read the metrics at the settings' host and port; port 0: nothing listens.

    Raises:
        ConfigurationError: the port cannot be listened on.
    """
    if settings.port == 0:
        yield
        return
    try:
        server, thread = start_http_server(settings.port, settings.host)
    except OSError as error:
        key, problem = "metrics.port", f"cannot listen on {settings.host}: {error.strerror or error}"
        remedy = "Choose a free port, or 0 for no metrics."
        raise ConfigurationError(key, settings.port, problem, remedy) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
