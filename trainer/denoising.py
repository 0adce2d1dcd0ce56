"""Training the denoiser: on pieces of normal frames with synthetic defects, to show the normal without them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from monitor.core.denoiser import DenoisingPrior
from schemas.errors import TrainingError
from trainer.descent import Progress, descend
from trainer.segmenting import Images, Inspected, SegmenterSettings, draw_restorable_pieces, fast_halves

# What the error on the defects' pixels counts beside that on all pixels. They are a few in a hundred: the latter alone
# would long be content with leaving them.
EMPHASIS = 0.3


def train_denoiser(
    prior: DenoisingPrior,
    images: Images,
    settings: SegmenterSettings,
    progress: Progress | None = None,
    inspected: Inspected = None,
) -> None:
    """Train a denoiser, in place, on normal images (N, C, H, W) in pieces as the segmenter is shown them.

    Args:
        prior: of the images' channels.
        images: normals; as for the segmenter, all mirrorings will do.
        settings: how.
        progress: told after each step.
        inspected: (H, W) the pixels that count; None: all.

    Raises:
        TrainingError: its loss is no number.
    """
    rng = np.random.default_rng(settings.seed)

    def loss() -> Tensor:
        pieces = draw_restorable_pieces(images, settings, rng, inspected)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast_halves()):
            restored = prior(torch.from_numpy(pieces.frames))
        return restoration_loss(restored.float(), torch.from_numpy(pieces.normals), torch.from_numpy(pieces.masks))

    last = descend(prior, loss, settings.steps, settings.learning_rate, progress)
    if not np.isfinite(last):
        msg = "the denoiser's loss is no number. Nothing was saved. Train with other images, or another --prior."
        raise TrainingError(msg)


def restoration_loss(restored: Tensor, normals: Tensor, masks: Tensor) -> Tensor:
    """Return the mean absolute error of restored pieces (B, C, h, w), with that on the defects (B, h, w) once more.

    Absolute, not squared: where R cannot tell a defect from texture, the squared error's best guess is a bit of both,
    which blurs every normal.
    """
    error = (restored - normals).abs().mean(dim=1)  # (B, h, w)
    on_defects = (error * masks).sum() / (masks.sum() + 1.0)
    return error.mean() + EMPHASIS * on_defects
