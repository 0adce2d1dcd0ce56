"""A shadow looks on while frames flow: each frame has one verdict, the active model's, and both are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults.line import MakeLine, Message
from tests.faults.operated import CAMERA, odd_png, said
from tests.faults.test_model_swap import Changing, rename

pytestmark = pytest.mark.usefixtures("forks")

SHADOW = "shadow-1"
BOTH = "shadow_inspections s JOIN inspections i ON i.frame_id = s.frame_id"


class Shadowed(Changing):
    """A line with a shadow."""

    def looks(self) -> int:
        """Return at how many frames the shadow has looked."""
        return self.count("shadow_inspections")

    def look_at(self, part: int) -> tuple[str, str]:
        """Send an odd part; return what the active model and the shadow say of it."""
        message = Message.of(odd_png(part))
        self.send([message])
        query = f"SELECT i.verdict AS active, s.verdict AS shadow FROM {BOTH} WHERE s.frame_id = :id"
        self.wait(lambda: bool(self.query(query, id=message.frame_id)))
        [row] = self.query(query, id=message.frame_id)
        return row.active, row.shadow

    def shadow_version(self) -> int:
        """Return the version of the bank against which the shadow inspected last."""
        [(version,)] = self.query("SELECT bank_version FROM shadow_inspections ORDER BY id DESC LIMIT 1")
        return int(version)

    def compared(self) -> dict[str, Any]:
        """Return the figures of the one pair of models that there is."""
        done = self.run("model", "compare", "--json")
        assert done.returncode == 0, done.stderr
        figures: dict[str, Any] = json.loads(done.stdout)
        assert len(figures["comparisons"]) == 1
        return figures


def lenient(bundle: Path) -> Path:
    """Let a bundle's model see a defect nowhere."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["calibration"]["verdict"]["threshold"] *= 1000
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return bundle


def test_a_shadow_looks_on_while_frames_flow_and_is_compared_with_the_active_model(
    make_line: MakeLine, sqlite_url: str, bundle: Path, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Shadowed)
    assert isinstance(line, Shadowed)
    new = lenient(rename(bundle, tmp_path / SHADOW))
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner):
        first = line.click()
        line.follow(line.learnt(first))
        [old] = set(line.models())

        told = line.model("shadow", str(new), "--by", "Ada")
        assert f"1 of 1 confirmed normals taught to model {SHADOW}" in told
        assert f"Model {SHADOW} looks on for every camera without one of its own, beside {old}; it has no say." in told
        line.wait(lambda: line.looks() > 0)
        assert f"{CAMERA} {old} {old} settings {SHADOW}" in line.model("status")
        assert line.look_at(30) == ("defect", "normal")
        # What is taught while it looks on, it learns when it is told again.
        second = line.click()
        line.learnt(second)
        version = line.shadow_version()
        assert f"1 of 1 confirmed normals taught to model {SHADOW}" in line.model("shadow", str(new))
        line.wait(lambda: line.shadow_version() > version)

        assert f"Model {SHADOW} does not look on" in line.model("shadow", "--off")
        line.wait(lambda: said(worker, "Shadowing with model none"))
        line.inspect_more(2 * line.settings.batch.max_frames + 1)  # what was decoded for it, it has seen
        looks = line.looks()
        line.inspect_more()
        assert line.looks() == looks
    assert set(line.models()) == {old}
    assert line.taught(SHADOW) == {first, second}
    check_figures(line)


def check_figures(line: Shadowed) -> None:
    """Assert that the report says what the tables hold, and that the shadow has seen the frames."""
    seen = f"FROM {BOTH} WHERE s.camera = '{CAMERA}'"
    [(looks, least, first, last)] = line.query(f"SELECT count(*), min(s.bank_version), min(i.id), max(i.id) {seen}")
    assert least >= 1  # it never looked without what it was taught
    # None of those between is missing, unless this machine was so busy that frames waited.
    between = line.count(f"inspections WHERE id BETWEEN {first} AND {last}")
    assert looks >= 0.8 * between
    figures = line.compared()
    [found] = figures["comparisons"]
    assert found["frames"] == looks == line.looks()
    for name, active, shadow in (
        ("both_normal", "normal", "normal"),
        ("both_defect", "defect", "defect"),
        ("only_active", "defect", "normal"),
        ("only_shadow", "normal", "defect"),
    ):
        counted = line.count(f"{BOTH} WHERE i.verdict = '{active}' AND s.verdict = '{shadow}'")
        assert found[name] == counted, name
    assert found["only_active"] >= 1
    disagreeing = line.query(f"SELECT s.frame_id {seen} AND i.verdict != s.verdict ORDER BY s.id DESC")
    assert [each["frame_id"] for each in figures["disagreements"]] == [row.frame_id for row in disagreeing][:20]
    # Nothing of the shadow leaves the database.
    assert line.count(f"outbox WHERE CAST(payload AS TEXT) LIKE '%{SHADOW}%'") == 0
    assert line.count("outbox") == line.count("inspections")
    assert {row.model_id for row in line.query("SELECT model_id FROM drift_states")} == set(line.models())
