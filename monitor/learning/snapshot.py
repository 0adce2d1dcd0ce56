"""A bank's learned normals as one file: to keep before an experiment, or to carry to another line of the same model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from monitor.core import bank_entry
from monitor.core.bank_entry import Entry
from monitor.learning.lesson import Lesson
from monitor.ports import BankEntry, BankKey, BankShape, BankStore, Policy
from schemas.artifacts import Manifest
from schemas.errors import BankMismatchError, OperatorError

FORMAT: Final = 1
MANIFEST: Final = "manifest"
MOST_BYTES: Final = 2**32


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a bank had learned at a version, and of which encoder."""

    shape: BankShape
    camera: str
    model_id: str
    version: int
    entries: Sequence[tuple[Lesson, Entry]]

    def to_bytes(self) -> bytes:
        """Return a safetensors file: each entry's bytes, and a JSON manifest as bytes. Nothing in it is executed."""
        manifest = {
            "format": FORMAT,
            "encoder_hash": self.shape.encoder_hash,
            "shape": list(self.shape.features),
            "camera": self.camera,
            "model_id": self.model_id,
            "version": self.version,
            "entries": [
                {"frame_id": each.frame_id, "image_sha256": each.image_sha256, "by": each.by, "why": each.why,
                 "policy": each.policy.value}
                for each, _ in self.entries
            ],
        }  # fmt: skip
        arrays = {f"entry-{i}": _array(bank_entry.to_bytes(entry)) for i, (_, entry) in enumerate(self.entries)}
        return save({MANIFEST: _array(json.dumps(manifest).encode()), **arrays})

    @classmethod
    def from_bytes(cls, data: bytes) -> Snapshot:
        """Read a snapshot.

        Raises:
            OperatorError: it is none, or damaged.
        """
        try:
            arrays = load(data)
            told = json.loads(arrays[MANIFEST].tobytes())
            _require_format(told["format"])
            p1, p2, depth = (int(side) for side in told["shape"])
            shape = BankShape(str(told["encoder_hash"]), (p1, p2, depth))
            entries = [
                (_lesson(each), bank_entry.from_bytes(arrays[f"entry-{i}"].tobytes(), shape.features))
                for i, each in enumerate(told["entries"])
            ]
            camera, model_id, version = str(told["camera"]), str(told["model_id"]), int(told["version"])
        except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            msg = f"not a bank's snapshot, or a damaged one: {error}. Name a file that 'bank snapshot' wrote."
            raise OperatorError(msg) from None
        for lesson, entry in entries:
            if not bank_entry.is_sound(entry):
                msg = f"the snapshot's entry of frame {lesson.frame_id} is not finite: the file is damaged."
                raise OperatorError(msg)
        return cls(shape, camera, model_id, version, entries)

    def require_fits(self, shape: BankShape) -> None:
        """Raise BankMismatchError unless the snapshot is of this encoder and shape."""
        if self.shape != shape:
            msg = (
                f"the snapshot is of encoder {self.shape.encoder_hash[:12]}... and entries {self.shape.features}, the "
                f"bank's are {shape.encoder_hash[:12]}... and {shape.features}: restore it with the bundle it was made "
                f"with ({self.model_id}), and let the new one inherit from that ('bank inherit')."
            )
            raise BankMismatchError(msg)


def _require_format(found: object) -> None:
    if found != FORMAT:
        msg = f"format {found}, this program reads {FORMAT}"
        raise ValueError(msg)


def _array(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8)


def of_store(store: BankStore, key: BankKey, manifest: Manifest, pinned: int, active: Sequence[BankEntry]) -> Snapshot:
    """Return what a bank holds now, beside its pinned normals.

    Raises:
        OperatorError: Redis holds something that the database does not know of; it may know in a moment.
    """
    changes = store.changes(key, None)
    known = {entry.slot: entry for entry in active}
    entries = []
    for change in changes.slots:
        if change.slot < pinned or change.features is None:
            continue
        entry = known.get(change.slot)
        if entry is None or hashlib.sha256(bank_entry.to_bytes(change.features)).hexdigest() != entry.features_sha256:
            msg = f"the bank is being edited, or slot {change.slot} is not what the database says: see 'bank verify'"
            raise OperatorError(msg)
        lesson = Lesson(entry.frame_id, entry.image_sha256, entry.added_by, entry.why, entry.policy)
        entries.append((lesson, change.features))
    shape = BankShape(manifest.encoder_hash, manifest.architecture.entry_shape)
    return Snapshot(shape, key.camera, key.model_id, changes.version, entries)


def _lesson(told: dict[str, str]) -> Lesson:
    return Lesson(
        frame_id=str(told["frame_id"]),
        image_sha256=str(told["image_sha256"]),
        by=str(told["by"]),
        why=None if told["why"] is None else str(told["why"]),
        policy=Policy(told["policy"]),
    )
