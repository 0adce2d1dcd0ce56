"""The learner: what is confirmed becomes part of the bank, once, and comes back if Redis loses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from monitor.assignments import EVERY_CAMERA, Cameras
from monitor.errors import BankFullError, BankMovedError
from monitor.learning.admission import Admitted, Explained, Judge, Unfit
from monitor.learning.gate import Defect, Hidden
from monitor.learning.keeper import MAX_ATTEMPTS, BankKeeper, Pixels, busy
from monitor.learning.lesson import Lesson
from monitor.learning.orders import OrderDesk
from monitor.learning.patches import picture_of
from monitor.ports import (
    MOST_GOLDEN,
    Addition,
    BankBook,
    BankEdit,
    BankEntry,
    Clock,
    GoldenDefect,
    HiddenDefect,
    ImageStore,
    PendingReview,
    Policy,
    Removal,
    ReviewOutcome,
    ReviewStore,
)
from schemas.errors import InvalidFrameError, UnregistrableError
from schemas.messages import Verdict

STEP: Final = 32
# How soon a bank that Redis has lost is noticed although nobody reviews.
BANK_CHECK_S: Final = 2.0

Learnt = tuple[ReviewOutcome, BankEntry | None, tuple[Removal, ...]]

log = structlog.get_logger()


class Learner:
    """Deals with orders and reviews, oldest first, and keeps the banks in Redis at what SQL says they have learned.

    A step may be interrupted anywhere and repeated: the bank knows a frame by its id, and SQL a review by its outcome.

    Args:
        reviews: what was said about frames, and what became of it.
        book: what SQL knows of the banks.
        keeper: the banks.
        judge: decides about each confirmed normal.
        images: the frames' images.
        read: encoded image to (C, H, W); raises InvalidFrameError and UnregistrableError.
        clock: time.
        confirm_by_rule: gives the rule's own word, if there is one; called at each step.
    """

    def __init__(
        self,
        reviews: ReviewStore,
        book: BankBook,
        keeper: BankKeeper,
        judge: Judge,
        images: ImageStore,
        read: Callable[[bytes], Pixels],
        clock: Clock,
        confirm_by_rule: Callable[[], None] = lambda: None,
    ) -> None:
        self._reviews = reviews
        self._book = book
        self._keeper = keeper
        self._judge = judge
        self._images = images
        self._read = read
        self._clock = clock
        self._confirm_by_rule = confirm_by_rule
        self._orders = OrderDesk(book, keeper, images)
        self._next_check = clock.monotonic()

    def step(self, cameras: Cameras = EVERY_CAMERA) -> int:
        """Restore lost banks, deal with orders for them and with reviews of these cameras' frames; return how many.

        Raises:
            StoreUnavailableError, BankMissingError: a server is away; what was not dealt with is still pending.
            BankMismatchError: a bank was made by another model.
        """
        if self._clock.monotonic() >= self._next_check:
            for camera in self._book.taught_cameras(self._keeper.model_id):
                self._keeper.ensure(camera)
                self._keeper.reconcile(camera)
            self._next_check = self._clock.monotonic() + BANK_CHECK_S
        orders = self._book.pending_orders(self._keeper.model_id, STEP)
        for order in orders:
            self._orders.deal_with(order)
        self._confirm_by_rule()
        policies = set(Policy) - set(self._book.paused())
        pending = self._reviews.pending_reviews(STEP, policies, cameras)
        for review in pending:
            # Another learner may have dealt with it since: what it taught may even have left the bank again.
            if self._reviews.is_pending(review.review_id):
                self._deal_with(review)
        return len(orders) + len(pending)

    def _deal_with(self, review: PendingReview) -> None:
        learn = self._learn if review.verdict is Verdict.NORMAL else self._keep_defect
        outcome, entry, removals = self._about(review, learn)
        self._reviews.complete_review(review.review_id, outcome, entry, removals)
        if entry is not None:
            self._keeper.reconcile(review.camera)
        log.info(
            "Review %s: %s",
            outcome.outcome,
            outcome.detail,
            frame=review.frame_id,
            camera=review.camera,
            verdict=review.verdict.value,
            policy=review.policy.value,
            bank_version=outcome.bank_version,
        )

    def _about(self, review: PendingReview, learn: Callable[[PendingReview, str, Pixels], Learnt]) -> Learnt:
        """Look at the reviewed frame and learn from it; if it cannot be looked at, say why nothing is learnt."""
        kept = review.verdict is not Verdict.NORMAL
        sha256 = review.image_sha256
        try:
            if sha256 is None:
                raise KeyError(review.frame_id)  # noqa: TRY301 - as if it were gone
            pixels = self._read(self._images.get(sha256))
        except InvalidFrameError as error:
            problem = f"its image cannot be read: {error}"
        except UnregistrableError as error:
            problem = f"its part does not lie where it should: {error}"
        except KeyError:
            problem = "its image is not in the image store (see images.keep)"
        else:
            return learn(review, sha256, pixels)
        if kept:
            return ReviewOutcome("recorded", f"a defect, but no guard against hiding such: {problem}"), None, ()
        return ReviewOutcome("refused", problem), None, ()

    def _learn(self, review: PendingReview, sha256: str, pixels: Pixels) -> Learnt:
        if order := self._book.quarantined(review.frame_id):
            return (
                ReviewOutcome("refused", f"in quarantine since {order.created_at:%Y-%m-%d}, by {order.ordered_by}"),
                None,
                (),
            )
        lesson = Lesson(review.frame_id, sha256, review.reviewer, review.note, review.policy)
        for _ in range(MAX_ATTEMPTS):
            try:
                return self._admit(review, lesson, pixels)
            except (BankMovedError, BankFullError):
                continue  # another learner was faster: what holds now is to be seen
        raise busy(review.camera)

    def _admit(self, review: PendingReview, lesson: Lesson, pixels: Pixels) -> Learnt:
        camera = review.camera
        bank = self._keeper.current(camera)
        edit = self._keeper.learned(camera, review.frame_id)
        if edit is not None:
            return self._learnt_before(review, lesson)
        decision = self._judge.consider(pixels, bank, self._defects(camera))
        if not isinstance(decision, Admitted):
            return self._decline(decision, pixels, bank.version), None, ()
        addition = Addition(
            frame_id=review.frame_id,
            features=decision.entry,
            at=bank.version,
            slot=decision.slot,
            evict=decision.evict,
            budget=self._keeper.budget,
        )
        edit, entry = self._keeper.add(camera, lesson, addition)
        if not edit.added:
            return self._learnt_before(review, lesson)
        removals = _removals(edit.version, edit.evicted, review.frame_id)
        return ReviewOutcome("added", _tell(decision, edit), edit.version), entry, removals

    def _decline(self, decision: Explained | Hidden | Unfit, pixels: Pixels, version: int) -> ReviewOutcome:
        if isinstance(decision, Explained):
            detail = f"adds nothing: the bank explains it (score {decision.score:.2f}, usual are {decision.usual:.2f})"
            return ReviewOutcome("explained", detail, version)
        if isinstance(decision, Unfit):
            return ReviewOutcome("refused", decision.why, version)
        picture = self._images.put(picture_of(decision, pixels))
        detail = f"it would hide a confirmed defect: {decision.why}. If the defect is none, take that review back"
        return ReviewOutcome("refused", detail, version, HiddenDefect(decision.defect.frame_id, picture))

    def _learnt_before(self, review: PendingReview, lesson: Lesson) -> Learnt:
        """Return what to say of a frame that the bank holds: since long, or since a crash before SQL was told."""
        edit = self._keeper.learned(review.camera, review.frame_id)
        if edit is None:
            raise BankMovedError(review.frame_id)
        active = self._book.active_entries(review.camera, self._keeper.model_id)
        if any(entry.frame_id == review.frame_id for entry in active):
            return ReviewOutcome("known", f"in the bank since version {edit.version}", edit.version), None, ()
        entry = self._keeper.recover(review.camera, lesson, edit)
        removals = _removals(edit.version, edit.evicted, review.frame_id)
        return ReviewOutcome("added", f"normal from bank version {edit.version} on", edit.version), entry, removals

    def _keep_defect(self, review: PendingReview, sha256: str, pixels: Pixels) -> Learnt:  # noqa: ARG002 - as _learn
        bank = self._keeper.current(review.camera)
        missed = self._judge.find_culprit(pixels, bank)
        detail = "kept as a golden defect: no normal that would hide it is learnt"
        if missed is None:
            return ReviewOutcome("recorded", detail, bank.version), None, ()
        detail = f"kept as a golden defect, but it passes with bank version {bank.version} (score {missed.score:.2f}): "
        if missed.slot is not None:
            frame_id = self._frame_in(review.camera, missed.slot)
            detail += f"frame {frame_id} hides it; take that out with 'bank quarantine'"
        elif missed.learned:
            detail += "several confirmed normals together hide it; see 'bank rollback'"
        else:
            detail += "the model itself does not see it"
        return ReviewOutcome("recorded", detail, bank.version), None, ()

    def _frame_in(self, camera: str, slot: int) -> str:
        entries = self._book.active_entries(camera, self._keeper.model_id)
        return next((entry.frame_id for entry in entries if entry.slot == slot), f"in slot {slot}")

    def _defects(self, camera: str) -> list[Defect]:
        return [
            as_defect(golden, self._images, self._read) for golden in self._reviews.golden_defects(camera, MOST_GOLDEN)
        ]


def as_defect(golden: GoldenDefect, images: ImageStore, read: Callable[[bytes], Pixels]) -> Defect:
    """Return a golden defect as the gate looks at it."""

    def look() -> Pixels | None:
        try:
            return read(images.get(golden.image_sha256))
        except (KeyError, InvalidFrameError, UnregistrableError) as error:
            log.warning("A golden defect guards nothing: its image is gone", frame=golden.frame_id, error=str(error))
            return None

    return Defect(golden.frame_id, look)


def _tell(decision: Admitted, edit: BankEdit) -> str:
    detail = f"normal from bank version {edit.version} on"
    if edit.evicted:
        detail += f", in place of {', '.join(f'frame {frame}' for frame in edit.evicted)}"
    if decision.flagged_after:
        detail += f"; parts just like it may still be flagged (score {decision.score_after:.2f})"
    return detail


def _removals(version: int, evicted: tuple[str, ...], frame_id: str) -> tuple[Removal, ...]:
    return tuple(Removal(frame, version, "eviction", f"made room for frame {frame_id}") for frame in evicted)
