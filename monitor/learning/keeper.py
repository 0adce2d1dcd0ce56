"""Keeps the banks of one model: the copies that are decided on, the edits in Redis, and the book in SQL beside them.

An edit is made in Redis first and written into the book after it. What happens in between is made up for: the bank
answers a repeated addition or removal with what it did the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.bank_follower import BankFollower, bank_shape
from monitor.core import bank_entry
from monitor.core.bank_entry import Entry
from monitor.core.inspector import Inspector
from monitor.core.memory_bank import MemoryBank
from monitor.errors import BankMovedError, StoreUnavailableError
from monitor.learning.lesson import Lesson
from monitor.learning.reconciling import BankReconciler
from monitor.ports import (
    Addition,
    BankBook,
    BankEdit,
    BankEntry,
    BankKey,
    BankStore,
    Clock,
    ImageStore,
    LearnedSlot,
    Removal,
)
from schemas.errors import InvalidFrameError, UnregistrableError

Pixels = NDArray[np.float32]

# Two learners may edit a bank at once; more often than this in a row it is left to the next step.
MAX_ATTEMPTS: Final = 10

log = structlog.get_logger()


class BankKeeper:
    """Owns this model's banks, as far as they learn.

    Args:
        inspector: the model.
        store: the banks that the workers follow.
        book: what SQL knows of them.
        images: the frames' images; the entries are kept there as well.
        read: encoded image to (C, H, W), as ``Inspector.prepare`` makes it; raises InvalidFrameError for what is no
            image, UnregistrableError for what is not in its place.
        clock: time.
        budget: what all that a bank has learned may take, in bytes.
    """

    def __init__(
        self,
        inspector: Inspector,
        store: BankStore,
        book: BankBook,
        images: ImageStore,
        read: Callable[[bytes], Pixels],
        clock: Clock,
        budget: int,
    ) -> None:
        self.model_id = inspector.manifest.model_id
        self._inspector = inspector
        self.shape = bank_shape(inspector)
        self._store = store
        self._book = book
        self._images = images
        self._read = read
        self.budget = budget
        self._copies = BankFollower(inspector, store, clock, strict=True)
        self._reconciler = BankReconciler(
            self.model_id, self.shape, store, book, recall=self._find, put_back=self._put_back
        )

    def current(self, camera: str) -> MemoryBank:
        """Return a camera's bank as it is now, to be left as it is.

        Raises:
            StoreUnavailableError, BankMissingError: Redis is away, or lost the bank.
        """
        self.ensure(camera)
        return self._copies.current(camera)

    def ensure(self, camera: str) -> None:
        """Open a camera's bank; restore it if Redis lost it, or lost the edits it made last."""
        key = self._key(camera)
        known, found = self._book.bank_version(camera, self.model_id), self._store.version(key)
        if found is not None and found >= known:
            return
        if known == 0:
            self._store.open(key, self.shape, self._inspector.seed)
            return
        version = self.rebuild(camera)
        log.warning(
            "Redis had lost edits of the bank; restored it as version %d",
            version,
            found=found,
            known=known,
            camera=camera,
            model=self.model_id,
        )

    def rebuild(self, camera: str) -> int:
        """Make a bank in Redis anew, of what the book says; return its version, which was never used before."""
        found = self._store.version(self._key(camera)) or 0
        version = max(self._book.next_bank_version(camera, self.model_id), found + 1)
        learned = self.recall(self._book.active_entries(camera, self.model_id))
        self._store.open(self._key(camera), self.shape, self._inspector.seed, learned=learned, version=version)
        return version

    def learned(self, camera: str, frame_id: str) -> BankEdit | None:
        """Return the edit that added a frame to the bank, or None if it is not in it."""
        return self._store.learned(self._key(camera), frame_id)

    def add(self, camera: str, lesson: Lesson, addition: Addition) -> tuple[BankEdit, BankEntry]:
        """Add an entry to the bank; return the edit and what is to be written into the book.

        Raises:
            BankMovedError: another writer was faster; look at the bank again.
        """
        # Before the bank: what Redis holds can always be restored.
        data = bank_entry.to_bytes(addition.features)
        sha256 = self._images.put(data)
        edit = self._store.add(self._key(camera), self.shape, addition)
        return edit, self._entry(camera, lesson, edit, addition.features, sha256)

    def recover(self, camera: str, lesson: Lesson, edit: BankEdit) -> BankEntry:
        """Return what is to be written into the book of an edit that was made before a crash.

        Raises:
            BankMovedError: the bank has changed since.
        """
        entry = self.current(camera).entry(edit.slot)
        if entry is None or self.learned(camera, lesson.frame_id) != edit:
            raise BankMovedError(lesson.frame_id)
        return self._entry(camera, lesson, edit, entry, self._images.put(bank_entry.to_bytes(entry)))

    def remove(self, camera: str, frame_id: str, by: str, why: str) -> int:
        """Take a frame out of the bank and write that down; return the version that took it away."""
        version = self._store.remove(self._key(camera), self.shape, frame_id)
        self._book.write(camera, self.model_id, (), (Removal(frame_id, version, by, why),))
        return version

    def reconcile(self, camera: str) -> None:
        """Make book and bank agree about what the bank holds, where its version does not tell that they differ."""
        self._reconciler.reconcile(camera)

    def become(self, camera: str, wanted: Mapping[str, tuple[Lesson, Entry]], by: str, why: str) -> tuple[int, int]:
        """Make a bank hold the ``wanted`` frames and no others, an edit at a time.

        May be interrupted anywhere and repeated. Returns how many were put back, and taken out.

        Raises:
            BankFullError: they do not fit into the budget.
        """
        self.ensure(camera)
        active = [entry.frame_id for entry in self._book.active_entries(camera, self.model_id)]
        leaving = [frame_id for frame_id in active if frame_id not in wanted]
        for frame_id in leaving:
            self.remove(camera, frame_id, by, why)
        coming = [frame_id for frame_id in wanted if frame_id not in active]
        for frame_id in coming:
            self._put_back(camera, *wanted[frame_id])
        return len(coming), len(leaving)

    def recall(self, entries: Sequence[BankEntry]) -> list[LearnedSlot]:
        """Return what entries of the book hold, the newest of each slot."""
        learned = []
        # One that was evicted stays listed until SQL is told, which may be later.
        for entry in {entry.slot: entry for entry in entries}.values():
            features = self.recall_one(entry)
            if features is not None:
                learned.append(LearnedSlot(entry.slot, entry.frame_id, entry.version_added, features))
        return learned

    def recall_one(self, entry: BankEntry) -> Entry | None:
        """Return an entry's features, as they were kept or else of its image; None, with a word to people, if lost."""
        features = self._find(entry)
        if features is None:
            log.error(
                "A normal's features and image are gone; the restored bank lacks it, parts like it will be flagged",
                frame=entry.frame_id,
                camera=entry.camera,
            )
        return features

    def _find(self, entry: BankEntry) -> Entry | None:
        try:
            return bank_entry.from_bytes(self._images.get(entry.features_sha256), self.shape.features)
        except (KeyError, ValueError):
            pass
        try:
            pixels = self._read(self._images.get(entry.image_sha256))
            whole: Entry = self._inspector.remember(pixels[None])[0]
        except (KeyError, InvalidFrameError, UnregistrableError):
            return None
        if entry.locations is None:
            return whole
        return bank_entry.keep_only(whole, bank_entry.unpack(entry.locations, self.shape.features[:2]))

    def _put_back(self, camera: str, lesson: Lesson, features: Entry) -> int:
        """Add a frame to the bank and the book; return the version."""
        for _ in range(MAX_ATTEMPTS):
            bank = self.current(camera)
            edit = self.learned(camera, lesson.frame_id)
            try:
                if edit is not None:
                    entry = self.recover(camera, lesson, edit)
                else:
                    addition = Addition(
                        frame_id=lesson.frame_id,
                        features=features,
                        at=bank.version,
                        slot=free_slot(bank, self._pinned),
                        budget=self.budget,
                    )
                    _, entry = self.add(camera, lesson, addition)
            except BankMovedError:
                continue
            # An entry of it that the bank lost is over.
            over = Removal(entry.frame_id, entry.version_added, "restore", f"put back in version {entry.version_added}")
            self._book.write(camera, self.model_id, (entry,), (over,))
            return entry.version_added
        raise busy(camera)

    @property
    def _pinned(self) -> int:
        return len(self._inspector.seed)

    def _entry(self, camera: str, lesson: Lesson, edit: BankEdit, features: Entry, sha256: str) -> BankEntry:
        there = bank_entry.kept(features)
        return BankEntry(
            camera=camera,
            model_id=self.model_id,
            frame_id=lesson.frame_id,
            slot=edit.slot,
            image_sha256=lesson.image_sha256,
            features_sha256=sha256,
            size_bytes=bank_entry.size_in_bytes(there, features.shape[2]),
            locations=bank_entry.pack(there),
            policy=lesson.policy,
            added_by=lesson.by,
            why=lesson.why,
            version_added=edit.version,
        )

    def _key(self, camera: str) -> BankKey:
        return BankKey(camera, self.model_id)


def free_slot(bank: MemoryBank, pinned: int, evict: Sequence[int] = ()) -> int:
    """Return the lowest slot for a normal: free, or made free by ``evict``."""
    taken = set(bank.slots) - set(evict)
    return next(slot for slot in range(pinned, pinned + len(taken) + 1) if slot not in taken)


def busy(camera: str) -> StoreUnavailableError:
    """Return the error for a bank that others edit all the time: what was to be done waits."""
    return StoreUnavailableError(f"the bank of {camera} is edited by too many at once")
