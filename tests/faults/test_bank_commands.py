"""What a line has learned can be seen, checked and taken back at the command line, while it runs."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import redis

from monitor.settings import load_settings
from tests.faults.line import LINE, STAMPED, MakeLine, Message, png
from tests.faults.operated import CAMERA, Commanded

pytestmark = pytest.mark.usefixtures("forks")

CHECKSUM = re.compile(r"checksum ([0-9a-f]{64})")


class Ordered(Commanded):
    """A line whose operator uses the bank commands."""

    def bank(self, *arguments: str, code: int = 0) -> str:  # type: ignore[override]
        """Run a bank command; return what it said."""
        done = self.run("bank", *arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    def checksum(self) -> str:
        """Verify the bank; return its checksum."""
        said = self.bank("verify")
        assert "As the database says." in said
        found = CHECKSUM.search(said)
        assert found
        return found[1]

    def taught(self) -> list[str]:
        """Return the frames that the database says are in the bank."""
        return [row.frame_id for row in self.query("SELECT frame_id FROM bank_entries WHERE version_removed IS NULL")]

    def flagged(self, content: bytes) -> str:
        """Send a part that is flagged; return its id."""
        message = Message.of(content)
        self.send([message])
        self.wait(lambda: self.verdict(message.frame_id) is not None)
        assert self.verdict(message.frame_id) == "defect"
        return message.frame_id

    def review(self, *arguments: str, code: int = 0) -> str:  # type: ignore[override]
        """Run a review command; return what it said."""
        done = self.run("review", *arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr


def odd_stamps(line: Ordered, count: int) -> list[str]:
    """Send stamped parts; return so many that were flagged, the oddest first."""
    messages = [Message.of(png(STAMPED.good_part(index).image)) for index in range(8)]
    line.send(messages)
    ids = [message.frame_id for message in messages]
    line.wait(lambda: all(line.verdict(frame_id) for frame_id in ids))
    rows = line.query("SELECT frame_id, score FROM inspections WHERE verdict = 'defect' ORDER BY score DESC")
    found = [row.frame_id for row in rows if row.frame_id in ids]
    assert len(found) >= count
    return found[:count]


def test_what_was_learnt_is_seen_checked_and_taken_back(
    make_line: MakeLine, sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Ordered)
    assert isinstance(line, Ordered)
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner):
        [first] = odd_stamps(line, 1)
        empty = line.checksum()
        assert "learned nothing yet" in line.bank("history")
        assert "added (bank version 1)" in line.review("confirm", first, "normal", "--reviewer", "Ada", "--note", "ink")
        taught = line.checksum()
        assert taught != empty

        shown = line.bank("show", first[:30], "--save", str(tmp_path / "taught"))
        assert "by Ada (person)" in shown
        assert "of its locations" in shown
        assert list((tmp_path / "taught").glob("*-taught.png"))
        assert "ink" in line.bank("history")
        assert CAMERA in line.bank("status")
        assert f"+ {first}" in line.bank("diff", "0", "1")
        assert "wrote" in line.bank("snapshot", str(tmp_path / "bank.snapshot"))

        # Taken back, put back, rolled back; each is a new version, and the same bytes.
        assert "taken back" in line.review("retract", first, "--reviewer", "Bob")
        assert line.checksum() == empty
        assert "added" in line.review("confirm", first, "normal", "--reviewer", "Ada")
        assert line.checksum() == taught
        assert "0 normals put back, 1 taken out" in line.bank("rollback", "0", "--by", "Bob")
        assert line.checksum() == empty
        assert "1 normals put back, 0 taken out" in line.bank("restore", str(tmp_path / "bank.snapshot"))
        assert line.checksum() == taught

        # Redis is emptied and made anew, by itself and by order.
        with redis.Redis.from_url(redis_url) as client:
            client.flushdb()
        line.wait(lambda: line.run("bank", "verify").returncode == 0)
        assert line.checksum() == taught
        assert "made anew" in line.bank("rebuild")
        assert line.checksum() == taught
        with redis.Redis.from_url(redis_url) as client:
            [key] = client.keys("*:slots")
            client.hset(key, 0, client.hget(key, 1))
        assert "slot 0: not the bundle's pinned normal" in line.bank("verify", code=1)
        line.bank("rebuild")
        assert line.checksum() == taught

    assert "is recorded" in line.bank("rebuild")


def test_policies_are_paused_frames_quarantined_and_defects_guarded(
    make_line: MakeLine, sqlite_url: str, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Ordered)
    assert isinstance(line, Ordered)
    with line.operating(line.program("worker", "run"), line.program("learner", "learn")):
        first, second = odd_stamps(line, 2)
        line.review("confirm", first, "normal", "--reviewer", "Ada")

        # A paused policy waits; in quarantine is for good.
        assert "paused" in line.bank("pause", "person", "--why", "audit")
        assert "has not dealt with it yet" in line.review("confirm", second, "normal")
        assert "audit" in line.bank("status")
        line.bank("resume", "person")
        line.wait(lambda: line.count("reviews WHERE outcome = 'pending'") == 0)
        assert "out of the bank" in line.bank("quarantine", first, "--why", "it was a defect")
        line.bank("rollback", "1")
        assert first not in line.taught()
        line.checksum()

        # A confirmed defect guards its kind.
        spots = [png(LINE.defective_part(index, "missing_spot").image) for index in range(2)]
        defect = line.flagged(spots[0])
        line.review("confirm", defect, "defect")
        again = line.flagged(spots[0])
        refused = line.review("confirm", again, "normal")
        assert "refused" in refused
        assert defect in refused
        line.review("show", again, "--save", str(tmp_path / "refused"))
        assert list((tmp_path / "refused").glob("*-would-hide.png"))

        assert "no bank has ever held" in line.bank("show", "nothing-like-it", code=2)
        assert "cameras that have: press-1" in line.bank("verify", "--camera", "press-9", code=2)


def test_a_new_model_inherits_what_the_line_has_taught(
    make_line: MakeLine, sqlite_url: str, bundle: Path, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Ordered)
    assert isinstance(line, Ordered)
    with line.operating(line.program("worker", "run"), line.program("learner", "learn")):
        stamps = odd_stamps(line, 3)
        for frame in stamps:
            line.review("confirm", frame, "normal", "--note", "ink")
        line.review("confirm", line.flagged(png(LINE.defective_part(0, "missing_spot").image)), "defect")
    taught = line.taught()
    assert taught

    # The same networks under another name are another model to the line.
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["model_id"] = "successor-1"
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert "name the new one here" in line.bank("inherit", str(bundle), code=2)
    said = line.bank("inherit", str(other))
    assert f"{len(taught)} of {len(taught)} confirmed normals taught to model successor-1" in said
    assert "Nothing to inherit" in line.bank("inherit", str(other))

    environment = {"PAEDID_MODEL__BUNDLE": str(other)}
    verified = line.forks.run("monitor", "--config", str(line.config), "bank", "verify", environment=environment)
    assert (verified.returncode, verified.stderr) == (0, "")
    assert f"and {len(taught)} learned normals" in verified.stdout
    history = line.forks.run("monitor", "--config", str(line.config), "bank", "history", environment=environment)
    assert "inherited from model" in " ".join(history.stdout.split())
    assert load_settings(line.config).model.bundle == bundle
