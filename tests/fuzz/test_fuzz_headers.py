"""Whatever key and headers a message has: a frame's metadata, or a dead letter."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from monitor.clock import FakeClock
from monitor.intake import Door
from monitor.overload import PAST_DEADLINE, Pace
from monitor.ports import DeadLetter, LogPosition, RawRecord
from monitor.settings import CameraSettings, LimitSettings
from schemas.messages import FrameEvent
from tests.fuzz.bounds import bounded, fuzzed
from tests.fuzz.damage import damaged

EVENT = FrameEvent(
    frame_id="f1", camera="cam", captured_at=datetime(2024, 1, 1, tzinfo=UTC), part_serial="S", lot="L", deadline_ms=9
)
VALID = dict(EVENT.to_headers())
MOST = 5
DOOR = Door(LimitSettings(), CameraSettings(most=MOST), FakeClock(), Pace())
TIMES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2024-01-01T24:00:00Z", "nan", "inf", "-1e308",
         "1" * 400, "2024-02-30T00:00:00Z", "2999-12-31T23:59:59Z", "99999999999", "2024-01-01"]  # fmt: skip
NUMBERS = ["-1", "0", "1e5", "86400000", "86400001", "9" * 5000, "١", "1_0", " 7 ", "0x7", "NaN"]
TEXT = st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass"))
VALUES = st.one_of(
    st.none(), TEXT, st.binary(max_size=40), st.sampled_from([*TIMES, *NUMBERS]).map(str.encode),
    damaged(list(VALID.values())), st.integers(4000, 5000).map(bytes),
)  # fmt: skip
KEYS = st.one_of(st.none(), st.binary(max_size=40), TEXT, st.sampled_from("abcdefgh").map(str.encode))
NAMES = st.one_of(st.sampled_from([*VALID, "CE_ID", "ce_tÏme"]), st.text(max_size=20), st.just("x" * 5000))


def admit(key: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    record = RawRecord(LogPosition("frames", "id", 0, 0), key, tuple(headers), b"an image")
    with bounded():
        answer = DOOR.admit(record)
        if isinstance(answer, FrameEvent):
            assert answer.camera.encode() == key
            assert FrameEvent.from_record(key, answer.to_headers()) == answer
        elif isinstance(answer, DeadLetter):
            assert answer.detail
        else:
            assert answer.reason == PAST_DEADLINE
    assert len(DOOR._met) <= MOST


@fuzzed
@given(KEYS, st.dictionaries(st.sampled_from(sorted(VALID)), VALUES, max_size=2))
def test_a_header_that_is_wrong_makes_a_dead_letter(key: bytes | None, wrong: dict[str, bytes | None]) -> None:
    admit(key, list((VALID | wrong).items()))


@fuzzed
@given(KEYS, st.lists(st.tuples(NAMES, VALUES), max_size=12), st.integers(0, 7))
def test_any_headers_make_a_frame_or_a_dead_letter(
    key: bytes | None, headers: list[tuple[str, bytes | None]], times: int
) -> None:
    admit(key, headers * times)
