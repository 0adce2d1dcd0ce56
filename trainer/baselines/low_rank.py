"""The inner problem of RASL: a linearised alignment, a low-rank part and a sparse part, by inexact ALM.

Peng, Ganesh, Wright, Xu, Ma: *RASL: Robust Alignment by Sparse and Low-Rank Decomposition for Linearly Correlated
Images*, PAMI 34 (2012), problem (10) and algorithm 2; without Jacobians it is robust PCA (Candès et al. 2011).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LowRankSparse:
    """D + JΔτ = A + E.

    Attributes:
        low_rank: A, (m, n).
        sparse: E, (m, n).
        moves: Δτ, (k, p), of the last k columns.
        objective: ‖A‖* + λ‖E‖₁.
    """

    low_rank: Array
    sparse: Array
    moves: Array
    objective: float


def decompose_aligned(
    stack: Array, jacobians: Array, lam: float, tolerance: float = 1e-5, max_steps: int = 200
) -> LowRankSparse:
    """Minimise ‖A‖* + λ‖E‖₁ over A, E and Δτ, subject to D + Σᵢ Jᵢ Δτᵢ eᵢᵀ = A + E.

    Args:
        stack: D, (m, n), one image a column.
        jacobians: J, (k, m, p), of the last k columns; the others stay as they are. k may be 0.
        lam: λ > 0; 1 / √m in the paper.
        tolerance: stop where the constraint is met to this share of ‖D‖.
        max_steps: at most so many.
    """
    # With orthonormal Jacobians the least squares for Δτ are inner products (the authors' code does so too).
    factors = [np.linalg.qr(jacobian) for jacobian in jacobians]
    moved = slice(stack.shape[1] - len(factors), None)
    bases = np.stack([basis for basis, _ in factors]) if factors else np.zeros((0, len(stack), 0))  # Q (k, m, p)
    norm = float(np.linalg.norm(stack))
    largest = float(np.sqrt(np.linalg.eigvalsh((torch.from_numpy(stack).T @ torch.from_numpy(stack)).numpy())[-1]))
    multipliers = stack / max(largest, float(np.abs(stack).max()) / lam)  # Y
    mu = 1.25 / largest
    aligned = stack.copy()  # D + JΔτ
    low_rank, sparse = np.zeros_like(stack), np.zeros_like(stack)
    moves = np.zeros(bases.shape[::2])  # Δτ in the orthonormal bases, (k, p)
    nuclear = 0.0
    for _ in range(max_steps):
        scaled = multipliers / mu
        low_rank, nuclear = shrink_singular_values(aligned + scaled - sparse, 1.0 / mu)
        sparse = _soft(aligned + scaled - low_rank, lam / mu)
        if factors:
            gap = (low_rank + sparse - scaled - stack)[:, moved]
            moves = np.einsum("kmp,mk->kp", bases, gap)
            aligned[:, moved] = stack[:, moved] + np.einsum("kmp,kp->mk", bases, moves)
        miss = aligned - low_rank - sparse
        multipliers += mu * miss
        mu *= 1.25
        if np.linalg.norm(miss) < tolerance * norm:
            break
    steps = [np.linalg.solve(upper, move) for (_, upper), move in zip(factors, moves, strict=True)]
    return LowRankSparse(
        low_rank, sparse, np.array(steps).reshape(moves.shape), nuclear + lam * float(np.abs(sparse).sum())
    )


def shrink_singular_values(matrix: Array, threshold: float) -> tuple[Array, float]:
    """Return the matrix (m, n), m >> n, with its singular values lowered by ``threshold``, and their sum.

    By the eigenvectors of the small n x n Gram matrix: many times faster than an SVD of the tall one. Singular values
    below 1e-8 of the largest are lost that way; the threshold is far above them.
    """
    # Torch's threads, not numpy's: those wait busily, which on a shared machine costs four times the work itself.
    tall = torch.from_numpy(matrix)
    eigenvalues, vectors = np.linalg.eigh((tall.T @ tall).numpy())
    values = np.sqrt(np.maximum(eigenvalues, 0.0))
    kept = np.maximum(values - threshold, 0.0)
    shares = kept / np.maximum(values, np.finfo(np.float64).tiny)
    return (tall @ torch.from_numpy((vectors * shares) @ vectors.T)).numpy(), float(kept.sum())


def _soft(values: Array, threshold: float) -> Array:
    """Return sign(v) max(|v| - t, 0)."""
    return values - np.clip(values, -threshold, threshold)
