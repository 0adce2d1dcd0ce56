"""Which model inspects which camera, in SQL: for the programs that follow it, and for the people who say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine, Select, func, select
from sqlalchemy.orm import Session

from monitor.adapters.database import WRITES, while_running
from monitor.adapters.review_desk import printable, require_name
from monitor.assignments import Assignment, Chosen, Role
from schemas.messages import utc_now
from schemas.tables import InspectionRow, ModelAssignmentRow


class SqlModelDesk:
    """The ``Assignments`` port on SQLite or PostgreSQL, and what people do at it.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        now: the time of an assignment.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._now = now

    def in_force(self, role: Role = Role.ACTIVE) -> Sequence[Assignment]:
        """Return the newest assignment of this role for each camera, and for every camera.

        Raises:
            StoreUnavailableError: the database is away.
        """
        newest = (
            select(func.max(ModelAssignmentRow.id))
            .where(ModelAssignmentRow.role == role.value)
            .group_by(ModelAssignmentRow.camera)
        )
        return self._read(select(ModelAssignmentRow).where(ModelAssignmentRow.id.in_(newest)))

    def history(self, role: Role = Role.ACTIVE) -> Sequence[Assignment]:
        """Return all assignments of this role, the oldest first.

        Raises:
            StoreUnavailableError: the database is away.
        """
        return self._read(select(ModelAssignmentRow).where(ModelAssignmentRow.role == role.value))

    def assign(
        self, camera: str | None, chosen: Chosen | None, by: str, why: str | None = None, role: Role = Role.ACTIVE
    ) -> None:
        """Store an assignment; from now on it is in force.

        Args:
            camera: None: every camera that has none of its own.
            chosen: None: nothing is assigned any more.
            by: who says so.
            why: the reason, for people.
            role: what the model is for.

        Raises:
            OperatorError: the name cannot be stored.
            StoreUnavailableError: the database is away; nothing was stored.
        """
        require_name(by)
        row = ModelAssignmentRow(
            camera=camera,
            role=role.value,
            bundle=None if chosen is None else str(chosen.bundle),
            model_id=None if chosen is None else chosen.model_id,
            assigned_by=by,
            why=printable(why),
            assigned_at=self._now(),
        )
        with while_running(), Session(self._writer) as session, session.begin():
            session.add(row)

    def in_use(self) -> dict[str, str]:
        """Return the model that inspected each camera's newest frame.

        Raises:
            StoreUnavailableError: the database is away.
        """
        newest = select(func.max(InspectionRow.id)).group_by(InspectionRow.camera)
        query = select(InspectionRow.camera, InspectionRow.model_id).where(InspectionRow.id.in_(newest))
        with while_running(), self._reader.connect() as connection:
            return {row.camera: row.model_id for row in connection.execute(query)}

    def _read(self, query: Select[ModelAssignmentRow]) -> Sequence[Assignment]:
        with while_running(), Session(self._reader) as session:
            return tuple(_assignment(row) for row in session.scalars(query.order_by(ModelAssignmentRow.id)))


def _assignment(row: ModelAssignmentRow) -> Assignment:
    there = row.bundle is not None and row.model_id is not None
    return Assignment(
        camera=row.camera,
        role=Role(row.role),
        chosen=Chosen(str(row.model_id), Path(str(row.bundle))) if there else None,
        by=row.assigned_by,
        why=row.why,
        at=row.assigned_at,
    )
