"""The only place that builds adapters: settings in, connected ports out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sqlalchemy import Engine

from monitor.adapters.artifacts import load_bundle
from monitor.adapters.bank_book import SqlBankBook
from monitor.adapters.database_rights import LEARNER, WORKER
from monitor.adapters.drift_reports import SqlDriftReports
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.kafka import KafkaPublisher, KafkaSource, ensure_topics
from monitor.adapters.model_desk import SqlModelDesk
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.reviews import SqlReviewStore
from monitor.adapters.rule_store import SqlRuleStore
from monitor.assignments import Chosen, require_same
from monitor.clock import SystemClock
from monitor.core.inspector import Inspector
from monitor.database_access import open_database
from monitor.decoding import decode_image
from monitor.learning.admission import Admission
from monitor.learning.keeper import BankKeeper
from monitor.learning.learner import Learner
from monitor.learning.rule import Rule
from monitor.learning.school import School
from monitor.models import Models
from monitor.settings import ModelSettings, Settings
from monitor.worker import WorkerPorts
from schemas.errors import ConfigurationError


def load_inspector(settings: ModelSettings, bundle: Path | None = None) -> Inspector:
    """Load a model onto its device: that of a bundle, or else the settings'.

    Raises:
        BundleError, ConfigurationError: the bundle or the device is not to be had.
    """
    model = load_bundle(bundle or settings.bundle)
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


def open_images(settings: Settings) -> FsspecImageStore:
    """Open the image store.

    Raises:
        ConfigurationError.
    """
    return FsspecImageStore(settings.images.url, settings.images.reserve_mb * 2**20)


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
def open_school(settings: Settings, inspector: Inspector) -> Iterator[School]:
    """Connect to everything the learners talk to, and load the models that are assigned.

    Args:
        settings: validated.
        inspector: the settings' model.

    Raises:
        ServiceUnavailableError, ConfigurationError: with the first that cannot be reached.
    """
    with open_database(settings, LEARNER) as engine, open_banks(settings) as banks:

        def load(chosen: Chosen, cameras: Collection[str]) -> Learner:  # noqa: ARG001 - a learner meets cameras by itself
            found = load_inspector(settings.model, chosen.bundle)
            require_same(found.manifest, chosen)
            return _make_learner(settings, found, engine, banks)

        default = Chosen(inspector.manifest.model_id, settings.model.bundle)
        first = _make_learner(settings, inspector, engine, banks)
        learners = Models(SqlModelDesk(engine), default, first, load, SystemClock(), "Learning")
        with closing(learners):
            learners.start()
            yield School(learners)


def _make_learner(settings: Settings, inspector: Inspector, engine: Engine, banks: RedisBankStore) -> Learner:
    budget, model_id = settings.model.bank_bytes, inspector.manifest.model_id
    book, images, clock = SqlBankBook(engine), open_images(settings), SystemClock()
    read = reader(settings, inspector)
    quiet_since = _quiet_since(SqlDriftReports(engine), model_id)
    return Learner(
        reviews=SqlReviewStore(engine),
        book=book,
        keeper=BankKeeper(inspector, banks, book, images, read, clock, budget),
        judge=Admission(inspector, budget, inspector.drift_baseline.usual_score),
        images=images,
        read=read,
        clock=clock,
        confirm_by_rule=Rule(SqlRuleStore(engine), model_id, settings.rule, quiet_since, clock),
    )


def _quiet_since(reports: SqlDriftReports, model_id: str) -> Callable[[str], datetime | None]:
    """Return what tells since when a camera is known to be without drift."""

    def quiet_since(camera: str) -> datetime | None:
        return next((each.quiet_since for each in reports.of_model(model_id) if each.camera == camera), None)

    return quiet_since


def reader(settings: Settings, inspector: Inspector) -> Callable[[bytes], NDArray[np.float32]]:
    """Return what turns a stored image into the network's input (C, H, W).

    It raises InvalidFrameError for what is no image, UnregistrableError for what is not in its place.
    """
    spec = inspector.manifest.architecture.input

    def read(content: bytes) -> NDArray[np.float32]:
        return inspector.prepare(decode_image(content, settings.limits, spec.source_size, spec.channels)).pixels

    return read


@contextmanager
def open_worker_ports(settings: Settings) -> Iterator[WorkerPorts]:
    """Connect to everything a worker talks to.

    Raises:
        ServiceUnavailableError, ConfigurationError: with the first that cannot be reached.
    """
    with ExitStack() as stack:
        engine = stack.enter_context(open_database(settings, WORKER))
        banks = stack.enter_context(open_banks(settings))
        ensure_topics(settings.kafka, settings.limits)
        publishers = [KafkaPublisher(settings.kafka) for _ in range(2)]
        for publisher in publishers:
            stack.callback(publisher.close)
        yield WorkerPorts(
            source=KafkaSource(settings.kafka),
            dead_letters=publishers[0],
            results=publishers[1],
            store=SqlInspectionStore(engine, settings.kafka.inspections_topic),
            images=open_images(settings),
            banks=banks,
            assignments=SqlModelDesk(engine),
            load=partial(load_inspector, settings.model),
        )
