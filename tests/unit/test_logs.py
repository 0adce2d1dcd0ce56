"""What the programs report, and what they keep to themselves."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from monitor.logs import configure_logging
from monitor.settings import LogSettings


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def configured(**settings: str) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(LogSettings.model_validate(settings), stream)
    return stream


def test_a_stream_that_is_no_terminal_gets_one_json_object_a_line() -> None:
    stream = configured()
    structlog.get_logger("monitor.test").warning("Redis unreachable; version %d", 41, camera="cam")
    (line,) = written(stream)
    assert line.pop("timestamp")
    assert line == {
        "event": "Redis unreachable; version 41",
        "camera": "cam",
        "level": "warning",
        "logger": "monitor.test",
    }


def test_people_get_words() -> None:
    stream = configured(format="console")
    structlog.get_logger().info("Stopped", frames=3)
    assert "Stopped" in stream.getvalue()
    assert "frames=3" in stream.getvalue()


def test_lines_below_the_level_are_left_out() -> None:
    stream = configured(level="warning")
    structlog.get_logger().info("chatter")
    structlog.get_logger().warning("news")
    assert [line["event"] for line in written(stream)] == ["news"]


@pytest.mark.parametrize("kind", ["json", "console"])
def test_a_traceback_is_written_without_the_values_of_variables(kind: str) -> None:
    stream = configured(format=kind)
    password = "hunter3".replace("3", "2")
    try:
        password.index("x")
    except ValueError:
        structlog.get_logger().exception("Inspection failed")
    assert "ValueError: substring not found" in stream.getvalue()
    assert 'password.index("x")' in stream.getvalue().replace("\\", "")
    assert "hunter2" not in stream.getvalue()


def test_a_library_that_repeats_itself_is_heard_once_and_our_own_lines_always() -> None:
    stream = configured()
    for attempt in range(5):
        logging.getLogger("fsspec.local").error("connect attempt %d failed", attempt)
        logging.getLogger("fsspec.local").info("not that important")
        logging.getLogger("kafka.conn").error("what the program itself says better")
        structlog.get_logger("monitor.test").error("ours")
    events = [line["event"] for line in written(stream)]
    assert events == ["connect attempt 0 failed", *["ours"] * 5]


def test_at_debug_libraries_say_all_they_have() -> None:
    stream = configured(level="debug")
    for _ in range(2):
        logging.getLogger("kafka.conn").debug("detail")
    assert [line["event"] for line in written(stream)] == ["detail", "detail"]
