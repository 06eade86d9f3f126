"""Compiled kernels of ``clear_market`` with ``smoothing`` (numba, float64).

They stand in one file and call into no other: numba's disk cache does not see edits in the files that a kernel calls
into.

Every limit is a pair of positive numbers, the distance x of a position from it and its shadow price y; every trading
cost c is two, the shadow prices x = c -+ (marginal cost) and what is bought and sold, y. The smoothed problem of
``docs/clearing.md`` is solved exactly where every product x y equals tau tr(G)/N. A primal-dual interior point goes
there for all investors of a market and its log prices u at once, by the formulas of ``batched_interior.py``, with plain
Newton steps once all products are near. x moves with the positions, dx = +-dw or -+(marginal cost); y answers,
dy = (product - x y - y dx) / x.

With K = 2G + diag(stiff) on risky positions, stiff_0 cash's own stiffness, v = K^{-1} 1 and v_0 = 1 / stiff_0, the
response of positions to r is

    A_ij = (K^{-1})_ij - v_i v_j / s,    A_i0 = -v_i v_0 / s,    A_00 = v_0 (s - v_0) / s,    s = v_0 + sum_i v_i,

which keeps its accuracy whether cash is free or (nearly) held at a limit.

Names: E markets, B investors, N assets, n = N + 1 positions, P pairs of pairs (n limits and, with a cost, N more); i, j
are positions, k is an investor. Investors without wealth or without a choice are left out, K remain, and they stand
*last* in every array: inner loops run over investors, so the compiler makes vector instructions of them.

``_nrt=False`` switches numba's reference counting off where nothing is allocated; all arrays belong to the caller.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit

_OUTER: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}
_INNER: dict[str, Any] = _OUTER | {"_nrt": False}
_INLINE: dict[str, Any] = _INNER | {"forceinline": True}

# Outcome of one market; the values are those of kernels.py.
CLEARED, NOT_CONVERGED, REJECTED = 0, 1, 3

_EPS = 2.220446049250313e-16
_PINNED = 1e-11  # an investor whose positions can move less than this is held at its only portfolio
_STEP_CAP = 2.0  # largest move of a log price in one step
_TO_BOUNDARY = 0.999  # share of the way to the first vanishing distance or shadow price
_CENTRAL = 0.1  # least target of a product, as a share of the common one
_NEAR = 0.9  # relative error of the products below which plain Newton steps are taken
_CAUTION = 30  # steps after which second-order corrections are left out and products must shrink
_MAX_ITERATIONS = 100
_SETTLED = 3e-7  # relative size of a whole Newton step that leaves only rounding
_LARGEST_FLOOR = 1e-6  # where rounding leaves more than this of the supply unplaced, the market has not cleared
_BLOCK = 32  # investors whose matrices are inverted together: few enough for the cache

# The investors of one market: quadratic 2G (N, N, K), beliefs (N, K) relative to log base, target tau tr(G)/N and scale
# tr(G)/N (K,), reference (N, K); counts (P, K) is 1 for a pair that exists, else 0, n_pairs (K,) their number, who (K,)
# the investor's place in the caller's arrays.
Investors = namedtuple("Investors", "quadratic beliefs wealth target scale reference counts n_pairs who")
# An iterate, and likewise a step: w (n, K), x and y (2, P, K), the lower limits (or purchases) first.
Point = namedtuple("Point", "w x y")
# Of an iterate: 1/x and y/x (2, P, K); what the products shall become; stiff, plain = 2Gw - r and the right side of a
# step (n, K); stiffness of the costs and how far trades are from their pairs (N, K); mean product, its next aim and its
# second-order change in a step (K,); scratch (2, K).
Slopes = namedtuple("Slopes", "inverse ratio products stiff plain gradient cost_stiff drift mean aim bend scratch")
# Response of the positions: inverse K^{-1} (N, N, K), v (n, K) and share = v / sum v (n, K); total, scratch (K,).
Response = namedtuple("Response", "inverse v share total")
# The market: value at base prices, orders, log prices u relative to base, value, excess demand, du (N,); H (N, N).
Market = namedtuple("Market", "money orders u value excess du H")


@njit(**_INLINE)
def _zero(count, out):
    for k in range(count):
        out[k] = 0.0


@njit(**_INLINE)
def _largest(count, values):
    largest = 0.0
    for k in range(count):
        largest = max(largest, values[k])
    return largest


@njit(**_INLINE)
def _dot(count, x, y):
    """Four sums at a time, so that an addition need not wait for the last one."""
    a, b, c, d = 0.0, 0.0, 0.0, 0.0
    for k in range(0, count - 3, 4):
        a += x[k] * y[k]
        b += x[k + 1] * y[k + 1]
        c += x[k + 2] * y[k + 2]
        d += x[k + 3] * y[k + 3]
    for k in range(count - count % 4, count):
        a += x[k] * y[k]
    return (a + b) + (c + d)


@njit(**_INLINE)
def _cholesky(n, M):
    """The factor of M in its lower half. False if M is not positive definite."""
    for j in range(n):
        d = M[j, j]
        for m in range(j):
            d -= M[j, m] * M[j, m]
        if not d > 0.0:
            return False
        d = math.sqrt(d)
        M[j, j] = d
        for i in range(j + 1, n):
            s = M[i, j]
            for m in range(j):
                s -= M[i, m] * M[j, m]
            M[i, j] = s / d
    return True


@njit(**_INLINE)
def _substitute(n, M, x):
    for i in range(n):
        s = x[i]
        for m in range(i):
            s -= M[i, m] * x[m]
        x[i] = s / M[i, i]
    for i in range(n - 1, -1, -1):
        s = x[i]
        for m in range(i + 1, n):
            s -= M[m, i] * x[m]
        x[i] = s / M[i, i]


# --- Response of all investors


@njit(**_INNER)
def _invert(N, K, quadratic, stiff, response):
    """K^{-1} by symmetric sweeps of its lower half, then v and share."""
    C, v, share = response.inverse, response.v, response.share
    for first in range(0, K, _BLOCK):
        last = min(first + _BLOCK, K)
        for i in range(N):
            for j in range(i + 1):
                for k in range(first, last):
                    C[i, j, k] = quadratic[i, j, k]
            for k in range(first, last):
                C[i, i, k] += stiff[i + 1, k]
        for m in range(N):
            # Row m of the matrix is kept in v, that row times the pivot in share.
            for k in range(first, last):
                C[m, m, k] = -1.0 / C[m, m, k]
            for i in range(N):
                if i != m:
                    row, column = max(i, m), min(i, m)
                    for k in range(first, last):
                        v[i, k] = C[row, column, k]
                    for k in range(first, last):
                        share[i, k] = v[i, k] * C[m, m, k]
                    for k in range(first, last):
                        C[row, column, k] = -share[i, k]
            for i in range(N):
                for j in range(i + 1):
                    if i != m and j != m:
                        for k in range(first, last):
                            C[i, j, k] += share[i, k] * v[j, k]
        for i in range(N):
            for j in range(i + 1):
                for k in range(first, last):
                    C[i, j, k] = -C[i, j, k]
                for k in range(first, last):
                    C[j, i, k] = C[i, j, k]
        for k in range(first, last):
            v[0, k] = 1.0 / stiff[0, k]
            response.total[k] = v[0, k]
        for i in range(N):
            for k in range(first, last):
                v[i + 1, k] = C[i, 0, k]
            for j in range(1, N):
                for k in range(first, last):
                    v[i + 1, k] += C[i, j, k]
            for k in range(first, last):
                response.total[k] += v[i + 1, k]
        for i in range(N + 1):
            for k in range(first, last):
                share[i, k] = v[i, k] / response.total[k]


@njit(**_INLINE)
def _respond(N, K, gradient, response, w):
    """w = A gradient for every investor, the gradient (n, K) relative to that of cash."""
    C, v, share, total = response.inverse, response.v, response.share, response.total
    _zero(K, total)
    for i in range(1, N + 1):
        for k in range(K):
            total[k] -= v[i, k] * gradient[i, k]
    for i in range(N + 1):
        for k in range(K):
            w[i, k] = share[i, k] * total[k]
    for i in range(N):
        for j in range(N):
            for k in range(K):
                w[i + 1, k] += C[i, j, k] * gradient[j + 1, k]


@njit(**_INLINE)
def _follow_prices(N, K, du, response, w):
    """Add -A (0, du) to w: the response of every investor to a move of log prices."""
    C, v, share, total = response.inverse, response.v, response.share, response.total
    _zero(K, total)
    for i in range(N):
        for k in range(K):
            total[k] += v[i + 1, k] * du[i]
    for i in range(N + 1):
        for k in range(K):
            w[i, k] += share[i, k] * total[k]
    for i in range(N):
        for j in range(N):
            for k in range(K):
                w[i + 1, k] -= C[i, j, k] * du[j]


@njit(**_INLINE)
def _keep_budget(N, K, response, w):
    """Take out what rounding adds to the sum of w, from the positions that move most easily."""
    total = response.total
    _zero(K, total)
    for i in range(N + 1):
        for k in range(K):
            total[k] += w[i, k]
    for i in range(N + 1):
        for k in range(K):
            w[i, k] -= response.share[i, k] * total[k]


@njit(**_INLINE)
def _price_slope(N, K, wealth, value, response, H):
    """H = diag(value) + sum_b W_b A_b, its lower half. False if it is not positive definite."""
    total = response.total
    for i in range(N):
        for j in range(i + 1):
            for k in range(K):
                total[k] = response.inverse[i, j, k] - response.v[i + 1, k] * response.share[j + 1, k]
            H[i, j] = _dot(K, wealth, total)
        H[i, i] += value[i]
    return _cholesky(N, H)


# --- Interior point


@njit(**_INLINE)
def _plain_gradient(N, K, u, w, investors, slopes):
    """plain = 2Gw - r."""
    plain = slopes.plain
    _zero(K, plain[0])
    for i in range(N):
        for k in range(K):
            plain[i + 1, k] = u[i] - investors.beliefs[i, k]
        for j in range(N):
            for k in range(K):
                plain[i + 1, k] += investors.quadratic[i, j, k] * w[j + 1, k]


@njit(**_INLINE)
def _mean_product(K, P, x, y, investors, out):
    _zero(K, out)
    for q in range(2):
        for p in range(P):
            for k in range(K):
                out[k] += investors.counts[p, k] * x[q, p, k] * y[q, p, k]
    for k in range(K):
        out[k] /= investors.n_pairs[k]


@njit(**_INLINE)
def _linearise(n, K, P, point, investors, slopes):
    """Inverses, ratios and stiffness at an iterate."""
    inverse, ratio, stiff = slopes.inverse, slopes.ratio, slopes.stiff
    for q in range(2):
        for p in range(P):
            for k in range(K):
                inverse[q, p, k] = 1.0 / point.x[q, p, k]
            for k in range(K):
                ratio[q, p, k] = point.y[q, p, k] * inverse[q, p, k]
    for i in range(n):
        for k in range(K):
            stiff[i, k] = ratio[0, i, k] + ratio[1, i, k]
    for i in range(P - n):
        for k in range(K):
            slopes.cost_stiff[i, k] = investors.counts[n + i, k] / (ratio[0, n + i, k] + ratio[1, n + i, k])
        for k in range(K):
            stiff[i + 1, k] += slopes.cost_stiff[i, k]


@njit(**_INLINE)
def _unevenness(K, P, point, investors, largest):
    """The largest relative difference of a product from its target."""
    _zero(K, largest)
    for q in range(2):
        for p in range(P):
            for k in range(K):
                error = abs(point.x[q, p, k] * point.y[q, p, k] / investors.target[k] - 1.0) * investors.counts[p, k]
                largest[k] = error if error > largest[k] else largest[k]
    return _largest(K, largest)


@njit(**_INNER)
def _newton_step(n, K, P, point, step, investors, slopes, response, market):
    """The step that would give every pair its product, satisfy every budget and clear the market."""
    inverse, ratio, products, gradient = slopes.inverse, slopes.ratio, slopes.products, slopes.gradient
    N = n - 1
    for i in range(n):
        for k in range(K):
            pull = products[1, i, k] * inverse[1, i, k] - products[0, i, k] * inverse[0, i, k]
            gradient[i, k] = -slopes.plain[i, k] - pull
    for i in range(P - n):
        p = n + i
        for k in range(K):
            traded = products[0, p, k] * inverse[0, p, k] - products[1, p, k] * inverse[1, p, k]
            slopes.drift[i, k] = point.w[i + 1, k] - investors.reference[i, k] - traded
        for k in range(K):
            marginal = 0.5 * (point.x[1, p, k] - point.x[0, p, k])
            gradient[i + 1, k] -= marginal + slopes.cost_stiff[i, k] * slopes.drift[i, k]
    for i in range(1, n):
        for k in range(K):
            gradient[i, k] -= gradient[0, k]
    _respond(N, K, gradient, response, step.w)
    for i in range(N):
        market.du[i] = market.excess[i] + _dot(K, investors.wealth, step.w[i + 1])
    _substitute(N, market.H, market.du)
    _follow_prices(N, K, market.du, response, step.w)
    _keep_budget(N, K, response, step.w)
    for i in range(n):
        for k in range(K):
            step.x[0, i, k] = step.w[i, k]
        for k in range(K):
            step.x[1, i, k] = -step.w[i, k]
    for i in range(P - n):
        for k in range(K):
            step.x[1, n + i, k] = slopes.cost_stiff[i, k] * (step.w[i + 1, k] + slopes.drift[i, k])
        for k in range(K):
            step.x[0, n + i, k] = -step.x[1, n + i, k]
    for q in range(2):
        for p in range(P):
            for k in range(K):
                change = products[q, p, k] * inverse[q, p, k] - point.y[q, p, k] - ratio[q, p, k] * step.x[q, p, k]
                step.y[q, p, k] = change * investors.counts[p, k]


@njit(**_INLINE)
def _extent(K, P, point, step, slopes):
    """The largest relative decrease that a whole step makes in a pair, and the largest relative change."""
    decrease, change = slopes.scratch[0], slopes.scratch[1]
    _zero(K, decrease)
    _zero(K, change)
    for q in range(2):
        for p in range(P):
            for k in range(K):
                x = step.x[q, p, k] * slopes.inverse[q, p, k]
                y = step.y[q, p, k] / point.y[q, p, k]
                least = x if x < y else y
                decrease[k] = -least if -least > decrease[k] else decrease[k]
                most = abs(x) if abs(x) > abs(y) else abs(y)
                change[k] = most if most > change[k] else change[k]
    return _largest(K, decrease), _largest(K, change)


@njit(**_INLINE)
def _length(N, decrease, du):
    """The share of a step to take, and the largest move of a log price in a whole one."""
    moved = 0.0
    for i in range(N):
        moved = max(moved, abs(du[i]))
    return 1.0 / max(1.0, decrease, moved / _STEP_CAP), moved


@njit(**_INLINE)
def _move(n, K, P, share, point, step, market):
    for i in range(n):
        for k in range(K):
            point.w[i, k] += share * step.w[i, k]
    for q in range(2):
        for p in range(P):
            for k in range(K):
                point.x[q, p, k] += share * step.x[q, p, k]
            for k in range(K):
                point.y[q, p, k] += share * step.y[q, p, k]
    for i in range(n - 1):
        market.u[i] += share * market.du[i]


@njit(**_INLINE)
def _aim(n, K, P, cautious, point, step, investors, slopes, market):
    """From the step towards the targets, the products of a centred second-order step (Mehrotra)."""
    target, mean, aim, bend = investors.target, slopes.mean, slopes.aim, slopes.bend
    decrease, _ = _extent(K, P, point, step, slopes)
    share, _ = _length(n - 1, decrease, market.du)
    _mean_product(K, P, step.x, step.y, investors, bend)
    worst = 0.0
    for k in range(K):
        # To first order products move towards their targets by just that share.
        left = (1.0 - share) * (mean[k] - target[k]) + share * share * bend[k]
        worst = max(worst, abs(left) / max(mean[k], target[k]))
    worst = min(worst, 1.0) ** 3
    second_order = 1.0
    if cautious:
        worst = max(worst, 0.3)
        second_order = 0.0
    for k in range(K):
        aim[k] = target[k] + worst * max(mean[k] - target[k], 0.0)
    for q in range(2):
        for p in range(P):
            for k in range(K):
                product = aim[k] - second_order * step.x[q, p, k] * step.y[q, p, k]
                least = _CENTRAL * aim[k]
                slopes.products[q, p, k] = product if product > least else least


@njit(**_INLINE)
def _furthest(K, P, step, investors, slopes):
    """Not beyond the minimum of an investor's mean product, a quadratic in the share, or where it adds a tenth.

    Without this an investor's products can grow and shrink for ever.
    """
    mean, bend = slopes.mean, slopes.bend
    _mean_product(K, P, step.x, step.y, investors, bend)
    furthest = 1.0
    for k in range(K):
        curve = max(bend[k], 1e-300)
        tenth = math.sqrt(0.1 * max(mean[k], investors.target[k]) / curve)
        furthest = min(furthest, max(0.5 * (mean[k] - slopes.aim[k]) / curve, tenth))
    return furthest


@njit(**_INNER)
def _find_prices(n, K, P, point, step, investors, slopes, response, market):
    """Follow the path to the targets. Returns (status, iterations)."""
    N = n - 1
    for iteration in range(_MAX_ITERATIONS):
        _linearise(n, K, P, point, investors, slopes)
        _plain_gradient(N, K, market.u, point.w, investors, slopes)
        _mean_product(K, P, point.x, point.y, investors, slopes.mean)
        uneven = _unevenness(K, P, point, investors, slopes.scratch[0])
        _invert(N, K, investors.quadratic, slopes.stiff, response)
        for i in range(N):
            market.value[i] = market.money[i] * math.exp(market.u[i])
            market.excess[i] = market.orders[i] - market.value[i] + _dot(K, investors.wealth, point.w[i + 1])
        if not _price_slope(N, K, investors.wealth, market.value, response, market.H):
            return NOT_CONVERGED, iteration
        for q in range(2):
            for p in range(P):
                for k in range(K):
                    slopes.products[q, p, k] = investors.target[k]
        _newton_step(n, K, P, point, step, investors, slopes, response, market)
        furthest = 1.0
        if uneven > _NEAR:
            cautious = iteration >= _CAUTION
            _aim(n, K, P, cautious, point, step, investors, slopes, market)
            _newton_step(n, K, P, point, step, investors, slopes, response, market)
            if cautious:
                furthest = _furthest(K, P, step, investors, slopes)
        decrease, change = _extent(K, P, point, step, slopes)
        share, moved = _length(N, decrease / _TO_BOUNDARY, market.du)
        share = min(share, furthest)
        if not share > 0.0:
            return NOT_CONVERGED, iteration
        _move(n, K, P, share, point, step, market)
        if uneven <= _NEAR and share == 1.0 and max(change, moved) <= _SETTLED:
            return CLEARED, iteration + 1
    return NOT_CONVERGED, _MAX_ITERATIONS


@njit(**_INLINE)
def _middle(i, n, short, long):
    """Position i in the middle of an investor's limits (n,), and how far these are below and above it."""
    low, high = 0.0, 0.0
    alike = True
    for j in range(n):
        low -= short[j]
        high += long[j]
        alike = alike and short[j] == short[0] and long[j] == long[0]
    if alike or not high > low:
        return 1.0 / n, 1.0 / n + short[i], long[i] - 1.0 / n
    # As shares of the width, so that a narrow one keeps its digits beside a large limit.
    share = (long[i] + short[i]) / (high - low)
    below = (1.0 - low) * share
    return below - short[i], below, (high - 1.0) * share


@njit(**_INLINE)
def _implied_limits(i, n, short, long):
    """What an investor's limits (n,) and its budget allow position i to be, at least and at most."""
    low, high = 0.0, 0.0
    for j in range(n):
        if j != i:
            low -= short[j]
            high += long[j]
    return max(-short[i], 1.0 - high), min(long[i], 1.0 - low)


@njit(**_INLINE)
def _start(n, K, costly, short, long, cost, point, investors, slopes):
    """The middle of the limits, and shadow prices of the size of the forces there."""
    for k in range(K):
        b = investors.who[k]
        force = 0.0
        for i in range(1, n):
            force = max(force, abs(slopes.plain[i, k]))
        nearest = np.inf
        for i in range(n):
            _, point.x[0, i, k], point.x[1, i, k] = _middle(i, n, short[b], long[b])
            nearest = min(nearest, point.x[0, i, k], point.x[1, i, k])
        product = max((force + investors.scale[k]) * nearest, investors.target[k])
        investors.n_pairs[k] = 2 * n
        for i in range(n):
            investors.counts[i, k] = 1.0
            point.y[0, i, k] = product / point.x[0, i, k]
            point.y[1, i, k] = product / point.x[1, i, k]
        if costly:
            for i in range(n - 1):
                p = n + i
                c = cost[b, i]
                if not c > 0.0:
                    investors.counts[p, k] = 0.0
                    investors.reference[i, k] = 0.0
                    for q in range(2):
                        point.x[q, p, k] = 1.0
                        point.y[q, p, k] = 1.0
                    continue
                investors.counts[p, k] = 1.0
                investors.n_pairs[k] += 2
                trade = point.w[i + 1, k] - investors.reference[i, k]
                half = product / c
                root = math.sqrt(half * half + trade * trade)
                more = 0.5 * (half + root + abs(trade))
                less = half * more / (root + abs(trade))
                q = 0 if trade > 0.0 else 1
                point.y[q, p, k] = more
                point.y[1 - q, p, k] = less
                point.x[q, p, k] = product / more
                point.x[1 - q, p, k] = product / less


@njit(**_INLINE)
def _read(n, smoothing, beliefs, risk, wealth, short, long, supply, orders, costly, reference, base, point, investors,
          market):  # fmt: skip
    """Gather the investors that choose, each in the middle of its limits; the others' money becomes orders. Prices
    start where limits allow demand."""
    N = n - 1
    K = 0
    unit = 0.0
    most, least = market.value, market.excess
    for i in range(N):
        market.money[i] = supply[i] * base[i]
        market.orders[i] = orders[i]
        most[i] = orders[i]
        least[i] = orders[i]
        unit += abs(orders[i])
        market.du[i] = math.log(base[i])
    for b in range(wealth.shape[0]):
        W = wealth[b]
        if not W > 0.0:
            continue
        unit += W
        narrow = True
        for i in range(n):
            lower, upper = _implied_limits(i, n, short[b], long[b])
            narrow = narrow and upper - lower <= _PINNED
            if i > 0:
                most[i - 1] += W * upper
                least[i - 1] += W * lower
            point.w[i, K] = _middle(i, n, short[b], long[b])[0]
        if narrow:
            for i in range(N):
                market.orders[i] += W * point.w[i + 1, K]
            continue
        investors.who[K] = b
        investors.wealth[K] = W
        trace = 0.0
        for i in range(N):
            for j in range(N):
                investors.quadratic[i, j, K] = 2.0 * risk[b, i, j]
            trace += risk[b, i, i]
            investors.beliefs[i, K] = beliefs[b, i] - market.du[i]
            if costly:
                investors.reference[i, K] = reference[b, i]
        investors.scale[K] = trace / N
        investors.target[K] = smoothing * investors.scale[K]
        K += 1
    for i in range(N):
        # Log prices relative to base; a negative least demand allows any.
        highest = math.log(max(most[i], 1e-12 * unit) / market.money[i])
        lowest = math.log(max(least[i], 1e-12 * unit) / market.money[i])
        market.u[i] = min(max(0.0, lowest), highest)
    return K


@njit(**_INLINE)
def _write(n, K, wealth, short, long, supply, orders, base, point, investors, market, prices, weights):
    """Prices and weights of a market. Returns (status, residual)."""
    N = n - 1
    for i in range(N):
        prices[i] = base[i] * math.exp(market.u[i])
    for b in range(wealth.shape[0]):
        for i in range(n):
            if wealth[b] > 0.0:
                weights[b, i] = _middle(i, n, short[b], long[b])[0]
            else:
                weights[b, i] = 1.0 if i == 0 else 0.0
    for k in range(K):
        b = investors.who[k]
        for i in range(n):
            # Smoothed positions are inside their limits even where rounding would put them there.
            lowest, highest = np.nextafter(-short[b, i], long[b, i]), np.nextafter(long[b, i], -short[b, i])
            # From the nearer limit, so that a small distance keeps its digits where the limit is zero.
            below, above = point.x[0, i, k], point.x[1, i, k]
            w = below - short[b, i] if below < above else long[b, i] - above
            weights[b, i] = min(max(w, lowest), highest)
    residual = 0.0
    floor = 1e-9
    for i in range(N):
        value = supply[i] * prices[i]
        demand = orders[i]
        gross = value + abs(orders[i])
        for b in range(wealth.shape[0]):
            if wealth[b] > 0.0:
                demand += wealth[b] * weights[b, i + 1]
                gross += wealth[b] * abs(weights[b, i + 1])
        error = abs(demand - value) / value
        if not error < np.inf:
            return NOT_CONVERGED, error
        residual = max(residual, error)
        floor = max(floor, min(16.0 * _EPS * gross / value, _LARGEST_FLOOR))
    return (CLEARED if residual <= floor else NOT_CONVERGED), residual


@njit(**_OUTER)
def clear_markets(first, last, smoothing, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, costly,
                  reference, cost, base, prices, weights, residual, iterations, status):  # fmt: skip
    """Clear markets ``first`` to ``last - 1`` with ``smoothing`` > 0. The last five arrays are results; a market whose
    status is REJECTED on entry is passed over, one that is not cleared holds NaN.

    beliefs (E, B, N) log prices; risk (E, B, N, N); wealth (E, B), at most zero for an investor that demands nothing;
    limits (E, B, N+1); supply (E, N) shares; orders (E, N) money; base (E, N) prices to start from. With ``costly``:
    reference (E, B, N) weights and cost (E, B, N) on each side of them.
    """
    _, B, N = beliefs.shape
    n = N + 1
    P = n + N if costly else n
    investors = Investors(
        np.zeros((N, N, B)), np.zeros((N, B)), np.zeros(B), np.zeros(B), np.zeros(B), np.zeros((N, B)),
        np.zeros((P, B)), np.zeros(B), np.zeros(B, np.int64),
    )  # fmt: skip
    point = Point(np.zeros((n, B)), np.zeros((2, P, B)), np.zeros((2, P, B)))
    step = Point(np.zeros((n, B)), np.zeros((2, P, B)), np.zeros((2, P, B)))
    slopes = Slopes(
        np.zeros((2, P, B)), np.zeros((2, P, B)), np.zeros((2, P, B)), np.zeros((n, B)), np.zeros((n, B)),
        np.zeros((n, B)), np.zeros((N, B)), np.zeros((N, B)), np.zeros(B), np.zeros(B), np.zeros(B), np.zeros((2, B)),
    )  # fmt: skip
    response = Response(np.zeros((N, N, B)), np.zeros((n, B)), np.zeros((n, B)), np.zeros(B))
    market = Market(np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N), np.zeros(N), np.zeros((N, N)))
    for e in range(first, last):
        residual[e] = np.nan
        prices[e] = np.nan
        weights[e] = np.nan
        iterations[e] = 0
        if status[e] == REJECTED:
            continue
        # Without a cost its arrays have one row, which nobody reads.
        row = e if costly else 0
        short, long = short_leverage[e], long_leverage[e]
        K = _read(
            n, smoothing, beliefs[e], risk[e], wealth[e], short, long, supply[e], orders[e], costly, reference[row],
            base[e], point, investors, market,
        )  # fmt: skip
        _plain_gradient(N, K, market.u, point.w, investors, slopes)
        _start(n, K, costly, short, long, cost[row], point, investors, slopes)
        status[e], iterations[e] = _find_prices(n, K, P, point, step, investors, slopes, response, market)
        if status[e] == CLEARED:
            status[e], residual[e] = _write(
                n, K, wealth[e], short, long, supply[e], orders[e], base[e], point, investors, market, prices[e],
                weights[e],
            )  # fmt: skip
            if status[e] != CLEARED:
                prices[e] = np.nan
                weights[e] = np.nan


# --- Adjoint

# Of one investor's positions: 1/(w + short) and 1/(long - w) (n, K); derivatives of the smoothed cost slope (N, K).
Bend = namedtuple("Bend", "below above by_cost by_weight by_tau")


@njit(**_INLINE)
def _bend(n, k, b, costly, short, long, weights, reference, cost, investors, stiff, bend):
    """Curvature of the smoothed terms of investor b, which stands at place k."""
    tau = investors.target[k]
    for i in range(n):
        bend.below[i, k] = 1.0 / (weights[b, i] + short[b, i])
        bend.above[i, k] = 1.0 / (long[b, i] - weights[b, i])
        stiff[i, k] = tau * (bend.below[i, k] * bend.below[i, k] + bend.above[i, k] * bend.above[i, k])
    if not costly:
        return
    for i in range(n - 1):
        c = cost[b, i]
        bend.by_cost[i, k] = 0.0
        bend.by_weight[i, k] = 0.0
        bend.by_tau[i, k] = 0.0
        if c > 0.0:
            x = weights[b, i + 1] - reference[b, i]
            width = tau / c
            root = math.sqrt(width * width + x * x)
            total = width + root
            by_width = -c * x / (total * root)
            bend.by_weight[i, k] = c * width / (total * root)
            bend.by_tau[i, k] = by_width / c
            bend.by_cost[i, k] = x / total - by_width * width / c
            stiff[i + 1, k] += bend.by_weight[i, k]


@njit(**_OUTER)
def pull_back_markets(first, last, smoothing, risk, wealth, short_leverage, long_leverage, supply, prices, weights,
                      costly, reference, cost, prices_bar, weights_bar, holdings_bar, beliefs_bar, risk_bar, wealth_bar,
                      short_bar, long_bar, supply_bar, orders_bar, reference_bar, cost_bar):  # fmt: skip
    """Adjoint of ``clear_markets``: cotangents of prices (E, N), weights (E, B, N+1) and holdings (E, B, N) in, those
    of every input out (the last nine arrays, zero on entry). A market that did not clear (NaN prices) keeps its zeros.
    """
    _, B, n = weights.shape
    N = n - 1
    investors = Investors(
        np.zeros((N, N, B)), np.zeros((1, 1)), np.zeros(B), np.zeros(B), np.zeros(1), np.zeros((1, 1)),
        np.zeros((1, 1)), np.zeros(1), np.zeros(B, np.int64),
    )  # fmt: skip
    bend = Bend(np.zeros((n, B)), np.zeros((n, B)), np.zeros((N, B)), np.zeros((N, B)), np.zeros((N, B)))
    response = Response(np.zeros((N, N, B)), np.zeros((n, B)), np.zeros((n, B)), np.zeros(B))
    stiff, omega, a = np.zeros((n, B)), np.zeros((n, B)), np.zeros((n, B))
    multiplier, value, H = np.zeros(N), np.zeros(N), np.zeros((N, N))
    for e in range(first, last):
        if not prices[e, 0] > 0.0:
            continue
        row = e if costly else 0
        for i in range(N):
            value[i] = supply[e, i] * prices[e, i]
            multiplier[i] = prices[e, i] * prices_bar[e, i]
        K = 0
        for b in range(B):
            W = wealth[e, b]
            if not W > 0.0:
                continue
            investors.who[K] = b
            investors.wealth[K] = W
            trace = 0.0
            for i in range(N):
                trace += risk[e, b, i, i]
                for j in range(N):
                    investors.quadratic[i, j, K] = 2.0 * risk[e, b, i, j]
            investors.target[K] = smoothing * (trace / N)
            _bend(
                n, K, b, costly, short_leverage[e], long_leverage[e], weights[e], reference[row], cost[row], investors,
                stiff, bend,
            )  # fmt: skip
            for i in range(N):
                per_price = holdings_bar[e, b, i] / prices[e, i]
                # Relative to cash: A does not see what is common to all positions.
                omega[i + 1, K] = weights_bar[e, b, i + 1] + W * per_price - weights_bar[e, b, 0]
                wealth_bar[e, b] += weights[e, b, i + 1] * per_price
                multiplier[i] -= W * weights[e, b, i + 1] * per_price
            K += 1
        _invert(N, K, investors.quadratic, stiff, response)
        solved = _price_slope(N, K, investors.wealth, value, response, H)
        _respond(N, K, omega, response, a)
        _keep_budget(N, K, response, a)
        for i in range(N):
            for k in range(K):
                multiplier[i] -= a[i + 1, k]
        _substitute(N, H, multiplier)
        for i in range(N):
            if not solved:
                multiplier[i] = np.nan
            supply_bar[e, i] = -multiplier[i] * prices[e, i]
            orders_bar[e, i] = multiplier[i]
            for k in range(K):
                omega[i + 1, k] += investors.wealth[k] * multiplier[i]
        _respond(N, K, omega, response, a)
        _keep_budget(N, K, response, a)
        for k in range(K):
            b = investors.who[k]
            tau = investors.target[k]
            by_tau = 0.0
            for i in range(n):
                below, above = bend.below[i, k], bend.above[i, k]
                short_bar[e, b, i] = -(tau * a[i, k] * below * below)
                long_bar[e, b, i] = tau * a[i, k] * above * above
                by_tau += a[i, k] * (below - above)
            for i in range(N):
                risky = a[i + 1, k]
                beliefs_bar[e, b, i] = risky
                wealth_bar[e, b] += multiplier[i] * weights[e, b, i + 1]
                for j in range(N):
                    risk_bar[e, b, i, j] = -(risky * weights[e, b, j + 1] + weights[e, b, i + 1] * a[j + 1, k])
                if costly:
                    reference_bar[e, b, i] = risky * bend.by_weight[i, k]
                    cost_bar[e, b, i] = -risky * bend.by_cost[i, k]
                    by_tau -= risky * bend.by_tau[i, k]
            for i in range(N):
                risk_bar[e, b, i, i] += smoothing / N * by_tau
