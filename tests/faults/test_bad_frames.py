"""Frames that no camera should send: each ends in the dead letters as it came, and the stream goes on."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import redis
import yaml

from deploy.local.programs import Program
from deploy.local.quick import SIZE
from tests.faults.line import LINE, MakeLine, Message, good_png, png, wait_until

MAX_BYTES = 100_000


@dataclass(frozen=True)
class Bad:
    name: str
    message: Message
    reason: str


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """Return a valid PNG of a few kilobytes that holds 2.5 gigapixels."""
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def bad_frames() -> list[Bad]:
    good = good_png(1)
    jpeg = cv2.imencode(".jpg", LINE.good_part(1).image)[1].tobytes()
    damaged = bytearray(good)
    damaged[len(good) // 2] ^= 0xFF
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), np.uint8)
    headers = Message.of(good).headers
    late = tuple((name, b"yesterday" if name == "ce_time" else value) for name, value in headers)
    other = tuple((name, b"com.example.other" if name == "ce_type" else value) for name, value in headers)
    return [
        Bad("half a PNG", Message.of(good[: len(good) // 2]), "truncated"),
        Bad("half a JPEG", Message.of(jpeg[: len(jpeg) // 2]), "truncated"),
        Bad("a PNG with a changed byte", Message.of(bytes(damaged)), "truncated"),
        Bad("only a signature", Message.of(good[:8]), "truncated"),
        Bad("text", Message.of(b"Traceback (most recent call last):"), "not_an_image"),
        Bad("zeros", Message.of(bytes(5000)), "not_an_image"),
        Bad("another camera's size", Message.of(png(np.zeros((SIZE, SIZE + 1), np.uint8))), "wrong_size"),
        Bad("gigapixels", Message.of(bomb()), "too_many_pixels"),
        Bad("too many bytes", Message.of(png(noise)), "too_large"),
        Bad("no bytes", Message.of(b""), "empty"),
        Bad("no value", Message.of(None), "empty"),
        Bad("no headers", Message(b"press-1", good_png(2), ()), "missing_headers"),
        Bad("no key", Message(None, good, headers), "missing_headers"),
        Bad("a time that is none", Message(b"press-1", good_png(3), late), "invalid_headers"),
        Bad("from tomorrow", Message.of(good, captured_at=datetime.now(UTC) + timedelta(days=1)), "clock_ahead"),
        Bad("another event", Message(b"press-1", good_png(4), other), "invalid_headers"),
        Bad("a key that is no text", Message(b"\xff\xfe", good, headers), "invalid_headers"),
    ]


def test_bad_frames_become_dead_letters_and_the_stream_goes_on(make_line: MakeLine, sqlite_url: str) -> None:
    line = make_line(sqlite_url, limits={"max_frame_bytes": MAX_BYTES})
    bad = bad_frames()
    good = [Message.of(good_png(10 + number)) for number in range(len(bad) + 1)]
    stream = [good[0]]
    for number, each in enumerate(bad, 1):
        stream += [each.message, good[number]]
    with line.program("worker", "run") as worker:
        line.send(stream)
        wait_until(lambda: line.settled() == len(stream), programs=[worker])
        dead = line.read(line.kafka.dead_topic, lambda found: len(found) == len(bad))
        # Long after them, too.
        after = Message.of(good_png(5))
        line.send([after])
        wait_until(lambda: line.verdict(after.frame_id) is not None, programs=[worker])
    assert worker.exit_code == 0
    assert line.committed() == len(stream) + 1

    verdicts = dict(line.query("SELECT frame_id, verdict FROM inspections"))
    assert verdicts.keys() == {message.frame_id for message in [*good, after]}
    assert set(verdicts.values()) <= {"normal", "defect"}

    assert len(dead) == len(bad)
    for each in bad:
        sent = each.message
        # A tombstone without a key cannot be sent by kafka-python; with a key it stays one.
        [letter] = [d for d in dead if (d.key, d.value, d.headers[: len(sent.headers)]) == as_arrived(sent)]
        told = dict(letter.headers[len(sent.headers) :])
        assert told["dead_reason"].decode() == each.reason, each.name
        assert told["dead_detail"]
        place = {name: told[f"dead_{name}"].decode() for name in ("topic", "partition", "offset")}
        [row] = line.query(
            "SELECT topic_id, reason, size_bytes FROM dead_letters"
            ' WHERE topic = :topic AND partition = :partition AND "offset" = :offset',
            **place | {name: int(place[name]) for name in ("partition", "offset")},
        )  # fmt: skip
        assert (row.reason, row.size_bytes) == (each.reason, len(sent.value or b"")), each.name
        assert told["dead_id"].decode() == f"{row.topic_id}/{place['partition']}/{place['offset']}"
    assert b"Traceback" not in worker.log_file.read_bytes()


def test_a_camera_too_many_becomes_dead_letters_until_the_settings_name_it(
    make_line: MakeLine, sqlite_url: str, redis_url: str
) -> None:
    line = make_line(sqlite_url, cameras={"most": 1})

    def end_of(camera: str, worker: Program) -> str:
        """Send one frame of a camera; return its verdict, or the reason of its dead letter."""
        message = Message.of(good_png(1), camera)
        settled = line.settled() + line.send([message])
        wait_until(lambda: line.settled() == settled, programs=[worker])
        reasons = line.query("SELECT reason FROM dead_letters WHERE frame_id = :id", id=message.frame_id)
        return line.verdict(message.frame_id) or str(reasons[0][0])

    with line.program("counting", "run") as worker:
        ends = [end_of(camera, worker) for camera in ("press-1", "press-2", "press-3", "press-1")]
    assert ends == ["normal", "unknown_camera", "unknown_camera", "normal"]
    # Nothing was made for those that may not come in.
    with redis.Redis.from_url(redis_url) as client:
        assert {key.split(b":")[2] for key in client.scan_iter("paedid:bank:*")} == {b"{press-1"}

    named = yaml.safe_load(line.config.read_text()) | {"cameras": {"known": ["press-2", "press-3"], "most": 1}}
    line.config.write_text(yaml.safe_dump(named))
    with line.program("naming", "run") as worker:
        ends = [end_of(camera, worker) for camera in ("press-2", "press-3", "press-1")]
    assert ends == ["normal", "normal", "unknown_camera"]


def as_arrived(message: Message) -> tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]:
    return message.key, message.value, list(message.headers)
