"""A bank in Redis that is damaged is said to be, and says how to mend it; it takes no memory."""

from __future__ import annotations

import pytest

from monitor.adapters.redis_bank_wire import parse_delta, parse_record
from monitor.errors import StoreUnavailableError
from monitor.ports import BankKey

KEY = BankKey("cam", "toy-1")
EMPTY = bytes(2)  # an entry of 4 x 4 locations that keeps none of them


@pytest.mark.parametrize(
    "reply",
    [
        [],
        [b"changes", b"1", b"head"],
        [b"changes", b"one", b"head", b"4,4,6"],
        [b"changes", b"1", b"head", b"4,4"],
        [b"changes", b"1", b"head", b"4,4,900000000", b"2", EMPTY],
        [b"changes", b"1", b"head", b"4,4,-6", b"2", EMPTY],
        [b"changes", b"1", b"head", b"4,4,6", b"2"],
        [b"changes", b"1", b"head", b"4,4,6", b"2", b"\xff\xff and less"],
        [b"names", b"1", b"head", b"4,4,6", b"two"],
    ],
)
def test_an_answer_that_makes_no_sense_names_the_bank_and_the_remedy(reply: list[bytes]) -> None:
    with pytest.raises(StoreUnavailableError, match=r"bank cam:toy-1 in Redis is damaged .*bank rebuild --camera cam"):
        parse_delta(KEY, reply)


@pytest.mark.parametrize("record", [b"", b"1", b"one 2", b"\xff 2", b"9" * 5000 + b" 2"])
def test_a_record_that_makes_no_sense_names_the_bank(record: bytes) -> None:
    with pytest.raises(StoreUnavailableError, match="bank cam:toy-1 in Redis is damaged"):
        parse_record(KEY, record)
