"""The learner: what people confirm becomes part of the bank, once, and comes back if Redis loses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import structlog
from numpy.typing import NDArray

from monitor.errors import BankMissingError, StoreUnavailableError
from monitor.patience import keep_trying
from monitor.ports import (
    BankEdit,
    BankEntry,
    BankKey,
    BankShape,
    BankStore,
    Clock,
    ImageStore,
    LearnedSlot,
    PendingReview,
    ReviewOutcome,
    ReviewStore,
)
from schemas.errors import InvalidFrameError, UnregistrableError
from schemas.messages import Verdict

Features = NDArray[np.float16]

REVIEWS_A_STEP: Final = 32
# How soon a bank that Redis has lost is noticed although nobody reviews.
BANK_CHECK_S: Final = 2.0

log = structlog.get_logger()


class Learner:
    """Deals with reviews, oldest first, and keeps the banks in Redis at what SQL says they have learned.

    A step may be interrupted anywhere and repeated: the bank knows a frame by its id, and SQL a review by its outcome.

    Args:
        reviews: where people's words are, and what became of them.
        banks: the banks that the workers follow.
        images: the frames' images; the features are kept there as well.
        encode: encoded image to (P1, P2, P3 + R) float16; raises InvalidFrameError for what is no image,
            UnregistrableError for what is not in its place.
        shape: what the banks of this model must fit.
        model_id: whose banks.
        seed: (N, P1, P2, P3 + R) the pinned normals of training.
        clock: time.
        poll_interval_s: pause between two looks for reviews.
    """

    def __init__(
        self,
        reviews: ReviewStore,
        banks: BankStore,
        images: ImageStore,
        encode: Callable[[bytes], Features],
        shape: BankShape,
        model_id: str,
        seed: Features,
        clock: Clock,
        poll_interval_s: float = 0.1,
    ) -> None:
        self._reviews = reviews
        self._banks = banks
        self._images = images
        self._encode = encode
        self._shape = shape
        self._model_id = model_id
        self._seed = seed
        self._clock = clock
        self._poll_interval_s = poll_interval_s
        self._next_check = clock.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Learn until ``stop`` is set; outages are waited out.

        Raises:
            BankMismatchError: a bank was made by another model; a person must mend that.
        """
        while not stop.is_set():
            try:
                dealt_with = keep_trying(
                    self.step,
                    errors=(StoreUnavailableError, BankMissingError),
                    given_up=stop,
                    on_outage=_say_away,
                    on_return=lambda: log.info("Learning again; reviews given meanwhile come first"),
                )
            except (StoreUnavailableError, BankMissingError):
                return  # told to stop during an outage: the reviews stay pending
            if dealt_with == 0:
                stop.wait(self._poll_interval_s)

    def step(self) -> int:
        """Restore lost banks and deal with pending reviews; return how many.

        Raises:
            StoreUnavailableError, BankMissingError: a server is away; what was not dealt with is still pending.
            BankMismatchError: a bank was made by another model.
        """
        if self._clock.monotonic() >= self._next_check:
            for camera in self._reviews.taught_cameras(self._model_id):
                self._ensure_bank(camera)
            self._next_check = self._clock.monotonic() + BANK_CHECK_S
        pending = self._reviews.pending_reviews(REVIEWS_A_STEP)
        for review in pending:
            self._deal_with(review)
        return len(pending)

    def _deal_with(self, review: PendingReview) -> None:
        entry = None
        if review.verdict is Verdict.NORMAL:
            outcome, entry = self._learn(review)
        else:
            outcome = ReviewOutcome("recorded", "kept as a golden defect")
        self._reviews.complete_review(review.review_id, outcome, entry)
        log.info(
            "Review %s: %s",
            outcome.outcome,
            outcome.detail,
            frame=review.frame_id,
            camera=review.camera,
            verdict=review.verdict.value,
            bank_version=outcome.bank_version,
        )

    def _learn(self, review: PendingReview) -> tuple[ReviewOutcome, BankEntry | None]:
        try:
            image_sha256, features = self._features_of(review)
        except InvalidFrameError as error:
            return ReviewOutcome("refused", f"its image cannot be read: {error}"), None
        except UnregistrableError as error:
            return ReviewOutcome("refused", f"its part does not lie where it should: {error}"), None
        except KeyError:
            return ReviewOutcome("refused", "its image is not in the image store (see images.keep)"), None
        if not np.isfinite(features).all():
            # One such slot would make every later comparison with the bank meaningless.
            return ReviewOutcome("refused", "its features are not finite numbers"), None
        # Before the bank: what Redis holds can always be restored.
        features_sha256 = self._images.put(_as_bytes(features))
        self._ensure_bank(review.camera)
        edit = self._banks.add(self._key(review.camera), self._shape, review.frame_id, features)
        entry = BankEntry(
            camera=review.camera,
            model_id=self._model_id,
            frame_id=review.frame_id,
            slot=edit.slot,
            image_sha256=image_sha256,
            features_sha256=features_sha256,
            added_by=review.reviewer,
            why=review.note,
            version_added=edit.version,
            evicted_frame=edit.evicted_frame,
        )
        return self._outcome(review, edit), entry

    def _features_of(self, review: PendingReview) -> tuple[str, Features]:
        if review.image_sha256 is None:
            raise KeyError(review.frame_id)
        return review.image_sha256, self._encode(self._images.get(review.image_sha256))

    def _outcome(self, review: PendingReview, edit: BankEdit) -> ReviewOutcome:
        # A frame that Redis knows but SQL does not was added by this very review before a crash between the two.
        active = self._reviews.active_entries(review.camera, self._model_id) if not edit.added else ()
        if any(entry.frame_id == review.frame_id for entry in active):
            return ReviewOutcome("known", f"in the bank since version {edit.version}", edit.version)
        evicted = f", in place of frame {edit.evicted_frame}" if edit.evicted_frame else ""
        return ReviewOutcome("added", f"normal from bank version {edit.version} on{evicted}", edit.version)

    def _ensure_bank(self, camera: str) -> None:
        """Open a camera's bank; restore it if Redis lost it, or lost the edits it made last."""
        key = self._key(camera)
        known, found = self._reviews.bank_version(camera, self._model_id), self._banks.version(key)
        if found is not None and found >= known:
            return
        if known == 0:
            self._banks.open(key, self._shape, self._seed)
            return
        learned = self._recall(self._reviews.active_entries(camera, self._model_id))
        version = self._reviews.next_bank_version(camera, self._model_id)
        self._banks.open(key, self._shape, self._seed, learned=learned, version=version)
        log.warning(
            "Redis had lost edits of the bank; restored it as version %d",
            version,
            found=found,
            known=known,
            camera=camera,
            model=self._model_id,
            learned=len(learned),
        )

    def _recall(self, entries: Sequence[BankEntry]) -> list[LearnedSlot]:
        learned = []
        # The newest of a slot: one that was evicted or removed stays listed until SQL is told, which may be later.
        for entry in {entry.slot: entry for entry in entries}.values():
            try:
                features = self._stored_features(entry)
            except (KeyError, InvalidFrameError, UnregistrableError):
                log.exception(
                    "A normal's features and image are gone; the restored bank lacks it, parts like it will be flagged",
                    frame=entry.frame_id,
                    camera=entry.camera,
                )
                continue
            learned.append(LearnedSlot(entry.slot, entry.frame_id, entry.version_added, features))
        return learned

    def _stored_features(self, entry: BankEntry) -> Features:
        try:
            data = self._images.get(entry.features_sha256)
        except KeyError:
            return self._encode(self._images.get(entry.image_sha256))
        return np.frombuffer(data, dtype="<f2").reshape(self._shape.features).astype(np.float16)

    def _key(self, camera: str) -> BankKey:
        return BankKey(camera, self._model_id)


def _as_bytes(features: Features) -> bytes:
    """Return features as every machine reads them: little-endian float16 in C order."""
    return np.ascontiguousarray(features, dtype="<f2").tobytes()


def _say_away(error: BaseException) -> None:
    log.warning("Learning pauses: a server is away; reviews are kept and wait", error=str(error))
