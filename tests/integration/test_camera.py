"""The camera agent over a real broker."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from structlog.testing import capture_logs

from deploy.local.servers import TansuBroker
from monitor.adapters import camera as camera_adapter
from monitor.adapters.camera import Capture, Encoding, Video
from monitor.adapters.kafka import FrameSender, ensure_topics
from monitor.camera import run_camera
from monitor.decoding import decode_image
from monitor.settings import KafkaSettings, LimitSettings
from schemas.errors import ConfigurationError
from schemas.messages import FrameEvent, new_frame_id, utc_now

LIMITS = LimitSettings()


FIRST_MS = 20_000  # a busy machine takes its time to find a topic


def read_frames(settings: KafkaSettings, quiet_ms: int = 1500) -> list[tuple[FrameEvent, bytes]]:
    """Return the frames of the topic, once one is there and no more came for so long."""
    options: dict[str, Any] = {"auto_offset_reset": "earliest"}
    found: list[ConsumerRecord] = []
    with KafkaConsumer(settings.frames_topic, bootstrap_servers=settings.bootstrap_servers, **options) as consumer:
        while polled := consumer.poll(quiet_ms if found else FIRST_MS):
            found += [record for records in polled.values() for record in records]
    return [(FrameEvent.from_record(m.key, m.headers), m.value) for m in found]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (3, 1, 2):
        cv2.imwrite(str(folder / f"part-{number}.png"), np.full((20, 30), number, np.uint8))
    (folder / "part-4.jpg").write_bytes(b"not an image")
    (folder / "notes.txt").write_text("no image either")
    return folder


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    assert writer.isOpened()
    for level in range(0, 250, 25):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    return path


def test_a_folder_arrives_in_order_as_its_original_bytes(folder: Path, kafka_settings: KafkaSettings) -> None:
    summary = run_camera(str(folder), "cam-7", kafka_settings, LIMITS, lot="L1", deadline_ms=500)
    frames = read_frames(kafka_settings)
    assert (summary.taken, summary.acknowledged, summary.unacknowledged, summary.dropped) == (4, 4, 0, 0)
    assert [event.part_serial for event, _ in frames] == ["part-1", "part-2", "part-3", "part-4"]
    assert [data for _, data in frames] == [path.read_bytes() for path in sorted(folder.glob("part*"))]
    assert [event.content_type for event, _ in frames] == ["image/png"] * 3 + ["image/jpeg"]
    assert {(event.camera, event.lot, event.deadline_ms) for event, _ in frames} == {("cam-7", "L1", 500)}
    assert len({event.frame_id for event, _ in frames}) == 4


@pytest.mark.parametrize("encoding", ["png", "jpeg"])
def test_a_video_arrives_frame_by_frame(video: Path, encoding: Encoding, kafka_settings: KafkaSettings) -> None:
    assert run_camera(str(video), "cam", kafka_settings, LIMITS, encoding=encoding).acknowledged == 10
    frames = read_frames(kafka_settings)
    levels = [decode_image(data, LIMITS, (48, 64), 1).mean() for _, data in frames]
    np.testing.assert_allclose(levels, range(0, 250, 25), atol=4)
    assert {(e.content_type, e.part_serial) for e, _ in frames} == {(f"image/{encoding}", None)}


@pytest.mark.parametrize("kind", ["folder", "video"])
def test_a_loop_begins_again_with_new_ids_until_the_limit(
    kind: str, request: pytest.FixtureRequest, kafka_settings: KafkaSettings
) -> None:
    source = str(request.getfixturevalue(kind))
    assert run_camera(source, "cam", kafka_settings, LIMITS, loop=True, limit=23).taken == 23
    frames = read_frames(kafka_settings)
    assert len({event.frame_id for event, _ in frames}) == 23
    period = 4 if kind == "folder" else 10
    assert [data for _, data in frames[period : 2 * period]] == [data for _, data in frames[:period]]


def test_a_rate_is_kept(folder: Path, kafka_settings: KafkaSettings) -> None:
    run_camera(str(folder), "cam", kafka_settings, LIMITS, rate=20, loop=True, limit=11)
    times = [event.captured_at for event, _ in read_frames(kafka_settings)]
    assert 0.48 <= (times[-1] - times[0]).total_seconds() < 2


def test_a_signal_ends_the_agent_after_what_it_sent_is_acknowledged(
    folder: Path, kafka_settings: KafkaSettings
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    summary = run_camera(str(folder), "cam", kafka_settings, LIMITS, rate=200, loop=True)
    assert summary.taken == summary.acknowledged == len(read_frames(kafka_settings)) > 10
    assert signal.getsignal(signal.SIGTERM) is handler


def test_frames_are_kept_while_the_broker_is_away_and_arrive_in_order(embedded_broker: TansuBroker) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    ensure_topics(settings, LIMITS)
    sender = FrameSender(settings, max_bytes=10**6, delivery_timeout_s=2)
    events = [frame_event() for _ in range(60)]
    for event in events[:20]:
        sender.offer(event, b"before")
    flush(sender)
    embedded_broker.kill()  # and with it what it held
    for event in events[20:40]:
        assert sender.offer(event, b"away")
        time.sleep(0.02)
    embedded_broker.start()
    for event in events[40:]:
        sender.offer(event, b"after")
        time.sleep(0.02)
    flush(sender)
    assert (sender.taken, sender.acknowledged, sender.waiting, sender.too_large) == (60, 60, 0, 0)
    sender.close()
    arrived = [event.frame_id for event, _ in read_frames(settings)]
    assert list(dict.fromkeys(arrived)) == [event.frame_id for event in events[20:]]


def flush(sender: FrameSender) -> None:
    deadline = time.monotonic() + 20
    while sender.waiting and time.monotonic() < deadline:
        sender.collect()
        time.sleep(0.01)


def test_what_waits_for_the_broker_is_bounded_in_bytes(embedded_broker: TansuBroker) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    ensure_topics(settings, LIMITS)
    sender = FrameSender(settings, max_bytes=10_000, delivery_timeout_s=1)
    embedded_broker.kill()
    taken = [sender.offer(frame_event(), bytes(3000)) for _ in range(5)]
    assert taken == [True, True, True, False, False]
    embedded_broker.start()
    flush(sender)
    assert (sender.taken, sender.acknowledged, sender.waiting) == (3, 3, 0)
    assert sender.offer(frame_event(), bytes(50_000))  # larger than all, but alone
    sender.close()
    assert len(read_frames(settings, 500)) >= 3


def test_a_sender_closes_at_once_whatever_waits(embedded_broker: TansuBroker) -> None:
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    ensure_topics(settings, LIMITS)
    threads = threading.active_count()
    sender = FrameSender(settings, max_bytes=10_000, delivery_timeout_s=30)
    embedded_broker.kill()
    sender.offer(frame_event(), b"frame")
    started = time.monotonic()
    sender.close()
    assert time.monotonic() - started < 0.9
    assert threading.active_count() <= threads


def frame_event() -> FrameEvent:
    return FrameEvent(frame_id=new_frame_id(), camera="cam", captured_at=utc_now())


def test_an_agent_stopped_during_an_outage_says_what_is_lost(
    folder: Path, embedded_broker: TansuBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.camera.FLUSH_S", 0.5)
    settings = KafkaSettings(bootstrap_servers=embedded_broker.address)
    stop = threading.Event()
    threading.Timer(0.5, embedded_broker.kill).start()
    threading.Timer(1.0, stop.set).start()
    started = time.monotonic()
    summary = run_camera(str(folder), "cam", settings, LIMITS, rate=50, loop=True, stop=stop)
    assert time.monotonic() - started < 5
    assert summary.unacknowledged > 5
    assert summary.taken == summary.acknowledged + summary.unacknowledged


def test_frames_of_a_live_source_that_come_while_too_many_wait_are_counted_and_told_of_once(
    video: Path, embedded_broker: TansuBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def live(source: str, encoding: Encoding, **_: object) -> Video:
        return Video(source, encoding, live=True, rate=None)

    monkeypatch.setattr("monitor.camera.open_source", live)
    monkeypatch.setattr("monitor.camera.FLUSH_S", 0.5)
    monkeypatch.setattr(camera_adapter, "REOPEN_S", 0.01)
    settings, stop = KafkaSettings(bootstrap_servers=embedded_broker.address), threading.Event()
    threading.Timer(0.5, embedded_broker.kill).start()
    threading.Timer(2.0, stop.set).start()
    with capture_logs() as logs:
        summary = run_camera(str(video), "cam", settings, LIMITS, stop=stop, spool_bytes=1000)
    assert summary.spool_full > 5
    assert summary.taken == summary.acknowledged + summary.unacknowledged + summary.spool_full
    assert summary.problem is not None
    assert f"{summary.spool_full} frames were dropped: too many waited for Kafka" in summary.problem
    assert [entry["event"] for entry in logs].count("Frames are dropped: too many wait for Kafka") == 1


def test_a_live_source_drops_to_the_rate(video: Path) -> None:
    # A file that plays as fast as it is read stands in for a stream.
    stop = threading.Event()
    captures: list[Capture] = []
    live = Video(str(video), "png", live=True, rate=20)
    started = time.monotonic()
    for capture in live.captures(stop):
        captures.append(capture)
        if len(captures) == 3:
            stop.set()
    assert time.monotonic() - started >= 0.09


def test_a_live_source_that_breaks_off_is_opened_again(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_adapter, "REOPEN_S", 0.01)
    stop = threading.Event()
    count = 0
    for _ in Video(str(video), "png", live=True, rate=None).captures(stop):
        count += 1
        if count == 25:  # the file has 10 frames
            stop.set()
    assert count == 25


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda tmp: str(tmp / "missing"), "no such file, folder or device"),
        (str, "the folder holds no images"),
        (lambda tmp: str(tmp / "broken.avi"), "OpenCV cannot open it"),
        (lambda _: "rtsp://user:hunter2@127.0.0.1:1/stream", "OpenCV cannot open it"),
        (lambda _: "97", "OpenCV cannot open it"),
    ],
)
def test_a_source_that_cannot_be_opened_is_named_without_its_password(
    make: Callable[[Path], str],
    problem: str,
    tmp_path: Path,
    kafka_settings: KafkaSettings,
) -> None:
    (tmp_path / "broken.avi").write_bytes(b"RIFF....AVI nonsense")
    with pytest.raises(ConfigurationError) as caught:
        run_camera(make(tmp_path), "cam", kafka_settings, LIMITS)
    assert problem in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_camera_id_that_kafka_keys_cannot_hold_is_refused_at_start(
    folder: Path, kafka_settings: KafkaSettings
) -> None:
    with pytest.raises(ConfigurationError, match="camera = 'no spaces'"):
        run_camera(str(folder), "no spaces", kafka_settings, LIMITS)
