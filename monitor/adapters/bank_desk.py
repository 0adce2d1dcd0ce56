"""The bank's book for people: what the banks have learned, and orders to the learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Engine, Select, func, select, union
from sqlalchemy.orm import Session

from monitor.adapters.bank_book import as_entry, as_order
from monitor.adapters.database import WRITES, while_running
from monitor.adapters.review_desk import MIN_PREFIX, printable, require_name
from monitor.ports import BankEntry, BankKey, BankOrder, OrderKind, Policy
from schemas.errors import OperatorError
from schemas.messages import Verdict, utc_now
from schemas.tables import BankEntryRow, BankOrderRow, InspectionRow, LearningPauseRow, ReviewRow

PENDING: Final = "pending"


@dataclass(frozen=True, slots=True)
class Pause:
    """A policy that teaches nothing since a person said so."""

    policy: Policy
    by: str
    since: datetime
    why: str | None


@dataclass(frozen=True, slots=True)
class Waiting:
    """What the learner has not dealt with: how much, and since when the oldest waits."""

    reviews: int
    orders: int
    since: datetime | None


class BankDesk:
    """Tells of banks and takes orders about them.

    Args:
        engine: from ``monitor.adapters.database.connect``, its tables migrated.
        now: the time of an order.
    """

    def __init__(self, engine: Engine, now: Callable[[], datetime] = utc_now) -> None:
        self._reader = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self._now = now

    def banks(self) -> Sequence[BankKey]:
        """Return the banks of all cameras and models that ever inspected or learned, by camera."""
        inspected = select(InspectionRow.camera, InspectionRow.model_id).distinct()
        taught = select(BankEntryRow.camera, BankEntryRow.model_id).distinct()
        with while_running(), self._reader.connect() as connection:
            return [
                BankKey(camera, model)
                for camera, model in sorted(map(tuple, connection.execute(union(inspected, taught))))
            ]

    def entries(self, key: BankKey) -> Sequence[BankEntry]:
        """Return all that a bank has ever learned, in the order in which it was added."""
        query = (
            select(BankEntryRow)
            .where(BankEntryRow.camera == key.camera, BankEntryRow.model_id == key.model_id)
            .order_by(BankEntryRow.version_added, BankEntryRow.id)
        )
        with while_running(), Session(self._reader) as session:
            return tuple(as_entry(row) for row in session.scalars(query))

    def entries_of(self, frame_id: str) -> Sequence[BankEntry]:
        """Return all that a frame taught, in any bank; the frame by its id or a beginning that only one has.

        Raises:
            OperatorError: no bank ever held such a frame, or several did.
        """
        if len(frame_id) < MIN_PREFIX:
            msg = f"frame {frame_id!r}: give the frame's id, or at least its first {MIN_PREFIX} characters"
            raise OperatorError(msg)
        beginning = func.substr(BankEntryRow.frame_id, 1, len(frame_id)) == frame_id
        query = select(BankEntryRow).where(beginning).order_by(BankEntryRow.id)
        with while_running(), Session(self._reader) as session:
            found = tuple(as_entry(row) for row in session.scalars(query))
        exact = tuple(entry for entry in found if entry.frame_id == frame_id)
        names = sorted({entry.frame_id for entry in found})
        if not names:
            msg = f"frame {frame_id!r}: no bank has ever held a frame with this id, or with one that begins so"
            raise OperatorError(msg)
        if not exact and len(names) > 1:
            msg = f"frame {frame_id!r}: several ids begin so, among them {', '.join(names[:3])}. Give more characters."
            raise OperatorError(msg)
        return exact or found

    def orders(self, key: BankKey) -> Sequence[BankOrder]:
        """Return all orders about a bank, the oldest first."""
        query = (
            select(BankOrderRow)
            .where(BankOrderRow.camera == key.camera, BankOrderRow.model_id == key.model_id)
            .order_by(BankOrderRow.id)
        )
        with while_running(), Session(self._reader) as session:
            return tuple(as_order(row) for row in session.scalars(query))

    def find_order(self, order_id: int) -> BankOrder:
        """Return an order as it stands now."""
        with while_running(), Session(self._reader) as session:
            return as_order(session.get_one(BankOrderRow, order_id))

    def order(
        self,
        kind: OrderKind,
        key: BankKey,
        by: str,
        why: str | None = None,
        *,
        frame_id: str | None = None,
        version: int | None = None,
        snapshot_sha256: str | None = None,
    ) -> int:
        """Store an order for the learner; return its id.

        Raises:
            OperatorError: the name cannot be stored.
            StoreUnavailableError: the database is away; nothing was stored.
        """
        require_name(by)
        row = BankOrderRow(
            kind=kind.value,
            camera=key.camera,
            model_id=key.model_id,
            frame_id=frame_id,
            version=version,
            snapshot_sha256=snapshot_sha256,
            ordered_by=by,
            why=printable(why),
            created_at=self._now(),
        )
        with while_running(), Session(self._writer) as session, session.begin():
            session.add(row)
            session.flush()
            return row.id

    def golden_defects(self, camera: str) -> int:
        """Return how many confirmed defects a camera has that no addition may hide."""
        query = (
            select(func.count())
            .select_from(ReviewRow)
            .join(InspectionRow, InspectionRow.frame_id == ReviewRow.frame_id)
            .where(InspectionRow.camera == camera, InspectionRow.image_sha256.is_not(None))
            .where(ReviewRow.verdict == Verdict.DEFECT.value, ReviewRow.withdrawn_at.is_(None))
        )
        with while_running(), self._reader.connect() as connection:
            return connection.execute(query).scalar_one()

    def waiting(self, models: Sequence[str]) -> Waiting:
        """Return what the learners have not dealt with, of orders those about these models' banks."""
        reviews = select(func.count(), func.min(ReviewRow.created_at)).where(
            ReviewRow.outcome == PENDING, ReviewRow.withdrawn_at.is_(None)
        )
        orders = select(func.count(), func.min(BankOrderRow.created_at)).where(
            BankOrderRow.outcome == PENDING, BankOrderRow.model_id.in_(models)
        )
        with while_running(), self._reader.connect() as connection:
            (n_reviews, first_review), (n_orders, first_order) = (
                connection.execute(query).one() for query in (reviews, orders)
            )
        return Waiting(n_reviews, n_orders, min((at for at in (first_review, first_order) if at), default=None))

    def pauses(self) -> Sequence[Pause]:
        """Return the policies that teach nothing for now."""
        query = select(LearningPauseRow).where(LearningPauseRow.resumed_at.is_(None)).order_by(LearningPauseRow.id)
        with while_running(), Session(self._reader) as session:
            return tuple(
                Pause(Policy(row.policy), row.paused_by, row.paused_at, row.why) for row in session.scalars(query)
            )

    def pause(self, policy: Policy, by: str, why: str | None = None) -> bool:
        """Let a policy teach nothing until it is resumed; return False if it is so already."""
        require_name(by)
        with while_running(), Session(self._writer) as session, session.begin():
            if session.scalar(_in_force(policy)) is not None:
                return False
            session.add(LearningPauseRow(policy=policy.value, paused_by=by, why=printable(why), paused_at=self._now()))
            return True

    def resume(self, policy: Policy, by: str) -> bool:
        """Let a policy teach again; what was confirmed meanwhile is learnt now. Return False if it was not paused."""
        require_name(by)
        with while_running(), Session(self._writer) as session, session.begin():
            rows = session.scalars(_in_force(policy)).all()
            for row in rows:
                row.resumed_at, row.resumed_by = self._now(), by
            return bool(rows)


def _in_force(policy: Policy) -> Select[LearningPauseRow]:
    return select(LearningPauseRow).where(
        LearningPauseRow.policy == policy.value, LearningPauseRow.resumed_at.is_(None)
    )
