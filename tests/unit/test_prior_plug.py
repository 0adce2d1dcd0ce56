"""The plug: any prior, by name, trained, saved, loaded and inspected with."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from monitor.adapters.artifacts import load_bundle
from monitor.core.denoiser import DenoisingPrior
from monitor.core.inspector import Explanation, Inspector, Model, explain
from monitor.core.memory_bank import MemoryBank
from monitor.core.per_frame import per_frame
from monitor.core.prior import BankPrior, MeanPrior, Prior, Seen, imagine, restrict
from monitor.core.priors import installed_priors, make_prior
from schemas.artifacts import MANIFEST, PRIOR, Architecture, read_manifest, sha256_file
from schemas.errors import BundleError, ConfigurationError, PriorError, TrainingError
from tests.unit.small_model import SEGMENTER, Parts
from trainer.bank import entries_of
from trainer.baselines.base import make_method
from trainer.build import BuildSettings, build
from trainer.bundle import Trained, save_bundle
from trainer.calibrate import CalibrationSettings, calibrate
from trainer.denoising import restoration_loss
from trainer.priors import Lesson, require_prior, train_prior
from trainer.segmenting import draw_pieces, draw_restorable_pieces
from trainer.synthetic import paste_defect

# All that a third party writes: one file, and one line that names what is in it.
PLUG = '''
import numpy as np
import torch
from monitor.core.prior import Prior


class MedianPrior(Prior):
    """The pixelwise median of the normals, whatever the frame shows."""

    def __init__(self, architecture):
        super().__init__()
        spec = architecture.input
        self.register_buffer("median", torch.zeros(spec.channels, spec.height, spec.width))

    def fit(self, lesson):
        self.median.copy_(torch.from_numpy(np.median(lesson.images, axis=0)))

    def imagine(self, seen):
        return self.median.expand_as(seen.frames)


def needs_more(architecture):
    raise ImportError("No module named 'diffusers'")


def no_prior(architecture):
    return torch.nn.Identity()


class Wild(MedianPrior):
    def fit(self, lesson):
        self.median.fill_(float("nan"))
'''
OFFERS = """
[paedid.priors]
median = a_third_partys_plug:MedianPrior
broken = a_third_partys_plug:needs_more
identity = a_third_partys_plug:no_prior
wild = a_third_partys_plug:Wild
bank = a_third_partys_plug:MedianPrior
"""


def install(place: Path, package: str, offers: str, **modules: str) -> None:
    """Lay a package down as pip does."""
    info = place / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(offers)
    for name, source in modules.items():
        (place / f"{name}.py").write_text(source)


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with plugs, installed for the length of a test."""
    place = tmp_path / "site-packages"
    install(place, "a_third_party", OFFERS, a_third_partys_plug=PLUG)
    monkeypatch.syspath_prepend(place)
    yield place
    sys.modules.pop("a_third_partys_plug", None)


def lesson_of(trained: Trained, parts: Parts) -> Lesson:
    pieces = replace(SEGMENTER, steps=300)
    return Lesson(parts.train, parts.validation, trained.networks.autoencoder, pieces, seed=0)


def with_prior(name: str, prior: Prior, trained: Trained, parts: Parts) -> Trained:
    """Return the same model with another prior, calibrated with it."""
    networks = replace(trained.networks, prior=prior)
    wanted = CalibrationSettings(trials=1, smoothings=(0.9,), defects=20, false_reject_rate=0.1)
    return replace(
        trained, networks=networks, calibrated=calibrate(networks, parts.train, parts.validation, wanted), prior=name
    )


@pytest.fixture(scope="module")
def denoiser(trained: Trained, parts: Parts) -> Prior:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    prior = train_prior("denoiser", lesson_of(trained, parts))
    torch.set_num_threads(threads)
    return prior


@pytest.fixture(scope="module")
def bank(trained: Trained) -> MemoryBank:
    return trained.calibrated.bank


def explained(trained: Trained, prior: Prior, frames: np.ndarray, bank: MemoryBank) -> Explanation:  # type: ignore[type-arg]
    networks = replace(trained.networks, prior=prior)
    with torch.inference_mode():
        return explain(networks, torch.from_numpy(frames), bank, trained.calibrated.calibration)


def test_the_default_prior_is_the_papers_to_the_bit(trained: Trained, parts: Parts, bank: MemoryBank) -> None:
    assert isinstance(trained.networks.prior, BankPrior)
    frames, alpha = torch.from_numpy(parts.defective), trained.calibrated.calibration.alpha
    autoencoder = trained.networks.autoencoder
    with torch.inference_mode():
        features = per_frame(autoencoder.encode, frames)
        expected = per_frame(autoencoder.decode, restrict(features, bank.query(features), alpha))
    assert torch.equal(explained(trained, BankPrior(), parts.defective, bank).prior, expected)


def test_the_denoiser_takes_unseen_defects_away_and_leaves_normals_be(denoiser: Prior, parts: Parts) -> None:
    rng = np.random.default_rng(5)
    sound = np.concatenate([parts.fresh, parts.validation])
    defects = [paste_defect(image, rng) for image in sound]
    spoilt, truth = np.stack([each.image for each in defects]), np.stack([each.mask for each in defects])
    with torch.inference_mode():
        restored, kept = (denoiser(torch.from_numpy(frames)).clamp(0, 1).numpy() for frames in (spoilt, sound))
    before, after = (np.abs(frames - sound)[:, 0][truth].mean() for frames in (spoilt, restored))
    assert after < 0.55 * before
    assert np.abs(kept - sound).mean() < 0.01
    assert np.abs(restored - sound)[:, 0][~truth].mean() < 0.015


def test_an_untrained_denoiser_restores_nothing(parts: Parts, trained: Trained) -> None:
    torch.manual_seed(0)
    untrained = DenoisingPrior(trained.networks.autoencoder.architecture).eval()
    defect = paste_defect(parts.fresh[0], np.random.default_rng(0))
    with torch.inference_mode():
        restored = untrained(torch.from_numpy(defect.image[None])).numpy()[0]
    assert np.abs(restored - parts.fresh[0]).mean() > np.abs(defect.image - parts.fresh[0]).mean()


@pytest.mark.parametrize("kind", ["bank", "denoiser", "both"])
def test_what_a_prior_imagines_of_a_frame_does_not_depend_on_its_batch(
    kind: str, denoiser: Prior, trained: Trained, parts: Parts, bank: MemoryBank
) -> None:
    prior = {"bank": BankPrior(), "denoiser": denoiser, "both": MeanPrior([BankPrior(), denoiser])}[kind]
    together = explained(trained, prior, parts.defective, bank).prior
    strided = np.asfortranarray(parts.defective)
    assert torch.equal(explained(trained, prior, strided, bank).prior, together)
    for number in range(len(parts.defective)):
        alone = explained(trained, prior, parts.defective[number : number + 1], bank).prior
        assert torch.equal(alone, together[number : number + 1])


class Careless(Prior):
    """Standardises by its batch, as a prior must not."""

    def imagine(self, seen: Seen) -> Tensor:
        return seen.frames / seen.frames.max()


def test_not_even_that_of_a_careless_prior(trained: Trained, parts: Parts, bank: MemoryBank) -> None:
    together = explained(trained, Careless(), parts.defective, bank).prior
    alone = explained(trained, Careless(), parts.defective[2:3], bank).prior
    assert torch.equal(alone, together[2:3])


class TooSmall(Prior):
    def imagine(self, seen: Seen) -> Tensor:
        return seen.frames[:, :, ::2, ::2]


def test_a_prior_of_another_size_is_refused_by_name(trained: Trained, parts: Parts, bank: MemoryBank) -> None:
    with pytest.raises(ValueError, match=r"TooSmall imagines \(8, 1, 32, 32\), not \(8, 1, 64, 64\)"):
        explained(trained, TooSmall(), parts.defective, bank)


def test_the_mean_is_the_mean(denoiser: Prior, trained: Trained, parts: Parts, bank: MemoryBank) -> None:
    one, other, both = (
        explained(trained, prior, parts.defective, bank).prior
        for prior in (BankPrior(), denoiser, MeanPrior([BankPrior(), denoiser]))
    )
    assert not torch.allclose(one, other, atol=0.05)
    torch.testing.assert_close(both, (one + other) / 2)


def test_the_fast_copy_imagines_the_same(denoiser: Prior, trained: Trained, parts: Parts, bank: MemoryBank) -> None:
    prior = MeanPrior([BankPrior(), denoiser])
    slow, fast = (explained(trained, each, parts.defective, bank).prior for each in (prior, prior.for_inference()))
    torch.testing.assert_close(slow, fast, rtol=0, atol=1e-4)
    assert len(list(prior.for_inference().state_dict())) < len(list(prior.state_dict()))


def assert_loaded_inspects_alike(bundle: Path, trained: Trained, parts: Parts) -> Inspector:
    made = trained.calibrated
    model = Model(read_manifest(bundle), trained.networks, made.normality, made.drift, entries_of(made.bank))
    kept, loaded = Inspector(model), Inspector(load_bundle(bundle))
    found = (each.inspect(parts.defective, each.new_bank()) for each in (kept, loaded))
    for left, right in zip(*found, strict=True):
        assert left.score == right.score
        for plane in ("mask", "anomaly", "prior", "background", "residual"):
            np.testing.assert_array_equal(getattr(left, plane), getattr(right, plane))
    np.testing.assert_array_equal(kept.remember(parts.fresh), loaded.remember(parts.fresh))
    return loaded


@pytest.mark.parametrize("name", ["bank", "denoiser", "both"])
def test_a_built_in_prior_survives_the_bundle(
    name: str, denoiser: Prior, trained: Trained, parts: Parts, tmp_path: Path
) -> None:
    prior = {"bank": BankPrior(), "denoiser": denoiser, "both": MeanPrior([BankPrior(), denoiser])}[name]
    made = with_prior(name, prior, trained, parts)
    manifest = save_bundle(tmp_path / "bundle", made)
    assert manifest.prior == name
    assert (PRIOR in manifest.files) == (name != "bank")
    loaded = assert_loaded_inspects_alike(tmp_path / "bundle", made, parts)
    assert not any(weight.requires_grad for weight in loaded._networks.prior.parameters())


@pytest.fixture
def bundle(denoiser: Prior, trained: Trained, tmp_path: Path) -> Path:
    """With a denoiser, not calibrated with it."""
    networks = replace(trained.networks, prior=denoiser)
    save_bundle(tmp_path / "bundle", replace(trained, networks=networks, prior="denoiser"))
    return tmp_path / "bundle"


def edit_manifest(bundle: Path, **changes: object) -> None:
    content = json.loads((bundle / MANIFEST).read_text())
    (bundle / MANIFEST).write_text(json.dumps(content | changes))


def test_a_priors_weights_are_pinned_and_needed(bundle: Path) -> None:
    weights = (bundle / PRIOR).read_bytes()
    (bundle / PRIOR).write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(BundleError, match=rf"{PRIOR}: its SHA-256"):
        load_bundle(bundle)
    (bundle / PRIOR).write_bytes(b"\x80\x04 a pickle, say")
    files = read_files(bundle)
    edit_manifest(bundle, files=files | {PRIOR: sha256_file(bundle / PRIOR)})
    with pytest.raises(BundleError, match=rf"{PRIOR}: does not fit"):
        load_bundle(bundle)
    edit_manifest(bundle, files={name: digest for name, digest in files.items() if name != PRIOR})
    with pytest.raises(BundleError, match=f"names no {PRIOR}"):
        load_bundle(bundle)


def read_files(bundle: Path) -> dict[str, str]:
    files: dict[str, str] = json.loads((bundle / MANIFEST).read_text())["files"]
    return files


def test_weights_of_another_prior_are_refused(bundle: Path) -> None:
    edit_manifest(bundle, prior="both")
    with pytest.raises(BundleError, match=f"{PRIOR}: does not fit the architecture"):
        load_bundle(bundle)


def test_a_bundle_from_before_there_was_a_choice_means_the_bank(trained: Trained, tmp_path: Path) -> None:
    save_bundle(tmp_path / "bundle", trained)
    content = json.loads((tmp_path / "bundle" / MANIFEST).read_text())
    assert content.pop("prior") == "bank"
    (tmp_path / "bundle" / MANIFEST).write_text(json.dumps(content))
    assert isinstance(load_bundle(tmp_path / "bundle").networks.prior, BankPrior)


def test_an_unknown_prior_is_refused_and_the_installed_ones_told(bundle: Path, third_party: Path) -> None:
    assert third_party.is_dir()
    edit_manifest(bundle, prior="diffusion")
    wanted = r"manifest\.json: prior: no prior is named 'diffusion'; installed are bank, denoiser, both, broken"
    with pytest.raises(BundleError, match=wanted):
        load_bundle(bundle)
    with pytest.raises(ConfigurationError, match=r"--prior = 'diffusion': .*installed are bank.*median"):
        require_prior("diffusion")


# Modules, attributes and files that could be imported if a name were taken for one.
NAMES = ("evil", "evil:prior", "evil.prior", "./evil.py", "../bundle/evil", "a_third_partys_plug:MedianPrior", "")


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_cannot_have_a_module_imported(
    name: str, bundle: Path, third_party: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As bad as can be: the bundle is the working directory, and beside what is imported.
    (bundle / "evil.py").write_text("raise SystemExit('executed')")
    (third_party / "evil.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(bundle)
    edit_manifest(bundle, prior=name)
    with pytest.raises(BundleError, match=r"manifest\.json: prior: "):
        load_bundle(bundle)
    assert not {"evil", "a_third_partys_plug"} & sys.modules.keys()


def test_a_third_partys_prior_is_trained_saved_loaded_and_inspected_with(
    third_party: Path, trained: Trained, parts: Parts, tmp_path: Path
) -> None:
    assert third_party.is_dir()
    assert "median" in installed_priors()
    require_prior("median")
    assert "a_third_partys_plug" not in sys.modules  # asking is not importing
    prior = train_prior("median", lesson_of(trained, parts))
    made = with_prior("median", prior, trained, parts)
    manifest = save_bundle(tmp_path / "bundle", made)
    assert manifest.prior == "median"
    assert PRIOR in manifest.files
    loaded = assert_loaded_inspects_alike(tmp_path / "bundle", made, parts)
    for found in loaded.inspect(parts.defective, loaded.new_bank()):
        np.testing.assert_array_equal(found.prior, np.median(parts.train, axis=0))


def test_a_built_in_name_cannot_be_taken(third_party: Path, trained: Trained) -> None:
    assert third_party.is_dir()
    assert isinstance(make_prior("bank", trained.networks.autoencoder.architecture), BankPrior)
    assert installed_priors().count("bank") == 1


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("broken", r"'broken' \(a_third_partys_plug:needs_more\) cannot be used here: ImportError: .*diffusers"),
        ("identity", "'identity' .* gives a Identity, not a monitor.core.prior.Prior"),
    ],
)
def test_a_plug_that_does_not_work_is_told_by_name(
    name: str, problem: str, third_party: Path, bundle: Path, trained: Trained
) -> None:
    assert third_party.is_dir()
    with pytest.raises(PriorError, match=problem):
        make_prior(name, trained.networks.autoencoder.architecture)
    edit_manifest(bundle, prior=name)
    with pytest.raises(BundleError, match=problem):
        load_bundle(bundle)


def test_two_packages_with_one_name_are_not_chosen_between(
    third_party: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = third_party.parent / "other"
    install(other, "another_party", "[paedid.priors]\nmedian = another_plug:Median\n")
    monkeypatch.syspath_prepend(other)
    with pytest.raises(PriorError, match=r"several packages.*a_third_partys_plug:MedianPrior, another_plug:Median"):
        make_prior("median", trained.networks.autoencoder.architecture)


def test_numbers_that_are_none_are_not_saved(third_party: Path, trained: Trained, parts: Parts) -> None:
    assert third_party.is_dir()
    with pytest.raises(TrainingError, match=r"'wild' learnt numbers that are none \(median\)"):
        train_prior("wild", lesson_of(trained, parts))
    spoilt = replace(
        lesson_of(trained, parts), images=np.full_like(parts.train, np.nan), pieces=replace(SEGMENTER, steps=2)
    )
    with pytest.raises(TrainingError, match="denoiser"):
        train_prior("both", spoilt)


def test_training_refuses_an_unknown_prior_before_it_reads_an_image(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--prior"):
        build(tmp_path / "no such folder", tmp_path / "bundle", BuildSettings(prior="nonesuch"), reporter=None)  # type: ignore[arg-type]


@pytest.mark.usefixtures("one_thread")
def test_the_same_seed_trains_the_same_denoiser(trained: Trained, parts: Parts) -> None:
    short = replace(lesson_of(trained, parts), pieces=replace(SEGMENTER, steps=4))

    def weights(seed: int) -> list[Tensor]:
        lesson = replace(short, seed=seed, pieces=replace(short.pieces, seed=seed))
        return list(train_prior("denoiser", lesson).state_dict().values())

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_benchmark_has_a_method_per_built_in_prior() -> None:
    for name in ("paedid", "paedid-denoiser", "paedid-both"):
        assert make_method(name).name == name


def test_pieces_are_their_normals_but_for_the_defects(parts: Parts) -> None:
    drawn = draw_restorable_pieces(parts.train, SEGMENTER, np.random.default_rng(3))
    changed = np.abs(drawn.frames - drawn.normals).max(axis=1)
    assert drawn.masks.any()
    assert changed[drawn.masks].mean() > 0.05
    # A defect's faint rim is not marked.
    assert changed[~drawn.masks].mean() < 0.005
    frames, masks = draw_pieces(parts.train, SEGMENTER, np.random.default_rng(3))
    np.testing.assert_array_equal(frames, drawn.frames)
    np.testing.assert_array_equal(masks, drawn.masks)


def test_the_loss_counts_the_defects_pixels_more() -> None:
    normals, masks = torch.zeros(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :2, :2] = True
    inside, outside = normals.clone(), normals.clone()
    inside[0, 0, 0, 0] = outside[0, 0, 7, 7] = 1.0
    assert float(restoration_loss(normals, normals, masks)) == 0.0
    assert float(restoration_loss(outside, normals, masks)) == pytest.approx(1 / 64)
    assert float(restoration_loss(inside, normals, masks)) == pytest.approx(1 / 64 + 0.3 / 5)


def test_an_untrained_denoiser_of_a_colour_frame_returns_one() -> None:
    spec = {"height": 32, "width": 48, "channels": 3}
    architecture = Architecture.model_validate({"input": spec, "widths": (8, 16), "segmenter": (4, 8)})
    prior = make_prior("denoiser", architecture).eval()
    features = torch.rand(2, *architecture.latent_shape[2:], *architecture.latent_shape[:2])
    bank = MemoryBank(architecture.latent_shape, 1)
    bank.put(0, np.ones(architecture.latent_shape, np.float16))
    frames = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        imagined = imagine(prior, Seen(frames, features, bank.query(features), 0.3, lambda _: frames))
    assert imagined.shape == (2, 3, 32, 48)
    assert imagined.min() >= 0
    assert imagined.max() <= 1
