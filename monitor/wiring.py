"""The only place that builds adapters: settings in, connected ports out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.adapters.artifacts import load_bundle
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.kafka import KafkaPublisher, KafkaSource, ensure_topics
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.reviews import SqlReviewStore
from monitor.bank_follower import bank_shape
from monitor.clock import SystemClock
from monitor.core.inspector import Inspector
from monitor.database_access import open_database
from monitor.decoding import decode_image
from monitor.feedback import Learner
from monitor.settings import ModelSettings, Settings
from monitor.worker import WorkerPorts
from schemas.errors import ConfigurationError


def load_inspector(settings: ModelSettings) -> Inspector:
    """Load the model onto its device.

    Raises:
        BundleError, ConfigurationError: the bundle or the device is not to be had.
    """
    model = load_bundle(settings.bundle)
    return Inspector(model, pick_device(settings.device))


def pick_device(wanted: str) -> torch.device:
    """Return the torch device for ``model.device``: ``auto`` is the first GPU, or the CPU where there is none."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        problem = f"this machine has {torch.cuda.device_count()} CUDA devices that torch can use"
        raise ConfigurationError("model.device", wanted, problem, "Use auto or cpu, or install the GPU's driver.")
    return device


@contextmanager
def open_banks(settings: Settings) -> Iterator[RedisBankStore]:
    """Connect to Redis.

    Raises:
        ServiceUnavailableError.
    """
    banks = RedisBankStore(settings.redis)
    try:
        banks.ping()
        yield banks
    finally:
        banks.close()


@contextmanager
def open_learner(settings: Settings, inspector: Inspector) -> Iterator[Learner]:
    """Connect to everything the learner talks to.

    Raises:
        ServiceUnavailableError, ConfigurationError: with the first that cannot be reached.
    """
    architecture = inspector.manifest.architecture

    def remember(content: bytes) -> NDArray[np.float16]:
        image = decode_image(content, settings.limits, architecture.input.source_size, architecture.input.channels)
        entry: NDArray[np.float16] = inspector.remember(inspector.prepare(image).pixels[None])[0]
        return entry

    with open_database(settings) as engine, open_banks(settings) as banks:
        yield Learner(
            reviews=SqlReviewStore(engine),
            banks=banks,
            images=FsspecImageStore(settings.images.url),
            encode=remember,
            shape=bank_shape(inspector, settings.model.online_slots),
            model_id=inspector.manifest.model_id,
            seed=inspector.seed,
            clock=SystemClock(),
            poll_interval_s=settings.review.poll_interval_s,
        )


@contextmanager
def open_worker_ports(settings: Settings) -> Iterator[WorkerPorts]:
    """Connect to everything a worker talks to.

    Raises:
        ServiceUnavailableError, ConfigurationError: with the first that cannot be reached.
    """
    with ExitStack() as stack:
        engine = stack.enter_context(open_database(settings))
        banks = stack.enter_context(open_banks(settings))
        ensure_topics(settings.kafka, settings.limits)
        publishers = [KafkaPublisher(settings.kafka) for _ in range(2)]
        for publisher in publishers:
            stack.callback(publisher.close)
        yield WorkerPorts(
            source=KafkaSource(settings.kafka, settings.limits),
            dead_letters=publishers[0],
            results=publishers[1],
            store=SqlInspectionStore(engine, settings.kafka.inspections_topic),
            images=FsspecImageStore(settings.images.url),
            banks=banks,
        )
