"""Everything around a learner, and what a test does to it. An image is a number; a frame's entry is full of it."""

# ruff: noqa: ANN401 - ports are wrapped whole
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Engine

from monitor.adapters.bank_book import SqlBankBook
from monitor.adapters.bank_desk import BankDesk
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.review_desk import ReviewDesk
from monitor.adapters.reviews import SqlReviewStore
from monitor.bank_follower import bank_shape
from monitor.clock import FakeClock
from monitor.core.bank_entry import is_sound, keep_only, kept, size_in_bytes
from monitor.core.memory_bank import MemoryBank
from monitor.learning.admission import Admitted, Decision, Explained, Unfit
from monitor.learning.audit import Audit, audit
from monitor.learning.gate import Defect, Hidden, Missed
from monitor.learning.keeper import BankKeeper, free_slot
from monitor.learning.learner import Learner
from monitor.ports import BankKey, BankOrder, BankStore, BatchOutcome, ImageStore, OrderKind
from schemas.errors import InvalidFrameError, Reason, UnregistrableError
from schemas.messages import Verdict
from tests.integration.records import inspection
from tests.unit.pipeline_fakes import ENTRY, SEED, SIZE, ToyInspector

KEY = BankKey("cam1", "toy-1")
PINNED = len(SEED)
WHOLE = size_in_bytes(np.ones(ENTRY[:2], np.bool_), ENTRY[2])

Pixels = NDArray[np.float32]


def features(value: float) -> NDArray[np.float16]:
    return np.full(ENTRY, value, np.float16)


def kept_of(value: float) -> NDArray[np.float16]:
    """Return what the toy judge keeps of a frame: all of it, or of odd numbers a part."""
    there = np.ones(ENTRY[:2], np.bool_)
    there[0] = value % 2 == 0
    return keep_only(features(value), there)


def read(image: bytes) -> Pixels:
    if image == b"truncated":
        raise InvalidFrameError(Reason.TRUNCATED, "the image ends too early")
    if image == b"turned":
        problem = "the part is turned by 30.0 degrees, farther than 10.0"
        raise UnregistrableError(problem)
    return np.full((1, SIZE, SIZE), float(image), np.float32)


class ToyJudge:
    """1 is what the pinned normals are; a frame hides a defect of its own number; the smallest number makes room."""

    def __init__(self, budget: int) -> None:
        self._budget = budget

    def consider(self, pixels: Pixels, bank: MemoryBank, defects: Sequence[Defect]) -> Decision:
        value = float(pixels.flat[0])
        if value == 1.0:
            return Explained(0.1, 0.2)
        for defect in defects:
            seen = defect.look()
            if seen is not None and float(seen.flat[0]) == value:
                return Hidden(defect, f"defect {defect.frame_id} would pass", (1, 1, 4, 4), (2, 2, 4, 4))
        entry = kept_of(value)
        if not is_sound(entry):
            return Unfit("its features are not finite numbers")
        there = {slot: bank.entry(slot) for slot in bank.slots if slot >= PINNED}
        evict: list[int] = []
        while sum(_size(e) for slot, e in there.items() if slot not in evict) + _size(entry) > self._budget:
            evict.append(min(there.keys() - set(evict), key=lambda slot: float(np.nanmax(there[slot]))))
        return Admitted(entry, free_slot(bank, PINNED, evict), tuple(evict), 0.9, 0.1, flagged_after=False)

    def find_culprit(self, pixels: Pixels, bank: MemoryBank) -> Missed | None:
        value = float(pixels.flat[0])
        there = [slot for slot in bank.slots if slot >= PINNED and float(np.nanmax(bank.entry(slot))) == value]
        return Missed(0.1, there[0]) if there else None


def _size(entry: NDArray[np.float16]) -> int:
    return size_in_bytes(kept(entry), ENTRY[2])


@dataclass
class World:
    """Ports over real servers, and learners on them."""

    engine: Engine
    banks: BankStore
    images: ImageStore
    wipe: Callable[[], None]
    budget: int = 2 * WHOLE
    clock: FakeClock = field(default_factory=FakeClock)
    frames: int = 0
    camera: str = KEY.camera

    def __post_init__(self) -> None:
        self.inspections = SqlInspectionStore(self.engine, "inspections")
        self.reviews = SqlReviewStore(self.engine)
        self.book = SqlBankBook(self.engine)
        self.review_desk = ReviewDesk(self.engine)
        self.desk = BankDesk(self.engine)

    @property
    def key(self) -> BankKey:
        return BankKey(self.camera, KEY.model_id)

    def learner(self, **changed: Any) -> Learner:
        """Return a learner; ports by name (reviews, book, banks, images) and the inspector may be others."""
        book, images = changed.get("book", self.book), changed.get("images", self.images)
        banks, inspector = changed.get("banks", self.banks), changed.get("inspector", ToyInspector())
        return Learner(
            reviews=changed.get("reviews", self.reviews),
            book=book,
            keeper=BankKeeper(inspector, banks, book, images, read, self.clock, self.budget),
            judge=ToyJudge(self.budget),
            images=images,
            read=read,
            clock=self.clock,
        )

    def inspect(self, image: bytes | None, *, bank_version: int = 0) -> str:
        """Store an inspected frame with this image; return its id."""
        self.frames += 1
        frame_id = f"frame-{self.frames}"
        sha256 = None if image is None else self.images.put(image)
        record = inspection(
            frame_id, self.frames, camera=self.camera, image_sha256=sha256, bank_version=bank_version,
            model_id=KEY.model_id, topic_id=f"topic-{self.camera}",
        )  # fmt: skip
        self.inspections.record(BatchOutcome((record,)))
        return frame_id

    def review(self, image: bytes | None, verdict: Verdict = Verdict.NORMAL) -> str:
        """Inspect a frame with this image and confirm it; return its id."""
        frame_id = self.inspect(image)
        self.review_desk.confirm(frame_id, verdict, "ada", "dust")
        return frame_id

    def outcome(self, frame_id: str) -> tuple[str, str]:
        """Return what became of a frame's review, and the words for people."""
        review = self.review_desk.show(frame_id).frame.review
        assert review is not None
        return review.outcome, review.outcome_detail or ""

    def order(self, kind: OrderKind, **about: Any) -> BankOrder:
        """Give an order and let a learner deal with it; return what became of it."""
        order_id = self.desk.order(kind, self.key, "ada", "why not", **about)
        self.learner().step()
        return self.desk.find_order(order_id)

    def bank(self) -> dict[int, float]:
        """Return the bank in Redis: slot and number."""
        changes = self.banks.changes(self.key, None)
        return {c.slot: float(np.nanmax(c.features)) for c in changes.slots if c.features is not None}

    def active(self) -> list[str]:
        """Return the frames that the book says are in the bank."""
        return [entry.frame_id for entry in self.book.active_entries(*self._names())]

    def audit(self) -> Audit:
        """Hold Redis against the book."""
        return audit(self.banks, self.key, SEED, self.book.active_entries(*self._names()))

    def _names(self) -> tuple[str, str]:
        return self.camera, KEY.model_id


SHAPE = bank_shape(ToyInspector())
