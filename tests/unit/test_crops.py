from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.artifacts import InputSpec
from tests.unit.small_model import SETTINGS
from trainer.crops import CROP, choose_crop
from trainer.segmenting import SegmenterSettings, draw_restorable_pieces
from trainer.synthetic import paste_defect
from trainer.training import TrainingSettings, _draw_batch, train

FLIPS = ((), (1,), (2,), (1, 2))


@settings(max_examples=200)
@given(
    cells=st.tuples(st.integers(1, 60), st.integers(1, 60)), step=st.sampled_from((8, 16, 32)), seed=st.integers(0, 99)
)
def test_crops_lie_within_the_frame_and_on_the_poolings_grid(cells: tuple[int, int], step: int, seed: int) -> None:
    size = step * cells[0], step * cells[1]
    for place, side in zip(choose_crop(size, np.random.default_rng(seed), step), size, strict=True):
        assert place.start % step == place.stop % step == 0
        assert 0 <= place.start < place.stop <= side
        assert place.stop - place.start == min(side, CROP)


def test_a_frame_no_larger_than_a_crop_is_shown_whole_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    assert choose_crop((CROP, 112), rng, 16) == (slice(0, CROP), slice(0, 112))
    assert rng.bit_generator.state == before


def test_a_frames_border_is_shown_a_third_as_often_as_its_middle_or_more() -> None:
    rng, shown = np.random.default_rng(0), np.zeros((768, 256))
    for _ in range(3000):
        shown[choose_crop((768, 256), rng, 16)] += 1
    assert shown[0, 0] > shown.max() / 3
    assert shown[-1, 0] > shown.max() / 3


@given(row=st.integers(0, 599), column=st.integers(0, 799), seed=st.integers(0, 99))
def test_a_crop_shows_something_that_is_inspected(row: int, column: int, seed: int) -> None:
    inspected = np.zeros((600, 800), np.bool_)
    inspected[row, column] = True
    assert inspected[choose_crop((600, 800), np.random.default_rng(seed), inspected=inspected)].any()


def drawn_whole(
    images: np.ndarray, wanted: TrainingSettings, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return what a step is shown of frames as they are."""
    inputs, targets = [], []
    for index in rng.integers(len(images), size=wanted.batch):
        clean = np.ascontiguousarray(np.flip(images[index], FLIPS[rng.integers(4)]))
        targets.append(clean)
        inputs.append(paste_defect(clean, rng).image if rng.random() < wanted.corrupted else clean)
    return inputs, targets


@pytest.mark.parametrize("size", [(64, 64), (128, CROP)])
def test_small_frames_are_learnt_from_whole(size: tuple[int, int]) -> None:
    images = np.random.default_rng(1).random((5, 1, *size), dtype=np.float32)
    inputs, targets = _draw_batch(images, FLIPS, SETTINGS, np.random.default_rng(2))
    wanted = drawn_whole(images, SETTINGS, np.random.default_rng(2))
    np.testing.assert_array_equal(inputs.numpy(), np.stack(wanted[0]))
    np.testing.assert_array_equal(targets.numpy(), np.stack(wanted[1]))


def test_of_large_frames_a_step_is_shown_crops_of_their_mirrorings_on_the_grid() -> None:
    height, width, step = 304, 528, 1 << len(SETTINGS.widths)
    ramp = np.arange(height * width, dtype=np.float32).reshape(1, 1, height, width) / (height * width)
    settings_ = replace(SETTINGS, batch=40, corrupted=0.0)
    inputs, targets = _draw_batch(ramp, FLIPS, settings_, np.random.default_rng(0))
    assert inputs.shape == targets.shape == (40, 1, CROP, CROP)
    mirrored = [np.flip(ramp[0, 0], tuple(axis - 1 for axis in axes)) for axes in FLIPS]
    found = set()
    for crop in targets[:, 0].numpy():
        places = [(number, *np.argwhere(whole == crop[0, 0])[0]) for number, whole in enumerate(mirrored)]
        matching = [
            (number, row, column)
            for number, row, column in places
            if np.array_equal(mirrored[number][row : row + CROP, column : column + CROP], crop)
        ]
        assert len(matching) == 1
        assert matching[0][1] % step == matching[0][2] % step == 0
        found.add(matching[0])
    assert {number for number, *_ in found} == {0, 1, 2, 3}
    assert len(found) > 20


@pytest.mark.usefixtures("one_thread")
def test_an_autoencoder_learns_from_frames_larger_than_a_crop() -> None:
    rows = np.linspace(0, 1, 320, dtype=np.float32)
    images = np.stack([np.outer(np.ones(272), np.roll(rows, 40 * number))[None] for number in range(8)])
    images = np.ascontiguousarray(images, dtype=np.float32)
    spec = InputSpec(height=272, width=320, channels=1)
    wanted = replace(SETTINGS, widths=(4, 8), segmenter=(4, 4), steps=30, batch=2)
    autoencoder, report = train(spec, images[:6], images[6:], ((),), wanted)
    assert report.rmse < report.rmse_of_mean_image
    assert autoencoder.architecture.latent_shape == (68, 80, 8)
    with torch.inference_mode():
        assert autoencoder(torch.from_numpy(images[:1])).shape == (1, 1, 272, 320)


@pytest.mark.parametrize("ignored", [False, True])
def test_the_segmenter_is_shown_pieces_of_crops_of_large_frames(ignored: bool) -> None:  # noqa: FBT001 - a parameter
    normals = np.full((2, 1, 512, 640), 0.5, np.float32)
    inspected = None
    if ignored:
        inspected = np.zeros((512, 640), np.bool_)
        inspected[:40, 600:] = True
    spoilt: list[tuple[int, ...]] = []

    def spy(image: np.ndarray, *rest: object) -> object:
        spoilt.append(image.shape)
        return paste(image, *rest)

    with pytest.MonkeyPatch.context() as patch:
        import trainer.segmenting as module  # noqa: PLC0415 - to be spied on

        paste = module.paste_visible_defect
        patch.setattr(module, "paste_visible_defect", spy)
        wanted = SegmenterSettings(batch=8, piece=32, varied_light=0.0, clean=0.0)
        pieces = draw_restorable_pieces(normals, wanted, np.random.default_rng(0), inspected)
    assert set(spoilt) == {(1, CROP, CROP)}
    assert pieces.frames.shape == (8, 1, 32, 32)
    assert pieces.masks.any()
