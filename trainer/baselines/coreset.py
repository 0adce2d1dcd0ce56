"""The greedy k-center coreset: few points such that every point has one of them near (Sener and Savarese 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def greedy_coreset(
    points: Tensor, count: int, generator: torch.Generator, progress: Callable[[int, int], None] | None = None
) -> Tensor:
    """Return the indices (count,) of distinct points (M, d): the first at random, each next the farthest from all.

    The covering radius, the largest distance of any point to its nearest chosen one, is at most twice the smallest
    that ``count`` points can have (Gonzalez 1985). This is algorithm 1 of PatchCore (arXiv:2106.08265).
    """
    points = points - points.mean(dim=0)  # short vectors: the squares below then cancel less
    squares = points.square().sum(dim=1)
    chosen = torch.empty(min(count, len(points)), dtype=torch.long)
    chosen[0] = torch.randint(len(points), (1,), generator=generator)
    nearest = torch.full_like(squares, torch.inf)
    for index in range(len(chosen)):
        if index:
            chosen[index] = nearest.argmax()
        centre = chosen[index]
        # One pass over the points: |p - c|² = |p|² - 2 p·c + |c|². The pass over memory is what the time goes to.
        distance = torch.addmv(squares, points, points[centre], alpha=-2.0).add_(squares[centre]).clamp_min_(0.0)
        torch.minimum(nearest, distance, out=nearest)
        nearest[centre] = -1.0  # never again, even where all that is left are duplicates
        if progress and index % 100 == 0:
            progress(index, len(chosen))
    return chosen


def project(points: Tensor, dimensions: int, generator: torch.Generator) -> Tensor:
    """Return points (M, d) in a random subspace, (M, dimensions): about the same distances, at less work.

    Johnson and Lindenstrauss 1984. With d at or below ``dimensions``, the points themselves.
    """
    if points.shape[1] <= dimensions:
        return points
    directions: Tensor = torch.randn(points.shape[1], dimensions, generator=generator) / dimensions**0.5
    projected: Tensor = points @ directions
    return projected
