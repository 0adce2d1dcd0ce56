"""Training the prior, whichever it is.

A third party's prior learns by a method ``fit(lesson)`` of its own (``Learning``); one without has nothing to learn.
With ``monitor.core.priors`` that is all a plug needs: one class in one file, and one line that names it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.core.autoencoder import PatchAutoencoder
from monitor.core.denoiser import DenoisingPrior
from monitor.core.prior import MeanPrior, Prior
from monitor.core.priors import check_prior, installed_priors, make_prior
from schemas.errors import ConfigurationError, PriorError, TrainingError
from trainer.denoising import train_denoiser
from trainer.descent import Progress
from trainer.segmenting import SegmenterSettings


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a prior may learn from.

    Attributes:
        images: (N, C, H, W) float32 in [0, 1], normals as the network sees them.
        validation: (V, C, H, W) other normals, to see how it goes; thresholds are chosen on them later, so nothing
            may be fitted to them.
        autoencoder: E and D, trained; not to be changed.
        pieces: gradient steps, their rate, and how synthetic defects are drawn, for those who want them.
        seed: of everything random; torch's generator has been set to it.
        inspected: (H, W) the pixels that count; None: all.
        progress: to be told (step, steps, loss).
    """

    images: NDArray[np.float32]
    validation: NDArray[np.float32]
    autoencoder: PatchAutoencoder
    pieces: SegmenterSettings
    seed: int
    inspected: NDArray[np.bool_] | None = None
    progress: Progress | None = None


@runtime_checkable
class Learning(Protocol):
    """A prior that learns."""

    def fit(self, lesson: Lesson) -> None:
        """Learn from normals, in place; the same seed learns the same."""


def require_prior(name: str) -> None:
    """Refuse an unknown prior before hours of training go to waste.

    Raises:
        ConfigurationError: none of this name is installed.
    """
    try:
        check_prior(name)
    except PriorError as error:
        known = ", ".join(installed_priors())
        raise ConfigurationError("--prior", name, str(error).rstrip("."), f"Choose one of {known}") from error


def train_prior(name: str, lesson: Lesson) -> Prior:
    """Return the prior of this name, trained and ready to be used.

    Raises:
        PriorError: there is none.
        TrainingError: it learnt nothing that could be saved.
    """
    torch.manual_seed(lesson.seed)
    prior = make_prior(name, lesson.autoencoder.architecture)
    _fit(prior, lesson)
    for key, value in prior.state_dict().items():
        if not value.isfinite().all():
            msg = f"the prior {name!r} learnt numbers that are none ({key}). Nothing was saved."
            raise TrainingError(msg)
    return prior.eval().requires_grad_(requires_grad=False)


def _fit(prior: Prior, lesson: Lesson) -> None:
    if isinstance(prior, MeanPrior):
        for member in prior.priors():
            _fit(member, lesson)
    elif isinstance(prior, DenoisingPrior):
        train_denoiser(prior, lesson.images, lesson.pieces, lesson.progress, lesson.inspected)
    elif isinstance(prior, Learning):
        prior.fit(lesson)
