"""The compiled search for the values of pools, market by market (numba, float64).

``pools.py`` says what is searched: v with v_k = log V_k(u(v)). A market is cleared at the first values from nothing,
and from then on from the prices and the portfolios of the step before, which a step of Newton's method moves little.
With T of the last clearing the Hessian H of Psi is a sum, so the slopes H⁻¹w_k cost one factorisation a market.

What does not clear, or is not nearer after some halvings of a step, is left to ``pools.py``, which takes more care.
This file calls into ``lane_kernels.py``; numba's disk cache does not see edits there.

Names: E markets, B investors, N assets, K pools, n = N + 1 positions, G groups of investors.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from hmgym.clearing.kernels import CLEARED, NOT_CONVERGED, REJECTED, _cholesky_solve
from hmgym.clearing.lane_kernels import _INNER, _OUTER, _zeros, clear_markets
from hmgym.clearing.lanes import WIDTH, load, spread, total, where

PRECISION, ROUNDING = 2e-15, 1e-13  # of v, times 1 + |v|: always good enough; and where steps no longer help
_STEPS = 30  # clearings at most
_HALVINGS = 8  # of a step, one after the other
_LONGEST = 1.0  # step of Newton's of a v


@njit(**_INNER)
def _response(n, wealth, states, T, supply, prices, H):
    """H (N, N), the Hessian of Psi, from portfolios as a clearing leaves them."""
    for i in range(1, n):
        for j in range(1, i + 1):
            s = spread(0.0)
            for g in range(wealth.shape[0]):
                first, second = load(states[g, i]), load(states[g, j])
                free = ((first == 1.0) | (first == 3.0)) & ((second == 1.0) | (second == 3.0))
                s += where(free, load(wealth[g]) * load(T[g, i, j]), 0.0)
            H[i - 1, j - 1] = total(s)
            H[j - 1, i - 1] = H[i - 1, j - 1]
        H[i - 1, i - 1] += supply[i - 1] * prices[i - 1]


@njit(**_INNER)
def _eliminate(K, J, x):
    """x = J⁻¹x in place, by elimination with row pivots. False where there is none."""
    for k in range(K):
        row = k
        for i in range(k + 1, K):
            if abs(J[i, k]) > abs(J[row, k]):
                row = i
        if not abs(J[row, k]) > 0.0:
            return False
        for j in range(K):
            J[k, j], J[row, j] = J[row, j], J[k, j]
        x[k], x[row] = x[row], x[k]
        for i in range(k + 1, K):
            factor = J[i, k] / J[k, k]
            for j in range(k, K):
                J[i, j] -= factor * J[k, j]
            x[i] -= factor * x[k]
    for k in range(K - 1, -1, -1):
        for j in range(k + 1, K):
            x[k] -= J[k, j] * x[j]
        x[k] /= J[k, k]
    return True


@njit(**_INNER)
def _slopes(n, weights, H, M, slopes):
    """slopes (K, N) = H⁻¹w_k. False where H is not positive definite."""
    N = n - 1
    for k in range(weights.shape[0]):
        for i in range(N):
            slopes[k, i] = weights[k, i + 1]
            for j in range(N):
                M[i, j] = H[i, j]
        if not _cholesky_solve(N, M, slopes[k]):
            return False
    return True


@njit(**_OUTER)
def clear_with_pools(first, last, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, costly,
                     reference, cost, base, size, pool_weights, held, values, slopes, error, prices, weights, state,
                     residual, iterations, status):  # fmt: skip
    """Clear markets ``first`` to ``last - 1`` with pools; arguments beside those of ``clear_markets``:

    size is that of its memory for one market; pool_weights (E, K, n); held (E, K) of Σ w (log R − log w); values (E, K)
    to start from, and where the search ended. Results are slopes (E, K, N), w_k'∂u/∂orders, error (E,), what is left of
    the equations, and those of ``clear_markets``; status is CLEARED only where the values are good to rounding.
    """
    _, B, N = beliefs.shape
    n, K = N + 1, pool_weights.shape[1]
    groups = (B + WIDTH - 1) // WIDTH
    lanes = groups * WIDTH
    memory = _zeros(size).reshape((1, size))
    states = memory[0, 2 * lanes : (2 + n) * lanes].reshape((groups, n, WIDTH))
    T = memory[0, (2 + 3 * n) * lanes : (2 + 3 * n + n * n) * lanes].reshape((groups, n, n, WIDTH))
    rich = _zeros(lanes).reshape((groups, WIDTH))
    H, M, J = np.zeros((N, N)), np.zeros((N, N)), np.zeros((K, K))
    gap, best, step = np.zeros(K), np.zeros(K), np.zeros(K)
    money, start = np.zeros((1, N)), np.zeros((1, N))
    for e in range(first, last):
        error[e] = np.inf
        here = slice(e, e + 1)
        start[0] = base[e]
        memory[0, :lanes] = -1.0
        for k in range(lanes):
            rich[k // WIDTH, k % WIDTH] = max(wealth[e, k], 0.0) if k < B else 0.0
        least, halvings, spent, done = np.inf, 0, 0, status[e] == REJECTED
        for _ in range(_STEPS):
            for i in range(N):
                money[0, i] = orders[e, i]
                for k in range(K):
                    money[0, i] += pool_weights[e, k, i + 1] * math.exp(values[e, k])
            clear_markets(0, 1, beliefs[here], risk[here], wealth[here], short_leverage[here], long_leverage[here],
                          supply[here], money, costly, reference[here] if costly else reference,
                          cost[here] if costly else cost, start, memory, prices[here], weights[here], state[here],
                          residual[here], iterations[here], status[here])  # fmt: skip
            spent += iterations[e]
            if done:
                break
            largest, scale = np.inf, 1.0
            if status[e] == CLEARED:
                largest = 0.0
                for k in range(K):
                    gap[k] = values[e, k] - held[e, k]
                    for i in range(N):
                        gap[k] -= pool_weights[e, k, i + 1] * math.log(prices[e, i])
                    largest = max(largest, abs(gap[k])) if abs(gap[k]) < np.inf else np.inf
                    scale = max(scale, 1.0 + abs(values[e, k]))
            if least == np.inf and not largest < np.inf:
                break
            if largest < least:
                _response(n, rich, states, T, supply[e], prices[e], H)
                if not _slopes(n, pool_weights[e], H, M, slopes[e]):
                    break
                for k in range(K):
                    for j in range(K):
                        J[k, j] = 1.0 if k == j else 0.0
                        worth = math.exp(values[e, j])
                        for i in range(N):
                            J[k, j] -= slopes[e, k, i] * pool_weights[e, j, i + 1] * worth
                    step[k] = -gap[k]
                    best[k] = values[e, k]
                least, halvings, error[e] = largest, 0, largest
                start[0] = prices[e]
                if largest <= PRECISION * scale:
                    done = True
                    break
                longest = 0.0
                if not _eliminate(K, J, step):
                    break
                for k in range(K):
                    longest = max(longest, abs(step[k])) if abs(step[k]) < np.inf else np.inf
                if not longest < np.inf:
                    break
                for k in range(K):
                    step[k] *= min(1.0, _LONGEST / longest)
            elif least <= ROUNDING * scale:
                # No step helps any more: the best values once again, whose solution it then is.
                for k in range(K):
                    values[e, k] = best[k]
                done = True
                continue
            else:
                halvings += 1
                if halvings > _HALVINGS:
                    break
                for k in range(K):
                    step[k] *= 0.5
            for k in range(K):
                values[e, k] = best[k] + step[k]
        iterations[e] = spent
        if not done and status[e] == CLEARED:
            status[e] = NOT_CONVERGED
            residual[e] = np.nan
