"""The demo's operator: sees a good part flagged, confirms it as normal, sends it again and sees it pass."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime

from deploy.local.feed import Feed
from deploy.local.parts import DemoPart
from deploy.local.scoreboard import Judged, Scoreboard
from monitor.adapters.review_desk import ReviewDesk
from schemas.messages import Verdict

REVIEWER = "demo operator"
PATIENCE_S = 15.0


@dataclass
class Lesson:
    """What became of one click."""

    part: DemoPart
    frame_id: str
    score: float | None
    flagged: bool
    confirmed_at: datetime
    asked_at: float
    outcome: str = "pending"
    bank_version: int | None = None
    followed_at: datetime | None = None
    again_id: str | None = None
    again_asked: bool = False
    score_after: float | None = None
    passed: bool | None = None

    @property
    def feedback_seconds(self) -> float | None:
        """From confirming to a worker's first batch with the bank version that holds the part."""
        if self.followed_at is None:
            return None
        return (self.followed_at - self.confirmed_at).total_seconds()

    @property
    def open(self) -> bool:
        """Whether something is still to come."""
        learnt = self.outcome in {"pending", "added", "known"}
        settled = self.passed is not None and self.followed_at is not None
        return learnt and not settled and time.monotonic() - self.asked_at < PATIENCE_S


class Operator:
    """Confirms good parts that were flagged, one after the other, at most ``most`` of them."""

    def __init__(self, desk: ReviewDesk, feed: Feed, board: Scoreboard, most: int) -> None:
        self.lessons: list[Lesson] = []
        self._desk = desk
        self._feed = feed
        self._board = board
        self._most = most

    @property
    def busy(self) -> bool:
        """Whether the last click has not shown its effect yet."""
        return bool(self.lessons) and self.lessons[-1].open

    @property
    def done(self) -> bool:
        """Whether all clicks were made and have shown their effect."""
        return len(self.lessons) >= self._most and not self.busy

    def look_at(self, judged: Judged) -> None:
        """See one inspection: as the effect of the last click, or as a reason for the next."""
        if self.lessons and judged.frame_id == self.lessons[-1].again_id:
            self.lessons[-1].score_after = judged.score
            self.lessons[-1].passed = judged.verdict is Verdict.NORMAL
        wrong = judged.part.good and judged.verdict is Verdict.DEFECT
        if wrong and not self.busy and len(self.lessons) < self._most:
            self.confirm(judged)

    def confirm(self, judged: Judged) -> None:
        """Click: this part is normal."""
        review = self._desk.confirm(judged.frame_id, Verdict.NORMAL, REVIEWER, "good, says the truth")
        self.lessons.append(
            Lesson(
                part=judged.part,
                frame_id=judged.frame_id,
                score=judged.score,
                flagged=judged.verdict is Verdict.DEFECT,
                confirmed_at=review.created_at,
                asked_at=time.monotonic(),
            )
        )

    def tick(self) -> None:
        """Look whether the learner has dealt with the click, and if so send the part again."""
        if not self.lessons:
            return
        lesson = self.lessons[-1]
        if lesson.outcome == "pending":
            review = self._desk.show(lesson.frame_id).frame.review
            if review is not None:
                lesson.outcome = review.outcome
                # What the bank explained already taught nothing: there is no version to wait for.
                lesson.bank_version = review.bank_version if review.outcome in {"added", "known"} else None
        if lesson.bank_version is None:
            return
        if lesson.followed_at is None:
            lesson.followed_at = self._board.first_inspected_with(lesson.bank_version)
        if not lesson.again_asked:
            lesson.again_asked = True
            self._feed.send_again(lesson.part, lambda frame_id: setattr(lesson, "again_id", frame_id))
