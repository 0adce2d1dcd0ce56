"""Synthetic defects where they count: on the part of the frame that is inspected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schemas.errors import TrainingError
from trainer.synthetic import ALL, Family, Image, SyntheticDefect, paste_defect

TRIES = 200


def paste_visible_defect(
    image: Image,
    rng: np.random.Generator,
    inspected: NDArray[np.bool_] | None = None,
    family: Family = ALL,
) -> SyntheticDefect:
    """Return a copy of a normal image (C, H, W) with one random defect, visible where (H, W) is inspected; None: all.

    Where nothing is inspected the image stays as it is: the line's frames are painted over there, whatever they show.

    Raises:
        TrainingError: hardly a defect would ever be seen, for so little is inspected.
    """
    if inspected is None:
        return paste_defect(image, rng, family)
    for _ in range(TRIES):
        defect = paste_defect(image, rng, family)
        visible = defect.mask & inspected
        if visible.any():
            return SyntheticDefect(np.where(inspected, defect.image, image), visible, defect.kind)
    msg = (
        f"none of {TRIES} synthetic defects lies in the {inspected.mean():.1%} of the frame that is inspected. "
        "Ignore less, or crop to the part that matters with --roi."
    )
    raise TrainingError(msg)
