"""What a shadow found is stored once, and compared with what the active model found; the figures are known by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from pydantic import SecretStr
from sqlalchemy import Engine, text

from monitor.adapters import migrations
from monitor.adapters.database import connect
from monitor.adapters.images import FsspecImageStore
from monitor.adapters.inspections import SqlInspectionStore
from monitor.adapters.review_desk import ReviewDesk
from monitor.adapters.shadow_desk import SqlShadowDesk
from monitor.compare_commands import since_when
from monitor.comparison import Judged, Share, dice
from monitor.ports import BatchOutcome, InspectionRecord, Recorded
from monitor.settings import DatabaseSettings
from schemas.errors import OperatorError
from schemas.messages import Verdict
from tests.faults.line import run
from tests.integration.records import CAPTURED, inspection

GOOD, BAD = Verdict.NORMAL, Verdict.DEFECT
# Of each frame: what the active model says, what the shadow says, and what Ada says.
FRAMES = (
    (GOOD, GOOD, None),
    (GOOD, GOOD, BAD),  # both miss it
    (GOOD, BAD, BAD),  # the active model misses it
    (BAD, GOOD, GOOD),  # the active model rejects it falsely
    (BAD, GOOD, None),
    (BAD, BAD, GOOD),  # both reject it falsely
    (BAD, BAD, BAD),
    (BAD, BAD, None),
)


def mask(rows: slice, size: int = 8) -> bytes:
    """Return a mask of some eighths of its rows."""
    large = np.zeros((size, size), np.uint8)
    large[rows.start * size // 8 : rows.stop * size // 8] = 255
    return cv2.imencode(".png", large)[1].tobytes()


LEFT, RIGHT = mask(slice(0, 4)), mask(slice(2, 4), size=16)  # 32 of 64 pixels, and 16 of these: Dice 2/3


def pair(number: int, active: Verdict, shadow: Verdict, **fields: Any) -> tuple[InspectionRecord, InspectionRecord]:  # noqa: ANN401
    """Return what both say of a frame, the shadow a second later for each number."""
    own = {"score": float(number), "threshold": 2.0, "bank_version": 7}
    first = replace(inspection(f"frame-{number}", number, verdict=active, **fields), mask_png=LEFT, **own)
    second = replace(
        first,
        model_id="model-2",
        verdict=shadow,
        mask_png=RIGHT,
        score=10.0,
        threshold=5.0,
        inspected_at=CAPTURED + timedelta(seconds=number),
        regions=(),
    )
    return first, second


@pytest.fixture
def desk(engine: Engine, store: SqlInspectionStore) -> SqlShadowDesk:
    fill(engine, store)
    return SqlShadowDesk(engine)


def fill(engine: Engine, store: SqlInspectionStore, image_sha256: str = "a" * 64) -> None:
    pairs = [
        pair(number, active, shadow, image_sha256=image_sha256) for number, (active, shadow, _) in enumerate(FRAMES)
    ]
    unseen = inspection("unseen", 50)
    pairs.append(pair(51, Verdict.UNINSPECTED, BAD))
    store.record(BatchOutcome((*(each for each, _ in pairs), unseen)))
    store.record_shadows([its for _, its in pairs])
    reviews = ReviewDesk(engine)
    for number, (_, _, truth) in enumerate(FRAMES):
        if truth is not None:
            reviews.confirm(f"frame-{number}", truth, "Ada")
    # Words that do not count: one that was taken back, and the rule's.
    reviews.confirm("frame-7", BAD, "Ada")
    reviews.retract("frame-7", "Ada")
    reviews.confirm("frame-0", GOOD, "rule")
    with engine.begin() as connection:
        connection.execute(text("UPDATE reviews SET policy = 'rule' WHERE reviewer = 'rule'"))


def test_the_figures_are_those_counted_by_hand(desk: SqlShadowDesk) -> None:
    [found] = desk.compare()
    assert (found.frames, found.both_normal, found.both_defect, found.only_active, found.only_shadow) == (8, 2, 3, 2, 1)
    assert found.active == Judged("model-1", Share.of(2, 2), Share.of(2, 3), 1.75)
    assert found.shadow == Judged("model-2", Share.of(1, 2), Share.of(1, 3), 2.0)
    assert found.dice == pytest.approx(2 / 3)
    assert found.dice_frames == 3


def test_shares_have_wilson_intervals() -> None:
    share = Share.of(1, 10)
    assert share is not None
    # Newcombe 1998, by hand: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n) with z = 1.959964.
    assert (share.low, share.high) == (pytest.approx(0.017876, abs=1e-5), pytest.approx(0.404150, abs=1e-5))
    assert Share.of(0, 0) is None


def test_masks_of_two_sizes_overlap_as_the_frame_does() -> None:
    assert dice(LEFT, RIGHT) == dice(RIGHT, LEFT) == pytest.approx(2 / 3)
    assert dice(LEFT, mask(slice(4, 8))) == 0
    empty = mask(slice(0, 0))
    assert dice(empty, LEFT) == 0
    assert dice(empty, empty) is dice(None, LEFT) is dice(b"damaged", LEFT) is None


def test_only_the_cameras_frames_and_only_those_since_then_are_compared(
    desk: SqlShadowDesk, store: SqlInspectionStore
) -> None:
    active, shadow = pair(60, BAD, GOOD, camera="cam2")
    store.record(BatchOutcome((active,)))
    store.record_shadows([shadow])
    assert [each.frames for each in desk.compare("cam2")] == [1]
    assert [each.frames for each in desk.compare("cam1")] == [8]
    assert list(desk.compare("cam3")) == []
    assert [each.frames for each in desk.compare("cam1", CAPTURED + timedelta(seconds=5))] == [3]
    assert [each.frame_id for each in desk.disagreements(10, since=CAPTURED + timedelta(seconds=4))] == [
        "frame-60",
        "frame-4",
    ]


def test_each_pair_of_models_is_compared_by_itself_the_newest_first(
    desk: SqlShadowDesk, store: SqlInspectionStore
) -> None:
    active, shadow = pair(60, BAD, GOOD, model_id="model-0")
    store.record(BatchOutcome((active,)))
    store.record_shadows([shadow, replace(shadow, model_id="model-3")])
    pairs = [(each.active.model_id, each.shadow.model_id, each.frames) for each in desk.compare()]
    assert pairs == [("model-0", "model-3", 1), ("model-0", "model-2", 1), ("model-1", "model-2", 8)]


def test_the_newest_disagreements_come_first(desk: SqlShadowDesk) -> None:
    found = desk.disagreements(2)
    assert [each.frame_id for each in found] == ["frame-4", "frame-3"]
    last = desk.disagreements(10)[-1]
    assert (last.frame_id, last.active.verdict, last.shadow.verdict, last.truth) == ("frame-2", GOOD, BAD, BAD)
    assert (last.active.model_id, last.shadow.model_id, last.shadow.mask_png) == ("model-1", "model-2", RIGHT)


def test_what_is_delivered_again_is_stored_once(engine: Engine, store: SqlInspectionStore) -> None:
    active, shadow = pair(1, BAD, GOOD)
    twice_active, twice_shadow = (replace(each, position=replace(each.position, offset=2)) for each in (active, shadow))
    outcome = BatchOutcome((active, twice_active))
    assert store.record(outcome) == Recorded(inspections=1, dead_letters=0, repeats=1)
    store.record_shadows([shadow, twice_shadow])
    assert store.record(outcome) == Recorded(inspections=0, dead_letters=0, repeats=2)
    store.record_shadows([shadow, twice_shadow])
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT frame_id, model_id, verdict, camera FROM shadow_inspections")).all()
    assert [tuple(row) for row in rows] == [("frame-1", "model-2", "normal", "cam1")]
    assert len(store.unpublished(10)) == 1


def test_what_was_found_on_a_frame_that_is_not_stored_is_not_kept(engine: Engine, store: SqlInspectionStore) -> None:
    store.record_shadows([pair(1, BAD, GOOD)[1]])
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM shadow_inspections")).scalar() == 0


def test_the_table_goes_and_comes_with_its_migration(database_url: str, engine: Engine, desk: SqlShadowDesk) -> None:
    assert desk.compare()
    migrations.downgrade(database_url, "0006")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM inspections")).scalar() == len(FRAMES) + 2
    migrations.upgrade(database_url)
    assert list(desk.compare()) == []


def test_the_command_prints_the_figures_and_saves_the_disagreements(tmp_path: Path, database_url: str) -> None:
    migrations.upgrade(database_url)
    engine = connect(DatabaseSettings(url=SecretStr(database_url)))
    frame = cv2.imencode(".png", np.full((40, 40, 3), 128, np.uint8))[1].tobytes()
    sha256 = FsspecImageStore(str(tmp_path / "images")).put(frame)
    store = SqlInspectionStore(engine, "inspections")
    fill(engine, store, sha256)
    active, shadow = pair(60, BAD, GOOD)
    store.record(BatchOutcome((active,)))
    store.record_shadows([shadow])
    engine.dispose()
    config = tmp_path / "monitor.yaml"
    config.write_text(yaml.safe_dump({"database": {"url": database_url}, "images": {"url": str(tmp_path / "images")}}))

    def compare(*arguments: str) -> tuple[int, str, str]:
        done = run("monitor", "--config", str(config), "model", "compare", *arguments)
        return done.returncode, done.stdout, done.stderr

    code, told, said = compare("--save", str(tmp_path / "found"))
    assert code == 0, said
    lines = [" ".join(line.split()) for line in told.splitlines()]
    assert "9 frames active model-1 shadow model-2" in lines
    assert "only this one: defect 3 (33.3%) 1 (11.1%)" in lines
    assert "false rejects, of reviewed normals 2 of 2 (34.2% to 100.0%) 1 of 2 (9.5% to 90.5%)" in lines
    assert "misses, of reviewed defects 2 of 3 (20.8% to 93.9%) 1 of 3 (6.1% to 79.2%)" in lines
    assert "Dice of the masks, both defect 0.667, 3 frames 0.667, 3 frames" in lines
    assert [line.split()[0] for line in lines[-4:]] == ["frame-60", "frame-4", "frame-3", "frame-2"]
    saved = sorted((tmp_path / "found").iterdir())
    assert [path.name for path in saved] == [f"frame-{number}-model-2.png" for number in (2, 3, 4)]
    assert "1 of 4 images were not kept" in said
    picture = cv2.imread(str(saved[0])).astype(int)
    red, blue = (np.abs(picture - colour).sum(axis=2) == 0 for colour in ((40, 40, 230), (230, 140, 20)))
    assert red.any()
    assert blue.any()

    code, told, _ = compare("--json", "--limit", "1", "--since", "2026-01-02T03:04:05.7+00:00")
    figures = json.loads(told)
    [found] = figures["comparisons"]
    assert (code, found["frames"], found["only_active"], found["active"]["misses"]["total"]) == (0, 8, 3, 3)
    assert [each["frame_id"] for each in figures["disagreements"]] == ["frame-60"]

    code, told, said = compare("--camera", "cam9", "--since", "7")
    assert (code, told) == (2, "")
    assert said.startswith("error: no frame of camera cam9 since ")
    assert "'model shadow BUNDLE' lets one look on" in said


def test_a_time_is_days_back_or_a_moment() -> None:
    now = datetime(2026, 5, 6, 7, 8, tzinfo=UTC)
    assert since_when(None, now) is None
    assert since_when("0.5", now) == now - timedelta(hours=12)
    assert since_when("2026-05-06T07:08+02:00", now) == now - timedelta(hours=2)
    assert since_when("2026-05-06", now) == datetime(2026, 5, 6).astimezone()
    for wrong in ("yesterday", "-1", "nan", "inf", "1e9", "0001-01-01T00:00+14:00", ""):
        with pytest.raises(OperatorError, match="give days back"):
            since_when(wrong, now)
