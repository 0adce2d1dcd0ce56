"""How a memory bank lies in Redis: its keys, its scripts and commands, and what arguments and answers mean.

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

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, TypeAlias

from redis.exceptions import NoScriptError

from monitor.adapters.bank_slots import Learned
from monitor.core.bank_entry import Entry, from_bytes, most_bytes
from monitor.errors import BankMissingError, StoreUnavailableError
from monitor.ports import BankKey, BankShape, SlotChange
from schemas.errors import BankMismatchError

# Of the keys and what is in them: a program that knows another layout neither reads nor writes this bank.
LAYOUT: Final = "2"
PARTS: Final = ("meta", "slots", "log", "frames", "owners", "removed")
# Three times what an entry of a frame of 2048x2048 takes: what a bank says of itself must not exhaust the memory.
MOST_ENTRY_BYTES: Final = 2**26
REMEDY: Final = "Give each trained model its own model_id, or name the bundle that this bank was made with."


# A ``redis.Redis`` or ``RedisCluster``: untyped, for redis-py says of every answer that it may be awaitable.
Client: TypeAlias = Any


class Script:
    """A script that lies beside this file.

    Not redis-py's: where the server does not know it, that loads it by SCRIPT LOAD, on each primary of a cluster, so
    one that is away would keep the others from working.
    """

    def __init__(self, name: str) -> None:
        self.source: Final = files("monitor.adapters").joinpath(name).read_text(encoding="utf-8")
        self._sha1 = hashlib.sha1(self.source.encode()).hexdigest()  # noqa: S324 - Redis names scripts so

    def __call__(self, client: Client, keys: Sequence[str], arguments: Sequence[Any] = ()) -> Any:  # noqa: ANN401
        """Run it; return its answer. Raises what redis-py raises."""
        try:
            return client.evalsha(self._sha1, len(keys), *keys, *arguments)
        except NoScriptError:
            return client.eval(self.source, len(keys), *keys, *arguments)


CHANGES: Final = Script("bank_changes.lua")
EDIT: Final = Script("bank_edit.lua")
LOOK: Final = Script("bank_look.lua")
PUBLISH: Final = Script("bank_publish.lua")
STAGE: Final = Script("bank_stage.lua")


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


def damaged(bank: BankKey, error: Exception) -> StoreUnavailableError:
    """Return the error for a bank whose content makes no sense: its copies stay as they are until it is made anew."""
    remedy = f"Make it anew: paedid-monitor bank rebuild --camera {bank.camera}"
    return StoreUnavailableError(f"bank {tag(bank)} in Redis is damaged ({error}). {remedy}")


def parse_record(bank: BankKey, record: bytes) -> Learned:
    """Read 'version slot evicted-frame ...', as the scripts keep it of every learned frame.

    Raises:
        StoreUnavailableError: it makes no sense.
    """
    try:
        version, slot, *evicted = record.decode().split(" ")
        return Learned(version=int(version), slot=int(slot), evicted=tuple(evicted))
    except ValueError as error:
        raise damaged(bank, error) from error


def parse_entry(bank: BankKey, data: bytes | None, shape: tuple[int, int, int]) -> Entry | None:
    """Read a slot's content; None: it is empty.

    Raises:
        StoreUnavailableError: it makes no sense.
    """
    try:
        return None if data is None else from_bytes(data, shape)
    except ValueError as error:
        raise damaged(bank, error) from error


def parse_delta(bank: BankKey, reply: list[Any]) -> Delta:
    """Read the answer of ``bank_changes.lua``.

    Raises:
        BankMissingError: there is no such bank.
        StoreUnavailableError: what it holds makes no sense.
    """
    if reply[:1] == [b"missing"]:
        raise missing(bank)
    try:
        status, version, head, text, *rest = reply
        shape = _parse_shape(text)
        names = tuple(map(int, rest)) if status == b"names" else ()
        changed = () if names else tuple(zip(map(int, rest[::2]), rest[1::2], strict=True))
        number = int(version)
    except (TypeError, ValueError) as error:
        raise damaged(bank, error) from error
    return Delta(
        reload=status == b"reload",
        version=number,
        head=head,
        shape=shape,
        names=names,
        slots=tuple(SlotChange(slot, parse_entry(bank, data, shape)) for slot, data in changed),
    )


def _parse_shape(text: bytes) -> tuple[int, int, int]:
    p1, p2, p3 = map(int, text.split(b","))
    if min(p1, p2, p3) < 1 or most_bytes((p1, p2, p3)) > MOST_ENTRY_BYTES:
        msg = f"entries of shape {p1},{p2},{p3}"
        raise ValueError(msg)
    return p1, p2, p3
