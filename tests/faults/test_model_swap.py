"""Another model is activated while frames flow: none is lost, each has one model, and what was taught goes along."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest

from tests.faults.line import MakeLine
from tests.faults.operated import CAMERA, Commanded, said, sayings

pytestmark = pytest.mark.usefixtures("forks")


class Changing(Commanded):
    """A line whose model is changed by command."""

    def model(self, *arguments: str, code: int = 0) -> str:
        """Run a model command; return what it said, in one line."""
        done = self.run("model", *arguments)
        assert done.returncode == code, (done.stdout, done.stderr)
        return " ".join((done.stdout + done.stderr).split())

    def bank_said(self, *arguments: str) -> str:
        """Run a bank command; return what it said, in one line."""
        done = self.run("bank", *arguments)
        assert done.returncode == 0, (done.stdout, done.stderr)
        return " ".join(done.stdout.split())

    def models(self, camera: str = CAMERA) -> list[str]:
        """Return the models of the camera's frames, in the order in which they were stored."""
        query = "SELECT model_id FROM inspections WHERE camera = :camera ORDER BY id"
        return [row.model_id for row in self.query(query, camera=camera)]

    def wait_for_model(self, model_id: str, camera: str = CAMERA) -> None:
        """Wait until the camera's newest frame was inspected by a model."""
        self.wait(lambda: self.models(camera)[-1:] == [model_id])

    def taught(self, model_id: str, camera: str = CAMERA) -> set[str]:
        """Return the frames that a model's bank holds."""
        query = (
            "SELECT frame_id FROM bank_entries WHERE model_id = :model AND camera = :camera AND version_removed IS NULL"
        )
        return {row.frame_id for row in self.query(query, model=model_id, camera=camera)}


def rename(bundle: Path, folder: Path) -> Path:
    """Return a copy of a bundle: the same networks under another name are another model to the line."""
    shutil.copytree(bundle, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model_id"] = folder.name
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_model_is_activated_and_taken_back_while_frames_flow(
    make_line: MakeLine, sqlite_url: str, bundle: Path, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Changing)
    assert isinstance(line, Changing)
    new = rename(bundle, tmp_path / "successor-1")
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner):
        first = line.click()
        line.learnt(first)
        line.inspect_more()
        [old] = set(line.models())
        assert "nothing to go back to" in line.model("rollback", code=2)

        told = line.model("activate", str(new), "--by", "Bob", "--why", "sharper")
        assert "1 of 1 confirmed normals taught to model successor-1" in told
        assert f"Model successor-1 is active for every camera without one of its own, in place of {old}" in told
        assert "already. Nothing was changed" in line.model("activate", str(new))
        line.wait_for_model("successor-1")
        line.inspect_more()
        models = line.models()
        assert models == sorted(models, key=[old, "successor-1"].index)
        assert line.taught("successor-1") == {first}

        line.wait(lambda: said(learner, "Learning with model successor-1"))
        second = line.click()
        version = line.learnt(second)
        line.follow(version)
        assert (line.taught(old), line.taught("successor-1")) == ({first}, {first, second})
        assert "As the database says." in line.bank_said("verify")
        assert second in line.bank_said("history")
        assert "successor-1" in line.bank_said("status")

        assert f"Model {old} is active" in line.model("rollback", "--by", "Ada")
        line.wait_for_model(old)
        line.inspect_more()
        assert line.version() == 1
        assert second not in line.bank_said("history")
        told = line.model("history")
        assert told.index("Ada") < told.index("Bob")
        assert "sharper" in told
        told = line.model("status")
        assert f"{CAMERA} {old} {old}" in told

        # What the old one was taught meanwhile goes along the second time, too.
        third = line.click()
        line.learnt(third)
        assert "1 of 1 confirmed normals taught to model successor-1" in line.model("activate", str(new))
        line.wait_for_model("successor-1")
        assert line.taught("successor-1") == {first, second, third}
        assert "As the database says." in line.bank_said("verify")
        line.wait(lambda: line.version() > version)
    models = line.models()
    changes = [model for number, model in enumerate(models) if number == 0 or model != models[number - 1]]
    assert changes == [old, "successor-1", old, "successor-1"]
    swaps = [(each["event"], each["before"]) for each in sayings(worker, "Inspecting with model")]
    assert swaps == [(f"Inspecting with model {model}", before) for before, model in itertools.pairwise(changes)]


def test_two_cameras_have_each_their_own_model_on_one_worker(
    make_line: MakeLine, sqlite_url: str, bundle: Path, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Changing)
    assert isinstance(line, Changing)
    new, third = rename(bundle, tmp_path / "second-1"), rename(bundle, tmp_path / "third-1")
    assert "for camera press-2" in line.model("activate", str(new), "--camera", "press-2")
    assert "no camera can have this id" in line.model("activate", str(new), "--camera", "press 2", code=2)
    with line.operating(
        line.program("worker", "run"), line.program("learner", "learn"), cameras=("press-1", "press-2")
    ):
        clicked = {camera: line.click(camera) for camera in ("press-1", "press-2")}
        line.learnt(*clicked.values())
        line.wait(lambda: min(line.version("press-1"), line.version("press-2")) == 1)
        [old], [its] = set(line.models("press-1")), set(line.models("press-2"))
        assert its == "second-1"
        assert line.taught(old, "press-1") == {clicked["press-1"]}
        assert line.taught("second-1", "press-2") == {clicked["press-2"]}

        told = line.model("activate", str(third))
        assert "press-2 keeps its own, second-1" in told
        line.wait_for_model("third-1", "press-1")
        line.inspect_more()
        # Another model's learner has the camera: only 'model activate' may hand anything down now.
        assert "Nothing to inherit" in line.bank_said("inherit", str(new))
        assert set(line.models("press-2")) == {"second-1"}
        assert "Model third-1 is active for camera press-2 again" in line.model("rollback", "--camera", "press-2")
        line.wait_for_model("third-1", "press-2")


def test_a_bundle_that_is_not_there_changes_nothing_until_it_is(
    make_line: MakeLine, sqlite_url: str, bundle: Path, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Changing)
    assert isinstance(line, Changing)
    new = rename(bundle, tmp_path / "successor-1")
    line.model("activate", str(new))
    new.rename(tmp_path / "away")
    worker, learner = line.program("worker", "run"), line.program("learner", "learn")
    with line.operating(worker, learner):
        line.inspect_more()
        assert "successor-1" not in line.models()
        for program in (worker, learner):
            [complaint] = sayings(program, "Model successor-1 cannot be loaded")
            assert f"{str(new)!r}: no manifest.json there" in complaint["error"]
        line.teach()
        (tmp_path / "away").rename(new)
        line.wait_for_model("successor-1")
