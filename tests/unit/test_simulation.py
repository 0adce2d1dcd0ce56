from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from deploy.simulation import DEFECT_KINDS, LineSettings, Part, SimulatedLine, contact_sheet, write_mvtec
from deploy.simulation.__main__ import app
from deploy.simulation.product import SPOT_RADIUS, STAMP_RADIUS, STAMP_U, STAMP_V

lines = st.builds(
    LineSettings,
    seed=st.integers(0, 2**40),
    size=st.sampled_from((64, 97, 128, 160)),
    colour=st.booleans(),
    lighting_drift=st.sampled_from((-0.5, 0.0, 0.5)),
).map(SimulatedLine)
indices = st.integers(0, 10_000)
few = settings(max_examples=40, deadline=None)


def change(part: Part, sound: Part) -> np.ndarray[Any, np.dtype[np.int16]]:
    difference = np.abs(part.image.astype(np.int16) - sound.image)
    strongest: np.ndarray[Any, np.dtype[np.int16]] = difference.reshape(*part.mask.shape, -1).max(axis=-1)
    return strongest


def widened(mask: np.ndarray[Any, np.dtype[np.bool_]], by: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * by + 1, 2 * by + 1), np.uint8)) > 0


def same(left: Part, right: Part) -> bool:
    return (
        (left.index, left.serial, left.defect, left.variant) == (right.index, right.serial, right.defect, right.variant)
        and np.array_equal(left.image, right.image)
        and np.array_equal(left.mask, right.mask)
    )


def test_the_same_seed_makes_the_same_bytes_and_another_seed_does_not() -> None:
    first, again, other = (SimulatedLine(LineSettings(seed=seed, defect_rate=0.5)) for seed in (3, 3, 4))
    assert all(same(first.part(index), again.part(index)) for index in range(6))
    assert not np.array_equal(first.good_part(0).image, other.good_part(0).image)


def test_a_part_asked_for_alone_is_the_part_that_iteration_reaches() -> None:
    settings_ = LineSettings(seed=11, defect_rate=0.5, novelty_from=4, novelty_rate=0.5)
    walked = list(itertools.islice(SimulatedLine(settings_), 12))
    fresh = SimulatedLine(settings_)
    assert all(same(walked[index], fresh.part(index)) for index in (11, 0, 7, 5))
    assert [part.index for part in walked] == list(range(12))


@few
@given(lines, indices, st.sampled_from(DEFECT_KINDS))
def test_a_mask_covers_what_its_defect_changed_and_nothing_else(line: SimulatedLine, index: int, kind: str) -> None:
    part, sound = line.defective_part(index, kind), line.good_part(index)
    difference = change(part, sound)
    assert part.mask.any()
    if kind == "missing_spot":  # Its mask is the whole disc: where dome and ceramic are alike nothing shows.
        assert np.mean(difference[part.mask] > 3) > 0.5
    else:
        assert difference[part.mask].min() > 3
    # Beyond the mask lie the lens's blur and a stain's fading rim; beyond those nothing shows.
    halo = line.settings.size // 6 if kind == "stain" else 3
    assert difference[~widened(part.mask, halo)].max() <= 3
    assert difference[~part.mask].mean() < difference[part.mask].mean() / 20


@few
@given(lines, indices)
def test_the_masks_have_the_area_and_the_form_of_their_kind(line: SimulatedLine, index: int) -> None:
    unit = line.settings.size / 128  # Pixels a part unit.
    share = {kind: line.defective_part(index, kind).mask.mean() for kind in DEFECT_KINDS}
    assert 0.001 < share["crack"] < 0.03
    assert 0.001 < share["scratch"] < 0.03
    assert 0.001 < share["stain"] < 0.06
    disc = line.defective_part(index, "missing_spot").mask.sum() / unit**2
    assert disc == pytest.approx(np.pi * SPOT_RADIUS**2, rel=0.15 + 0.15 / min(unit, 1))  # Few pixels count coarsely.
    scratch = np.argwhere(line.defective_part(index, "scratch").mask) / unit
    length = np.hypot(*np.ptp(scratch, axis=0))
    assert length > 12
    assert len(scratch) / unit**2 < 4 * length / min(unit, 1)  # At most 4 px wide, its blur included.


@few
@given(lines, indices)
def test_a_good_part_has_the_right_form_and_an_empty_mask(line: SimulatedLine, index: int) -> None:
    part, size = line.good_part(index), line.settings.size
    assert part.image.dtype == np.uint8
    assert part.image.shape == ((size, size, 3) if line.settings.colour else (size, size))
    assert part.mask.dtype == np.bool_
    assert part.mask.shape == (size, size)
    assert not part.mask.any()
    assert (part.defect, part.variant) == (None, None)


@pytest.mark.parametrize("colour", [False, True])
def test_a_part_uses_the_camera_s_range_without_saturating(colour: bool) -> None:  # noqa: FBT001
    line = SimulatedLine(LineSettings(colour=colour))
    image = np.stack([line.good_part(index).image for index in range(0, 600, 60)])
    assert np.mean(image == 255) < 0.002
    assert 90 < np.median(image) < 190
    assert image.min() < 20


def test_the_nominal_places_stay_put_within_the_misplacement() -> None:
    line = SimulatedLine(LineSettings(seed=2, shift=1.0, rotation=0.4))
    mean = np.mean([line.good_part(index).image for index in range(40)], axis=0)
    still = SimulatedLine(LineSettings(seed=2, shift=0.0, rotation=0.0)).good_part(0).image
    # An average over parts that wandered by a pitch would be flat; over these it still looks like one of them.
    assert np.corrcoef(mean.ravel(), still.ravel())[0, 1] > 0.95


def test_a_defect_moves_with_the_misplacement_of_its_part() -> None:
    fixed = SimulatedLine(LineSettings(seed=5, shift=0.0, rotation=0.0))
    moved = SimulatedLine(LineSettings(seed=5, shift=4.0, rotation=0.0))
    for index in range(3):
        edge = [np.argwhere(line.good_part(index).image > 100).mean(axis=0) for line in (fixed, moved)]
        spot = [np.argwhere(line.defective_part(index, "missing_spot").mask).mean(axis=0) for line in (fixed, moved)]
        np.testing.assert_allclose(spot[1] - spot[0], edge[1] - edge[0], atol=0.6)


def test_defects_come_at_their_rate_and_of_the_kinds_asked_for() -> None:
    line = SimulatedLine(LineSettings(size=64, defect_rate=0.3, defects=("stain", "crack")))
    fates = [part.defect for part in itertools.islice(line, 300)]
    assert 0.2 < sum(fate is not None for fate in fates) / 300 < 0.4
    assert set(fates) == {None, "stain", "crack"}


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_a_rate_of_none_or_all_holds_for_every_part(rate: float) -> None:
    line = SimulatedLine(LineSettings(size=64, defect_rate=rate))
    assert {part.defect is not None for part in itertools.islice(line, 60)} == {rate == 1.0}


def test_the_stamp_comes_only_from_its_index_on_and_only_on_good_parts() -> None:
    line = SimulatedLine(LineSettings(size=64, seed=1, defect_rate=0.3, novelty_from=50, novelty_rate=0.5))
    parts = list(itertools.islice(line, 250))
    assert not any(part.variant for part in parts[:50])
    assert not any(part.variant for part in parts if part.defect)
    later = [part.variant for part in parts[50:] if part.defect is None]
    assert 0.35 < later.count("stamp") / len(later) < 0.65


@few
@given(lines, indices)
def test_the_stamp_changes_its_free_place_alone_and_leaves_the_mask_empty(line: SimulatedLine, index: int) -> None:
    plain = line.settings
    stamped = SimulatedLine(LineSettings(plain.seed, plain.size, plain.colour, novelty_from=0, novelty_rate=1.0))
    bare = SimulatedLine(LineSettings(plain.seed, plain.size, plain.colour))
    marked = stamped.good_part(index)
    ys, xs = np.nonzero(change(marked, bare.good_part(index)) > 3)
    assert len(ys) > 20 * (plain.size / 128) ** 2
    u, v = ((axis - (plain.size - 1) / 2) * 128 / plain.size for axis in (xs, ys))
    assert np.hypot(u - STAMP_U, v - STAMP_V).max() < 2 * STAMP_RADIUS + 3  # 3: the lens, in a 64 px image.
    assert (marked.variant, marked.defect) == ("stamp", None)
    assert not marked.mask.any()


def test_the_lighting_drifts_by_its_setting_and_then_holds() -> None:
    line = SimulatedLine(LineSettings(seed=3, lighting_drift=-0.2, drift_parts=100, lighting_sway=0.0))
    start, half, end, after = (line.good_part(index).image.mean() for index in (0, 50, 100, 5000))
    assert half / start == pytest.approx(0.9, abs=0.01)
    assert end / start == pytest.approx(0.8, abs=0.01)
    assert after == pytest.approx(end, rel=0.01)


def test_the_lighting_sways_too_slowly_to_see_from_part_to_part() -> None:
    line = SimulatedLine(LineSettings(seed=3, lighting_sway=0.05, sway_period=400))
    means = [line.good_part(index).image.mean() for index in range(0, 400, 10)]
    assert np.ptp(means) / np.mean(means) > 0.06
    assert np.abs(np.diff(means)).max() / np.mean(means) < 0.02


def test_serials_name_the_line_and_the_part() -> None:
    parts = [SimulatedLine(LineSettings(size=64, seed=seed)).good_part(index) for seed in (0, 1) for index in (0, 1)]
    assert len({part.serial for part in parts}) == 4
    assert parts[3].serial == "SC0001-0000001"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("size", 63),
        ("size", 513),
        ("size", 128.0),
        ("defect_rate", 1.5),
        ("defect_rate", float("nan")),
        ("lighting_drift", -0.9),
        ("drift_parts", 0),
        ("lighting_sway", 0.5),
        ("sway_period", 1),
        ("shift", -0.1),
        ("rotation", 10.0),
        ("novelty_from", -3),
        ("novelty_rate", True),
        ("defects", ("crack", "dent")),
        ("defects", ()),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name_and_value(key: str, value: object) -> None:
    arguments: dict[str, Any] = {key: value}
    with pytest.raises(ValueError, match=key) as caught:
        LineSettings(**arguments)
    culprit = value[-1] if isinstance(value, tuple) and value else value
    assert repr(culprit) in str(caught.value)


def test_a_bad_index_or_kind_is_refused_by_name() -> None:
    line = SimulatedLine()
    with pytest.raises(ValueError, match="index=-1"):
        line.part(-1)
    with pytest.raises(ValueError, match="'dent' is no kind of defect"):
        line.defective_part(0, "dent")


@pytest.mark.parametrize("colour", [False, True])
def test_a_written_data_set_reads_back_as_the_parts_it_was_made_of(tmp_path: Path, colour: bool) -> None:  # noqa: FBT001
    line = SimulatedLine(LineSettings(size=64, seed=9, colour=colour))
    written: list[Part] = []
    write_mvtec(line, tmp_path, train=3, test_good=2, test_defects=6, on_written=written.append)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png"))
    counts = {"crack": 2, "scratch": 2, "stain": 1, "missing_spot": 1}
    good = [f"train/good/{n:03d}.png" for n in range(3)] + [f"test/good/{n:03d}.png" for n in range(2)]
    bad = [f"test/{kind}/{n:03d}.png" for kind in counts for n in range(counts[kind])]
    masks = [f"ground_truth/{kind}/{n:03d}_mask.png" for kind in counts for n in range(counts[kind])]
    assert names == sorted(good + bad + masks)
    assert [part.index for part in written] == list(range(11))
    flag = cv2.IMREAD_UNCHANGED
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "train/good/002.png"), flag), line.good_part(2).image)
    crack = line.defective_part(9, "crack")  # 3 + 2 good ones, then one of each kind.
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "test/crack/001.png"), flag), crack.image)
    truth = cv2.imread(str(tmp_path / "ground_truth/crack/001_mask.png"), flag)
    np.testing.assert_array_equal(truth, crack.mask * np.uint8(255))


def test_a_data_set_is_never_mixed_into_another(tmp_path: Path) -> None:
    line = SimulatedLine(LineSettings(size=64))
    write_mvtec(line, tmp_path, train=1, test_good=0, test_defects=0)
    with pytest.raises(FileExistsError, match="choose an empty folder"):
        write_mvtec(line, tmp_path, train=1, test_good=0, test_defects=0)


def test_a_data_set_that_cannot_be_made_is_refused_before_a_file_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train=-1"):
        write_mvtec(SimulatedLine(), tmp_path, train=-1, test_good=0, test_defects=0)
    flawless = SimulatedLine(LineSettings(defects=(), defect_rate=0.0))
    with pytest.raises(ValueError, match=r"defects=\(\)"):
        write_mvtec(flawless, tmp_path, train=1, test_good=0, test_defects=1)
    assert not any(tmp_path.iterdir())


def test_the_contact_sheet_shows_every_kind_beside_its_mask() -> None:
    sheet = contact_sheet(SimulatedLine(LineSettings(size=64)), columns=2, zoom=2)
    assert sheet.shape == ((2 + 2 * len(DEFECT_KINDS)) * 128, 2 * 128, 3)


def test_the_command_writes_the_data_set_and_the_sheet(tmp_path: Path) -> None:
    out, sheet = tmp_path / "set", tmp_path / "sheet.png"
    counts = ["--train", "2", "--test-good", "1", "--test-defects", "4", "--size", "64", "--colour"]
    result = CliRunner().invoke(app, [str(out), *counts, "--sheet", str(sheet)])
    assert result.exit_code == 0, result.output
    assert len(list(out.rglob("*.png"))) == 2 + 1 + 4 + 4
    image = cv2.imread(str(out / "train/good/000.png"), cv2.IMREAD_UNCHANGED)
    assert image is not None
    assert image.shape == (64, 64, 3)
    assert sheet.stat().st_size > 0


@pytest.mark.parametrize(("arguments", "said"), [([], "say where"), (["OUT", "--size", "12"], "size=12")])
def test_the_command_says_what_was_wrong(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "x") if word == "OUT" else word for word in arguments])
    assert result.exit_code != 0
    assert said in result.output
