from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays

from monitor.adapters.artifacts import load_bundle
from monitor.core.inspector import Inspector
from monitor.core.networks import Networks
from schemas.artifacts import (
    AUTOENCODER,
    BANK,
    DRIFT,
    MANIFEST,
    NORMALITY,
    REPORT,
    SEGMENTER,
    read_manifest,
    sha256_file,
)
from schemas.errors import BundleError, ConfigurationError
from tests.unit.small_model import Parts
from trainer import bundle as writer
from trainer.bundle import Trained, check_target, save_bundle

FILES = (AUTOENCODER, SEGMENTER, BANK, NORMALITY, DRIFT)


@pytest.fixture
def bundle(trained: Trained, tmp_path: Path) -> Path:
    path = tmp_path / "bundle"
    save_bundle(path, trained)
    return path


def edit_manifest(bundle: Path, change: Callable[[Any], object]) -> None:
    path = bundle / MANIFEST
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_array(bundle: Path, name: str, **arrays: np.ndarray[Any, Any]) -> None:
    """Write another file under the same name, with a manifest that vouches for it."""
    save_arrays(arrays, bundle / name)
    digest = sha256_file(bundle / name)
    edit_manifest(bundle, lambda manifest: manifest["files"].update({name: digest}))


def test_a_loaded_bundle_inspects_as_the_trained_model_did(bundle: Path, inspector: Inspector, parts: Parts) -> None:
    loaded = Inspector(load_bundle(bundle))
    assert loaded.manifest.calibration == inspector.manifest.calibration
    left = loaded.inspect(parts.defective, loaded.new_bank())
    right = inspector.inspect(parts.defective, inspector.new_bank())
    for one, other in zip(left, right, strict=True):
        assert (one.score, one.flagged) == (other.score, other.flagged)
        for name in ("mask", "anomaly", "prior", "background", "residual"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(loaded.remember(parts.fresh), inspector.remember(parts.fresh))


def test_the_report_tells_of_this_bundle_and_is_pinned_but_not_needed(bundle: Path, trained: Trained) -> None:
    page = (bundle / REPORT).read_text(encoding="utf-8")
    manifest = read_manifest(bundle)
    verdict = manifest.calibration.verdict
    assert manifest.model_id in page
    assert f"{verdict.above} of {verdict.normals} good parts" in page
    assert trained.calibrated.report is not None
    assert len(trained.calibrated.report.defective_scores) == 24
    candidates = trained.calibrated.report.candidates
    assert len(candidates) == len({each.parameters["λ"] for each in candidates}) >= 3
    assert max(each.dice for each in candidates) > 0.4
    (bundle / REPORT).write_text(page.replace("good parts", "fine parts"), encoding="utf-8")
    with pytest.raises(BundleError, match=r"report\.html: its SHA-256"):
        read_manifest(bundle)
    (bundle / REPORT).unlink()
    assert load_bundle(bundle).manifest == manifest


def test_a_calibration_without_a_report_makes_a_bundle_without_one(trained: Trained, tmp_path: Path) -> None:
    silent = replace(trained, calibrated=replace(trained.calibrated, report=None))
    manifest = save_bundle(tmp_path / "bundle", silent)
    assert set(manifest.files) == set(FILES)
    assert load_bundle(tmp_path / "bundle").manifest == manifest


def test_a_colour_bundle_survives_the_round_trip_too(
    colour_trained: Trained, colour_inspector: Inspector, colour_parts: Parts, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "bundle", colour_trained)
    loaded = Inspector(load_bundle(tmp_path / "bundle"))
    scores = [
        [found.score for found in each.inspect(colour_parts.defective, each.new_bank())]
        for each in (loaded, colour_inspector)
    ]
    assert scores[0] == scores[1]


def test_the_manifest_that_was_returned_is_the_one_on_disk(trained: Trained, tmp_path: Path) -> None:
    manifest = save_bundle(tmp_path / "a" / "bundle", trained)
    assert read_manifest(tmp_path / "a" / "bundle") == manifest
    assert set(manifest.files) == {*FILES, REPORT}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["bundle"]


def test_a_loaded_model_is_frozen(bundle: Path) -> None:
    model = load_bundle(bundle)
    for network in (model.networks.autoencoder, model.networks.segmenter):
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("name", FILES)
def test_a_changed_byte_is_noticed_wherever_it_is(bundle: Path, name: str) -> None:
    path = bundle / name
    content = path.read_bytes()
    for place in (0, 8, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(BundleError, match=f"{name}: its SHA-256"):
            load_bundle(bundle)
    path.write_bytes(content[:-1])
    with pytest.raises(BundleError, match=f"{name}: its SHA-256"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        load_bundle(bundle)


def test_no_bundle_at_all_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="paedid-trainer train"):
        load_bundle(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BundleError):
        load_bundle(tmp_path / "file")


EDITS: dict[str, Callable[[Any], object]] = {
    "format": lambda m: m.update(format=2),
    "surplus": lambda m: m.update(surplus=1),
    "encoder_hash": lambda m: m.pop("encoder_hash"),
    "calibration.alpha": lambda m: m["calibration"].update(alpha=1.5),
    "calibration.lam": lambda m: m["calibration"].update(lam=0),
    "calibration.mask_threshold": lambda m: m["calibration"].update(mask_threshold="high"),
    "calibration.verdict.threshold": lambda m: m["calibration"]["verdict"].pop("threshold"),
    "architecture": lambda m: m["architecture"]["input"].update(height=65),
    "architecture.input.channels": lambda m: m["architecture"]["input"].update(channels=2),
    "model_id": lambda m: m.update(model_id="../../etc"),
    "files": lambda m: m.update(files=[]),
}


@pytest.mark.parametrize("place", EDITS)
def test_an_edited_manifest_is_refused_and_the_place_named(bundle: Path, place: str) -> None:
    edit_manifest(bundle, EDITS[place])
    with pytest.raises(BundleError, match=rf"manifest\.json: {place}"):
        load_bundle(bundle)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b" " * 1_000_001])
def test_a_manifest_that_is_none_is_refused(bundle: Path, content: bytes) -> None:
    (bundle / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: "):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["../secret", "sub/secret", "..", ".", "", "/etc/hostname"])
def test_a_manifest_cannot_reach_outside_its_bundle(bundle: Path, name: str) -> None:
    (bundle.parent / "secret").write_text("x")
    (bundle / "sub").mkdir()
    (bundle / "sub" / "secret").write_text("x")
    digest = sha256_file(bundle.parent / "secret")
    edit_manifest(bundle, lambda manifest: manifest["files"].update({name: digest}))
    with pytest.raises(BundleError, match="named in the manifest but missing"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", FILES)
def test_a_file_the_manifest_does_not_vouch_for_is_not_loaded(bundle: Path, name: str) -> None:
    edit_manifest(bundle, lambda manifest: manifest["files"].pop(name))
    with pytest.raises(BundleError, match=f"names no {name}"):
        load_bundle(bundle)


def test_another_encoder_is_refused_even_if_the_manifest_vouches_for_its_file(bundle: Path) -> None:
    arrays = load_arrays(bundle / AUTOENCODER)
    arrays["encoder.0.weight"] = arrays["encoder.0.weight"] + 1
    replace_array(bundle, AUTOENCODER, **arrays)
    with pytest.raises(BundleError, match=f"{AUTOENCODER}: its encoder's hash"):
        load_bundle(bundle)


def test_a_changed_encoder_hash_is_refused(bundle: Path) -> None:
    edit_manifest(bundle, lambda manifest: manifest.update(encoder_hash="0" * 64))
    with pytest.raises(BundleError, match=f"{AUTOENCODER}: its encoder's hash"):
        load_bundle(bundle)


def test_weights_of_another_architecture_are_refused(bundle: Path) -> None:
    edit_manifest(bundle, lambda manifest: manifest["architecture"].update(widths=[8, 16, 64]))
    with pytest.raises(BundleError, match=f"{AUTOENCODER}: does not fit the architecture"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "spread",
    [
        np.ones((32, 64), np.float32),
        np.ones((1, 64, 64), np.float32),
        np.zeros((64, 64), np.float32),
        np.full((64, 64), np.nan, np.float32),
        np.full((64, 64), np.inf, np.float32),
    ],
)
def test_a_spread_that_does_not_fit_is_refused(bundle: Path, spread: np.ndarray[Any, Any]) -> None:
    replace_array(bundle, NORMALITY, spread=spread)
    with pytest.raises(BundleError, match=f"{NORMALITY}: 'spread'"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "entries",
    [
        np.zeros((4, 8, 8, 49), np.float32),
        np.zeros((4, 8, 8, 48), np.float16),
        np.zeros((0, 8, 8, 49), np.float16),
        np.zeros((8, 8, 49), np.float16),
    ],
)
def test_a_bank_that_does_not_fit_is_refused(bundle: Path, entries: np.ndarray[Any, Any]) -> None:
    replace_array(bundle, BANK, entries=entries)
    with pytest.raises(BundleError, match=f"{BANK}: 'entries'"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "changed",
    [
        {"distance_mean": np.zeros((3, 3), np.float32)},
        {"distance_deviation": np.zeros((8, 8), np.float32)},
        {"score_mean": np.full(1, np.nan, np.float32)},
        {"score_deviation": np.full(1, -1.0, np.float32)},
    ],
)
def test_a_drift_baseline_that_does_not_fit_is_refused(bundle: Path, changed: dict[str, np.ndarray[Any, Any]]) -> None:
    replace_array(bundle, DRIFT, **(load_arrays(bundle / DRIFT) | changed))
    with pytest.raises(BundleError, match=f"{DRIFT}: '{next(iter(changed))}'"):
        load_bundle(bundle)


@pytest.mark.parametrize(("name", "tensor"), [(BANK, "entries"), (NORMALITY, "spread")])
def test_a_file_without_its_tensor_or_of_another_format_is_refused(bundle: Path, name: str, tensor: str) -> None:
    replace_array(bundle, name, other=np.zeros(3, np.float32))
    with pytest.raises(BundleError, match=f"{name}: cannot be read or holds no tensor '{tensor}'"):
        load_bundle(bundle)
    (bundle / name).write_bytes(b"\x80\x04 a pickle, say")
    digest = sha256_file(bundle / name)
    edit_manifest(bundle, lambda manifest: manifest["files"].update({name: digest}))
    with pytest.raises(BundleError, match=name):
        load_bundle(bundle)


def test_a_new_bundle_replaces_an_earlier_one(bundle: Path, trained: Trained) -> None:
    (bundle / "left over").write_text("x")
    before = read_manifest(bundle)
    after = save_bundle(bundle, trained)
    assert after.created_at > before.created_at
    assert read_manifest(bundle) == after
    assert not (bundle / "left over").exists()
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


class PowerCutError(Exception):
    """Stands for whatever ends a program in the middle."""


def interrupt(*_: object, **__: object) -> None:
    raise PowerCutError


@pytest.mark.parametrize("moment", ["save_tensors", "save_arrays", "_manifest", "write_text", "rename"])
def test_an_interrupted_save_leaves_an_earlier_bundle_whole(
    bundle: Path, trained: Trained, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    if moment in {"write_text", "rename"}:
        monkeypatch.setattr(Path, moment, interrupt)
    else:
        monkeypatch.setattr(writer, moment, interrupt)
    with pytest.raises(PowerCutError):
        save_bundle(bundle, trained)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before
    load_bundle(bundle)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_save_interrupted_between_the_old_and_the_new_brings_the_old_back(
    bundle: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_manifest(bundle)
    rename = Path.rename

    def fail_to_put_in_place(self: Path, target: Path) -> Path:
        if target == bundle and (self / MANIFEST).read_bytes() != before_bytes:
            raise PowerCutError
        return rename(self, target)

    before_bytes = (bundle / MANIFEST).read_bytes()
    monkeypatch.setattr(Path, "rename", fail_to_put_in_place)
    with pytest.raises(PowerCutError):
        save_bundle(bundle, trained)
    assert read_manifest(bundle) == before
    load_bundle(bundle)


def test_a_bundle_behind_a_link_is_replaced_where_it_lies(bundle: Path, trained: Trained) -> None:
    link = bundle.parent / "current"
    link.symlink_to(bundle, target_is_directory=True)
    manifest = save_bundle(link, trained)
    assert link.is_symlink()
    assert read_manifest(bundle) == manifest


def test_a_folder_that_holds_something_else_is_refused(trained: Trained, tmp_path: Path) -> None:
    precious = tmp_path / "photos"
    precious.mkdir()
    (precious / "holiday.jpg").write_bytes(b"x")
    for refuse in (check_target, lambda out: save_bundle(out, trained)):
        with pytest.raises(ConfigurationError, match=r"--out .* is not a model bundle"):
            refuse(precious)
        with pytest.raises(ConfigurationError, match="--out"):
            refuse(precious / "holiday.jpg")
    assert (precious / "holiday.jpg").read_bytes() == b"x"


def test_a_place_that_cannot_hold_a_folder_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "bundle", tmp_path / "file" / "deep" / "bundle"):
        with pytest.raises(ConfigurationError, match="--out"):
            check_target(out)


def test_a_new_or_empty_folder_or_an_earlier_bundle_is_welcome(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "new" / "deep", bundle):
        check_target(out)
    assert not (tmp_path / "new").exists()


def test_nothing_in_a_bundle_is_executed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pickle.load", interrupt)
    monkeypatch.setattr("pickle.loads", interrupt)
    monkeypatch.setattr(torch, "load", interrupt)
    assert isinstance(load_bundle(bundle).networks, Networks)


def test_a_bundle_can_be_copied_elsewhere(bundle: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(bundle, tmp_path / "elsewhere")
    assert load_bundle(copy).manifest == load_bundle(bundle).manifest
