"""The worker: signals, the outbox relay, metrics."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from monitor.adapters.memory import MemoryImageStore, MemoryPublisher
from monitor.clock import FakeClock
from monitor.metrics_server import serving_metrics
from monitor.ports import BatchOutcome, InspectionRecord, LogPosition, OutboxMessage
from monitor.publishing import OutboxRelay
from monitor.settings import MetricsSettings
from monitor.worker import WorkerPorts, run_worker
from schemas.errors import ConfigurationError, ServiceRefusedError
from schemas.messages import FrameEvent, Verdict
from tests.unit.pipeline_fakes import (
    AWAY,
    NORMAL,
    Assigned,
    Banks,
    Line,
    Store,
    ToyInspector,
    load_toy,
    make_settings,
    png,
)

REFUSED = ServiceRefusedError("Kafka", "kafka-1:9093", "refuses user 'worker' the right Write", "Grant it")


class Results(MemoryPublisher):
    """Keeps events; refuses while ``refusals`` last."""

    def __init__(self, refusals: int = 0) -> None:
        super().__init__()
        self.refusals = refusals

    def events(self, messages: Sequence[OutboxMessage]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise AWAY
        super().events(messages)

    @property
    def names(self) -> list[str]:
        return [json.loads(message.payload)["frame_id"] for message in self.sent_events]


def store_of(frames: int) -> Store:
    store = Store()
    now = datetime.now(UTC)
    for number in range(frames):
        frame = FrameEvent(frame_id=f"f{number}", camera="cam", captured_at=now)
        position = LogPosition("frames", "t1", 0, number)
        store.record(BatchOutcome((InspectionRecord(position, frame, Verdict.NORMAL, "toy-1", now),)))
    return store


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_signal_lets_the_worker_finish_and_gives_the_signals_back() -> None:
    store, results = Store(), Results()
    line = Line(store)
    for number in range(7):
        line.send(f"f{number}", png(NORMAL))
    poll = line.poll

    def poll_with_signal(timeout: float, max_records: int) -> object:
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # a second one would end the tests
            os.kill(os.getpid(), signal.SIGTERM)
        return poll(timeout, max_records)

    line.poll = poll_with_signal
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    ports = WorkerPorts(line, MemoryPublisher(), results, store, MemoryImageStore(), Banks(), Assigned(), load_toy)
    run_worker(make_settings(max_frames=4), ToyInspector(), ports)
    assert line.committed["cam"] == 7
    assert results.names == [f"f{number}" for number in range(7)]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_second_signal_ends_the_process_at_once() -> None:
    program = """
import threading, time
from monitor.signals import stopping_on_signals
stop = threading.Event()
with stopping_on_signals(stop):
    print("ready", flush=True)
    while not stop.is_set():
        time.sleep(0.01)
    print("stopping", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(5) == -signal.SIGINT


def test_a_program_that_does_not_stop_in_time_is_ended_whatever_it_waits_for() -> None:
    program = """
import threading
from monitor.signals import stopping_on_signals
with stopping_on_signals(threading.Event(), most_stopping_s=0.5):
    print("ready", flush=True)
    threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1
        assert "Not stopped in time" in process.stdout.read()


def test_a_result_is_published_as_soon_as_it_is_stored() -> None:
    store, results, stop = Store(), Results(), threading.Event()
    line = Line(store)
    line.stop = threading.Event()  # the test stops it
    ports = WorkerPorts(line, MemoryPublisher(), results, store, MemoryImageStore(), Banks(), Assigned(), load_toy)
    worker = threading.Thread(target=run_worker, args=(make_settings(), ToyInspector(), ports), kwargs={"stop": stop})
    worker.start()
    time.sleep(0.2)
    started = time.monotonic()
    line.send("f", png(NORMAL))
    wait_until(lambda: bool(results.sent_events))
    assert time.monotonic() - started < 0.5  # well before the relay would look by itself
    stop.set()
    worker.join(5)
    assert not worker.is_alive()


def test_the_outbox_waits_out_an_outage_and_says_so_once() -> None:
    store, results = store_of(3), Results(refusals=3)
    relay = OutboxRelay(store, results, FakeClock())
    with capture_logs() as logs:
        relay.start()
        wait_until(lambda: not store.unpublished(1))
        relay.stop()
    assert results.names == ["f0", "f1", "f2"]
    assert [entry["event"] for entry in logs] == [
        "Results cannot be published; they wait in the database",
        "Results are being published again",
    ]


def test_nothing_is_marked_as_published_before_kafka_has_it() -> None:
    store = store_of(1)
    with pytest.raises(type(AWAY)):
        OutboxRelay(store, Results(refusals=1), FakeClock()).publish_all()
    assert len(store.unpublished(10)) == 1


def test_a_long_outbox_is_published_whole_and_in_order() -> None:
    store, results = store_of(1201), Results()
    OutboxRelay(store, results, FakeClock()).publish_all()
    assert results.names == [f"f{number}" for number in range(1201)]


class Tidied(Store):
    """Has so many messages to forget."""

    def __init__(self, old: int) -> None:
        super().__init__()
        self.old = old

    def forget_published(self, age: timedelta, limit: int) -> int:
        assert age == timedelta(days=1)
        gone = min(self.old, limit)
        self.old -= gone
        return gone


def test_what_was_published_is_forgotten_a_piece_at_a_time_then_once_a_minute() -> None:
    store, clock = Tidied(1200), FakeClock()
    relay = OutboxRelay(store, Results(), clock)
    left = []
    for seconds in (0, 1, 1, 1, 61):
        clock.advance(seconds)
        relay.forget_some()
        left.append(store.old)
        if not store.old:
            store.old = 10
    assert left == [700, 200, 0, 10, 0]


def test_metrics_are_served_while_the_worker_runs() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ready = threading.Event()
    with serving_metrics(MetricsSettings(port=port), ready.is_set):
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5)
        ready.set()
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).read() == b"ready\n"
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    assert "paedid_frames_total" in text
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_a_metrics_port_in_use_is_the_operators_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match=f"metrics.port = {port}"),
            serving_metrics(MetricsSettings(port=port), lambda: True),
        ):
            pass


def test_results_that_are_refused_are_told_of_once_and_published_when_they_are_no_longer() -> None:
    store, results = store_of(3), Results()
    outcomes: list[Exception] = [AWAY, REFUSED, REFUSED]
    publish = results.events

    def events(messages: Sequence[OutboxMessage]) -> None:
        if outcomes:
            raise outcomes.pop(0)
        publish(messages)

    results.events = events  # type: ignore[method-assign]
    relay = OutboxRelay(store, results, FakeClock())
    with capture_logs() as logs:
        relay.start()
        relay.poke()
        wait_until(lambda: not store.unpublished(1))
        relay.stop()
    assert results.names == ["f0", "f1", "f2"]
    assert [(entry["log_level"], entry["event"].partition(";")[0]) for entry in logs] == [
        ("warning", "Results cannot be published"),
        ("error", "Results are refused"),
        ("info", "Results are being published again"),
    ]
    assert logs[1]["error"] == str(REFUSED)
