"""Workers that are killed in mid-stream: no frame is lost, and none is stored twice."""

from __future__ import annotations

import random
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

from kafka.consumer.fetcher import ConsumerRecord

from deploy.local.programs import Program
from tests.faults.line import LINE, Line, MakeLine, Message, png, wait_until

FRAMES = 400
KILLS = 1
CAMERAS = ("north", "east", "south", "west")
LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


def make_stream() -> list[Message]:
    """Return frames of four cameras: one in ten is broken, and one in ten too late."""
    images = [png(part.image) for part in (LINE.part(index) for index in range(40))]
    stream = []
    for number in range(FRAMES):
        camera = CAMERAS[number % len(CAMERAS)]
        if number % 10 == 3:
            stream.append(Message.of(b"broken", camera))
        elif number % 10 == 7:
            stream.append(Message.of(images[0], camera, captured_at=LONG_AGO, deadline_ms=100))
        else:
            stream.append(Message.of(images[number % len(images)], camera))
    return stream


def header(name: str, record: ConsumerRecord) -> str:
    return str(dict(record.headers)[name].decode())


def test_killed_workers_lose_no_frame_and_store_none_twice(
    make_line: MakeLine, sqlite_url: str, postgres_url: str
) -> None:
    chance = random.Random(17)
    # Both at once: most of the time is spent waiting for Kafka to declare the killed ones dead.
    lines = [make_line(url, batch={"max_frames": 4}) for url in (sqlite_url, postgres_url)]
    streams = [make_stream() for _ in lines]
    for line, stream in zip(lines, streams, strict=True):
        line.send(stream)
    for number in range(KILLS):
        workers = [line.program(f"worker-{number}", "run").start() for line in lines]
        for line, worker in zip(lines, workers, strict=True):
            kill_at_work(line, worker, chance)
    with ExitStack() as stack:
        last = [stack.enter_context(line.program("last", "run")) for line in lines]
        wait_until(lambda: all(line.settled() >= FRAMES for line in lines), programs=last)
    assert [worker.exit_code for worker in last] == [0, 0]
    for line, stream in zip(lines, streams, strict=True):
        check_accounts(line, stream)


def kill_at_work(line: Line, worker: Program, chance: random.Random) -> None:
    """Kill a worker somewhere within its next frames; others still wait for it."""
    seen = line.settled() + chance.randint(1, 150)
    wait_until(lambda: line.settled() >= seen, programs=[worker])
    time.sleep(chance.uniform(0, 0.1))
    worker.kill()
    assert 0 < line.settled() < FRAMES, "killed too late to tell anything"


def check_accounts(line: Line, stream: list[Message]) -> None:
    assert line.committed() == FRAMES
    broken = {message.frame_id for message in stream if message.value == b"broken"}
    late = {message.frame_id for message in stream if b"100" in dict(message.headers).values()}
    sound = {message.frame_id for message in stream} - broken - late
    assert (len(sound), len(late), len(broken)) == (0.8 * FRAMES, 0.1 * FRAMES, 0.1 * FRAMES)

    verdicts = line.query("SELECT frame_id, verdict FROM inspections")
    assert len(verdicts) == len(dict(verdicts)) == len(sound) + len(late)
    assert {frame for frame, verdict in verdicts if verdict == "uninspected"} == late
    assert {frame for frame, verdict in verdicts if verdict in {"normal", "defect"}} == sound
    dead = [frame for (frame,) in line.query("SELECT frame_id FROM dead_letters")]
    assert (len(dead), set(dead)) == (len(broken), broken)

    # Published at least once each; what is repeated can be told by its id.
    assert line.count("outbox WHERE published_at IS NULL") == 0
    assert line.count("outbox") == len(verdicts)
    wanted = {f"inspection:{frame}" for frame in sound | late}
    events = line.read(line.kafka.inspections_topic, lambda found: {header("ce_id", each) for each in found} >= wanted)
    assert {header("ce_id", event) for event in events} == wanted
    letters = line.read(line.kafka.dead_topic, lambda found: {header("ce_id", each) for each in found} >= broken)
    assert {header("ce_id", letter) for letter in letters} == broken
    assert len({header("dead_id", letter) for letter in letters}) == len(broken)
