"""A new model learns what the line has taught the old one: each confirmed normal is looked at again, in its order.

The golden defects are reviews, of no model; so the gate stands in the new bank from its first entry on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from monitor.core import bank_entry
from monitor.core.memory_bank import MemoryBank
from monitor.learning.admission import Admitted, Explained, Judge, Pixels
from monitor.learning.gate import Defect, Hidden
from monitor.ports import BankEntry, ImageStore, Removal
from schemas.errors import InvalidFrameError, UnregistrableError


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the new bank makes of one normal of the old one: a new entry, or why there is none."""

    frame_id: str
    entry: BankEntry | None
    removals: tuple[Removal, ...]
    why: str


def inherit(
    model_id: str,
    taught: Sequence[BankEntry],
    bank: MemoryBank,
    judge: Judge,
    defects: Sequence[Defect],
    images: ImageStore,
    read: Callable[[bytes], Pixels],
    *,
    held: Mapping[int, str] | None = None,
    version: int = 0,
) -> Iterator[Inherited]:
    """Yield what becomes of each entry of the old bank; fill the new one on the way.

    Args:
        model_id: the new model.
        taught: the old bank's active entries that the new one lacks, in the order in which they were added.
        bank: the new model's, to be filled.
        judge: the new model's.
        defects: the camera's golden defects, as the new model reads them.
        images: where the frames' images are; the new entries go there.
        read: encoded image to the new network's input (C, H, W).
        held: the frames that the new bank was taught before, by slot.
        version: the newest of the new bank; entries are added in those that follow.
    """
    frames = dict(held or {})
    for old in taught:
        try:
            pixels = read(images.get(old.image_sha256))
        except (KeyError, InvalidFrameError, UnregistrableError) as error:
            yield Inherited(old.frame_id, None, (), f"cannot be looked at: {error}")
            continue
        decision = judge.consider(pixels, bank, defects)
        if not isinstance(decision, Admitted):
            yield Inherited(old.frame_id, None, (), _told(decision))
            continue
        version += 1
        removals = tuple(
            Removal(frames.pop(slot), version, "eviction", f"made room for frame {old.frame_id}")
            for slot in decision.evict
        )
        for slot in decision.evict:
            bank.remove(slot)
        bank.put(decision.slot, decision.entry)
        frames[decision.slot] = old.frame_id
        data = bank_entry.to_bytes(decision.entry)
        entry = replace(
            old,
            model_id=model_id,
            slot=decision.slot,
            features_sha256=images.put(data),
            size_bytes=len(data),
            locations=bank_entry.pack(bank_entry.kept(decision.entry)),
            why=f"inherited from model {old.model_id}" + (f": {old.why}" if old.why else ""),
            version_added=version,
        )
        yield Inherited(old.frame_id, entry, removals, "taught")


def _told(decision: object) -> str:
    if isinstance(decision, Explained):
        return "the new model explains it already"
    if isinstance(decision, Hidden):
        return f"refused, it would hide a confirmed defect: {decision.why}"
    return f"refused: {getattr(decision, 'why', decision)}"
