"""How every network of the product is trained: AdamW under a one-cycle schedule."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Progress = Callable[[int, int, float], None]  # called with (step, steps, smoothed loss)

WEIGHT_DECAY = 1e-4
WARM_UP = 0.15
FADING = 0.98  # of the smoothed loss, per step


def descend(
    network: nn.Module, loss: Callable[[], Tensor], steps: int, learning_rate: float, progress: Progress | None = None
) -> float:
    """Take ``steps`` gradient steps on what ``loss`` returns, a fresh batch each time; return the smoothed last loss.

    Args:
        network: in place; in evaluation mode afterwards.
        loss: draws a batch and returns its loss.
        steps: gradient steps.
        learning_rate: the highest of the schedule.
        progress: told after each step.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # stubs lack this form
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=learning_rate, total_steps=steps, pct_start=WARM_UP
    )
    smoothed = 0.0
    network.train()
    for step in range(1, steps + 1):
        value = loss()
        optimiser.zero_grad(set_to_none=True)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        smoothed = value.item() if step == 1 else FADING * smoothed + (1.0 - FADING) * value.item()
        if progress:
            progress(step, steps, smoothed)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()
    return smoothed
