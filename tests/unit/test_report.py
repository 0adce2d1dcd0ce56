"""The calibration report: what it says is what calibration found, in one page that needs nothing else."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from monitor.core.calibration import clopper_pearson
from schemas.artifacts import (
    Architecture,
    Calibration,
    DataSummary,
    InputSpec,
    Manifest,
    Polarity,
    VerdictCalibration,
)
from trainer.report import kind_rows, percent, promise, render_report
from trainer.report_charts import LEFT, RIGHT, WIDTH, area, draw_example, level_curve, outline, score_histogram
from trainer.report_data import CalibrationReport, Candidate, collect_report
from trainer.synthetic import ALL, KINDS, Family, paste_defect
from trainer.thresholds import MaskRule

SIZE, FRAMES = 32, 40
VOID = frozenset({"meta", "image", "use", "rect", "line", "path", "polyline", "circle"})


def verdict(above: int = 2, normals: int = 45, threshold: float = 3.0, wanted: float = 0.01) -> VerdictCalibration:
    low, high = clopper_pearson(above, normals)
    return VerdictCalibration(
        threshold=threshold, wanted_false_reject_rate=wanted, normals=normals, above=above,
        false_reject_low=low, false_reject_high=high, synthetic_detected=0.9,
    )  # fmt: skip


def make_manifest(verdict: VerdictCalibration, source: str = "normal") -> Manifest:
    return Manifest(
        model_id="model-1",
        created_at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        architecture=Architecture(input=InputSpec(height=SIZE, width=SIZE, channels=1), widths=(8, 16)),
        encoder_hash="0" * 64,
        calibration=Calibration(
            alpha=0.3, lam=3e-4, solver_steps=10, polarity=Polarity.BOTH, mask_threshold=2.5, min_area=4,
            score_pixels=7, smoothing=0.6, synthetic_dice=0.71, verdict=verdict,
        ),
        data=DataSummary(
            source=source, train_images=3 * verdict.normals, validation_images=verdict.normals,
            bank_images=90, sha256="1" * 64,
        ),
        training={"steps": 1200, "learning_rate": "0.003"},
        files={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def report() -> CalibrationReport:
    """What a calibration on noise would have found: the anomaly is the truth, somewhat off."""
    rng = np.random.default_rng(0)
    kinds = [list(KINDS)[index % 5] for index in range(FRAMES)]
    background = rng.uniform(0.2, 0.8, (1, SIZE, SIZE)).astype(np.float32)
    defects = [paste_defect(background, rng, Family((kind,), ALL.contrast)) for kind in kinds]
    truth = np.stack([defect.mask for defect in defects])
    anomaly = truth * rng.uniform(1, 9, (FRAMES, 1, 1)) + rng.exponential(0.5, truth.shape)
    return collect_report(
        normal_scores=rng.lognormal(0.3, 0.3, 45),
        defective_scores=rng.lognormal(2, 0.7, FRAMES),
        kinds=kinds,
        images=np.stack([defect.image for defect in defects]),
        truth=truth,
        anomaly=anomaly.astype(np.float32),
        rule=MaskRule(2.5, 4),
        candidates=[
            Candidate({"λ": lam, "smoothing": 0.6}, dice) for lam, dice in ((1e-4, 0.6), (3e-4, 0.71), (6e-4, 0.7))
        ],
    )


class Page(HTMLParser):
    """Holds the tags to their ends, and collects the addresses and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split()).replace("\N{NO-BREAK SPACE}", " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in {"script", "link", "iframe", "object"}
        self.addresses += [value or "" for name, value in attrs if name in {"href", "src", "srcset", "action"}]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "title"}:
            self.words.append(data)


def test_the_page_needs_nothing_but_itself(report: CalibrationReport) -> None:
    page = render_report(report, make_manifest(verdict()))
    found = Page(page)
    assert page.startswith("<!doctype html>")
    assert all(address.startswith(("data:image/png;base64,", "#image-")) for address in found.addresses)
    assert "url(" not in page
    assert "http" not in page.replace("http-equiv", "")
    named = {address[1:] for address in found.addresses if address.startswith("#")}
    assert named == set(re.findall(r'id="(image-[^"]+)"', page))


def test_the_page_tells_the_rate_with_its_interval_and_what_a_promise_takes(report: CalibrationReport) -> None:
    text = Page(render_report(report, make_manifest(verdict()))).text
    assert (
        "2 of 45 good parts are flagged: the true rate lies between 0.5 % and 15 % with 95 % confidence. That is too "
        "little to promise the wanted 1 %: it takes about 300 good parts held back and none of them flagged, so about "
        "1200 images in all."
    ) in text
    assert "1 of 45 good parts is flagged" in Page(render_report(report, make_manifest(verdict(above=1)))).text
    assert "above 2.5 , in regions of 4 pixels or more" in text
    assert "verdict line 3, flagged to the right" in text


@pytest.mark.parametrize(
    ("above", "normals", "wanted", "said"),
    [
        (0, 400, 0.01, "is kept"),
        (5, 500, 0.01, "lies within"),
        (0, 299, 0.01, "takes about 300 good parts"),
        (0, 40, 0.001, "takes about 3000 good parts held back and none of them flagged, so about 12000 images"),
        (0, 40, 0.0, "No number of good parts"),
    ],
)
def test_what_is_promised_is_what_was_seen(above: int, normals: int, wanted: float, said: str) -> None:
    line = verdict(above, normals, wanted=wanted)
    assert said in promise(line, make_manifest(line))


def test_names_from_outside_are_shown_and_not_obeyed(report: CalibrationReport) -> None:
    kinds = tuple("<script>alert(1)</script>" for _ in report.kinds)
    page = render_report(replace(report, kinds=kinds), make_manifest(verdict(), source='<img src="x">&'))
    assert '<img src="x">&' in Page(page).text
    assert "<script>alert(1)</script>" in Page(page).text


def test_kinds_are_counted_above_the_verdict_line() -> None:
    report = CalibrationReport(
        np.ones(3), np.array([1.0, 3.0, 3.1, 9.0, 2.0]), ("crack", "crack", "crack", "blob", "odd"), (), (), ()
    )
    rows = kind_rows(report, 3.0)
    assert [(row.name, row.flagged, row.total) for row in rows] == [("blob", 1, 1), ("crack", 1, 3), ("odd", 0, 1)]
    assert all(row.low <= row.share <= row.high for row in rows)
    assert (rows[0].what != "", rows[2].what) == (True, "")


scores = arrays(np.float64, st.integers(1, 30), elements=st.sampled_from([0.0, 0.4, 1.0, 2.9, 3.0, 3.1, 40.0, 7e5]))


@given(scores, scores, st.sampled_from([0.0, 0.5, 3.0, 900.0]))
def test_the_histogram_counts_every_score_on_its_side_of_the_verdict_line(
    good: NDArray[np.float64], defective: NDArray[np.float64], threshold: float
) -> None:
    report = CalibrationReport(good, defective, ("crack",) * len(defective), (), (), ())
    histogram = score_histogram(report, verdict(threshold=threshold))
    for bars, values, most in (
        (histogram.good, good, histogram.most_good),
        (histogram.defective, defective, histogram.most_defective),
    ):
        assert sum(bar.count for bar in bars) == len(values)
        assert max(bar.count for bar in bars) == most
        assert all(LEFT <= bar.x <= WIDTH - RIGHT for bar in bars)
        if threshold >= 0.5 and max(good.max(), defective.max(), threshold) < 1000:
            flagged = sum(bar.count for bar in bars if bar.x >= histogram.line)
            assert flagged == (values > threshold).sum()
    assert 1 <= len(histogram.ticks) <= 12
    assert LEFT <= histogram.line <= WIDTH - RIGHT


def test_the_chosen_level_is_marked_on_the_curve(report: CalibrationReport) -> None:
    levels = [level for level, _ in report.level_curve]
    assert min(levels) == pytest.approx(2.5 / 12)
    assert max(levels) == pytest.approx(2.5 * 12)
    curve = level_curve(report.level_curve, 2.5)
    points = [tuple(map(float, point.split(","))) for point in curve.points.split()]
    assert curve.chosen in points
    assert points.index(curve.chosen) == len(points) // 2
    # Near the best: the anomaly is the truth, and the level lies between what is inside and outside.
    assert curve.chosen[1] < 1.3 * min(y for _, y in points)


def test_the_best_candidate_is_the_one_that_is_called_chosen(report: CalibrationReport) -> None:
    page = render_report(report, make_manifest(verdict()))
    (row,) = re.findall(r'<tr class="chosen">(.*?)</tr>', page, re.DOTALL)
    assert re.findall(r">([^<]+)<", row) == ["0.0003", "0.6", "0.710", "chosen"]


def test_the_examples_of_a_kind_are_its_worst_a_middling_and_its_best(report: CalibrationReport) -> None:
    assert [example.kind for example in report.examples] == [kind for kind in sorted(KINDS) for _ in range(3)]
    for start in range(0, 15, 3):
        dices = [example.dice for example in report.examples[start : start + 3]]
        assert dices == sorted(dices)
    page = render_report(report, make_manifest(verdict()))
    assert page.count("<figure>") == 15


@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8))))
def test_a_masks_paths_cover_its_pixels_and_follow_their_edges(mask: NDArray[np.bool_]) -> None:
    drawn = np.zeros(mask.shape, bool)
    for x, y, length, back in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", area(mask)):
        assert length == back
        drawn[int(y), int(x) : int(x) + int(length)] = True
    np.testing.assert_array_equal(drawn, mask)
    edges = sum(int(length) for length in re.findall(r"[hv](\d+)", outline(mask)))
    padded = np.pad(mask, 1)
    assert edges == (padded[1:] != padded[:-1]).sum() + (padded[:, 1:] != padded[:, :-1]).sum()
    for x, y, way, length in re.findall(r"M(\d+) (\d+)([hv])(\d+)", outline(mask)):
        far_x, far_y = int(x) + int(length) * (way == "h"), int(y) + int(length) * (way == "v")
        assert (far_x <= mask.shape[1], far_y <= mask.shape[0]) == (True, True)


def test_a_close_up_holds_the_defect_and_what_was_found(report: CalibrationReport) -> None:
    for example in report.examples:
        picture = draw_example(example)
        left, top, side = picture.view
        rows, columns = np.nonzero(example.truth | example.found)
        assert left <= columns.min()
        assert columns.max() + 1 <= left + side
        assert top <= rows.min()
        assert rows.max() + 1 <= top + side
    nowhere = np.zeros((16, 40), bool)
    whole = replace(report.examples[0], truth=nowhere, found=nowhere)
    assert draw_example(whole).view == (0, 0, 40)


def test_the_picture_is_the_image(report: CalibrationReport) -> None:
    example = replace(report.examples[0], image=np.random.default_rng(1).random((3, 32, 32)).astype(np.float32))
    content = np.frombuffer(base64.b64decode(draw_example(example).uri.partition(",")[2]), np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(pixels.transpose(2, 0, 1) / 255, example.image, atol=0.002)


def test_a_calibration_that_found_nothing_still_has_a_page() -> None:
    nothing = CalibrationReport(np.zeros(4), np.zeros(3), ("crack",) * 3, ((2.5, 0.0),), (), ())
    text = Page(render_report(nothing, make_manifest(verdict(above=0, normals=4, threshold=0.0)))).text
    assert "0 of 4 good parts are flagged" in text
    assert "0 of 3" in text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"),
        (0.0005, "0.05 %"),
        (0.01, "1 %"),
        (0.0444, "4.4 %"),
        (0.151, "15 %"),
        (0.9999, "100 %"),
        (1, "100 %"),
    ],
)
def test_shares_are_written_with_the_digits_that_tell_something(share: float, text: str) -> None:
    assert percent(share) == text.replace(" ", "\N{NO-BREAK SPACE}")
