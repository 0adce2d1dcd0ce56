"""A bundle keeps its view, and one whose view cannot be is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from monitor.adapters.artifacts import load_bundle
from monitor.core.inspector import Inspector
from schemas.artifacts import MANIFEST, NORMALITY, VIEW, View, sha256_file
from schemas.errors import BundleError
from tests.unit.cells import cell
from tests.unit.views import TRAINING, train
from trainer.__main__ import tell_view
from trainer.view_settings import ViewSettings


def test_a_bundle_without_a_view_has_no_file_for_it(tmp_path: Path) -> None:
    _, manifest = train(
        [cell(n, 64, 64) for n in range(20)], tmp_path, ViewSettings(), "32", replace(TRAINING, steps=100)
    )
    assert manifest.view == View()
    assert VIEW not in manifest.files
    assert not (tmp_path / "bundle" / VIEW).exists()


def test_a_bundle_keeps_its_view_and_tells_it(masked: tuple[Inspector, NDArray[np.bool_], Path]) -> None:
    inspector, _, path = masked
    model = load_bundle(path)
    assert model.manifest.view == inspector.manifest.view
    assert VIEW in model.manifest.files
    ignored = model.view.ignored
    assert ignored is not None
    assert model.manifest.view.inspected_share == pytest.approx(1 - ignored.mean())
    told = "\n".join(tell_view(model.manifest))
    assert "looks at 160 x 120 camera pixels, the left upper one at 40,30" in told
    assert f"ignores {ignored.mean():.1%}" in told
    assert "light: level" in told


def vouch(bundle: Path, name: str, arrays: dict[str, NDArray[Any]]) -> None:
    save_arrays(arrays, bundle / name)
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["files"][name] = sha256_file(bundle / name)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


BROKEN: dict[str, Callable[[NDArray[np.bool_]], tuple[str, dict[str, NDArray[Any]]]]] = {
    "'ignored'": lambda ignored: (VIEW, {"ignored": ignored[:32].astype(np.uint8)}),
    "no tensor 'ignored'": lambda ignored: (VIEW, {"other": ignored.astype(np.uint8)}),
    "'ignored' ": lambda ignored: (VIEW, {"ignored": np.ones(ignored.shape, np.uint8)}),
    "'spread'": lambda ignored: (NORMALITY, {"spread": np.ones(ignored.shape, np.float32)}),
    "'spread' ": lambda ignored: (NORMALITY, {"spread": np.full(ignored.shape, np.inf, np.float32)}),
    "'spread' .* positive": lambda ignored: (NORMALITY, {"spread": np.where(ignored, np.inf, np.nan)}),
}


@pytest.mark.parametrize("problem", BROKEN)
def test_a_view_that_does_not_fit_its_bundle_is_refused(
    masked: tuple[Inspector, NDArray[np.bool_], Path], problem: str, tmp_path: Path
) -> None:
    shutil.copytree(masked[2], tmp_path / "bundle")
    ignored = load_arrays(masked[2] / VIEW)["ignored"].astype(np.bool_)
    vouch(tmp_path / "bundle", *BROKEN[problem](ignored))
    with pytest.raises(BundleError, match=problem):
        load_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("view.roi.width", {"roi": {"x": 0, "y": 0, "width": 3, "height": 100}}),
        ("the document: .*does not lie in the camera's frame", {"roi": {"x": 100, "y": 0, "width": 160, "height": 99}}),
        ("the document: .*paints 3 channels, the network sees 1", {"ignored": {"share": 0.1, "paint": [0, 0, 0]}}),
        ("view.light.kind", {"light": {"kind": "none", "mean": 0.5, "deviation": 0.1}}),
    ],
)
def test_a_manifest_whose_view_cannot_be_is_refused(
    masked: tuple[Inspector, NDArray[np.bool_], Path], place: str, change: dict[str, Any], tmp_path: Path
) -> None:
    shutil.copytree(masked[2], tmp_path / "bundle")
    manifest = json.loads((tmp_path / "bundle" / MANIFEST).read_text())
    manifest["view"].update(change)
    (tmp_path / "bundle" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=place):
        load_bundle(tmp_path / "bundle")
