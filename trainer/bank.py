"""Building the memory bank of pinned normals."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.core.inspector import Method, empty_bank, explain, make_entries
from monitor.core.memory_bank import MemoryBank
from monitor.core.networks import Networks
from monitor.core.per_frame import per_frame
from monitor.core.scoring import PINNED_SHARE
from schemas.artifacts import Architecture, Polarity
from trainer.symmetry import Flips, flipped


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
    autoencoder = networks.autoencoder
    features = per_frame(autoencoder.encode, frames).permute(0, 2, 3, 1)  # (N, P1, P2, P3)
    depth = autoencoder.architecture.entry_shape[2] - features.shape[3]
    unknown = torch.zeros(*features.shape[:3], depth)
    others = _fill(autoencoder.architecture, torch.cat([features, unknown], dim=3).numpy().astype(np.float16))
    steps = explain(networks, frames, others, method, exclude=torch.arange(len(normals)))
    return _fill(autoencoder.architecture, make_entries(steps, polarity, PINNED_SHARE))


def entries_of(bank: MemoryBank) -> NDArray[np.float16]:
    """Return the entries (N, P1, P2, P3 + R) of a bank's filled slots."""
    return np.stack([entry for slot in range(bank.capacity) if (entry := bank.entry(slot)) is not None])


def _fill(architecture: Architecture, entries: NDArray[np.float16]) -> MemoryBank:
    bank = empty_bank(architecture, len(entries))
    for slot, entry in enumerate(entries):
        bank.put(slot, entry)
    return bank
