"""Who may come in: frames from the future and of cameras that nobody expects become dead letters, undecoded."""

from __future__ import annotations

from datetime import timedelta

import pytest

from monitor.clock import FakeClock
from monitor.intake import Door
from monitor.overload import Pace
from monitor.ports import DeadLetter, LogPosition, RawRecord
from monitor.settings import CameraSettings, LimitSettings, load_settings
from schemas.errors import ConfigurationError, Reason
from schemas.messages import FrameEvent
from tests.unit.pipeline_fakes import NORMAL, Bench, make_settings, png

CLOCK = FakeClock()


def door(**cameras: object) -> Door:
    return Door(LimitSettings(max_clock_ahead_s=60), CameraSettings.model_validate(cameras), CLOCK, Pace())


def record(camera: str = "cam", ahead_s: float = 0, value: bytes | None = b"an image") -> RawRecord:
    event = FrameEvent(frame_id="f1", camera=camera, captured_at=CLOCK.now() + timedelta(seconds=ahead_s))
    return RawRecord(LogPosition("frames", "id", 0, 0), camera.encode(), tuple(event.to_headers()), value)


def refusal(answer: object) -> DeadLetter:
    assert isinstance(answer, DeadLetter)
    return answer


def admitted(answer: object) -> bool:
    return isinstance(answer, FrameEvent)


def test_a_message_that_could_not_be_read_says_why() -> None:
    letter = refusal(door().admit(RawRecord(LogPosition("frames", "id", 0, 0), None, (), None, problem="not UTF-8")))
    assert (letter.reason, letter.detail) == (Reason.UNREADABLE, "the message itself cannot be read: not UTF-8")


@pytest.mark.parametrize("value", [None, b""])
def test_a_message_without_a_value_is_empty(value: bytes | None) -> None:
    assert refusal(door().admit(record(value=value))).reason is Reason.EMPTY


def test_a_message_without_headers_says_so_whatever_it_holds() -> None:
    bare = RawRecord(LogPosition("frames", "id", 0, 0), b"cam", (), b"an image")
    letter = refusal(door().admit(bare))
    assert (letter.reason, letter.record) == (Reason.MISSING_HEADERS, bare)


def test_a_frame_from_the_future_is_refused_beyond_the_limit_and_the_detail_says_by_how_much() -> None:
    assert admitted(door().admit(record(ahead_s=60)))
    assert admitted(door().admit(record(ahead_s=-1e9)))
    letter = refusal(door().admit(record(ahead_s=61)))
    assert letter.reason is Reason.CLOCK_AHEAD
    assert "61 s ahead" in letter.detail
    assert "limits.max_clock_ahead_s is 60" in letter.detail


def test_only_the_cameras_that_are_named_come_in_however_many_they_are() -> None:
    named = door(known=["line-1", "line-2"], most=1)
    assert admitted(named.admit(record("line-1")))
    assert admitted(named.admit(record("line-2")))
    letter = refusal(named.admit(record("line-3")))
    assert letter.reason is Reason.UNKNOWN_CAMERA
    assert "cameras.known does not name camera 'line-3'" in letter.detail


def test_without_names_the_first_cameras_come_in_and_stay_in() -> None:
    counted = door(most=2)
    assert [admitted(counted.admit(record(camera))) for camera in "abcab"] == [True, True, False, True, True]
    letter = refusal(counted.admit(record("c")))
    assert letter.reason is Reason.UNKNOWN_CAMERA
    assert "camera 'c' is one more than cameras.most, which is 2" in letter.detail


def test_what_is_refused_for_another_reason_takes_no_cameras_place() -> None:
    counted = door(most=1)
    assert not admitted(counted.admit(record("liar", ahead_s=1000)))
    assert admitted(counted.admit(record("honest")))


def test_the_pipeline_makes_no_bank_for_a_camera_too_many() -> None:
    settings = make_settings()
    bench = Bench(settings.model_copy(update={"cameras": CameraSettings(most=2)}))
    for number in range(6):
        bench.line.send(f"f{number}", png(NORMAL), camera=f"cam{number}")
    bench.run()
    assert list(bench.store.verdicts) == ["f0", "f1"]
    assert [letter.reason for letter in bench.store.dead_letters] == [Reason.UNKNOWN_CAMERA] * 4
    assert len({id(bank) for _, bank in bench.inspector.calls}) == 2


def test_the_environment_names_the_cameras_as_yaml_or_json_or_not_at_all() -> None:
    for text, names in (("[line-1, 7]", ("line-1", "7")), ('["line-1", "7"]', ("line-1", "7")), ("", ()), ("[]", ())):
        assert load_settings(environment={"PAEDID_CAMERAS__KNOWN": text}).cameras.known == names


@pytest.mark.parametrize("wrong", ["line-1", "{line-1: 2}", "[a b]", "["])
def test_names_that_are_none_are_refused_by_their_key(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cameras\.known"):
        load_settings(environment={"PAEDID_CAMERAS__KNOWN": wrong})
