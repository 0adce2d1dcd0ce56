"""Drift reports in SQL, for people and for the rule."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from monitor.adapters.database import while_running
from monitor.ports import DriftReport
from schemas.tables import DriftStateRow


class SqlDriftReports:
    """Reads what the workers stored last.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of_model(self, model_id: str) -> Sequence[DriftReport]:
        """Return a report for each camera of a model.

        Raises:
            StoreUnavailableError: the database is away.
        """
        query = select(DriftStateRow).where(DriftStateRow.model_id == model_id).order_by(DriftStateRow.camera)
        with while_running(), Session(self._engine) as session:
            return tuple(as_drift_report(row) for row in session.scalars(query))


def drift_row(report: DriftReport) -> DriftStateRow:
    """Return a report as a row."""
    return DriftStateRow(
        camera=report.camera,
        model_id=report.model_id,
        bank_version=report.bank_version,
        updated_at=report.updated_at,
        since=report.since,
        frames=report.frames,
        ratio=report.ratio,
        drifting_since=report.drifting_since,
        last_drift_at=report.last_drift_at,
        locations=[list(location) for location in report.locations],
        score_ewma=report.score_ewma,
        distance_ewma=report.distance_ewma,
    )


def as_drift_report(row: DriftStateRow) -> DriftReport:
    """Return a row as a report."""
    return DriftReport(
        camera=row.camera,
        model_id=row.model_id,
        bank_version=row.bank_version,
        updated_at=row.updated_at,
        since=row.since,
        frames=row.frames,
        ratio=row.ratio,
        drifting_since=row.drifting_since,
        last_drift_at=row.last_drift_at,
        locations=tuple((int(i), int(j), float(ratio)) for i, j, ratio in row.locations),
        score_ewma=row.score_ewma,
        distance_ewma=row.distance_ewma,
    )
