"""Building the memory bank of pinned normals."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.core.inspector import Explanation, Method, empty_bank, excess_of, explain, make_entries
from monitor.core.memory_bank import MemoryBank, slot_bytes
from monitor.core.networks import Networks
from monitor.core.per_frame import few_at_once
from monitor.core.scoring import PINNED_SHARE
from monitor.core.tiles import tiled
from schemas.artifacts import Architecture, Polarity
from trainer.symmetry import Flips, flipped

# What a bank of pinned normals may take in memory: a thousand normals of 448x448, fewer of larger ones. A worker holds
# a bank for each of its cameras and reads two fifths of it for every frame; calibration holds three at once, and the
# normals that they are made of, which is half of what a usual machine has.
BANK_BYTES = 2**30


def affordable(architecture: Architecture, wanted: int) -> int:
    """Return how many of the ``wanted`` normals fit into a bank, at least two."""
    shape = architecture.entry_shape
    return min(wanted, max(2, BANK_BYTES // slot_bytes(shape, shape[2] - architecture.latent_shape[2])))


def bank_normals(images: NDArray[np.float32], count: int, flips: Flips, seed: int) -> NDArray[np.float32]:
    """Return at most ``count`` normals for the bank, drawn by ``seed`` from images (N, C, H, W) and mirrored."""
    needed = math.ceil(count / len(flips))
    if len(images) > needed:
        images = images[np.sort(np.random.default_rng(seed).choice(len(images), needed, replace=False))]
    return flipped(images, flips)[:count]


@torch.inference_mode()
def build_bank(networks: Networks, normals: NDArray[np.float32], method: Method, polarity: Polarity) -> MemoryBank:
    """Return a bank of normals (N, C, H, W), N >= 2: their features, and each one's residual against the others."""
    frames = torch.from_numpy(normals)
    architecture = networks.autoencoder.architecture
    bank = empty_bank(architecture, len(normals))
    for slot, frame in enumerate(frames):
        bank.put(slot, _without_residual(networks, frame))
    parts = explain_in_parts(networks, frames, bank, method, exclude=torch.arange(len(normals)))
    entries = [entry for steps in parts for entry in make_entries(steps, polarity, PINNED_SHARE)]
    for slot, entry in enumerate(entries):
        bank.put(slot, entry)
    return bank


def explain_in_parts(
    networks: Networks, frames: Tensor, bank: MemoryBank, method: Method, exclude: Tensor | None = None
) -> Iterator[Explanation]:
    """Explain frames (N, C, H, W), a few at a time: a thousand large frames' explanations would not fit into memory."""
    for few in few_at_once(frames):
        yield explain(networks, frames[few], bank, method, None if exclude is None else exclude[few])


def excess_and_suspicion(
    networks: Networks, frames: Tensor, bank: MemoryBank, method: Method, polarity: Polarity
) -> tuple[Tensor, Tensor]:
    """Return what an anomaly map is made of, each (N, H, W), of frames (N, C, H, W)."""
    parts = explain_in_parts(networks, frames, bank, method)
    excesses, suspicions = zip(*((excess_of(steps, polarity), steps.suspicion) for steps in parts), strict=True)
    return torch.cat(excesses), torch.cat(suspicions)


def entries_of(bank: MemoryBank) -> NDArray[np.float16]:
    """Return the entries (N, P1, P2, P3 + R) of a bank's filled slots."""
    return np.stack([entry for slot in range(bank.capacity) if (entry := bank.entry(slot)) is not None])


def _without_residual(networks: Networks, frame: Tensor) -> NDArray[np.float16]:
    """Return a normal's entry (P1, P2, P3 + R) before its residual is known, which is 0 till then."""
    autoencoder = networks.autoencoder
    entry = np.zeros(autoencoder.architecture.entry_shape, np.float16)
    features = tiled(autoencoder.encode, autoencoder.encoding)(frame.unsqueeze(0).contiguous())[0].permute(1, 2, 0)
    entry[..., : features.shape[2]] = features.numpy()
    return entry
