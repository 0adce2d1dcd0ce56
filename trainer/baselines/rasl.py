"""RASL: robust alignment by sparse and low-rank decomposition (Peng, Ganesh, Wright, Xu, Ma, PAMI 2012).

The paper decomposes a whole batch of images at once. As a method that learns from normals and then scores one frame:

* ``fit`` aligns a fixed set of K normals with each other (algorithm 1: Gauss-Newton steps over affine transforms, each
  solved by inexact ALM) and keeps them aligned.
* ``score`` stacks one frame with these K normals, which stay as they are, solves the same problem for the frame's own
  transform, and takes the frame's sparse column, in grey levels and put back where its pixels were read from. Each
  frame is stacked alone: others in its batch, perhaps with the same defect, cannot explain it.

As in the use of PAEDID's paper, a border of 5 pixels is left out (118x118 of 128x128), so that transforms have pixels
to read from; the maps are 0 there. λ = 1 / √m, the paper's choice. One thing is added: the mean of the normals'
transforms is held at zero, for the problem itself does not say where they should all meet.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.baselines.affine import PARAMETERS, Array, Window, linearise
from trainer.baselines.base import Images, Progress, Scores, register, top_mean
from trainer.baselines.low_rank import LowRankSparse, decompose_aligned

INSET = 5
# An outer step must lower the moving frames' part of the objective by this share, or it was the last (the authors'
# code, ``stoppingDelta``).
STOP = 0.01


def align(
    fixed: Array, frames: list[NDArray[np.float32]], window: Window, max_steps: int, *, centred: bool
) -> tuple[LowRankSparse, Array, Array, Array]:
    """Align frames with each other and with fixed columns (algorithm 1, the outer loop).

    Args:
        fixed: (m, f) unit vectors that stay as they are; f may be 0.
        frames: k frames (C, H, W).
        window: what is looked at.
        max_steps: Gauss-Newton steps at most.
        centred: hold the mean of the transforms at zero.

    Returns:
        The decomposition of all f + k columns, the frames' transforms (k, 6), their columns (m, k) as decomposed, and
        the lengths (k,) these had before they were made unit vectors.
    """
    transforms = np.zeros((len(frames), PARAMETERS))
    best: tuple[LowRankSparse, Array, Array, Array] | None = None
    for _ in range(max_steps):
        parts = [linearise(frame, transform, window) for frame, transform in zip(frames, transforms, strict=True)]
        columns = np.stack([unit for unit, _, _ in parts], axis=1)  # (m, k)
        jacobians = np.stack([jacobian for _, jacobian, _ in parts])  # (k, m, 6)
        solved = decompose_aligned(np.hstack([fixed, columns]), jacobians, len(columns) ** -0.5)
        gain = np.inf if best is None else best[0].objective - solved.objective
        if gain > 0:
            best = solved, transforms, columns, np.array([length for _, _, length in parts])
        if gain < STOP * solved.objective * len(frames) / solved.sparse.shape[1]:
            break
        transforms = transforms + solved.moves
        if centred:
            transforms = transforms - transforms.mean(axis=0)
    assert best is not None
    return best


class Rasl:
    """RASL with a fixed set of ``normals`` aligned normals (K); the same problem for every frame."""

    name = "rasl"

    def __init__(self, normals: int = 30, fit_steps: int = 15, frame_steps: int = 5) -> None:
        self._count = normals
        self._fit_steps = fit_steps
        self._frame_steps = frame_steps
        self._window = Window(0, 0, INSET)
        self._aligned: Array = np.zeros((0, 0))

    def fit(self, normals: Images, seed: int, progress: Progress | None = None) -> None:
        """Draw K of the normals (N, C, H, W) and align them."""
        self._window = Window(normals.shape[2], normals.shape[3], INSET)
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(normals), min(self._count, len(normals)), replace=False))
        nothing = np.zeros((normals.shape[1] * self._window.shape[0] * self._window.shape[1], 0))
        _, _, self._aligned, _ = align(
            nothing, [normals[index] for index in chosen], self._window, self._fit_steps, centred=True
        )
        if progress:
            progress(1, 1)

    def score(self, images: Images) -> Scores:
        """Return the sparse part of each frame (B, C, H, W), its mean over channels; by its largest values the image.

        RASL has no image score of its own: see ``top_mean``.
        """
        maps = np.stack([self._map(frame) for frame in images])
        return Scores(maps, top_mean(maps))

    def size_bytes(self) -> int:
        """Return the bytes of the aligned normals, in single precision."""
        return self._aligned.size * 4

    def _map(self, frame: NDArray[np.float32]) -> NDArray[np.float32]:
        solved, transforms, _, lengths = align(self._aligned, [frame], self._window, self._frame_steps, centred=False)
        sparse = np.abs(solved.sparse[:, -1] * lengths[0]).reshape(len(frame), *self._window.shape)
        return self._window.put_back(sparse.mean(axis=0), transforms[0])


register("rasl", Rasl)
