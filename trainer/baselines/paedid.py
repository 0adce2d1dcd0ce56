"""PAEDID as shipped, also with the other priors, and PAE: its prior alone, all behind the benchmark's interface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.crew import Crew
from monitor.core.folding import for_inference
from monitor.core.inspector import Explanation, explain, suspect, witness
from monitor.core.memory_bank import MemoryBank
from monitor.core.networks import Networks
from monitor.core.per_frame import per_frame
from monitor.core.prior import restrict
from monitor.core.scoring import anomaly_map, image_score
from monitor.core.tiles import tiled
from schemas.artifacts import InputSpec
from trainer.bank import affordable, bank_normals, entries_of
from trainer.baselines.base import VALIDATION_SHARE, Images, Layers, Progress, Scores, register, top_mean
from trainer.calibrate import Calibrated
from trainer.dataset import Split, split
from trainer.model import ModelSettings, make_model
from trainer.symmetry import Flips, find_flips
from trainer.thresholds import MaskRule
from trainer.training import TrainingSettings, train


@dataclass(frozen=True, slots=True)
class _Learnt:
    networks: Networks
    calibrated: Calibrated


class Paedid:
    """PAEDID with the product's settings; it chooses its own threshold, as ``paedid-trainer train`` does."""

    def __init__(self, settings: ModelSettings | None = None) -> None:
        self._settings = settings or ModelSettings(validation_share=VALIDATION_SHARE)
        self.name = "paedid" if self._settings.prior == "bank" else f"paedid-{self._settings.prior}"
        self._crew = Crew()
        self._learnt: _Learnt | None = None
        self._inspected: NDArray[np.bool_] | None = None

    def inspect_only(self, inspected: NDArray[np.bool_]) -> None:
        """Count the pixels (H, W) that are True, and no others."""
        self._inspected = inspected

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Do what ``trainer.build.build`` does with the images of a folder."""
        settings = replace(
            self._settings,
            training=replace(self._settings.training, seed=seed),
            calibration=replace(self._settings.calibration, seed=seed),
        )
        parts = split(normals, settings.validation_share, seed)
        stage = None if progress is None else lambda _name, done, total, _note: progress(done, total)
        made = make_model(spec_of(normals), parts, settings, stage, self._inspected)
        self._learnt = _Learnt(made.networks.for_inference(), made.calibrated)

    def score(self, images: Images) -> Scores:
        """Return the anomaly maps and scores of ``monitor.core.inspector``."""
        learnt = self._model
        calibration, normality = learnt.calibrated.calibration, learnt.calibrated.normality

        def anomalies(some: Tensor) -> list[Tensor]:
            steps = explain(learnt.networks, some, learnt.calibrated.bank, calibration)
            seen = witness(steps, suspect(learnt.networks, some), calibration.polarity)
            return [*anomaly_map(seen, normality, calibration.smoothing)]

        maps = torch.stack(self._crew.share(anomalies, torch.from_numpy(images)))
        return Scores(maps.numpy(), image_score(maps, calibration.score_pixels).numpy())

    def mask_rule(self) -> MaskRule:
        """Return the product's own calibration."""
        calibration = self._model.calibrated.calibration
        return MaskRule(calibration.mask_threshold, calibration.min_area, calibration.relative_level)

    @torch.inference_mode()
    def layers(self, images: Images) -> Layers:
        """Return X̂, L and S."""
        steps = self._explain(images)
        return Layers(steps.prior.numpy(), steps.background.numpy(), steps.residual.numpy())

    def size_bytes(self) -> int:
        """Return what the bundle's arrays take."""
        calibrated = self._model.calibrated
        bank = entries_of(calibrated.bank).nbytes
        networks = self._model.networks
        weights = sum(map(parameter_bytes, (networks.autoencoder, networks.segmenter, networks.prior)))
        normality = calibrated.normality
        return weights + bank + normality.spread.nbytes + normality.detail.nbytes

    @property
    def _model(self) -> _Learnt:
        assert self._learnt is not None, "fit comes before score"
        return self._learnt

    def _explain(self, images: Images) -> Explanation:
        model = self._model
        frames = torch.from_numpy(images)
        return explain(model.networks, frames, model.calibrated.bank, model.calibrated.calibration)


class Pae:
    """|X - X̂| with X̂ = D(M''): PAEDID's autoencoder and bank, but no decomposition and no calibration.

    Of the normals it is given it keeps a few back, to see that training has not collapsed and which mirrorings hold.
    """

    name = "pae"

    def __init__(self, training: TrainingSettings | None = None, alpha: float = 0.3, bank_images: int = 1000) -> None:
        self._training = training or TrainingSettings()
        self._alpha = alpha
        self._bank_images = bank_images
        self._autoencoder: PatchAutoencoder | None = None
        self._bank: MemoryBank | None = None

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Train the autoencoder as PAEDID does, and fill the bank with the features of the normals (N, C, H, W)."""
        parts = split(normals, 0.0, seed)  # the least there is
        flips = find_flips(parts.train, parts.validation)
        autoencoder = train_autoencoder(parts, flips, replace(self._training, seed=seed), progress)
        self._autoencoder = for_inference(autoencoder)
        count = affordable(autoencoder.architecture, self._bank_images)
        self._bank = feature_bank(self._autoencoder, bank_normals(parts.train, count, flips, seed))

    @torch.inference_mode()
    def score(self, images: Images) -> Scores:
        """Return |X - X̂| of frames (B, C, H, W), its mean over channels; by its largest values the image."""
        assert self._autoencoder is not None, "fit comes before score"
        assert self._bank is not None
        frames = torch.from_numpy(images)
        difference = frames - prior_of(self._autoencoder, self._bank, frames, self._alpha)  # (B, C, H, W)
        maps = difference.abs().mean(dim=1).numpy()
        return Scores(maps, top_mean(maps))

    def size_bytes(self) -> int:
        """Return the bytes of the networks, and of the bank in half precision."""
        assert self._autoencoder is not None, "fit comes before size_bytes"
        assert self._bank is not None
        return parameter_bytes(self._autoencoder) + entries_of(self._bank).nbytes


def spec_of(images: Images) -> InputSpec:
    """Return what a network of images (N, C, H, W) sees."""
    channels, height, width = images.shape[1:]
    return InputSpec.model_validate({"channels": channels, "height": height, "width": width})


def train_autoencoder(
    parts: Split, flips: Flips, settings: TrainingSettings, progress: Progress | None
) -> PatchAutoencoder:
    """Train E and D on ``parts.train`` (N, C, H, W).

    Raises:
        TrainingError: it collapsed.
    """
    told = None if progress is None else lambda done, total, _: progress(done, total)
    autoencoder, _ = train(spec_of(parts.train), parts.train, parts.validation, flips, settings, told)
    return autoencoder


@torch.no_grad()
def feature_bank(autoencoder: PatchAutoencoder, normals: Images) -> MemoryBank:
    """Return a bank of the features of normals (N, C, H, W), and nothing but them."""
    bank = MemoryBank(autoencoder.architecture.latent_shape, len(normals))
    encode = tiled(autoencoder.encode, autoencoder.encoding)
    for slot, normal in enumerate(normals):
        features = encode(torch.from_numpy(normal[None]))[0].permute(1, 2, 0)  # (P1, P2, P3)
        bank.put(slot, features.numpy().astype(np.float16))
    return bank


@torch.no_grad()
def prior_of(autoencoder: PatchAutoencoder, bank: MemoryBank, frames: Tensor, alpha: float) -> Tensor:
    """Return X̂ = D(M'') of frames (B, C, H, W)."""
    features = per_frame(tiled(autoencoder.encode, autoencoder.encoding), frames)
    return per_frame(tiled(autoencoder.decode, autoencoder.decoding), restrict(features, bank.query(features), alpha))


def parameter_bytes(network: nn.Module) -> int:
    """Return the bytes of a network's weights."""
    return sum(value.nbytes for value in network.state_dict().values())


def with_prior(name: str) -> Callable[[], Paedid]:
    """Return what makes a PAEDID with another prior, to ``register`` it: a built-in one's, or an installed plug's."""
    return lambda: Paedid(ModelSettings(validation_share=VALIDATION_SHARE, prior=name))


register("paedid", Paedid)
register("paedid-denoiser", with_prior("denoiser"))
register("paedid-both", with_prior("both"))
register("pae", Pae)
