"""The protocol of the benchmark: one split, one set of measures, the same for every method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from schemas.errors import TrainingError
from trainer.baselines.base import VALIDATION_SHARE, Images, Method, Pretrained, Scores, Selective, SelfCalibrating
from trainer.dataset import Split, load_dataset, split
from trainer.metrics import Estimate, Maps, Masks, aupro, auroc, dice, estimate, pixel_auroc
from trainer.synthetic import PLAIN
from trainer.test_set import TestSet, load_test_set
from trainer.thresholds import MaskRule, best_rule, candidate_levels, crossed_dice, dice_at
from trainer.view_settings import ViewSettings
from trainer.visible_defects import paste_visible_defect

Stage = Callable[[str, int, int], None]  # called with (what is being done, done, total)


@dataclass(frozen=True, slots=True)
class ProtocolSettings:
    """What a benchmark may be told; the defaults are those of ``paedid-trainer train``.

    Attributes:
        size, colour: see ``trainer.dataset.load_dataset``.
        seed: of everything random.
        repeats: halvings of the defective frames.
        synthetic: defects pasted on validation normals for the label-free threshold.
        small: shares of the frame, from and to, that a small defect covers.
        batch: frames scored at once.
        limit: at most so many good and so many defective test frames; None: all.
        view: how the line is looked at: what every method is given.
    """

    size: str = "auto"
    colour: str = "auto"
    seed: int = 0
    repeats: int = 5
    synthetic: int = 120
    small: tuple[float, float] = (0.002, 0.06)
    batch: int = 8
    limit: int | None = None
    view: ViewSettings = field(default_factory=ViewSettings)


@dataclass(frozen=True, slots=True)
class Material:
    """What all methods are given: ``normals`` in the order of their files, their ``parts``, and the test frames.

    ``inspected``: (H, W) the pixels that count; None: all.
    """

    normals: Images
    parts: Split
    test: TestSet
    inspected: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One row of the table; None where the data cannot tell.

    Attributes:
        dice: with thresholds chosen on the other half of the defective frames, as in the paper.
        dice_small: the same, of the frames with a small defect.
        label_free, label_free_small: with the threshold that no test image was used for: what a user gets.
        pixel_auroc, aupro: over all pixels of all frames; AUPRO to a false-positive rate of 0.3.
        image_auroc: of the frames' scores.
        milliseconds: per frame, scored in small batches.
        fit_seconds: of learning; its own calibration included, where a method has one.
        size_bytes: of model and bank.
        backbone: the pretrained network that it looks through; None: it needs none.
        rule: the label-free threshold and minimum area.
    """

    method: str
    dice: Estimate | None
    dice_small: Estimate | None
    label_free: Estimate | None
    label_free_small: Estimate | None
    pixel_auroc: float | None
    aupro: float | None
    image_auroc: float | None
    milliseconds: float
    fit_seconds: float
    size_bytes: int
    rule: MaskRule
    backbone: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """A method's row, and what the picture shows: its maps (B, H, W) of all test frames."""

    result: MethodResult
    maps: Maps


def load_material(data: Path, test: Path | None, settings: ProtocolSettings, stage: Stage | None = None) -> Material:
    """Read the normals and the test frames, and hold validation normals back exactly as ``trainer.build`` does.

    Raises:
        DataError, ConfigurationError: the data are not there, or unreadable.
    """
    dataset = load_dataset(data, settings.size, settings.colour, _bound(stage, "reading normals"), settings.view)
    parts = split(dataset.images, VALIDATION_SHARE, settings.seed)
    frames = load_test_set(data, test, dataset.viewer, settings.limit, settings.seed)
    return Material(dataset.images, parts, frames, dataset.viewer.inspected)


def measure(method: Method, material: Material, settings: ProtocolSettings, stage: Stage | None = None) -> Measured:
    """Fit a method, choose its thresholds, score the test frames and measure.

    A method that calibrates itself holds the same validation normals back by the same rule; so every method has the
    same normals to learn from and the same ones to choose its threshold by.

    Raises:
        TrainingError: the method failed, or its scores are no numbers.
    """
    own = isinstance(method, SelfCalibrating)
    inspected = material.inspected
    if inspected is not None and isinstance(method, Selective):
        method.inspect_only(inspected)
    started = perf_counter()
    method.fit(material.normals if own else material.parts.train, settings.seed, _bound(stage, f"{method.name}: fit"))
    fit_seconds = perf_counter() - started
    if isinstance(method, SelfCalibrating):
        rule = method.mask_rule()
    else:
        rule = _label_free_rule(method, material, settings, stage)
    test = material.test
    started = perf_counter()
    scores = score_all(method, test.images, settings.batch, _bound(stage, f"{method.name}: test"), inspected)
    seconds = perf_counter() - started
    frames = test.delineated
    crossed, label_free = _dices(scores.maps[frames], test.truth[frames], rule, settings)
    masked = scores.maps[test.masked], test.truth[test.masked]
    areas = test.truth[frames].mean(axis=(1, 2))
    small = (areas >= settings.small[0]) & (areas <= settings.small[1])
    bad = scores.images[~test.good]
    result = MethodResult(
        method=method.name,
        dice=_estimate(crossed, settings),
        dice_small=_estimate(crossed[small], settings) if len(crossed) else None,
        label_free=_estimate(label_free, settings),
        label_free_small=_estimate(label_free[small], settings),
        pixel_auroc=_pixel_auroc(*masked, inspected) if frames.any() else None,
        aupro=aupro(*masked) if frames.any() else None,
        image_auroc=auroc(scores.images[test.good], bad) if test.good.any() else None,
        milliseconds=1000 * seconds / len(test.images),
        fit_seconds=fit_seconds,
        size_bytes=method.size_bytes(),
        rule=rule,
        backbone=method.backbone.name if isinstance(method, Pretrained) else None,
    )
    return Measured(result, scores.maps)


def score_all(
    method: Method,
    images: Images,
    batch: int,
    progress: Callable[[int, int], None] | None,
    inspected: NDArray[np.bool_] | None = None,
) -> Scores:
    """Return the scores of all images (N, C, H, W), taken ``batch`` at a time.

    What is not inspected (H, W) is as normal as can be; None: all is.

    Raises:
        TrainingError: they have another shape than promised, or are not finite.
    """
    maps = np.empty((len(images), *images.shape[2:]), np.float32)
    whole = np.empty(len(images), np.float32)
    for start in range(0, len(images), batch):
        scores = method.score(images[start : start + batch])
        maps[start : start + batch], whole[start : start + batch] = scores.maps, scores.images
        if progress:
            progress(min(start + batch, len(images)), len(images))
    if not (np.isfinite(maps).all() and np.isfinite(whole).all()):
        msg = f"{method.name}: its scores are not finite, so nothing can be measured on them"
        raise TrainingError(msg)
    if inspected is not None:
        maps[:, ~inspected] = maps.min()
    return Scores(maps, whole)


def _label_free_rule(method: Method, material: Material, settings: ProtocolSettings, stage: Stage | None) -> MaskRule:
    """Return the best rule for synthetic defects on validation normals; no test image is touched."""
    normals, inspected = material.parts.validation, material.inspected
    rng = np.random.default_rng(settings.seed)
    origin = np.arange(max(settings.synthetic, len(normals))) % len(normals)
    defects = [paste_visible_defect(normals[index], rng, inspected, PLAIN) for index in origin]
    images = np.stack([defect.image for defect in defects])  # (D, C, H, W)
    scores = score_all(method, images, settings.batch, _bound(stage, f"{method.name}: threshold"), inspected)
    return best_rule(scores.maps, np.stack([defect.mask for defect in defects]))


def _pixel_auroc(maps: Maps, truth: Masks, inspected: NDArray[np.bool_] | None) -> float:
    if inspected is not None:
        maps, truth = maps[:, inspected], truth[:, inspected]  # (B, n)
    return pixel_auroc(maps, truth)


def _dices(
    maps: Maps, truth: Masks, rule: MaskRule, settings: ProtocolSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (n,) each frame's Dice with crossed thresholds, empty if there are too few, and with the rule."""
    if not len(maps):
        return np.zeros(0), np.zeros(0)
    label_free = dice(rule.masks(maps), truth)
    if len(maps) < 2:  # noqa: PLR2004 - one frame cannot be halved
        return np.zeros(0), label_free
    curves = dice_at(maps, truth, candidate_levels(maps))
    return crossed_dice(curves, settings.repeats, settings.seed), label_free


def _estimate(values: NDArray[np.float64], settings: ProtocolSettings) -> Estimate | None:
    return estimate(values, settings.seed) if len(values) else None


def _bound(stage: Stage | None, name: str) -> Callable[[int, int], None] | None:
    return None if stage is None else lambda done, total: stage(name, done, total)
