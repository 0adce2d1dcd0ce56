"""People say which model looks on at which camera; one camera's own word counts for more than that for every camera."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.line import MakeLine
from tests.faults.test_model_swap import Changing, rename

pytestmark = pytest.mark.usefixtures("forks")


def test_a_camera_has_a_shadow_of_its_own_or_that_of_every_camera(
    make_line: MakeLine, sqlite_url: str, bundle: Path, tmp_path: Path
) -> None:
    line = make_line(sqlite_url, kind=Changing)
    assert isinstance(line, Changing)
    own, every = rename(bundle, tmp_path / "own-1"), rename(bundle, tmp_path / "every-1")
    assert "Model own-1 looks on for camera press-2, beside" in line.model("shadow", str(own), "--camera", "press-2")
    assert "press-2 keeps its own, own-1" in line.model("shadow", str(every), "--why", "smaller")
    status = line.model("status")
    assert "settings own-1" in status
    assert status.index("press-2") < status.index("own-1") < status.index("every other") < status.index("every-1")
    told = line.model("shadow", "--off", "--camera", "press-1", code=2)
    assert "nothing to end; every-1 looks on for all without their own" in told
    told = line.model("shadow", "--off", "--camera", "press-2")
    assert "Model own-1 does not look on for camera press-2 any more." in told
    assert "every-1 does, as for every camera without one of its own." in told
    assert "nothing to go back to" in line.model("rollback", code=2)  # a shadow is no assignment of an active model
    told = line.model("history")
    assert told.index("press-2 shadow none") < told.index("every other shadow every-1") < told.index("smaller")
    assert told.index("smaller") < told.index("press-2 shadow own-1")
    rows = line.query("SELECT camera, role, model_id, why FROM model_assignments ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("press-2", "shadow", "own-1", None),
        (None, "shadow", "every-1", "smaller"),
        ("press-2", "shadow", None, None),
    ]
