"""The review desk: people find flagged frames and say what they are, once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.review_desk import Review, ReviewDesk
from monitor.adapters.reviews import SqlReviewStore
from monitor.ports import BatchOutcome, ReviewOutcome
from monitor.settings import DatabaseSettings
from schemas.errors import OperatorError
from schemas.messages import Verdict
from tests.integration.records import REGION, inspection

NOW = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)
IMAGE = "c" * 64


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    migrations.upgrade(database_url)
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    frames = (
        inspection("0190-aaaa-1", 1, image_sha256=IMAGE),
        inspection("0190-aaaa-2", 2, verdict=Verdict.NORMAL, image_sha256=IMAGE),
        inspection("0190-bbbb-3", 3, camera="cam2"),
        inspection("0190-cccc-4", 4, verdict=Verdict.UNINSPECTED),
    )
    SqlInspectionStore(engine, "inspections").record(BatchOutcome(frames))
    yield engine
    engine.dispose()


@pytest.fixture
def desk(engine: Engine) -> ReviewDesk:
    return ReviewDesk(engine, now=lambda: NOW)


def test_flagged_frames_are_listed_newest_first_until_they_are_reviewed(desk: ReviewDesk) -> None:
    def listed(**options: object) -> list[str]:
        return [frame.frame_id for frame in desk.list_flagged(10, **options)]  # type: ignore[arg-type]

    assert listed() == ["0190-cccc-4", "0190-bbbb-3", "0190-aaaa-1"]
    assert listed(camera="cam2") == ["0190-bbbb-3"]
    assert [frame.frame_id for frame in desk.list_flagged(1)] == ["0190-cccc-4"]
    desk.confirm("0190-aaaa-1", Verdict.NORMAL, "ada")
    assert listed() == ["0190-cccc-4", "0190-bbbb-3"]
    reviewed = desk.list_flagged(10, only_open=False)[-1]
    assert reviewed.review is not None
    assert (reviewed.frame_id, reviewed.review.reviewer) == ("0190-aaaa-1", "ada")


def test_a_frame_is_shown_with_its_regions_mask_and_review(desk: ReviewDesk) -> None:
    details = desk.show("0190-aaaa-1")
    assert (details.frame.camera, details.frame.verdict, details.frame.score) == ("cam1", Verdict.DEFECT, 0.75)
    assert details.regions[0] == REGION
    assert (len(details.regions), details.region_count) == (2, 2)
    assert (details.mask_png, details.bank_version, details.offset) == (b"\x89PNG mask", 7, 1)
    assert details.frame.review is None
    review = desk.confirm("0190-aaaa-1", Verdict.DEFECT, "ada", "a real crack\0")
    assert desk.show("0190-aaaa-1").frame.review == review
    assert review.note == "a real crack"


def test_the_beginning_of_an_id_will_do_when_only_one_frame_has_it(desk: ReviewDesk) -> None:
    assert desk.show("0190-b").frame.frame_id == "0190-bbbb-3"
    with pytest.raises(OperatorError, match=r"several ids begin so, among them 0190-aaaa-2, 0190-aaaa-1"):
        desk.show("0190-a")
    for unknown in ("0190-B", "0190_", "%190", "0199"):
        with pytest.raises(OperatorError, match="no frame with this id"):
            desk.show(unknown)
    with pytest.raises(OperatorError, match="at least its first 4"):
        desk.confirm("019", Verdict.NORMAL, "ada")


def test_confirming_twice_returns_the_first_review(desk: ReviewDesk) -> None:
    first = desk.confirm("0190-aaaa-1", Verdict.NORMAL, "ada", "dust")
    assert first == Review("0190-aaaa-1", Verdict.NORMAL, "ada", "dust", NOW, "pending", None, None, None)
    assert desk.confirm("0190-aaaa-1", Verdict.NORMAL, "bob", "also dust") == first


def test_a_contradiction_is_refused_and_says_who_said_what(desk: ReviewDesk) -> None:
    desk.confirm("0190-aaaa-1", Verdict.DEFECT, "ada")
    with pytest.raises(OperatorError, match="ada confirmed it as defect on 2026-05-06 07:08 UTC"):
        desk.confirm("0190-aaaa-1", Verdict.NORMAL, "bob")
    assert desk.show("0190-aaaa-1").frame.review == desk.confirm("0190-aaaa-1", Verdict.DEFECT, "bob")


def test_people_who_click_at_once_make_one_review(desk: ReviewDesk) -> None:
    reviews: list[Review] = []
    names = [f"person-{n}" for n in range(6)]
    threads = [
        threading.Thread(target=lambda name=name: reviews.append(desk.confirm("0190-aaaa-1", Verdict.NORMAL, name)))
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(reviews) == 6
    assert len(set(reviews)) == 1


def test_a_frame_without_its_image_cannot_be_learned_as_normal(desk: ReviewDesk) -> None:
    with pytest.raises(OperatorError, match=r"images\.keep"):
        desk.confirm("0190-bbbb-3", Verdict.NORMAL, "ada")
    assert desk.confirm("0190-bbbb-3", Verdict.DEFECT, "ada").outcome == "pending"


@pytest.mark.parametrize("reviewer", ["", "x" * 129, "a\0b"])
def test_a_review_needs_a_name(desk: ReviewDesk, reviewer: str) -> None:
    with pytest.raises(OperatorError, match="reviewer"):
        desk.confirm("0190-aaaa-1", Verdict.NORMAL, reviewer)


def test_no_one_can_confirm_a_frame_as_uninspected(desk: ReviewDesk) -> None:
    with pytest.raises(OperatorError, match="normal or defect"):
        desk.confirm("0190-aaaa-1", Verdict.UNINSPECTED, "ada")


def test_people_see_what_the_learner_made_of_it(desk: ReviewDesk, engine: Engine) -> None:
    desk.confirm("0190-aaaa-1", Verdict.NORMAL, "ada", "dust")
    learner = SqlReviewStore(engine, now=lambda: NOW)
    [pending] = learner.pending_reviews(5)
    assert (pending.camera, pending.image_sha256, pending.verdict) == ("cam1", IMAGE, Verdict.NORMAL)
    learner.complete_review(pending.review_id, ReviewOutcome("added", "normal from bank version 3 on", 3))
    learner.complete_review(pending.review_id, ReviewOutcome("refused", "late", 4))
    review = desk.show("0190-aaaa-1").frame.review
    assert review is not None
    assert (review.outcome, review.outcome_detail, review.bank_version) == (
        "added",
        "normal from bank version 3 on",
        3,
    )
    assert review.applied_at == NOW
    assert learner.pending_reviews(5) == ()


def test_the_last_confirmed_defects_of_a_camera_guard_its_bank(desk: ReviewDesk, engine: Engine) -> None:
    for frame_id in ("0190-aaaa-2", "0190-aaaa-1", "0190-bbbb-3"):
        desk.confirm(frame_id, Verdict.DEFECT, "ada")
    learner = SqlReviewStore(engine, now=lambda: NOW)

    def guards(most: int) -> list[str]:
        return [defect.frame_id for defect in learner.golden_defects("cam1", most)]

    assert guards(9) == ["0190-aaaa-2", "0190-aaaa-1"]
    assert guards(1) == ["0190-aaaa-1"]
