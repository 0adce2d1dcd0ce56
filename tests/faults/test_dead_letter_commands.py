"""Frames that could not be inspected are seen, inspected after all, and put aside at the command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
import yaml

from monitor.adapters.database import connect
from monitor.adapters.dead_letter_desk import DeadLetterDesk, Selection, State
from monitor.adapters.kafka import DeadLetterTopic
from monitor.dead_letter_replay import replay
from monitor.errors import StoreUnavailableError
from tests.faults.line import Line, MakeLine, Message, good_png, wait_until
from tests.faults.prefork import Prefork


class Sick(Line):
    """A line with frames that cannot be inspected, and a person with the commands."""

    programs: Prefork

    def dlq(self, *arguments: str, code: int = 0) -> str:
        """Run a dlq command; return what it said."""
        done = self.programs.run("monitor", "--config", str(self.config), "dlq", *arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    def inspect(self, messages: Sequence[Message] = (), settled: int | None = None) -> None:
        """Send messages, and let a worker run until all frames are committed, and so many accounted for (or more)."""
        wanted = self.settled() + len(messages) if settled is None else settled
        self.send(messages)
        sent = len(self.read(self.kafka.frames_topic, lambda found: len(found) >= wanted))
        with self.program("worker", "run") as worker:
            wait_until(lambda: self.settled() >= wanted and self.committed() == sent, programs=[worker])
        assert worker.exit_code == 0
        assert b"Traceback" not in worker.log_file.read_bytes()

    def set(self, section: str, **values: Any) -> None:  # noqa: ANN401
        """Change the settings of the programs that are started from now on."""
        document = yaml.safe_load(self.config.read_text(encoding="utf-8"))
        document[section] = document.get(section, {}) | values
        self.config.write_text(yaml.safe_dump(document), encoding="utf-8")

    def execute(self, sql: str) -> None:
        """Change the database behind the commands' back."""
        with self._engine.begin() as connection:
            connection.execute(sqlalchemy.text(sql))

    def letters(self) -> list[Any]:
        """Return the accounts of all dead letters, the oldest first."""
        return self.query("SELECT * FROM dead_letters ORDER BY id")

    def letter(self, message: Message) -> str:
        """Return the id of the newest letter that a frame became."""
        return str(self.query("SELECT max(id) FROM dead_letters WHERE frame_id = :id", id=message.frame_id)[0][0])


@pytest.fixture(scope="module")
def programs() -> Iterator[Prefork]:
    with Prefork() as programs:
        yield programs


@pytest.fixture
def line(make_line: MakeLine, sqlite_url: str, programs: Prefork) -> Sick:
    """A line whose limit is too low for any of its frames."""
    made = make_line(sqlite_url, kind=Sick, limits={"max_frame_bytes": 2000})
    assert isinstance(made, Sick)
    made.programs = programs
    return made


def test_dead_letters_are_listed_and_told_of_and_their_bytes_saved(line: Sick, tmp_path: Path) -> None:
    assert "No dead letters (waiting)." in line.dlq("list")
    cut = Message.of(good_png(1)[:500], part_serial="P-7")
    text = Message.of(b"[red]no image[/]", camera="press-2")
    large = Message.of(good_png(2))
    odd = Message(
        b"\xff\xfe", good_png(3)[:500], (("ce_id", b"a\x1b[31mb"), ("[bold]", b"\x1b[2J\xff"), *large.headers[1:])
    )
    line.inspect([cut, text, large, odd])

    listed = line.dlq("list")
    for message, words in (
        (cut, ("press-1", "500", "truncated", "waiting")),
        (text, ("press-2", "16", "not_an_image")),
        (large, ("press-1", str(len(large.value or b"")), "too_large", "max_frame_bytes")),
    ):
        [row] = [each for each in listed.splitlines() if message.frame_id in each]
        assert row.split()[0] == line.letter(message)
        assert [word for word in words if word not in row] == []
    assert "4 (waiting): invalid_headers 1, not_an_image 1, too_large 1, truncated 1" in listed
    assert "\x1b[" not in listed
    assert "1 (waiting): not_an_image 1" in line.dlq("list", "--camera", "press-2")
    assert "1 (waiting): too_large 1" in line.dlq("list", "--reason", "too_large", "--limit", "1")
    [row, total] = [each for each in line.dlq("list", "--limit", "1").splitlines() if each.strip()[0].isdigit()]
    assert row.split()[0] == str(line.letters()[-1].id)
    assert total.startswith("4 (waiting)")

    shown = line.dlq("show", line.letter(cut), "--save", str(tmp_path / "cut.png"))
    [account] = [row for row in line.letters() if row.frame_id == cut.frame_id]
    for part in ("press-1", cut.frame_id, "truncated", account.detail, "500", "ce_partserial: P-7", account.dead_topic):
        assert part in shown
    assert f"partition {account.partition} offset {account.offset}" in shown
    assert "dead_reason" not in shown
    assert (tmp_path / "cut.png").read_bytes() == cut.value
    odd_shown = line.dlq(
        "show", str(line.query("SELECT max(id) FROM dead_letters WHERE reason = 'invalid_headers'")[0][0])
    )
    assert "[bold]: \ufffd[2J\ufffd" in odd_shown
    assert "\x1b" not in odd_shown


def test_frames_are_inspected_after_all_once_the_limit_is_raised(line: Sick) -> None:
    good = [Message.of(good_png(number), deadline_ms=500) for number in range(3)]
    broken = Message.of(b"no image")
    line.inspect([*good, broken])
    assert line.count("dead_letters") == 4

    # Nothing was mended: each becomes a dead letter again, as it came.
    assert "3 replayed. Their deadline was left out: 3." in line.dlq("replay", "--reason", "too_large", "--by", "Ada")
    line.inspect(settled=7)
    assert (line.count("inspections"), line.count("dead_letters WHERE reason = 'too_large'")) == (0, 6)
    assert line.count("dead_letters WHERE replayed_by = 'Ada'") == 3

    line.set("limits", max_frame_bytes=100_000)
    assert "4 replayed." in line.dlq("replay", "--all")
    line.inspect(settled=11)
    assert {line.verdict(message.frame_id) for message in good} <= {"normal", "defect"}
    assert line.count("inspections") == 3
    assert "normal, when this frame came another time" in line.dlq("show", line.letter(good[0]))

    sent = line.read(line.kafka.frames_topic, lambda found: len(found) == 11)
    for message in [*good, broken]:
        [original, *again] = [each for each in sent if (each.key, each.value) == (message.key, message.value)]
        assert original.headers == list(message.headers)
        plain = [header for header in message.headers if header[0] != "ce_deadlinems"]
        assert [each.headers for each in again] == [plain] * (2 if message in good else 1)
    # What is still broken waits again.
    assert "1 (waiting): not_an_image 1" in line.dlq("list")
    assert "7 (replayed)" in line.dlq("list", "--state", "replayed")


def test_a_frame_replayed_many_times_is_stored_once(line: Sick) -> None:
    frame = Message.of(good_png(1))
    line.inspect([frame])
    line.set("limits", max_frame_bytes=100_000)

    # Killed between sending and writing it down.
    class Killed(DeadLetterDesk):
        def mark_replayed(self, ids: Sequence[int], by: str) -> None:  # noqa: ARG002
            raise StoreUnavailableError("killed")

    engine = connect(line.settings.database)
    desk = Killed(engine)
    with closing(DeadLetterTopic(line.kafka)) as topic, pytest.raises(StoreUnavailableError, match="killed"):
        list(replay(desk, topic, desk.oldest(Selection(), 9), "Ada"))
    assert [letter.state for letter in desk.oldest(Selection(), 9)] == [State.WAITING]
    engine.dispose()

    letter = line.letter(frame)
    assert "1 replayed." in line.dlq("replay", letter)
    again = line.dlq("replay", letter)
    assert "not sent, it was replayed on " in again
    assert "--again sends it again" in again
    assert "1 replayed." in line.dlq("replay", letter, "--again")
    assert "Nothing to replay." in line.dlq("replay", "--all")
    assert len(line.read(line.kafka.frames_topic, lambda found: len(found) >= 4)) == 4
    line.inspect(settled=2)
    assert (line.count("inspections"), line.count("dead_letters"), line.count("outbox")) == (1, 1, 1)


def test_purged_letters_are_put_aside_and_their_account_kept(line: Sick) -> None:
    first, second, third = messages = [Message.of(good_png(number)) for number in range(3)]
    line.inspect(messages)
    before = {row.id: row for row in line.letters()}
    assert "nothing was purged: nobody said yes" in line.dlq("purge", line.letter(first), code=2)
    assert line.count("dead_letters WHERE purged_at IS NOT NULL") == 0
    assert "1 purged." in line.dlq("purge", line.letter(first), "--yes", "--by", "Ada")
    assert "Nothing to purge." in line.dlq("purge", line.letter(first), "--yes", "--by", "Bob")
    assert "Nothing to purge." in line.dlq("purge", "--older-than", "1", "--yes")

    listed = line.dlq("list")
    assert first.frame_id not in listed
    assert "2 (waiting)" in listed
    assert first.frame_id in line.dlq("list", "--state", "purged")
    assert "it was purged on " in line.dlq("replay", line.letter(first), "--again")
    assert "by Ada" in line.dlq("show", line.letter(first))
    [row] = [row for row in line.letters() if row.purged_by]
    # All else is as it was: that is the account of the frame.
    assert row._asdict() == before[row.id]._asdict() | {"purged_at": row.purged_at, "purged_by": "Ada"}

    assert "1 replayed." in line.dlq("replay", line.letter(second))
    assert "1 purged." in line.dlq("purge", "--state", "replayed", "--yes")
    assert "1 (waiting)" in line.dlq("list")
    assert third.frame_id in line.dlq("list")
    assert "1 purged." in line.dlq("purge", "--older-than", "0", "--yes")
    assert line.count("dead_letters") == 3


def test_letters_without_a_recorded_place_are_found_and_forgotten_ones_said_so(line: Sick, tmp_path: Path) -> None:
    messages = [Message.of(good_png(number)) for number in range(3)]
    line.inspect(messages)
    old_id, gone_id, never_id = (line.letter(message) for message in messages)
    unplaced = "dead_topic = NULL, dead_topic_id = NULL, dead_partition = NULL, dead_offset = NULL"
    line.execute(f"UPDATE dead_letters SET {unplaced} WHERE id IN ({old_id}, {never_id})")
    line.execute(f"UPDATE dead_letters SET dead_offset = 1000 WHERE id = {gone_id}")
    line.execute(f"UPDATE dead_letters SET topic_id = 'of-another-broker' WHERE id = {never_id}")

    assert "the broker no longer has its bytes" in line.dlq("show", gone_id)
    assert f"dead letter {gone_id}: the broker no longer" in line.dlq(
        "show", gone_id, "--save", str(tmp_path / "gone"), code=2
    )
    assert not (tmp_path / "gone").exists()
    said = line.dlq("replay", old_id, gone_id, never_id, code=2)
    assert f"{gone_id}: the broker no longer has its bytes" in said
    assert f"{never_id}: its bytes were not found in the dead-letter topic" in said
    assert "1 replayed." in said
    assert "error: 2 of 3 dead letters were not sent; each is told of above" in said
    [account] = line.query("SELECT * FROM dead_letters WHERE id = :id", id=old_id)
    assert account.dead_topic == line.kafka.dead_topic
    assert [row.id for row in line.letters() if row.replayed_at] == [int(old_id)]
    line.set("limits", max_frame_bytes=100_000)
    line.inspect(settled=4)
    assert line.verdict(messages[0].frame_id) is not None
    assert "2 (waiting)" in line.dlq("list")


def test_what_cannot_be_saved_or_reached_is_said_and_changes_nothing(line: Sick, tmp_path: Path) -> None:
    line.inspect([Message.of(b"no image")])
    (tmp_path / "taken").write_bytes(b"mine")
    assert "taken: exists already" in line.dlq("show", "1", "--save", str(tmp_path / "taken"), code=2)
    assert (tmp_path / "taken").read_bytes() == b"mine"
    assert "none/x: No such file" in line.dlq("show", "1", "--save", str(tmp_path / "none" / "x"), code=2)
    line.set("kafka", bootstrap_servers="127.0.0.1:1", connect_timeout_s=0.5)
    assert "Kafka at kafka.bootstrap_servers = '127.0.0.1:1' is not reachable" in line.dlq("replay", "1", code=2)
    assert line.count("dead_letters WHERE replayed_at IS NOT NULL") == 0
    # The account is in the database, and is told without Kafka.
    assert "not_an_image" in line.dlq("show", "1", code=2)
    assert "1 (waiting)" in line.dlq("list")
