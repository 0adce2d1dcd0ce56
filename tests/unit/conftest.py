"""A small model and its product, shared by every test that needs one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from monitor.core.inspector import Inspector, Model
from schemas.artifacts import Lighting
from tests.unit.small_model import Parts, simulate, train_on
from tests.unit.views import ROI, draw_mask, frame, train
from trainer.bank import entries_of
from trainer.bundle import Trained, save_bundle
from trainer.view_settings import ViewSettings


@pytest.fixture(scope="session")
def parts() -> Parts:
    """Grey frames."""
    return simulate(colour=False)


@pytest.fixture(scope="session")
def colour_parts() -> Parts:
    """The same parts in colour."""
    return simulate(colour=True)


@pytest.fixture(scope="session")
def trained(parts: Parts) -> Trained:
    """What a few seconds of training on the grey parts give."""
    return train_on(parts)


@pytest.fixture(scope="session")
def colour_trained(colour_parts: Parts) -> Trained:
    """The same for the parts in colour."""
    return train_on(colour_parts)


@pytest.fixture(scope="session")
def model(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The grey model as it left the trainer, never on disk; only its manifest was."""
    return _in_memory(trained, tmp_path_factory.mktemp("grey"))


@pytest.fixture(scope="session")
def colour_model(colour_trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The same in colour."""
    return _in_memory(colour_trained, tmp_path_factory.mktemp("colour"))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On a busy machine, two threads wait for each other at every one of many small steps."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _in_memory(trained: Trained, folder: Path) -> Model:
    manifest = save_bundle(folder / "bundle", trained)
    calibrated = trained.calibrated
    return Model(manifest, trained.networks, calibrated.normality, calibrated.drift, entries_of(calibrated.bank))


@pytest.fixture(scope="session")
def inspector(model: Model) -> Inspector:
    """Inspects with the grey model."""
    return Inspector(model)


@pytest.fixture(scope="session")
def colour_inspector(colour_model: Model) -> Inspector:
    """Inspects with the colour model."""
    return Inspector(colour_model)


@pytest.fixture(scope="session")
def masked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inspector, NDArray[np.bool_], Path]:
    """A model that looks at a region and ignores a part of it: its inspector, what is ignored, and its bundle."""
    place = tmp_path_factory.mktemp("masked")
    path, white = draw_mask(place)
    view = ViewSettings(roi=ROI, ignore=path, lighting=Lighting.LEVEL)
    inspector, _ = train([frame(number) for number in range(30)], place, view)
    return inspector, white, place / "bundle"
