"""Makes a bank and what SQL says of it agree, edit by edit, where the bank's version does not tell that they differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import structlog

from monitor.core.bank_entry import Entry
from monitor.errors import BankFullError
from monitor.learning.lesson import Lesson
from monitor.ports import BankBook, BankEntry, BankKey, BankShape, BankStore, Removal

log = structlog.get_logger()


class BankReconciler:
    """Compares the banks of one model with the book.

    Two learners write the book in the order of their own edits only: one may write that a frame made room before the
    other writes that it was added. And a server that lost its last edits, as a replica that was promoted may have, may
    have given their versions anew before anybody saw that it was behind: then it lacks what the book has, or has what
    has left it.

    Args:
        model_id: whose banks.
        shape: of their entries.
        store: the banks.
        book: what SQL knows of them.
        recall: an entry's features, as they were kept; None if they are gone.
        put_back: adds a frame to a camera's bank and to the book; returns the version. May raise BankFullError.
    """

    def __init__(
        self,
        model_id: str,
        shape: BankShape,
        store: BankStore,
        book: BankBook,
        recall: Callable[[BankEntry], Entry | None],
        put_back: Callable[[str, Lesson, Entry], int],
    ) -> None:
        self._model_id = model_id
        self._shape = shape
        self._store = store
        self._book = book
        self._recall = recall
        self._put_back = put_back

    def reconcile(self, camera: str) -> None:
        """Write down what left the bank, put back what it has lost, and take out what had left it."""
        active = self._book.active_entries(camera, self._model_id)
        key = BankKey(camera, self._model_id)
        version, there = self._store.version(key), self._store.all_learned(key)
        # A bank that is gone, or behind, is restored; nothing is to be concluded from it.
        if version is None or version < self._book.bank_version(camera, self._model_id):
            return
        gone = [entry for entry in active if there.get(entry.frame_id) != entry.version_added]
        left = self._store.left(key, [entry.frame_id for entry in gone])
        held = {(entry.frame_id, entry.version_added) for entry in active}
        back = [
            frame for frame, added in there.items() if (frame, added) not in held and self._left(camera, frame, added)
        ]
        if self._store.version(key) != version:
            return
        for frame_id in back:
            self._told_again(camera, frame_id, self._store.remove(key, self._shape, frame_id), "taken out")
        removals = []
        for entry in gone:
            lost = entry.frame_id not in left and entry.frame_id not in there
            if not lost or not self._put_back_lost(camera, entry):
                removals.append(self._departure(key, entry, there))
        if removals:
            self._book.write(camera, self._model_id, (), removals)

    def _left(self, camera: str, frame_id: str, added: int) -> bool:
        """Return whether the book says that a frame, added in this version, left the bank."""
        entries = self._book.entries_at(camera, self._model_id, added)
        return any(
            (each.frame_id, each.version_added) == (frame_id, added) and each.version_removed for each in entries
        )

    def _put_back_lost(self, camera: str, entry: BankEntry) -> bool:
        """Add again what the bank has lost; return whether that could be done."""
        features = self._recall(entry)
        if features is None:
            return False
        lesson = Lesson(entry.frame_id, entry.image_sha256, entry.added_by, entry.why, entry.policy)
        try:
            version = self._put_back(camera, lesson, features)
        except BankFullError:
            return False
        self._told_again(camera, entry.frame_id, version, "put back")
        return True

    def _told_again(self, camera: str, frame_id: str, version: int, done: str) -> None:
        log.warning(
            "Redis had lost an edit of the bank; what the database says was %s in version %d",
            done,
            version,
            camera=camera,
            model=self._model_id,
            frame=frame_id,
        )

    def _departure(self, key: BankKey, entry: BankEntry, there: Mapping[str, int]) -> Removal:
        again = there.get(entry.frame_id)
        # Of a frame that came back only the return is known: it left before.
        version = again if again is not None else self._store.remove(key, self._shape, entry.frame_id)
        why = "no longer in the bank: evicted by another learner, or lost with its image"
        return Removal(entry.frame_id, version, "eviction", why)
