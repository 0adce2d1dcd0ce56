"""What people order: a frame out of a bank, a bank back to what it was. Carried out by the learner, step by step."""

from __future__ import annotations

import structlog

from monitor.core.bank_entry import Entry
from monitor.errors import BankFullError
from monitor.learning.keeper import BankKeeper
from monitor.learning.lesson import Lesson
from monitor.learning.snapshot import Snapshot
from monitor.ports import BankBook, BankOrder, ImageStore, OrderKind
from schemas.errors import OperatorError

log = structlog.get_logger()


class OrderDesk:
    """Carries orders out. Each may be interrupted anywhere and repeated.

    Args:
        book: what SQL knows of the banks, and the orders.
        keeper: the banks.
        images: where snapshots are.
    """

    def __init__(self, book: BankBook, keeper: BankKeeper, images: ImageStore) -> None:
        self._book = book
        self._keeper = keeper
        self._images = images

    def deal_with(self, order: BankOrder) -> None:
        """Carry an order out and say what became of it.

        Raises:
            StoreUnavailableError, BankMissingError: a server is away; the order is still pending.
        """
        carry_out = {
            OrderKind.QUARANTINE: self._take_out,
            OrderKind.RETRACT: self._take_out,
            OrderKind.ROLLBACK: self._roll_back,
            OrderKind.RESTORE: self._restore,
            OrderKind.REBUILD: self._rebuild,
        }[order.kind]
        try:
            outcome, detail = "done", carry_out(order)
        except (OperatorError, BankFullError) as error:
            outcome, detail = "refused", str(error)
        version = self._keeper.current(order.camera).version
        self._book.complete_order(order.order_id, outcome, detail, version)
        log.info("Order %s: %s", outcome, detail, kind=order.kind.value, camera=order.camera, bank_version=version)

    def _take_out(self, order: BankOrder) -> str:
        assert order.frame_id is not None
        self._keeper.ensure(order.camera)
        active = {entry.frame_id for entry in self._book.active_entries(order.camera, order.model_id)}
        # It may be in Redis although SQL was not told yet.
        if order.frame_id not in active and self._keeper.learned(order.camera, order.frame_id) is None:
            return f"frame {order.frame_id} was not in the bank"
        version = self._keeper.remove(order.camera, order.frame_id, order.ordered_by, self._why(order))
        return f"frame {order.frame_id} is out of the bank since version {version}"

    def _roll_back(self, order: BankOrder) -> str:
        assert order.version is not None
        wanted: dict[str, tuple[Lesson, Entry]] = {}
        lost = []
        entries = self._book.entries_at(order.camera, order.model_id, order.version)
        barred = self._book.barred([entry.frame_id for entry in entries])
        for entry in entries:
            if entry.frame_id in barred:
                continue
            features = self._keeper.recall_one(entry)
            if features is None:
                lost.append(entry.frame_id)
                continue
            lesson = Lesson(entry.frame_id, entry.image_sha256, entry.added_by, entry.why, entry.policy)
            wanted[entry.frame_id] = lesson, features
        return self._become(order, wanted, lost)

    def _restore(self, order: BankOrder) -> str:
        assert order.snapshot_sha256 is not None
        try:
            snapshot = Snapshot.from_bytes(self._images.get(order.snapshot_sha256))
        except KeyError:
            msg = "the snapshot is not in the image store"
            raise OperatorError(msg) from None
        snapshot.require_fits(self._keeper.shape)
        barred = self._book.barred([lesson.frame_id for lesson, _ in snapshot.entries])
        wanted = {
            lesson.frame_id: (lesson, features)
            for lesson, features in snapshot.entries
            if lesson.frame_id not in barred
        }
        return self._become(order, wanted, [])

    def _become(self, order: BankOrder, wanted: dict[str, tuple[Lesson, Entry]], lost: list[str]) -> str:
        added, removed = self._keeper.become(order.camera, wanted, order.ordered_by, self._why(order))
        told = f"{added} normals put back, {removed} taken out, {len(wanted)} in the bank"
        return told + (f"; lost, with their images: {', '.join(lost)}" if lost else "")

    def _rebuild(self, order: BankOrder) -> str:
        return f"made anew from the database as version {self._keeper.rebuild(order.camera)}"

    def _why(self, order: BankOrder) -> str:
        return order.kind.value + (f": {order.why}" if order.why else "")
