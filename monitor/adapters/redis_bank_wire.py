"""How a memory bank lies in Redis: its keys, its scripts, and what their arguments and answers mean.

All keys of a bank share a hash tag, so that a cluster keeps them together: ``paedid:bank:{camera:model}:`` and

* ``meta``: layout, encoder_hash, shape, slot_bytes (of an entry that keeps all), pinned, seed_sha256, bytes (what was
  learned takes), version, head (a fingerprint of its history)
* ``slots``: slot -> an entry's bytes (``monitor.core.bank_entry``)
* ``log``: a stream; entry ``<version>-1`` tells the edit that made this version
* ``frames``: frame id -> 'version slot evicted-frame ...' of what was learned online
* ``owners``: slot -> frame id
* ``removed``: frame id -> the version that took it away
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

from monitor.adapters.bank_slots import Learned
from monitor.core.bank_entry import from_bytes, most_bytes
from monitor.errors import BankMissingError
from monitor.ports import BankKey, BankShape, SlotChange
from schemas.errors import BankMismatchError

# Of the keys and what is in them: a program that knows another layout neither reads nor writes this bank.
LAYOUT: Final = "2"
PARTS: Final = ("meta", "slots", "log", "frames", "owners", "removed")
REMEDY: Final = "Give each trained model its own model_id, or name the bundle that this bank was made with."


@dataclass(frozen=True, slots=True)
class Delta:
    """The answer of ``bank_changes.lua``.

    With ``reload``, the copy has to be read anew. ``names``, where there are any, are the slots that changed, when
    they were too many bytes for one answer; else ``slots`` are their changes.
    """

    reload: bool
    version: int
    head: bytes
    shape: tuple[int, int, int]
    names: tuple[int, ...]
    slots: tuple[SlotChange, ...]


def keys(bank: BankKey) -> list[str]:
    """Return the bank's keys in the order of ``PARTS``."""
    return [f"{prefix(bank)}{part}" for part in PARTS]


def prefix(bank: BankKey) -> str:
    """Return the beginning of all of the bank's keys."""
    return f"paedid:bank:{{{tag(bank)}}}:"


def tag(bank: BankKey) -> str:
    """Return the bank's name. A model id has no colon in it, so that the last one parts it from the camera."""
    return f"{bank.camera}:{bank.model_id}"


def script(name: str) -> str:
    """Return the source of a script that lies beside this file."""
    return files("monitor.adapters").joinpath(name).read_text(encoding="utf-8")


def meta(shape: BankShape, pinned: int, seed_sha256: str) -> dict[str, str]:
    """Return what must be the same in two banks for the one to stand for the other."""
    return {
        "layout": LAYOUT,
        "encoder_hash": shape.encoder_hash,
        "shape": shape_text(shape),
        "pinned": str(pinned),
        "slot_bytes": str(most_bytes(shape.features)),
        "seed_sha256": seed_sha256,
    }


def shape_text(shape: BankShape) -> str:
    """Return 'P1,P2,P3'."""
    return ",".join(map(str, shape.features))


def fingerprint(shape: BankShape) -> str:
    """Return what an edit must find: the layout, the encoder and 'P1,P2,P3'."""
    return f"{LAYOUT} {shape.encoder_hash} {shape_text(shape)}"


def require_same(bank: BankKey, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise BankMismatchError, naming the first difference, unless the bank found is the one that is wanted."""
    for name, value in wanted.items():
        if found.get(name) == value:
            continue
        remedy = (
            f"Another version of this program made it. Delete the bank's keys ({prefix(bank)}*) while no program runs: "
            "the learner restores it from the database."
            if name == "layout"
            else REMEDY
        )
        msg = (
            f"bank {prefix(bank)}meta in Redis: its {name} is {found.get(name)!r}, this model's is {value!r}. {remedy}"
        )
        raise BankMismatchError(msg)


def missing(bank: BankKey) -> BankMissingError:
    """Return the error for a bank that is not there."""
    return BankMissingError(f"Redis has no bank {tag(bank)}")


def parse_record(record: bytes) -> Learned:
    """Read 'version slot evicted-frame ...', as the scripts keep it of every learned frame."""
    version, slot, *evicted = record.decode().split(" ")
    return Learned(version=int(version), slot=int(slot), evicted=tuple(evicted))


def parse_delta(bank: BankKey, reply: list[Any]) -> Delta:
    """Read the answer of ``bank_changes.lua``.

    Raises:
        BankMissingError: there is no such bank.
    """
    if reply[0] == b"missing":
        raise missing(bank)
    p1, p2, p3 = map(int, reply[3].split(b","))
    shape = (p1, p2, p3)
    names = tuple(map(int, reply[4:])) if reply[0] == b"names" else ()
    changed = () if names else zip(reply[4::2], reply[5::2], strict=True)
    return Delta(
        reload=reply[0] == b"reload",
        version=int(reply[1]),
        head=reply[2],
        shape=shape,
        names=names,
        slots=tuple(SlotChange(int(slot), None if data is None else from_bytes(data, shape)) for slot, data in changed),
    )
