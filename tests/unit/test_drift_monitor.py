"""The worker tells of drift once, in metrics and reports, and a new worker goes on where another ended."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from monitor.bank_status import drift_words
from monitor.clock import FakeClock
from monitor.core.inspector import Inspection
from monitor.drift_monitor import REPORT_EVERY_S, DriftMonitor
from monitor.errors import StoreUnavailableError
from monitor.ports import DriftReport
from tests.unit.pipeline_fakes import BASELINE, ENTRY, Bench, png

QUIET, LOUD = 0.2, 0.6


def seen(score: float) -> Inspection:
    plane = np.zeros((16, 16), np.float32)
    cells = np.full(ENTRY[:2], 0.1, np.float32)
    return Inspection(score, score > 0.5, plane > 1, plane, plane[None], plane[None], plane[None], cells, cells)


def monitor(clock: FakeClock, last: DriftReport | None = None) -> DriftMonitor:
    return DriftMonitor(BASELINE, "toy-1", lambda camera, model: last, clock)  # noqa: ARG005


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"camera": "cam"})


def test_drift_is_said_once_and_its_end_once() -> None:
    charts = monitor(FakeClock())
    with capture_logs() as logs:
        for _ in range(20):
            charts.follow("cam", [seen(LOUD)] * 10, 3)
        assert metric("paedid_drifting") == 1
        assert (metric("paedid_drift_ratio") or 0) > 1
        for _ in range(30):
            charts.follow("cam", [seen(QUIET)] * 10, 4)
    assert [entry["event"][:40] for entry in logs] == [
        "The line has moved away from its bank: r",
        "The line is near its bank again",
    ]
    assert metric("paedid_drifting") == 0


def test_reports_come_every_so_often_and_tell_since_when() -> None:
    clock = FakeClock()
    charts = monitor(clock)
    first = charts.follow("cam", [seen(QUIET)] * 5, 7)
    assert first is not None
    assert (first.camera, first.model_id, first.bank_version, first.frames) == ("cam", "toy-1", 7, 5)
    assert first.quiet_since == first.since
    assert charts.follow("cam", [seen(LOUD)] * 100, 7) is None
    clock.advance(REPORT_EVERY_S)
    began = clock.now()
    second = charts.follow("cam", [seen(LOUD)], 7)
    assert second is not None
    assert second.frames == 106
    assert second.quiet_since is None
    assert second.drifting_since is not None
    assert second.drifting_since < began
    assert second.last_drift_at == began


def test_a_new_worker_goes_on_where_another_ended() -> None:
    clock = FakeClock()
    last = monitor(clock).follow("cam", [seen(LOUD)] * 100, 7)
    assert last is not None
    clock.advance(100)
    with capture_logs() as logs:
        report = monitor(clock, last).follow("cam", [seen(LOUD)], 7)
    assert report is not None
    assert (report.frames, report.since, report.drifting_since) == (101, last.since, last.drifting_since)
    assert logs == []


def test_a_report_of_another_shape_or_a_database_that_is_away_begins_the_chart_anew() -> None:
    clock = FakeClock()
    last = monitor(clock).follow("cam", [seen(LOUD)] * 100, 7)
    assert last is not None
    other = monitor(clock, replace(last, distance_ewma=b"1234")).follow("cam", [seen(QUIET)], 7)

    def away(camera: str, model_id: str) -> DriftReport | None:
        raise StoreUnavailableError(camera + model_id)

    alone = DriftMonitor(BASELINE, "toy-1", away, clock).follow("cam", [seen(QUIET)], 7)
    for report in (other, alone):
        assert report is not None
        assert report.frames == 1


def test_a_batchs_report_is_stored_with_the_batch() -> None:
    bench = Bench()
    bench.line.send("f", png(50))
    bench.run()
    report = bench.store.drift_report("cam", "toy-1")
    assert report is not None
    assert report.frames >= 1


def test_status_says_it_in_a_few_words() -> None:
    clock = FakeClock()
    quiet = monitor(clock).follow("cam", [seen(QUIET)], 1)
    loud = monitor(clock).follow("cam", [seen(LOUD)] * 100, 1)
    assert drift_words(None) == "unknown"
    assert drift_words(quiet) == "no, 0% of the limit"
    assert drift_words(loud).startswith("SINCE ")
