"""A line in memory: a log of frames that knows what may be committed, a store that fails on demand, a toy model."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import tenacity
import torch

from monitor.adapters.memory import MemoryBankStore, MemoryImageStore, MemoryInspectionStore, MemoryPublisher
from monitor.assignments import NO_MODEL, Assignment, Chosen, Role
from monitor.clock import SystemClock
from monitor.core.drift import DriftBaseline
from monitor.core.inspector import Inspection
from monitor.core.memory_bank import MemoryBank
from monitor.core.view import Placement, Prepared
from monitor.errors import StoreUnavailableError
from monitor.models import Models
from monitor.pipeline import Pipeline
from monitor.ports import (
    Addition,
    BankChanges,
    BankKey,
    BankShape,
    BatchOutcome,
    InspectionRecord,
    LogGap,
    LogPosition,
    RawRecord,
    Recorded,
)
from monitor.post import Post, PostMaker
from monitor.settings import Settings
from monitor.storing import Recorder
from schemas.artifacts import Manifest
from schemas.messages import FrameEvent

SIZE = 16
ENTRY = (8, 8, 6)  # four features, one value of residual and its mean
NORMAL, DEFECT, POISON, NOT_A_NUMBER = 50, 200, 13, 14  # grey values the toy model reacts to
AWAY = StoreUnavailableError("away")
MANIFEST = Manifest.model_validate(
    {
        "model_id": "toy-1",
        "created_at": datetime(2024, 1, 1, tzinfo=UTC),
        "architecture": {"input": {"height": SIZE, "width": SIZE, "channels": 1}, "widths": (4,)},
        "encoder_hash": "0" * 64,
        "calibration": {
            "alpha": 0.5, "lam": 0.1, "solver_steps": 1, "polarity": "both", "mask_threshold": 0.5, "min_area": 1,
            "score_pixels": 1, "smoothing": 0.0, "synthetic_dice": 1.0,
            "verdict": {
                "threshold": 0.5, "wanted_false_reject_rate": 0.0, "normals": 1, "above": 0,
                "false_reject_low": 0.0, "false_reject_high": 1.0, "synthetic_detected": 1.0,
            },
        },
        "data": {"source": "toy", "train_images": 1, "validation_images": 1, "bank_images": 1, "sha256": ""},
        "training": {},
        "files": {},
    }
)  # fmt: skip

BASELINE = DriftBaseline(0.2, 0.05, np.full(ENTRY[:2], 0.1, np.float32), np.full(ENTRY[:2], 0.02, np.float32))
SEED = np.ones((2, *ENTRY), np.float16)
SHAPE = BankShape(MANIFEST.encoder_hash, ENTRY)


def png(grey: int, height: int = SIZE, width: int = SIZE) -> bytes:
    return cv2.imencode(".png", np.full((height, width), grey, np.uint8))[1].tobytes()


class ToyInspector:
    """The Inspector's interface: a frame's score is its brightness, its mask the pixels brighter than a half."""

    def __init__(self, most_at_once: int = 1000, model_id: str = "toy-1") -> None:
        self.manifest = MANIFEST.model_copy(update={"model_id": model_id})
        self.device = torch.device("cpu")
        self.seed = SEED
        self.drift_baseline = BASELINE
        self.most_at_once = most_at_once
        self.calls: list[tuple[int, MemoryBank]] = []

    def new_bank(self) -> MemoryBank:
        bank = MemoryBank(ENTRY, len(self.seed), residual=2)
        for slot, features in enumerate(self.seed):
            bank.put(slot, features)
        return bank

    def remember(self, frames: np.ndarray) -> np.ndarray:
        return np.array([np.full(ENTRY, frame.flat[0], np.float16) for frame in frames])

    def prepare(self, image: np.ndarray) -> Prepared:
        pixels = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_NEAREST)[None].astype(np.float32) / 255
        return Prepared(pixels, Placement(image.shape[:2]))

    def inspect(self, frames: np.ndarray, bank: MemoryBank) -> list[Inspection]:
        self.calls.append((len(frames), bank))
        if len(frames) > self.most_at_once:
            raise torch.cuda.OutOfMemoryError
        if (np.rint(frames * 255) == POISON).all(axis=(1, 2, 3)).any():
            message = "poison"
            raise ZeroDivisionError(message)
        return [self._inspect(frame) for frame in frames]

    def _inspect(self, frame: np.ndarray) -> Inspection:
        score = float(frame.max())
        if round(score * 255) == NOT_A_NUMBER:
            score = float("nan")
        mask = frame[0] > 0.5
        cells = np.zeros(ENTRY[:2], np.float32)
        return Inspection(score, score > 0.5, mask, frame[0], frame, frame, frame, cells, cells)


class Store(MemoryInspectionStore):
    """A store that refuses while ``away`` says so, and raises what ``fails`` has in turn."""

    def __init__(self) -> None:
        super().__init__("inspections")
        self.away: Callable[[], bool] = lambda: False
        self.fails: list[Exception | None] = []
        self.transactions = 0

    def record(self, outcome: BatchOutcome) -> Recorded:
        if self.fails and (error := self.fails.pop(0)):
            raise error
        if self.away():
            raise AWAY
        self.transactions += 1
        return super().record(outcome)

    @property
    def records(self) -> list[InspectionRecord]:
        return list(self.inspections.values())

    @property
    def verdicts(self) -> dict[str, str]:
        return {frame_id: record.verdict.value for frame_id, record in self.inspections.items()}


class Line:
    """A FrameSource over a log in memory, with a partition per camera. Sets ``stop`` once all is committed.

    It refuses commits that would lose frames: everything up to a committed offset must be in the store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.stop = threading.Event()
        self.records: dict[str, list[RawRecord | LogGap]] = defaultdict(list)
        self.next: dict[str, int] = defaultdict(int)
        self.committed: dict[str, int] = defaultdict(int)
        self.commits: list[list[LogPosition]] = []
        self.paused = False
        self.paused_polls = 0
        self.largest_poll = 0
        self.revoke_at: dict[int, bool] = {}  # poll number: whether the partitions come back rewound
        self.polls = 0
        self.closed = False
        self._deadline = time.monotonic() + 20

    def send(self, frame_id: str, value: bytes, camera: str = "cam", **event: object) -> None:
        frame = FrameEvent(frame_id=frame_id, camera=camera, **({"captured_at": datetime.now(UTC)} | event))
        self.send_raw(value, tuple(frame.to_headers()), camera)

    def send_raw(self, value: bytes | None, headers: tuple[tuple[str, bytes], ...], camera: str = "cam") -> None:
        log = self.records[camera]
        log.append(RawRecord(LogPosition("frames", "t1", hash_of(camera), len(log)), camera.encode(), headers, value))

    def lose(self, camera: str = "cam") -> None:
        log = self.records[camera]
        log.append(LogGap(LogPosition("frames", "t1", hash_of(camera), len(log)), 1))

    def poll(self, timeout: float, max_records: int) -> Sequence[RawRecord | LogGap]:
        assert max_records > 0
        assert time.monotonic() < self._deadline, "the pipeline does not get done"
        self.polls += 1
        if self.polls in self.revoke_at:
            self.revoked()
            self.paused = False
            if self.revoke_at[self.polls]:
                self.rewind()
        if self.paused:
            self.paused_polls += 1
            time.sleep(0.002)
            return []
        records: list[RawRecord | LogGap] = []
        for camera, log in self.records.items():
            taken = log[self.next[camera] : self.next[camera] + max_records - len(records)]
            self.next[camera] += len(taken)
            records += [
                replace(each, newer=len(log) - each.position.offset - 1) if isinstance(each, RawRecord) else each
                for each in taken
            ]
        self.largest_poll = max(self.largest_poll, len(records))
        if not records:
            time.sleep(min(timeout, 0.002))
            if all(self.committed[camera] == len(log) for camera, log in self.records.items()):
                self.stop.set()
        return records

    def commit(self, positions: Iterable[LogPosition]) -> None:
        positions = list(positions)
        self.commits.append(positions)
        for camera, log in self.records.items():
            offsets = [p.offset + 1 for p in positions if p.partition == hash_of(camera)]
            self.committed[camera] = max([self.committed[camera], *offsets])
            lost = [record for record in log[: self.committed[camera]] if not self._is_stored(record)]
            assert not lost, f"committed before stored: {lost}"

    def _is_stored(self, record: RawRecord | LogGap) -> bool:
        if isinstance(record, LogGap):
            return record in self.store.gaps
        frame_id = dict(record.headers).get("ce_id", b"").decode()
        dead = [letter.record.position for letter in self.store.dead_letters]
        return frame_id in self.store.inspections or record.position in dead

    def rewind(self) -> None:
        self.next = defaultdict(int, self.committed)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def on_revoked(self, callback: Callable[[], None]) -> None:
        self.revoked = callback

    def lag(self) -> int | None:
        return None

    def ready(self) -> bool:
        return True

    def close(self) -> None:
        self.closed = True


class Banks(MemoryBankStore):
    """A bank store that raises ``error`` while it has one; ``since`` of every call is noted in ``asked``."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.asked: list[int | None] = []

    def open(self, *args: object, **options: object) -> int:
        if self.error:
            raise self.error
        return super().open(*args, **options)

    def version(self, key: BankKey) -> int | None:
        if self.error:
            raise self.error
        return super().version(key)

    def changes(self, key: BankKey, since: int | None) -> BankChanges:
        self.asked.append(since)
        if self.error:
            raise self.error
        return super().changes(key, since)

    def teach(self, camera: str, name: str, value: float = 2) -> None:
        key = BankKey(camera, "toy-1")
        version = super().open(key, SHAPE, SEED)
        self.add(key, SHAPE, Addition(name, np.full(ENTRY, value, np.float16), version, len(SEED) + version))


def make_settings(max_frames: int = 4, keep: str = "flagged", sample_normal: float = 0.0) -> Settings:
    return Settings.model_validate(
        {
            "batch": {"max_frames": max_frames, "max_age_s": 0.005},
            "images": {"keep": keep, "sample_normal": sample_normal},
        }
    )


class Assigned:
    """The ``Assignments`` port: what ``assign`` says last is in force; raises ``error`` while it has one."""

    def __init__(self) -> None:
        self.rows: dict[tuple[Role, str | None], Assignment] = {}
        self.error: Exception | None = None

    def assign(self, model_id: str | None, camera: str | None = None, role: Role = Role.ACTIVE) -> None:
        chosen = None if model_id is None else Chosen(model_id, Path(model_id))
        self.rows[role, camera] = Assignment(camera, role, chosen, "ada", None, datetime.now(UTC))

    def in_force(self, role: Role) -> Sequence[Assignment]:
        if self.error:
            raise self.error
        return [row for row in self.rows.values() if row.role is role]


def load_toy(bundle: Path) -> ToyInspector:
    """Load the model that the bundle is named after."""
    return ToyInspector(model_id=bundle.name)


class Bench:
    """A pipeline with twins of its servers around it."""

    def __init__(
        self,
        settings: Settings | None = None,
        inspector: ToyInspector | None = None,
        store: Store | None = None,
        stop_grace: float = 5.0,
    ) -> None:
        self.settings = settings or make_settings()
        self.inspector = inspector or ToyInspector()
        self.store = store or Store()
        self.banks = Banks()
        self.publisher = MemoryPublisher()
        self.images = MemoryImageStore()
        self.line = Line(self.store)
        self.stop_grace = stop_grace
        self.assigned = Assigned()
        self.load: Callable[[Path], ToyInspector] = load_toy
        self.shadow_first = False

    def run(self) -> None:
        """Run a new pipeline, from the committed offsets on, until all is committed or something stops it."""
        clock = SystemClock()
        self.line.stop.clear()
        self.line.rewind()
        self.line.paused = False
        recorder = Recorder(
            store=self.store,
            images=self.images,
            publisher=self.publisher,
            policy=self.settings.images,
            clock=clock,
            retry_wait=tenacity.wait_fixed(0.001),
        )
        posts = PostMaker(self.load, self.banks, self.store, clock)
        models = Models(
            self.assigned, Chosen("toy-1", Path("toy-1")), posts.of(self.inspector), posts.load, clock, "Inspecting"
        )
        shadows = Models[Post | None](self.assigned, NO_MODEL, None, posts.load, clock, "Shadowing", Role.SHADOW)
        if self.shadow_first:
            shadows.start()
        pipeline = Pipeline(
            source=self.line,
            models=models,
            shadows=shadows,
            recorder=recorder,
            settings=self.settings,
            clock=clock,
            stop_grace=self.stop_grace,
        )
        pipeline.run(self.line.stop)


def hash_of(camera: str) -> int:
    return sum(camera.encode())
