"""The whole method in one call: frames in, inspections out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.core.crew import Crew
from monitor.core.decomposition import decompose
from monitor.core.drift import DriftBaseline
from monitor.core.memory_bank import MemoryBank, Retrieval
from monitor.core.networks import Networks
from monitor.core.per_frame import few_at_once, per_frame
from monitor.core.prior import Seen, imagine
from monitor.core.regions import threshold
from monitor.core.scoring import (
    CONFIRMED_LEVEL_SHARE,
    CONFIRMED_SHARE,
    PINNED_SHARE,
    Normality,
    Witnesses,
    anomaly_map,
    excess_residual,
    fine_detail,
    image_score,
    known_residual,
    novelty,
    residual_level,
    residual_strength,
    spread_level,
)
from monitor.core.tiles import tiled
from monitor.core.view import Prepared, ViewArrays, Viewer
from schemas.artifacts import Architecture, Manifest, Polarity


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded bundle: the networks and what was measured on normals.

    Attributes:
        manifest: what the bundle says of itself.
        networks: the autoencoder E and D, the segmenter, and the prior.
        normality: what is normal at each pixel.
        drift: what the scores of normals are.
        seed: (N, P1, P2, P3 + R) float16, the bank's entries of the pinned normals of training.
        view: the arrays that the manifest's view needs.
    """

    manifest: Manifest
    networks: Networks
    normality: Normality
    drift: DriftBaseline
    seed: NDArray[np.float16]
    view: ViewArrays = field(default_factory=ViewArrays)


@dataclass(frozen=True, slots=True)
class Inspection:
    """What PAEDID says of one frame; all maps at the network's size.

    Attributes:
        score: how odd the frame is, the mean of its largest anomalies; ``flagged`` if above the verdict threshold.
        mask: (H, W) the defect's contour.
        anomaly: (H, W) the residual beyond what the nearest normals left themselves, in units of the normals' spread.
        prior: (C, H, W) X̂; ``background``: L; ``residual``: S.
        distance: (P1, P2) s, how far the features of each location are from the nearest normal's, 0 (known) to 2.
        novelty: (P1, P2) the largest residual of each location beyond what the bank knows, in the normals' spreads.
    """

    score: float
    flagged: bool
    mask: NDArray[np.bool_]
    anomaly: NDArray[np.float32]
    prior: NDArray[np.float32]
    background: NDArray[np.float32]
    residual: NDArray[np.float32]
    distance: NDArray[np.float32]
    novelty: NDArray[np.float32]


class Method(Protocol):
    """The numbers that the decomposition takes; a ``Calibration`` has them."""

    @property
    def alpha(self) -> float:
        """The share of the locations whose features are replaced by the bank's."""

    @property
    def lam(self) -> float:
        """The paper's λ."""

    @property
    def solver_steps(self) -> int:
        """Proximal steps."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The steps before any threshold, as tensors: what calibration varies thresholds on."""

    features: Tensor  # M (B, P3, P1, P2)
    retrieval: Retrieval
    prior: Tensor  # X̂ (B, C, H, W)
    background: Tensor  # L (B, C, H, W)
    residual: Tensor  # S (B, C, H, W)


class Inspector:
    """Inspects frames with one model. Holds no state of the line: the bank comes with each call."""

    def __init__(self, model: Model, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.manifest = model.manifest
        self.seed = model.seed
        self.drift_baseline = model.drift
        self._viewer = Viewer(model.manifest.architecture.input, model.manifest.view, model.view)
        self._networks = model.networks.for_inference(self.device)
        self._normality = model.normality.to(self.device)
        self._crew = Crew()

    @cached_property
    def pinned(self) -> MemoryBank:
        """The pinned normals alone; to be left as it is. Only the learner needs it: it is made when first asked for."""
        return self.new_bank()

    def new_bank(self) -> MemoryBank:
        """Return a bank of the model's pinned normals, version 0."""
        bank = empty_bank(self.manifest.architecture, len(self.seed), self.device)
        for slot, entry in enumerate(self.seed):
            bank.put(slot, entry)
        return bank

    def prepare(self, image: NDArray[np.uint8]) -> Prepared:
        """Return the network's input of a decoded frame (h, w) or (h, w, 3) BGR, and where in the frame it lies.

        Raises:
            UnregistrableError: the part cannot be brought to the reference's place.
        """
        return self._viewer.prepare(image)

    def remember(self, frames: NDArray[np.float32]) -> NDArray[np.float16]:
        """Return what the bank keeps of confirmed normals (B, C, H, W): entries (B, P1, P2, P3 + R).

        Their residual is held against the pinned normals alone, so that an entry depends on the frame and the model,
        not on what the line has learnt before.
        """
        calibration, pinned = self.manifest.calibration, self.pinned

        def entries(some: Tensor) -> list[NDArray[np.float16]]:
            steps = explain(self._networks, some, pinned, calibration)
            return [*confirmed_entries(steps, calibration.polarity)]

        return np.array(self._crew.share(entries, self._to_device(frames)))

    def features(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return M (B, P1, P2, P3) of frames (B, C, H, W)."""

        def encoded(some: Tensor) -> list[NDArray[np.float32]]:
            return [*encode(self._networks, some).permute(0, 2, 3, 1).cpu().numpy()]

        return np.array(self._crew.share(encoded, self._to_device(frames)))

    def distances(self, features: NDArray[np.float32], bank: MemoryBank) -> NDArray[np.float32]:
        """Return s (B, P1, P2): how far features (B, P1, P2, P3) are from the nearest normal of a bank."""
        queries = torch.from_numpy(features).to(self.device).permute(0, 3, 1, 2)
        return np.asarray(bank.query(queries).score.cpu().numpy(), dtype=np.float32)

    def nearest_slots(self, frame: NDArray[np.float32], bank: MemoryBank) -> list[int]:
        """Return the slots that a frame (C, H, W) retrieves, those at most locations first."""
        queries = torch.from_numpy(self.features(frame[None])).to(self.device).permute(0, 3, 1, 2)
        slots, counts = np.unique(bank.query(queries).slot.cpu().numpy(), return_counts=True)
        return [int(slot) for slot in slots[np.argsort(-counts, kind="stable")]]

    def inspect(self, frames: NDArray[np.float32], bank: MemoryBank) -> list[Inspection]:
        """Inspect frames (B, C, H, W) in [0, 1] against a bank. A frame's result does not depend on its batch."""

        def inspections(some: Tensor) -> list[Inspection]:
            return [found for few in few_at_once(some) for found in self._inspect_together(some[few], bank)]

        return self._crew.share(inspections, self._to_device(frames))

    def _inspect_together(self, frames: Tensor, bank: MemoryBank) -> list[Inspection]:
        calibration = self.manifest.calibration
        steps = explain(self._networks, frames, bank, calibration)
        seen = witness(steps, suspect(self._networks, frames), calibration.polarity)
        anomaly = anomaly_map(seen, self._normality, calibration.smoothing)
        scores = image_score(anomaly, calibration.score_pixels).cpu().numpy()
        maps = {
            "anomaly": anomaly,
            "prior": steps.prior,
            "background": steps.background,
            "residual": steps.residual,
            "distance": steps.retrieval.score,
            "novelty": novelty(seen.excess, self._normality, calibration.smoothing, self.manifest.architecture.cell),
        }
        planes = {name: tensor.cpu().numpy() for name, tensor in maps.items()}
        return [
            self._conclude(float(score), {name: plane[index] for name, plane in planes.items()})
            for index, score in enumerate(scores)
        ]

    def _conclude(self, score: float, planes: dict[str, NDArray[np.float32]]) -> Inspection:
        """Return the inspection of one frame of this score and of these maps, named as its attributes."""
        calibration = self.manifest.calibration
        level, relative = calibration.mask_threshold, calibration.relative_level
        mask = threshold(planes["anomaly"], level, calibration.min_area, relative)
        return Inspection(score=score, flagged=score > calibration.verdict.threshold, mask=mask, **planes)

    def _to_device(self, frames: NDArray[np.float32]) -> Tensor:
        spec = self.manifest.architecture.input
        expected = (spec.channels, spec.height, spec.width)
        if frames.ndim != 4 or frames.shape[1:] != expected:  # noqa: PLR2004 - (B, C, H, W)
            msg = f"frames {frames.shape} must be (B, C, H, W) with (C, H, W) = {expected}"
            raise ValueError(msg)
        return torch.from_numpy(frames).to(self.device, torch.float32)


def empty_bank(architecture: Architecture, rows: int, device: torch.device | str = "cpu") -> MemoryBank:
    """Return a bank for this architecture's entries, with room for so many."""
    entry = architecture.entry_shape
    return MemoryBank(entry, rows, device, residual=entry[2] - architecture.latent_shape[2])


def encode(networks: Networks, frames: Tensor) -> Tensor:
    """Return M = E(X) (B, P3, P1, P2) of frames (B, C, H, W)."""
    autoencoder = networks.autoencoder
    return per_frame(tiled(autoencoder.encode, autoencoder.encoding), frames)


def suspect(networks: Networks, frames: Tensor) -> Tensor:
    """Return the segmenter's log-odds of a defect (B, H, W) of frames (B, C, H, W)."""
    return per_frame(tiled(networks.segmenter, networks.segmenter.seeing), frames)


def explain(
    networks: Networks,
    frames: Tensor,
    bank: MemoryBank,
    method: Method,
    exclude: Tensor | None = None,
    features: Tensor | None = None,
) -> Explanation:
    """Encode, retrieve, imagine the prior, decompose: frames (B, C, H, W) to the method's every step.

    ``exclude``: (B,) a slot that each frame must not find, its own; ``features``: M, where it is known already.
    """
    features = encode(networks, frames) if features is None else features  # M
    retrieval = bank.query(features, exclude)  # s, M'
    decode = partial(per_frame, tiled(networks.autoencoder.decode, networks.autoencoder.decoding))  # D
    prior = imagine(networks.prior, Seen(frames, features, retrieval, method.alpha, decode))  # X̂
    parts = decompose(frames, prior, method.lam, method.solver_steps)  # L, S
    return Explanation(features, retrieval, prior, parts.background, parts.residual)


def pinned_entries(steps: Explanation, polarity: Polarity) -> NDArray[np.float16]:
    """Return what the bank keeps of explained normals of training: (B, P1, P2, P3 + R), features and known residual."""
    level = torch.zeros_like(residual_level(steps.residual, _cells(steps)))
    known = known_residual(residual_strength(steps.residual, polarity), _cells(steps), PINNED_SHARE)
    return _entries(steps.features, known, level)


def confirmed_entries(steps: Explanation, polarity: Polarity) -> NDArray[np.float16]:
    """Return what the bank keeps of explained frames that were confirmed normal: (B, P1, P2, P3 + R)."""
    level = residual_level(steps.residual, _cells(steps))
    smooth = spread_level(level, steps.residual)
    strength = CONFIRMED_SHARE * residual_strength(steps.residual - smooth, polarity)
    strength += CONFIRMED_LEVEL_SHARE * residual_strength(smooth, polarity)
    return _entries(steps.features, known_residual(strength, _cells(steps), 1.0), level)


def _cells(steps: Explanation) -> tuple[int, int]:
    p1, p2 = steps.features.shape[2:]
    return p1, p2


def _entries(features: Tensor, known: Tensor, level: Tensor) -> NDArray[np.float16]:
    parts = [features.permute(0, 2, 3, 1), known, level]  # each (B, P1, P2, ...)
    return np.ascontiguousarray(torch.cat(parts, dim=3).cpu().numpy().astype(np.float16))


def witness(steps: Explanation, suspicion: Tensor, polarity: Polarity) -> Witnesses:
    """Return what an anomaly map is made of: of explained frames and the log-odds (B, H, W) of the segmenter."""
    channels = steps.residual.shape[1]
    known, level = steps.retrieval.known[..., :-channels], steps.retrieval.known[..., -channels:]
    residual = steps.residual - spread_level(level, steps.residual)
    excess = excess_residual(residual_strength(residual, polarity), known)
    return Witnesses(excess, fine_detail(residual, polarity), suspicion)
