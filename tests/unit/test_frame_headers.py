"""Frame headers that no database could store never get as far as a batch: they would hold it up for ever."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from schemas.errors import InvalidFrameError, Reason
from schemas.messages import FrameEvent, utc_now

FRAME = FrameEvent(frame_id="f1", camera="cam1", captured_at=utc_now(), part_serial="Teil-Ä 1")


def test_headers_make_the_same_frame_again() -> None:
    assert FrameEvent.from_record(b"cam1", FRAME.to_headers()) == FRAME


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ce_partserial", b"nul\0"),
        ("ce_partserial", b"line\n"),
        ("ce_lot", b"\x7f"),
        ("ce_time", b"0001-01-01T00:00:00+14:00"),
        ("ce_time", b"9999-12-31T23:59:59-14:00"),
        ("ce_time", b"1700000000"),
        ("ce_time", b"2026-01-31"),
        ("ce_time", b"2026-01-31T23:59:59"),
        ("content-type", b"image/" + b"x" * 59),
    ],
)
def test_headers_that_cannot_be_stored_are_invalid(name: str, value: bytes) -> None:
    headers = dict(FRAME.to_headers()) | {name: value}
    with pytest.raises(InvalidFrameError) as caught:
        FrameEvent.from_record(b"cam1", headers.items())
    assert caught.value.reason is Reason.INVALID_HEADERS


@pytest.mark.parametrize("text", ["2026-01-31T22:59:59.123456Z", "2026-01-31t23:59:59.123456789+01:00"])
def test_capture_times_are_as_in_rfc_3339(text: str) -> None:
    headers = dict(FRAME.to_headers()) | {"ce_time": text.encode()}
    read = FrameEvent.from_record(b"cam1", headers.items()).captured_at
    assert read == datetime(2026, 1, 31, 22, 59, 59, 123456, UTC)
