"""What autoencoder baselines share: the training loop over normals, and their frames as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from schemas.errors import TrainingError
from trainer.baselines.base import Images, Progress


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast. The papers train for hours on a GPU; here minutes on a CPU must do, at a higher rate.

    Attributes:
        steps: gradient steps.
        batch: frames per step.
        learning_rate: Adam's highest; it rises over the first tenth and falls to zero along a cosine.
        weight_decay: Adam's, on all weights.
    """

    steps: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.0


def train(
    make_network: Callable[[], nn.Module],
    loss_of: Callable[[nn.Module, Tensor], Tensor],
    normals: Images,
    schedule: Schedule,
    seed: int,
    progress: Progress | None,
) -> nn.Module:
    """Return the network, trained to lower ``loss_of(network, batch (B, C, H, W))``; the seed fixes all that is random.

    Raises:
        TrainingError: the loss is no number any more.
    """
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = make_network()
        optimiser = torch.optim.Adam(
            network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
        )
        pace = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=schedule.learning_rate, total_steps=schedule.steps, pct_start=0.1
        )
        network.train()
        for step in range(1, schedule.steps + 1):
            batch = torch.from_numpy(normals[rng.integers(len(normals), size=schedule.batch)])
            loss = loss_of(network, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            pace.step()
            if progress:
                progress(step, schedule.steps)
    if not torch.isfinite(loss):
        msg = f"the training ended with a loss of {loss.item()}: try a lower learning rate"
        raise TrainingError(msg)
    return network.eval()


def one_by_one(images: Images) -> tuple[Tensor, ...]:
    """Return frames (B, C, H, W) as B tensors (1, C, H, W): convolutions of a batch round differently."""
    return torch.split(torch.from_numpy(images), 1)


def size_bytes(network: nn.Module | None) -> int:
    """Return the bytes of a network's weights; none before it is trained."""
    return sum(v.numel() * v.element_size() for v in network.state_dict().values()) if network else 0
