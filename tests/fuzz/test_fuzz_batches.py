"""Record batches as a broker with a damaged disk may give them: what cannot be read is stood in for, no more."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition
from kafka.protocol.consumer import IsolationLevel
from kafka.record import MemoryRecords
from kafka.record.memory_records import MemoryRecordsBuilder

from monitor.adapters.kafka.library_records import UnreadableRecord, _PartitionRecords
from tests.fuzz.bounds import bounded, fuzzed_more

PARTITION = TopicPartition("frames", 0)
FIRST = 100
PER_BATCH = 3
OFFSET_BYTES = 8
LENGTH_BYTES = 12
READER = type("Reader", (_PartitionRecords,), {"most_bytes": 100_000})


def batches(codec: int) -> bytes:
    """Return two batches of three messages each."""
    found = b""
    for number in range(2):
        builder = MemoryRecordsBuilder(2, codec, 1_000_000)
        for index in range(PER_BATCH):
            builder.append(1_700_000_000_000, b"cam", bytes([index]) * 200, [("ce_id", b"%d" % index)])
        builder.close()
        # As a broker does: it says where in the log a batch begins.
        found += (FIRST + PER_BATCH * number).to_bytes(OFFSET_BYTES) + bytes(builder.buffer())[OFFSET_BYTES:]
    return found


WHOLE = {codec: batches(codec) for codec in range(5)}


def read(data: bytes) -> tuple[list[Any], int]:
    part = READER(FIRST, PARTITION, MemoryRecords(data), isolation_level=IsolationLevel.READ_COMMITTED)
    return part.take(), part.next_fetch_offset


@given(codec=st.sampled_from(sorted(WHOLE)))
def test_sound_batches_are_read_as_they_are(codec: int) -> None:
    records, after = read(WHOLE[codec])
    assert [record.offset for record in records] == list(range(FIRST, FIRST + 2 * PER_BATCH))
    assert not any(isinstance(record, UnreadableRecord) for record in records)
    assert after == FIRST + 2 * PER_BATCH


@fuzzed_more
@given(
    codec=st.sampled_from(sorted(WHOLE)),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 50),
)
def test_damaged_batches_never_stop_the_reading(codec: int, flips: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE[codec])
    second = len(data) // 2
    for place, mask in flips:
        # A batch begins with its first offset, which no checksum covers: a wrong one looks like a gap in the log.
        if (at := place % len(data)) % second >= OFFSET_BYTES:
            data[at] ^= mask
    damaged = bytes(data[: len(data) - cut])
    with bounded():
        records, after = read(damaged)
    offsets = [record.offset for record in records if record.offset >= FIRST]
    assert offsets == sorted(set(offsets))
    # The next fetch begins further on, or the broker is asked for the same again because nothing came whole.
    if MemoryRecords(damaged).has_next():
        assert after > FIRST
    assert all(offset < after for offset in offsets)


@fuzzed_more
@given(
    codec=st.sampled_from(sorted(WHOLE)),
    flips=st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=6),
)
def test_a_damaged_batch_costs_no_message_of_the_sound_one_behind_it(codec: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(WHOLE[codec])
    second = len(data) // 2
    for place, mask in flips:
        # Not its length: where that is wrong, only the broker's index finds the next batch.
        data[LENGTH_BYTES + place % (second - LENGTH_BYTES)] ^= mask
    with bounded():
        records, _ = read(bytes(data))
    whole = {record.offset: record for record in records}
    assert sorted(whole) == list(range(FIRST, FIRST + 2 * PER_BATCH))
    assert not any(isinstance(whole[FIRST + PER_BATCH + number], UnreadableRecord) for number in range(PER_BATCH))
