"""Frames in changed light become what the normals are, at the price that is told; what is ignored has no say."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from monitor.core.lighting import measure, restore_light
from schemas.artifacts import Light, Lighting
from tests.unit.cells import cell

KINDS = (Lighting.LEVEL, Lighting.FLAT)


def pixels(number: int = 0, *, colour: bool = False) -> NDArray[np.float32]:
    image = cell(number, 64, 96, colour=colour).reshape(64, 96, -1)
    return np.ascontiguousarray(image.transpose(2, 0, 1).astype(np.float32) / 255)


def light_of(frame: NDArray[np.float32], kind: Lighting) -> Light:
    mean, deviation = measure(frame, None)
    return Light.model_validate({"kind": kind, "mean": mean, "deviation": deviation})


@given(gain=st.floats(0.4, 1.2), offset=st.floats(0, 0.05), colour=st.booleans())
@settings(max_examples=25, deadline=None)
def test_level_undoes_any_gain_and_offset(gain: float, offset: float, *, colour: bool) -> None:
    frame = pixels(colour=colour)
    light = light_of(frame, Lighting.LEVEL)
    changed = (frame * gain + offset).astype(np.float32)
    assert changed.max() <= 1
    np.testing.assert_allclose(restore_light(changed, light, None), frame, atol=1e-4)


@given(st.floats(0.5, 1.2), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4))
@settings(max_examples=25, deadline=None)
def test_flat_undoes_a_light_that_falls_off_across_the_frame(gain: float, across: float, down: float) -> None:
    frame = pixels()
    light = light_of(frame, Lighting.FLAT)
    rows, columns = np.indices(frame.shape[1:]) / np.array([64, 96])[:, None, None] - 0.5
    changed = (frame * gain * (1 + across * columns + down * rows)).clip(0, 1).astype(np.float32)
    before, after = (
        np.abs(restore_light(each, light, None) - restore_light(frame, light, None)) for each in (changed, frame)
    )
    assert after.max() == 0
    assert before.mean() < 0.02
    assert before.mean() < 0.6 * np.abs(changed - frame).mean() + 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_in_the_normals_light_stays_in_it(kind: Lighting) -> None:
    frame = pixels()
    there = restore_light(frame, light_of(frame, kind), None)
    assert measure(there, None)[0] == pytest.approx(measure(frame, None)[0], rel=0.2)
    if kind is Lighting.LEVEL:
        np.testing.assert_allclose(there, frame, atol=1e-6)


@given(
    st.sampled_from(KINDS),
    hnp.arrays(np.float32, (3, 64, 96), elements=st.floats(0, 1, width=32)),
)
@settings(max_examples=15, deadline=None)
def test_ignored_pixels_have_no_say(kind: Lighting, junk: NDArray[np.float32]) -> None:
    frame = pixels(colour=True)
    inspected = np.ones((64, 96), np.bool_)
    inspected[10:40, 20:70] = False
    light = light_of(frame, kind)
    changed = np.where(inspected, frame, junk)
    left, right = (restore_light(each, light, inspected)[:, inspected] for each in (frame, changed))
    np.testing.assert_array_equal(left, right)
    assert measure(changed, inspected) == measure(frame, inspected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_that_was_hardly_lit_is_not_made_up(kind: Lighting) -> None:
    frame = pixels()
    light = light_of(frame, kind)
    for dark in (np.zeros_like(frame), frame / 50):
        there = restore_light(dark, light, None)
        assert np.isfinite(there).all()
        assert measure(there, None)[1] < 0.5 * light.deviation


def test_colours_stay_what_they_are() -> None:
    frame = pixels(colour=True)
    there = restore_light(frame * np.float32(0.6), light_of(frame, Lighting.FLAT), None)
    bright = frame.min(axis=0) > 0.2
    np.testing.assert_allclose((there[0] / there[2])[bright], (frame[0] / frame[2])[bright], rtol=1e-3)


def test_the_price_of_each_is_as_told() -> None:
    normal, stained, pale = pixels(), pixels(), pixels() * np.float32(0.7)
    stained[0, 20:44, 30:66] *= 0.6
    level, flat = (light_of(normal, kind) for kind in KINDS)
    centre = np.s_[0, 28:36, 42:54]

    def seen(frame: NDArray[np.float32], light: Light) -> float:
        """Return what is left of the difference to the normal."""
        there, known = restore_light(frame, light, None)[centre], restore_light(normal, light, None)[centre]
        return float(np.abs(there - known).mean() / np.abs(frame - normal)[centre].mean())

    # A part wrong as a whole is seen by neither; a broad stain by 'level' alone.
    assert seen(pale, level) < 0.01
    assert seen(pale, flat) < 0.01
    assert seen(stained, level) > 0.7
    assert seen(stained, flat) < 0.7 * seen(stained, level)
    scratched = normal.copy()
    cv2.line(scratched[0], (20, 20), (70, 40), 0.0, 1)
    line = scratched[0] != normal[0]
    for light in (level, flat):
        there, known = (restore_light(frame, light, None)[0][line] for frame in (scratched, normal))
        assert there.mean() < 0.2 * known.mean()
