"""Building the memory bank of pinned normals."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.core.inspector import (
    Explanation,
    Method,
    empty_bank,
    encode,
    explain,
    pinned_entries,
    suspect,
    witness,
)
from monitor.core.memory_bank import MemoryBank, row_bytes
from monitor.core.networks import Networks
from monitor.core.per_frame import few_at_once
from monitor.core.scoring import Witnesses
from schemas.artifacts import Architecture, Polarity
from trainer.symmetry import Flips, flipped

# What a bank of pinned normals may take in memory: a thousand normals of 448x448, fewer of larger ones. A worker holds
# a bank for each of its cameras and reads two fifths of it for every frame; calibration holds three at once, and the
# normals that they are made of, which is half of what a usual machine has.
BANK_BYTES = 2**30


def affordable(architecture: Architecture, wanted: int) -> int:
    """Return how many of the ``wanted`` normals fit into a bank, at least two."""
    shape = architecture.entry_shape
    return min(wanted, max(2, BANK_BYTES // row_bytes(shape, shape[2] - architecture.latent_shape[2])))


def bank_normals(images: NDArray[np.float32], count: int, flips: Flips, seed: int) -> NDArray[np.float32]:
    """Return at most ``count`` normals for the bank, drawn by ``seed`` from images (N, C, H, W) and mirrored."""
    needed = math.ceil(count / len(flips))
    if len(images) > needed:
        images = images[np.sort(np.random.default_rng(seed).choice(len(images), needed, replace=False))]
    return flipped(images, flips)[:count]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Frames and what of them does not depend on any bank or method: calibration asks for it many times.

    Attributes:
        frames: (N, C, H, W).
        features: M, (N, P3, P1, P2).
        suspicion: (N, H, W) the segmenter's log-odds; None where nobody asks for them, as of the bank's normals.
    """

    frames: Tensor
    features: Tensor
    suspicion: Tensor | None = None

    @classmethod
    @torch.inference_mode()
    def of(cls, networks: Networks, images: NDArray[np.float32], *, suspect_too: bool = True) -> Encoded:
        """Show images (N, C, H, W) to the networks."""
        frames = torch.from_numpy(images)
        return cls(frames, encode(networks, frames), suspect(networks, frames) if suspect_too else None)


@torch.inference_mode()
def build_bank(networks: Networks, normals: Encoded, method: Method, polarity: Polarity) -> MemoryBank:
    """Return a bank of N normals, N >= 2: their features, and each one's residual against the others."""
    bank = empty_bank(networks.autoencoder.architecture, len(normals.frames))
    for slot, features in enumerate(normals.features):
        entry = np.zeros(bank.shape, np.float16)  # its residual is 0 until it is known
        entry[..., : len(features)] = features.permute(1, 2, 0).numpy()
        bank.put(slot, entry)
    parts = explain_in_parts(networks, normals, bank, method, exclude=torch.arange(len(normals.frames)))
    entries = [entry for steps in parts for entry in pinned_entries(steps, polarity)]
    for slot, entry in enumerate(entries):
        bank.put(slot, entry)
    return bank


def explain_in_parts(
    networks: Networks, seen: Encoded, bank: MemoryBank, method: Method, exclude: Tensor | None = None
) -> Iterator[Explanation]:
    """Explain frames, a few at a time: a thousand large frames' explanations would not fit into memory."""
    for few in few_at_once(seen.frames):
        own = None if exclude is None else exclude[few]
        yield explain(networks, seen.frames[few], bank, method, own, seen.features[few])


@torch.inference_mode()
def witnesses_of(networks: Networks, seen: Encoded, bank: MemoryBank, method: Method, polarity: Polarity) -> Witnesses:
    """Return what the anomaly maps of frames are made of; ``seen`` has their suspicion."""
    assert seen.suspicion is not None
    found = []
    for few, steps in zip(few_at_once(seen.frames), explain_in_parts(networks, seen, bank, method), strict=True):
        found.append(witness(steps, seen.suspicion[few], polarity))
    return Witnesses.join(found)


def entries_of(bank: MemoryBank) -> NDArray[np.float16]:
    """Return the entries (N, P1, P2, P3 + R) of a bank's filled slots."""
    return np.stack([entry for slot in bank.slots if (entry := bank.entry(slot)) is not None])
