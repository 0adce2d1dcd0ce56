"""The only place that builds adapters: settings in, connected ports out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.adapters.artifacts import load_bundle
from monitor.adapters.bank_book import SqlBankBook
from monitor.adapters.drift_reports import SqlDriftReports
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.kafka import KafkaPublisher, KafkaSource, ensure_topics
from monitor.adapters.redis_bank import RedisBankStore
from monitor.adapters.reviews import SqlReviewStore
from monitor.adapters.rule_store import SqlRuleStore
from monitor.clock import SystemClock
from monitor.core.inspector import Inspector
from monitor.database_access import open_database
from monitor.decoding import decode_image
from monitor.learning.admission import Admission
from monitor.learning.inherit import Inherited, inherit
from monitor.learning.keeper import BankKeeper
from monitor.learning.learner import Learner, as_defect
from monitor.learning.rule import Rule
from monitor.ports import MOST_GOLDEN, BankEntry
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
def open_learner(settings: Settings, inspector: Inspector) -> Iterator[Learner]:
    """Connect to everything the learner talks to.

    Raises:
        ServiceUnavailableError, ConfigurationError: with the first that cannot be reached.
    """
    budget = settings.model.bank_bytes
    with open_database(settings) as engine, open_banks(settings) as banks:
        book, images, clock = SqlBankBook(engine), open_images(settings), SystemClock()
        read = reader(settings, inspector)
        yield Learner(
            reviews=SqlReviewStore(engine),
            book=book,
            keeper=BankKeeper(inspector, banks, book, images, read, clock, budget),
            judge=Admission(inspector, budget, inspector.drift_baseline.usual_score),
            images=images,
            read=read,
            clock=clock,
            confirm_by_rule=Rule(
                SqlRuleStore(engine),
                inspector.manifest.model_id,
                settings.rule,
                _quiet_since(SqlDriftReports(engine), inspector.manifest.model_id),
                clock,
            ),
            poll_interval_s=settings.review.poll_interval_s,
        )


def _quiet_since(reports: SqlDriftReports, model_id: str) -> Callable[[str], datetime | None]:
    """Return what tells since when a camera is known to be without drift."""

    def quiet_since(camera: str) -> datetime | None:
        return next((each.quiet_since for each in reports.of_model(model_id) if each.camera == camera), None)

    return quiet_since


@dataclass(frozen=True)
class Heir:
    """A new model about to learn what the line has taught the old one.

    Attributes:
        model_id: the new model's.
        cameras: whose banks of the old model were taught, and whose of the new one were not.
        taught: what one camera's bank of the old model holds.
        inherit: looks at one camera's normals again; yields what becomes of each.
        finish: writes a camera's inheritance into the book, all at once, and opens its bank in Redis.
    """

    model_id: str
    cameras: Sequence[str]
    taught: Callable[[str], Sequence[BankEntry]]
    inherit: Callable[[str], Iterator[Inherited]]
    finish: Callable[[str, Sequence[Inherited]], None]


@contextmanager
def open_heir(settings: Settings, old_model: str, bundle: Path) -> Iterator[Heir]:
    """Load a new bundle beside the old model's book.

    Raises:
        BundleError, ServiceUnavailableError, ConfigurationError.
    """
    inspector = load_inspector(settings.model.model_copy(update={"bundle": bundle}))
    with open_database(settings) as engine, open_banks(settings) as banks:
        book, reviews, images = SqlBankBook(engine), SqlReviewStore(engine), open_images(settings)
        read, budget, model_id = reader(settings, inspector), settings.model.bank_bytes, inspector.manifest.model_id
        keeper = BankKeeper(inspector, banks, book, images, read, SystemClock(), budget)

        def taught(camera: str) -> list[BankEntry]:
            entries = book.active_entries(camera, old_model)
            barred = book.barred([entry.frame_id for entry in entries])
            return [entry for entry in entries if entry.frame_id not in barred]

        def begin(camera: str) -> Iterator[Inherited]:
            defects = [as_defect(golden, images, read) for golden in reviews.golden_defects(camera, MOST_GOLDEN)]
            judge = Admission(inspector, budget, inspector.drift_baseline.usual_score)
            return inherit(model_id, taught(camera), inspector.new_bank(), judge, defects, images, read)

        def finish(camera: str, inherited: Sequence[Inherited]) -> None:
            entries = [each.entry for each in inherited if each.entry is not None]
            removals = [removal for each in inherited for removal in each.removals]
            book.write(camera, model_id, entries, removals)
            keeper.ensure(camera)

        cameras = book.taught_cameras(old_model)
        known = set(book.taught_cameras(model_id))
        yield Heir(
            model_id,
            [camera for camera in cameras if camera not in known],
            taught,
            begin,
            finish,
        )


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
            images=open_images(settings),
            banks=banks,
        )
