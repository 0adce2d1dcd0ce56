"""Whatever Redis answers and a snapshot's file holds: a bank's content, or an error that says it is damaged."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from monitor.adapters.redis_bank_wire import MOST_ENTRY_BYTES, parse_delta, parse_record
from monitor.core import bank_entry
from monitor.errors import BankMissingError, StoreUnavailableError
from monitor.learning.lesson import Lesson
from monitor.learning.snapshot import Snapshot
from monitor.ports import BankKey, BankShape, Policy
from schemas.errors import OperatorError
from tests.fuzz.bounds import bounded, fuzzed
from tests.fuzz.damage import damaged

BANK = BankKey("cam", "model-1")
SHAPE = (4, 4, 6)
ENTRY = np.arange(96, dtype=np.float16).reshape(SHAPE)
PART = bank_entry.keep_only(ENTRY, np.eye(4, dtype=np.bool_))
ENTRIES = [bank_entry.to_bytes(ENTRY), bank_entry.to_bytes(PART)]
NUMBERS = st.sampled_from([b"0", b"7", b"-1", b"", b"x", b"1e9", b"\xff", b"9" * 5000, b"1_0", None, 3])
SHAPES = st.one_of(
    st.just(b"4,4,6"),
    st.lists(st.sampled_from([b"4", b"6", b"0", b"-4", b"99999", b"4000000", b"9" * 30]), max_size=4).map(b",".join),
)  # fmt: skip
CONTENTS = st.one_of(st.none(), st.sampled_from(ENTRIES), damaged(ENTRIES), st.binary(max_size=40), st.just(bytes(2)))
KINDS = st.sampled_from([b"changes", b"names", b"reload", b"missing", b"", None, b"\xff"])
SNAPSHOT = Snapshot(
    BankShape("0" * 64, SHAPE), "cam", "model-1", 3,
    [(Lesson("f1", "1" * 64, "me", None, Policy.PERSON), ENTRY),
     (Lesson("f2", "2" * 64, "me", "why", Policy.RULE), PART)],
)  # fmt: skip
MANIFEST = {
    "format": 1, "encoder_hash": "0" * 64, "shape": [4, 4, 6], "camera": "cam", "model_id": "m", "version": 3,
    "entries": [{"frame_id": "f1", "image_sha256": "1" * 64, "by": "me", "why": None, "policy": "person"}],
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([1e308, 4_000_000, -1]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@fuzzed
@given(KINDS, NUMBERS, SHAPES, st.lists(st.tuples(NUMBERS, CONTENTS), max_size=2), st.integers(0, 9))
def test_any_answer_is_changes_or_a_damaged_bank(
    kind: bytes | None, version: object, shape: bytes, slots: list[tuple[object, bytes | None]], cut: int
) -> None:
    reply = [kind, version, b"head", shape, *(part for slot in slots for part in slot)]
    # Each entry may take the most that one may.
    with bounded(StoreUnavailableError, BankMissingError, megabytes=2 * MOST_ENTRY_BYTES // 2**20 + 64):
        delta = parse_delta(BANK, reply[: max(1, len(reply) - cut)])
        assert all(change.features is None or change.features.shape == delta.shape for change in delta.slots)


@fuzzed
@given(st.binary(max_size=40) | damaged([b"12 3 frame-1 frame-2"]) | st.just(b"9" * 5000 + b" 1"))
def test_any_record_is_a_learned_frame_or_a_damaged_bank(record: bytes) -> None:
    with bounded(StoreUnavailableError):
        parse_record(BANK, record)


@fuzzed
@given(damaged([SNAPSHOT.to_bytes()]))
def test_a_damaged_snapshot_is_a_snapshot_or_none(data: bytes) -> None:
    with bounded(OperatorError):
        Snapshot.from_bytes(data)


@fuzzed
@given(st.dictionaries(st.sampled_from(sorted(MANIFEST)), JSON, max_size=2) | JSON, st.booleans())
def test_a_snapshot_of_any_manifest_is_a_snapshot_or_none(wrong: object, nested: bool) -> None:  # noqa: FBT001
    told = json.dumps(MANIFEST | wrong if isinstance(wrong, dict) else wrong) if not nested else "[" * 5000
    arrays = {"manifest": told.encode(), "entry-0": ENTRIES[0]}
    data = save({name: np.frombuffer(content, np.uint8) for name, content in arrays.items()})
    with bounded(OperatorError):
        Snapshot.from_bytes(data)
