"""How kafka-python reads what it fetched: private members, taken over so that no message can stop it.

See ``library.py`` for the rule: each private member with its reason, and tested on real brokers.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher
from kafka.errors import CorruptRecordError, KafkaError, OffsetOutOfRangeError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import decode_varint

from monitor.adapters.kafka.codecs import UnpackError, unpack

# Of a batch whose header may be damaged: a producer's batch has no more messages than this.
MOST_IN_BATCH: Final = 2**20

FetchError: TypeAlias = tuple[TopicPartition, int, KafkaError]


class ChecksumError(UnpackError):
    """A batch was damaged, perhaps in what it says of itself."""


class UnreadableRecord(NamedTuple):
    """Stands in the place of a message that cannot be read."""

    topic: str
    partition: int
    offset: int
    problem: str


class Fetches:
    """Has what the library fetched read batch by batch. Owned by the thread that owns the consumer.

    ``_fetcher``: the library raises at a batch that it cannot read, each time it comes to it, without the partition's
    name; it forgets the error where the partition is paused meanwhile, and then takes all of a core. Here each batch
    is read by itself, and :class:`UnreadableRecord` stands in the place of what cannot be read.

    Args:
        consumer: before its first poll.
        most_batch_bytes: that a batch may unpack to.
    """

    def __init__(self, consumer: KafkaConsumer, most_batch_bytes: int) -> None:
        self._errors: list[FetchError] = []
        fetcher = consumer._fetcher  # noqa: SLF001
        fetcher.PartitionRecords = type("PartitionRecords", (_PartitionRecords,), {"most_bytes": most_batch_bytes})
        parse = fetcher._parse_fetched_data  # noqa: SLF001

        def parse_or_note(completed: Any) -> Any:  # noqa: ANN401 - the library's
            try:
                return parse(completed)
            except KafkaError as error:
                # What concerns this partition alone. Refusals, say, are told by the poll. A bare KafkaError means that
                # the length of a batch is damaged: "received a non-empty fetch response, but no complete records".
                if not isinstance(error, (OffsetOutOfRangeError, CorruptRecordError)) and type(error) is not KafkaError:
                    raise
                self._errors.append((completed.topic_partition, completed.fetched_offset, error))
                return None

        fetcher._parse_fetched_data = parse_or_note  # noqa: SLF001

    def take_errors(self) -> list[FetchError]:
        """Return what was said of fetches in place of messages: partition, offset asked for, and why."""
        taken, self._errors = self._errors, []
        return taken


class _PartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc] # untyped library
    """The library's, whose iterator of messages is ``_unpack_records``; that one raises for good at the first fault."""

    most_bytes: int
    _inside = False

    def _unpack_records(self, tp: TopicPartition, records: Any, *deserializers: Any) -> Iterator[Any]:  # noqa: ANN401
        damage = ""
        try:
            while (batch := records.next_batch()) is not None:
                # How long a damaged batch is, and how many messages it has, it may say wrongly. A sound one behind it
                # tells; without one the broker is asked again, behind what was given up.
                if damage and not self._is_sound(batch):
                    break
                if damage:
                    yield from self._in_place_of_all(tp, batch.base_offset - 1, damage)
                damage = ""
                try:
                    yield from self._read_batch(tp, batch, deserializers)
                except UnpackError as error:
                    damage = str(error) if isinstance(error, ChecksumError) else ""
                    last = _last_offset(batch, sound=not damage)
                    yield from self._in_place_of_all(tp, max(self.next_fetch_offset, last), str(error))
        except (CorruptRecordError, struct.error) as error:  # not even a header
            if not damage:
                yield self._in_place_of(tp, self.next_fetch_offset, str(error))
        self.drain()

    def _read_batch(self, tp: TopicPartition, batch: Any, deserializers: tuple[Any, ...]) -> Iterator[Any]:  # noqa: ANN401
        """Yield a batch's messages, and what stands for those that cannot be read.

        Raises:
            UnpackError: none of the rest can be.
        """
        self._make_readable(batch)
        while True:
            messages = super()._unpack_records(tp, _One(batch), *deserializers)
            problem = yield from self._until_fault(messages)
            if problem is None:
                return
            # Messages stand one after the other, each with its length: the next one may be sound.
            offset = _step_over(batch)
            if offset is None:
                # A batch of an old format may be one of today's, with a damaged version.
                raise (UnpackError if isinstance(batch, DefaultRecordBatch) else ChecksumError)(problem)
            yield self._in_place_of(tp, offset, problem)

    def _make_readable(self, batch: Any) -> None:  # noqa: ANN401 - the library's
        """Check and unpack a batch in the library's place, which unpacks without a limit.

        Raises:
            UnpackError: it cannot be.
        """
        if not isinstance(batch, DefaultRecordBatch):  # an old format, which Kafka 4 has no more
            return
        if not batch.validate_crc():
            msg = "its checksum is wrong: it was damaged on the broker's disk or on the way"
            raise ChecksumError(msg)
        if batch.last_offset < self.next_fetch_offset:
            msg = f"its offsets end at {batch.last_offset}, before the one that was asked for"
            raise UnpackError(msg)
        self.check_crcs = False  # once; the library checks before it unpacks, which is done here
        self._consume_aborted_transactions_up_to(batch.last_offset)
        if batch.compression_type and not (batch.is_control_batch or self._is_batch_aborted(batch)):
            data = bytes(memoryview(batch._buffer)[batch._pos :])  # noqa: SLF001
            batch._buffer = bytearray(unpack(batch.compression_type, data, self.most_bytes))  # noqa: SLF001
            batch._pos, batch._decompressed = 0, True  # noqa: SLF001

    def _until_fault(self, messages: Iterator[Any]) -> Generator[Any, None, str | None]:
        """Yield messages; return what is wrong with the next one, or None at the end."""
        while True:
            self._inside = True
            try:
                message = next(messages)
            except StopIteration:
                return None
            except Exception as error:  # noqa: BLE001 - whatever the library runs into, the message cannot be read
                return str(error) or type(error).__name__
            finally:
                self._inside = False
            yield message

    def _is_sound(self, batch: Any) -> bool:  # noqa: ANN401 - the library's
        if not isinstance(batch, DefaultRecordBatch):
            return False
        follows = 0 <= batch.base_offset - self.next_fetch_offset < MOST_IN_BATCH
        return follows and bool(batch.validate_crc())

    def _in_place_of_all(self, tp: TopicPartition, last: int, problem: str) -> Iterator[UnreadableRecord]:
        for offset in range(self.next_fetch_offset, last + 1):
            yield self._in_place_of(tp, offset, problem)

    def _in_place_of(self, tp: TopicPartition, offset: int, problem: str) -> UnreadableRecord:
        self.next_fetch_offset = offset + 1
        return UnreadableRecord(tp.topic, tp.partition, offset, problem)

    def drain(self) -> None:
        """Forget what is left. The library's iterator does so after what it takes for the last batch."""
        if not self._inside:
            super().drain()


def _last_offset(batch: Any, *, sound: bool) -> int:  # noqa: ANN401 - the library's
    """Return the offset of a batch's last message; -1 if that is not to be believed: then one message is given up."""
    if not isinstance(batch, DefaultRecordBatch):
        return -1
    count = batch.last_offset_delta + 1
    # Believing a damaged header would cost messages that are sound, so two fields must say the same.
    believed = 0 < count <= (MOST_IN_BATCH if sound else batch.size_in_bytes) and (
        sound or count == batch.records_count
    )
    return int(batch.base_offset + count - 1) if believed else -1


class _One:
    """One batch, where the library reads many."""

    def __init__(self, batch: Any) -> None:  # noqa: ANN401 - the library's
        self._batch = batch

    def next_batch(self) -> Any:  # noqa: ANN401 - the library's
        batch, self._batch = self._batch, None
        return batch


def _step_over(batch: Any) -> int | None:  # noqa: ANN401 - the library's
    """Go past the message at which the library stopped; return its offset, or None where that cannot be done.

    ``_pos``, ``_next_record_index``: where it stopped, which it counts on only after a message was read.
    """
    if not isinstance(batch, DefaultRecordBatch):
        return None
    try:
        buffer = batch._buffer  # noqa: SLF001
        length, start = decode_varint(buffer, batch._pos)  # noqa: SLF001
        at = start
        for _ in range(3):  # attributes, time, offset
            value, at = decode_varint(buffer, at)
    except (ValueError, IndexError):
        return None
    offset = batch.base_offset + value
    if not (at - start <= length <= len(buffer) - start and batch.base_offset <= offset <= batch.last_offset):
        return None
    batch._pos, batch._next_record_index = start + length, batch._next_record_index + 1  # noqa: SLF001
    return int(offset)
