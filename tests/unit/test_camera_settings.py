"""How large a camera's pixel is: one value for all, others by name, from a file or the environment."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from monitor.settings import CameraSettings, load_settings
from monitor.settings_help import explain_settings
from schemas.errors import ConfigurationError


def test_a_camera_has_its_own_pixel_pitch_or_that_of_all() -> None:
    cameras = CameraSettings(pixel_pitch_um=40, pixel_pitch_um_of={"line-1": 12.5})
    assert (cameras.pitch_of("line-1"), cameras.pitch_of("line-2")) == (12.5, 40)
    assert CameraSettings().pitch_of("line-1") is None


def test_the_environment_gives_the_pitch_by_camera_as_yaml_or_json() -> None:
    for text in ("{line-1: 12.5, 7: 40}", '{"line-1": 12.5, "7": 40}'):
        cameras = load_settings(environment={"PAEDID_CAMERAS__PIXEL_PITCH_UM_OF": text}).cameras
        assert cameras.pixel_pitch_um_of == {"line-1": 12.5, "7": 40}


def test_the_settings_that_are_printed_can_be_read_again(tmp_path: Path) -> None:
    pitches = {f"line-{number}": number + 0.5 for number in range(30)}  # longer than a line of YAML usually is
    cameras = {"pixel_pitch_um": 9, "pixel_pitch_um_of": pitches, "known": list(pitches)}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"cameras": cameras}))
    settings = load_settings(tmp_path / "a.yaml", environment={})
    (tmp_path / "b.yaml").write_text("\n".join(explain_settings(settings)))
    assert load_settings(tmp_path / "b.yaml", environment={}).cameras == settings.cameras


@pytest.mark.parametrize("wrong", ["{line-1: 0}", "{line-1: wide}", "{a b: 3}", "[1, 2]", "{line-1: .inf}", "{"])
def test_a_pitch_that_is_none_is_refused_by_its_key(wrong: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cameras\.pixel_pitch_um_of"):
        load_settings(environment={"PAEDID_CAMERAS__PIXEL_PITCH_UM_OF": wrong})
