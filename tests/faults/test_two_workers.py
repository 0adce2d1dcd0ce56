"""Two workers: they share the cameras of one group, or follow the same bank in two groups."""

from __future__ import annotations

import statistics
from datetime import UTC, datetime
from pathlib import Path

from kafka.partitioner.default import murmur2

from deploy.local.programs import Program
from tests.faults.line import MakeLine
from tests.faults.operated import Operated, feedback_seconds, sayings

CLICKS = 7


def partition_of(line: Operated, camera: str) -> int:
    """Return the partition that a camera's frames go to."""
    return int((murmur2(camera.encode()) & 0x7FFFFFFF) % line.kafka.partitions)


def far_apart(line: Operated) -> tuple[str, str]:
    """Return two cameras, of the first and the last partition: two workers that share the partitions get one each."""
    found = {partition_of(line, f"press-{number}"): f"press-{number}" for number in range(100)}
    return found[0], found[line.kafka.partitions - 1]


def assigned(worker: Program) -> set[int]:
    """Return the partitions that a worker was given last."""
    given = sayings(worker, "partitions assigned")
    return set(given[-1]["partitions"]) if given else set()


def followed(worker: Program, camera: str) -> list[int]:
    """Return the bank versions with which a worker has inspected a camera, in order."""
    changes = sayings(worker, "Inspecting with bank version")
    return [int(change["event"].split()[-1]) for change in changes if change["camera"] == camera]


def test_a_killed_workers_camera_goes_on_with_the_other_at_the_newest_version_of_its_bank(
    make_line: MakeLine, sqlite_url: str, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Operated, images={"url": str(tmp_path / "images"), "keep": "all"})
    assert isinstance(line, Operated)
    cameras = far_apart(line)
    workers, learner = (
        [line.program(f"worker-{number}", "run") for number in range(2)],
        line.program("learner", "learn"),
    )
    with line.operating(*workers, learner, cameras=cameras):
        line.wait(lambda: sorted(len(assigned(worker)) for worker in workers) == [2, 2])
        owners = [next(w for w in workers if partition_of(line, camera) in assigned(w)) for camera in cameras]
        assert owners[0] is not owners[1]
        # Twice the one and once the other, so that a mistaken camera would show.
        for camera in (cameras[0], *cameras):
            line.teach(camera)
        assert [followed(owner, camera)[-1] for owner, camera in zip(owners, cameras, strict=True)] == [2, 1]

        killed, other = owners
        killed.kill()
        line.programs = other, learner
        dead_since = datetime.now(UTC)
        assert line.teach(cameras[0]) == 3
        assert followed(other, cameras[0])[-1] == 3
        # It took over at the newest version, and followed the click.
        assert set(line.versions_between(dead_since, datetime.now(UTC), cameras[0])) == {2, 3}
        assert line.teach(cameras[1]) == 2
    assert [line.bank(camera)[0] for camera in cameras] == [3, 2]


def test_two_groups_follow_the_same_bank(make_line: MakeLine, tmp_path: Path) -> None:
    images = {"url": str(tmp_path / "images"), "keep": "all"}
    first = make_line(f"sqlite:///{tmp_path / 'first.db'}", kind=Operated, images=images)
    kafka = first.kafka.model_dump() | {"group": f"another.{first.kafka.group}"}
    second = make_line(f"sqlite:///{tmp_path / 'second.db'}", kind=Operated, images=images, kafka=kafka)
    assert isinstance(first, Operated)
    assert isinstance(second, Operated)
    second.sent = first.sent
    worker, learner = first.program("worker", "run"), first.program("learner", "learn")
    clicks: list[str] = []
    with second.operating(second.program("worker", "run"), cameras=()), first.operating(worker, learner):
        for number in range(CLICKS):
            clicks.append(first.click())
            assert first.learnt(clicks[-1]) == number + 1
            for line in (first, second):
                line.follow(number + 1)
                assert line.version() == number + 1
    assert first.bank()[0] == CLICKS
    for name, line in (("first", first), ("second", second)):
        seconds = [feedback_seconds(line, first, click) for click in clicks]
        print(f"{name} worker: {statistics.median(seconds):.3f} s from click to worker, at most {max(seconds):.3f} s")  # noqa: T201 - shown by pytest -rP
