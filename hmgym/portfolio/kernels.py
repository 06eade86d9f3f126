"""The compiled eigendecomposition of many small symmetric matrices, eight side by side (numba, float64).

Jacobi's method: sweep after sweep every entry off the diagonal is rotated to zero, in the lanes where it is not yet. Of
a batch of matrices with a dozen rows LAPACK, one after the other, takes two and a half times as long. Numba's disk
cache does not see edits in ``lanes.py`` and ``lane_kernels.py`` of ``hmgym/clearing``.
"""

from __future__ import annotations

from numba import njit

from hmgym.clearing.lane_kernels import _zeros
from hmgym.clearing.lanes import WIDTH, absolute, load, most, root, some, spread, store, where

_SMALL = 1e-17  # of the largest entry of a matrix: what is off the diagonal and below it is zero
_SWEEPS = 40  # at most; some seven are needed
_INNER = {"error_model": "numpy", "nogil": True, "_nrt": False}


@njit(**_INNER)
def _turn(n, p, q, sine, tau, A, V):
    """Rotate rows and columns p < q of A (n, n), of which the upper part counts, and rows p and q of V (n, n)."""
    for k in range(n):
        if k != p and k != q:
            first = A[k, p] if k < p else A[p, k]
            second = A[k, q] if k < q else A[q, k]
            x, y = load(first), load(second)
            store(first, x - sine * (y + tau * x))
            store(second, y + sine * (x - tau * y))
        x, y = load(V[p, k]), load(V[q, k])
        store(V[p, k], x - sine * (y + tau * x))
        store(V[q, k], y + sine * (x - tau * y))


@njit(**_INNER)
def _diagonalise(n, A, V):
    """Turn the upper part of A (n, n) into its eigenvalues on the diagonal, and V into rows of eigenvectors.

    Returns whether that ended.
    """
    scale = spread(0.0)
    for p in range(n):
        for q in range(n):
            store(V[p, q], 1.0 if p == q else 0.0)
            scale = most(absolute(load(A[p, q])), scale)
    for _ in range(_SWEEPS):
        moved = False
        for p in range(n):
            for q in range(p + 1, n):
                off = load(A[p, q])
                open_lanes = ~(absolute(off) <= _SMALL * scale)
                if not some(open_lanes):
                    continue
                moved = True
                half = 0.5 * (load(A[q, q]) - load(A[p, p])) / where(open_lanes, off, 1.0)
                # The smaller angle: t = 1 / (θ ± √(θ² + 1)).
                tangent = 1.0 / (absolute(half) + root(half * half + 1.0))
                tangent = where(open_lanes, where(half < 0.0, -tangent, tangent), 0.0)
                cosine = 1.0 / root(tangent * tangent + 1.0)
                sine = tangent * cosine
                move = tangent * off
                store(A[p, p], load(A[p, p]) - move)
                store(A[q, q], load(A[q, q]) + move)
                store(A[p, q], where(open_lanes, 0.0, off))
                _turn(n, p, q, sine, sine / (1.0 + cosine), A, V)
        if not moved:
            return True
    return False


@njit(cache=True, error_model="numpy", nogil=True)
def eigen(matrices, values, vectors):
    """Eigenvalues (B, n), in no order, and eigenvectors in columns (B, n, n), of symmetric matrices (B, n, n).

    Returns whether all were found; a matrix with NaN has none.
    """
    B, n, _ = matrices.shape
    parts = _zeros(2 * n * n * WIDTH).reshape((2, n, n, WIDTH))
    A, V = parts[0], parts[1]
    for first in range(0, B, WIDTH):
        for lane in range(WIDTH):
            matrix = matrices[min(first + lane, B - 1)]
            for p in range(n):
                for q in range(n):
                    A[p, q, lane] = matrix[p, q]
        if not _diagonalise(n, A, V):
            return False
        for lane in range(min(WIDTH, B - first)):
            for p in range(n):
                values[first + lane, p] = A[p, p, lane]
                for q in range(n):
                    vectors[first + lane, q, p] = V[p, q, lane]
    return True
