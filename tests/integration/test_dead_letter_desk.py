"""The desk of dead letters: people find what could not be inspected, and what they did with it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from monitor.adapters.dead_letter_desk import DeadLetterDesk, Letter, Selection, State
from monitor.adapters.inspections import SqlInspectionStore
from monitor.ports import BatchOutcome
from schemas.errors import OperatorError, Reason
from schemas.messages import Verdict
from tests.integration.records import dead_letter, inspection

NOW = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)


@pytest.fixture
def desk(engine: Engine) -> DeadLetterDesk:
    return DeadLetterDesk(engine, now=lambda: NOW)


def ids(letters: Sequence[Letter]) -> list[str | None]:
    return [each.frame_id for each in letters]


def test_letters_are_found_by_camera_reason_state_and_id(store: SqlInspectionStore, desk: DeadLetterDesk) -> None:
    letters = [dead_letter(1, frame_id=b"a"), dead_letter(2, key=b"cam2", frame_id=b"b"), dead_letter(3, frame_id=b"c")]
    letters[2] = replace(letters[2], reason=Reason.TOO_LARGE, detail="5 bytes")
    store.record(BatchOutcome(dead_letters=tuple(letters)))
    assert ids(desk.newest(Selection(), 2)) == ["c", "b"]
    assert ids(desk.oldest(Selection(), 2)) == ["a", "b"]
    assert ids(desk.newest(Selection(camera="cam2"), 9)) == ["b"]
    assert ids(desk.newest(Selection(reason=Reason.TOO_LARGE), 9)) == ["c"]
    assert desk.totals(Selection()) == {"not_an_image": 2, "too_large": 1}
    assert desk.totals(Selection(camera="cam1")) == {"not_an_image": 1, "too_large": 1}
    first, second, third = desk.oldest(Selection(), 9)
    assert ids(desk.named([third.id, first.id, first.id])) == ["a", "c"]
    assert (third.camera, third.reason, third.detail, third.size_bytes) == ("cam1", "too_large", "5 bytes", 5)
    with pytest.raises(OperatorError, match=r"dead letter 77: there is none with this id.*dlq list --state all"):
        desk.named([second.id, 77])
    with pytest.raises(OperatorError, match="10001 dead letters are named; at most 10000"):
        desk.named(range(1, 10_002))


def test_what_people_did_is_written_down_and_the_account_stays(store: SqlInspectionStore, desk: DeadLetterDesk) -> None:
    store.record(BatchOutcome(dead_letters=tuple(dead_letter(number) for number in range(3))))
    waiting, replayed, purged = desk.oldest(Selection(), 9)
    desk.mark_replayed([replayed.id, purged.id], "Ada")
    assert desk.purge(Selection(ids=(purged.id,)), "Bob") == 1
    # Whoever purged it first did.
    assert desk.purge(Selection(ids=(purged.id,)), "Eve") == 0
    now = {each.id: each for each in desk.oldest(Selection(), 9)}
    assert now[waiting.id] == waiting
    assert now[replayed.id] == replace(replayed, replayed_at=NOW, replayed_by="Ada")
    assert now[purged.id] == replace(purged, replayed_at=NOW, replayed_by="Ada", purged_at=NOW, purged_by="Bob")
    for each, state in ((waiting, State.WAITING), (replayed, State.REPLAYED), (purged, State.PURGED)):
        assert now[each.id].state is state
        assert [found.id for found in desk.newest(Selection(states=(state,)), 9)] == [each.id]
    with pytest.raises(OperatorError, match="1 to 128 printable characters"):
        desk.purge(Selection(), "")
    assert desk.totals(Selection(states=(State.PURGED,))) == {"not_an_image": 1}


def test_a_purge_takes_neither_what_is_too_young_nor_what_died_later(engine: Engine, desk: DeadLetterDesk) -> None:
    for number, days in enumerate((9, 5, 0)):
        store = SqlInspectionStore(engine, "inspections", now=lambda days=days: NOW - timedelta(days=days))  # type: ignore[misc]
        store.record(BatchOutcome(dead_letters=(dead_letter(number),)))
    oldest, older, young = desk.oldest(Selection(), 9)
    assert desk.purge(Selection(before=NOW - timedelta(days=4), newest=oldest.id), "Ada") == 1
    assert desk.purge(Selection(before=NOW - timedelta(days=4)), "Ada") == 1
    assert [each.state for each in desk.named([oldest.id, older.id])] == [State.PURGED] * 2
    assert desk.named([young.id]) == (young,)


def test_a_letter_tells_the_verdict_that_its_frame_has_by_now(store: SqlInspectionStore, desk: DeadLetterDesk) -> None:
    store.record(BatchOutcome(dead_letters=(dead_letter(1, frame_id=b"a"), dead_letter(2, frame_id=b""))))
    named, nameless = desk.oldest(Selection(), 9)
    assert desk.verdict(named) is None
    store.record(BatchOutcome((inspection("a", 3, verdict=Verdict.NORMAL),)))
    assert desk.verdict(named) is Verdict.NORMAL
    assert desk.verdict(nameless) is None
