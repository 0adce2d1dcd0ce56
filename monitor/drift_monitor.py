"""Follows each camera's drift, frame by frame, and tells of it: metrics, one log line, a report for the database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import structlog

from monitor.core.drift import DriftBaseline, DriftReading, DriftState, advance, begin, read
from monitor.core.inspector import Inspection
from monitor.errors import StoreUnavailableError
from monitor.metrics import DRIFT_LOCATIONS, DRIFT_RATIO, DRIFTING
from monitor.ports import Clock, DriftReport

REPORT_EVERY_S: Final = 2.0
MOST_LOCATIONS: Final = 50

log = structlog.get_logger()


@dataclass(slots=True)
class _Chart:
    state: DriftState
    since: datetime
    drifting_since: datetime | None = None
    last_drift_at: datetime | None = None
    next_report: float = 0.0


class DriftMonitor:
    """Owns the cameras' charts. Used by one thread, after each batch.

    Args:
        baseline: what the model's normals are like.
        model_id: the model.
        recall: the report stored last of a camera and model, so that a new worker goes on where another ended.
        clock: time.
    """

    def __init__(
        self,
        baseline: DriftBaseline,
        model_id: str,
        recall: Callable[[str, str], DriftReport | None],
        clock: Clock,
    ) -> None:
        self._baseline = baseline
        self._model_id = model_id
        self._recall = recall
        self._clock = clock
        self._charts: dict[str, _Chart] = {}

    def follow(self, camera: str, inspections: list[Inspection], bank_version: int) -> DriftReport | None:
        """Take the camera's inspections of one batch in; return a report if one is due."""
        chart = self._charts.get(camera) or self._begin(camera)
        for each in inspections:
            chart.state = advance(chart.state, self._baseline, each.score, each.distance)
        reading = read(chart.state, self._baseline)
        self._tell(camera, chart, reading)
        if self._clock.monotonic() < chart.next_report:
            return None
        chart.next_report = self._clock.monotonic() + REPORT_EVERY_S
        return self._report(camera, chart, reading, bank_version)

    def _begin(self, camera: str) -> _Chart:
        chart = self._charts[camera] = _Chart(begin(self._baseline), self._clock.now())
        try:
            last = self._recall(camera, self._model_id)
        except StoreUnavailableError:
            return chart  # inspection goes on; the chart begins anew
        shape = self._baseline.distance_mean.shape
        if last is not None and len(last.distance_ewma) == 4 * self._baseline.distance_mean.size:
            distance = np.frombuffer(last.distance_ewma, "<f4").reshape(shape).astype(np.float32)
            chart.state = DriftState(last.frames, last.score_ewma, distance)
            chart.since, chart.drifting_since, chart.last_drift_at = last.since, last.drifting_since, last.last_drift_at
        return chart

    def _tell(self, camera: str, chart: _Chart, reading: DriftReading) -> None:
        out = reading.out()
        DRIFT_RATIO.labels(camera=camera).set(reading.ratio)
        DRIFTING.labels(camera=camera).set(reading.drifting)
        DRIFT_LOCATIONS.labels(camera=camera).set(len(out))
        now = self._clock.now()
        if reading.drifting:
            chart.last_drift_at = now
            if chart.drifting_since is None:
                chart.drifting_since = now
                log.warning(
                    "The line has moved away from its bank: review the flagged parts, and confirm those that are good",
                    camera=camera,
                    ratio=round(reading.ratio, 2),
                    locations=out[:MOST_LOCATIONS],
                )
        elif chart.drifting_since is not None:
            chart.drifting_since = None
            log.info("The line is near its bank again", camera=camera, ratio=round(reading.ratio, 2))

    def _report(self, camera: str, chart: _Chart, reading: DriftReading, bank_version: int) -> DriftReport:
        return DriftReport(
            camera=camera,
            model_id=self._model_id,
            bank_version=bank_version,
            updated_at=self._clock.now(),
            since=chart.since,
            frames=chart.state.frames,
            ratio=reading.ratio,
            drifting_since=chart.drifting_since,
            last_drift_at=chart.last_drift_at,
            locations=tuple(reading.out()[:MOST_LOCATIONS]),
            score_ewma=chart.state.score,
            distance_ewma=chart.state.distance.astype("<f4").tobytes(),
        )
