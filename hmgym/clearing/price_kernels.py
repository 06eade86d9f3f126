"""Compiled kernels of ``optimize_portfolio`` and ``find_equilibrium_prices`` (numba, float64).

They stand in one file, which is why it is long: numba's disk cache does not see edits in the files that a kernel calls
into, so a kernel split over files could silently run old code.

Weights w (n,) are those of the n risky assets; cash is 1 - sum w. An investor solves

    max  g'w - w'Hw/2 - sum_i cost_i(w_i),   lower <= w <= upper,   floor <= sum w <= ceiling,

by a primal active-set method: from a feasible portfolio to the exact optimum on the set of free assets, or to the first
limit in the way; at the optimum the worst-priced limit is released. Each free set is factored anew, so that nothing
drifts with covariances conditioned up to 1e10. `row` says which end of the budget row binds: -1 the floor (cash at its
long limit), 1 the ceiling, 0 none. Where it binds, one free asset (`pivot`) balances the others: the free set never
depends linearly on the row, and corners need no special case.

The market's equilibrium is the end of a path f(u, t) = 0 from t = 1 to t = 0, followed by arc length (`_follow_path`).

Names: E markets, B investors, n assets; b is an investor, i, j are assets, u log prices. ``_nrt=False`` turns numba's
reference counting off where nothing is allocated: 2.3 ms -> 0.16 ms a market; it is safe because all arrays belong to
the caller. ``forceinline=True`` saves the call, whose arguments are all arrays of the desk: a quarter of the time of a
portfolio of three assets.
"""

from __future__ import annotations

import math
from collections import namedtuple

import numpy as np
from numba import njit

AT_LOWER, BELOW, AT_REFERENCE, ABOVE, AT_UPPER = 0, 1, 2, 3, 4
_EPS = 2.220446049250313e-16

HELD = 6  # a position that stays where it is because the covariance does not tell it from the others

# Outcome of one market or portfolio.
FOUND, LOST, WORTHLESS, SKIPPED = 0, 1, 2, 3

# What `examine_portfolios` finds, in any combination.
SOUND, ASYMMETRIC, SKEWED, INDEFINITE, DOUBTFUL = 0, 1, 2, 4, 8

_GUESSES = 3  # rounds of guessing all binding limits at once, before they are met one at a time
_SEARCH = 40  # rounds for the multiplier of the budget row in such a guess
_BLAND = 6  # zero-length steps beyond two a position, after which the smallest index decides (no cycling)
_LOW_DEMAND = 0.05  # below this share of supply, log demand continues as a straight line
_FIRST_STEP = 0.5
_LEAP = 4.0  # the same where the end may be near
_LONGEST_STEP = 0.5  # with 2, four of 980 random markets left their branch for another; with 0.5 none
_SHORTEST_STEP = 1e-8
_NEAR = 0.01  # log excess demand of a point that counts as on the path
_CORRECTIONS = 14  # evaluations after which a shorter step is tried
_EXTRA_RISK = 0.5  # return variance added where all assets are alike, or bold investors' demand is a staircase
_ELSEWHERE = 120  # evaluations of all demand for each of the other starts
_POINTS = 12  # starts of a fixed sequence, the last resort
_RICH = 0.6  # share of the market's value that one asset has in a start of `_from_rich_assets`
_FIRST_LOOK = 12  # evaluations for each of those starts, before the best are followed further
_FURTHEST = 60.0  # log prices this far from the start have run away

# The investors of one market. covariance (B, N, N), expected, commission, held, short, long (B, N), wealth, cash_short,
# cash_long (B,), both_sides: bool. mean (B, 7): the economy in which all assets are alike, as diagonal and off-diagonal
# covariance, expected price, commission, held, short, long.
Investors = namedtuple(
    "Investors", "covariance expected commission held wealth short long cash_short cash_long both_sides mean"
)
# The problem of the investor in hand and scratch, all (n,) but H, R, J (n, n) and Y (n, n + 1); shares is W / p.
Desk = namedtuple(
    "Desk", "H g below above reference kinked lower upper rho scale z d R order free dm dc move demand J Jt shares Y"
)


@njit(cache=True, error_model="numpy", nogil=True)
def _new_desk(n):
    """Scratch for one investor at a time."""
    v = np.zeros((16, n))
    return Desk(
        np.zeros((n, n)), v[0], v[1], v[2], v[3], np.zeros(n, np.int8), v[4], v[5], v[6], v[7], v[8], v[9],
        np.zeros((n, n)), np.zeros(n, np.int64), np.zeros(n, np.int64), v[10], v[11], v[12], v[13],
        np.zeros((n, n)), v[14], v[15], np.zeros((n, n + 1)),
    )  # fmt: skip


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _pose(b, n, t, p, investors, desk):
    """Write investor b's problem at prices p, a share t of the way to the economy in which all assets are alike."""
    W = investors.wealth[b]
    mean = investors.mean
    H, shares, g = desk.H, desk.shares, desk.g
    above, below, reference, lower, upper = desk.above, desk.below, desk.reference, desk.lower, desk.upper
    for i in range(n):
        shares[i] = W / p[i]
        g[i] = investors.expected[b, i]
        above[i] = investors.commission[b, i]
        reference[i] = investors.held[b, i]
        lower[i] = -investors.short[b, i]
        upper[i] = investors.long[b, i]
    twice = 2.0 / W
    for i in range(n):
        for j in range(n):
            H[i, j] = twice * (shares[i] * shares[j]) * investors.covariance[b, i, j]
    if t > 0.0:
        for i in range(n):
            g[i] += t * (mean[b, 2] - g[i])
            above[i] += t * (mean[b, 3] - above[i])
            reference[i] += t * (mean[b, 4] - reference[i])
            lower[i] -= t * (mean[b, 5] + lower[i])
            upper[i] += t * (mean[b, 6] - upper[i])
            for j in range(n):
                H[i, j] += t * (twice * (shares[i] * shares[j]) * mean[b, 1] - H[i, j])
            H[i, i] += t * (twice * (shares[i] * shares[i]) * (mean[b, 0] - mean[b, 1]) + 2.0 * _EXTRA_RISK)
    for i in range(n):
        g[i] = g[i] / p[i] - 1.0
        above[i] /= p[i]
        reference[i] /= shares[i]
    for i in range(n):
        below[i] = -above[i] if investors.both_sides else 0.0
        desk.kinked[i] = above[i] > 0.0 and lower[i] < reference[i] < upper[i]
        if not desk.kinked[i]:
            # The whole range lies on one side of the reference.
            if reference[i] <= lower[i]:
                below[i] = above[i]
            else:
                above[i] = below[i]


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False, forceinline=True)
def _segment(i, state, desk):
    """Ends of the stretch on which a free position has one marginal cost."""
    low = desk.lower[i]
    high = desk.upper[i]
    if desk.kinked[i]:
        if state[i] == BELOW:
            high = desk.reference[i]
        else:
            low = desk.reference[i]
    return low, high


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False, forceinline=True)
def _cost_slope(i, w, state, desk):
    """Marginal cost of position i on its side of the reference."""
    s = state[i]
    if s <= BELOW:
        return desk.below[i]
    if s == HELD and w[i] < desk.reference[i]:
        return desk.below[i]
    return desk.above[i]


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False, forceinline=True)
def _make_feasible(n, floor, ceiling, w, state, row, desk):
    """Put an earlier portfolio and its states into the limits of the problem on the desk. Returns the row state."""
    total = 0.0
    for i in range(n):
        if desk.lower[i] == desk.upper[i]:
            state[i] = AT_LOWER
        if state[i] == AT_REFERENCE and not desk.kinked[i]:
            state[i] = ABOVE
        if state[i] == BELOW and not desk.kinked[i]:
            state[i] = ABOVE
        if state[i] == AT_LOWER:
            w[i] = desk.lower[i]
        elif state[i] == AT_UPPER:
            w[i] = desk.upper[i]
        elif state[i] == AT_REFERENCE:
            w[i] = desk.reference[i]
        elif state[i] == HELD:
            w[i] = min(max(w[i], desk.lower[i]), desk.upper[i])
        else:
            low, high = _segment(i, state, desk)
            w[i] = min(max(w[i], low), high)
        total += w[i]
    target = total
    if row == 1 or total > ceiling:
        target = ceiling
    elif row == -1 or total < floor:
        target = floor
    # Free positions take up the difference in proportion to their room; if that is not enough, all do.
    for everyone in range(2):
        gap = target - total
        if gap == 0.0:
            break
        room = 0.0
        for i in range(n):
            if everyone or state[i] & 1:
                low, high = desk.lower[i], desk.upper[i]
                if not everyone:
                    low, high = _segment(i, state, desk)
                room += high - w[i] if gap > 0.0 else w[i] - low
        if not room > 0.0:
            continue
        share = min(1.0, abs(gap) / room)
        total = 0.0
        for i in range(n):
            if everyone or state[i] & 1:
                low, high = desk.lower[i], desk.upper[i]
                if not everyone:
                    low, high = _segment(i, state, desk)
                end = high if gap > 0.0 else low
                before = w[i]
                w[i] = end if share == 1.0 else before + share * (end - before)
                if everyone and w[i] != before:
                    if w[i] == desk.lower[i]:
                        state[i] = AT_LOWER
                    elif w[i] == desk.upper[i]:
                        state[i] = AT_UPPER
                    else:
                        state[i] = BELOW if desk.kinked[i] and w[i] < desk.reference[i] else ABOVE
            total += w[i]
        if share < 1.0:
            break
    if row != 0 and abs(total - target) > 1e-12:
        row = 0
    return row


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _factor_free(n, row, released, state, desk):
    """Cholesky factor R'R of H on the free positions, reduced by the budget row if it binds.

    The position just released comes last; returns (row, pivot, m, singular): singular if H has no curvature along it. A
    free position without curvature of its own, other than that one, is held.
    """
    H, R, order, free = desk.H, desk.R, desk.order, desk.free
    free_count = 0
    for i in range(n):
        if state[i] & 1:
            free[free_count] = i
            free_count += 1
    pivot = -1
    if free_count == 0:
        row = 0
    if row != 0:
        least = np.inf
        for q in range(free_count):
            i = free[q]
            if H[i, i] < least and (i != released or free_count == 1):
                least = H[i, i]
                pivot = i
    m = 0
    last = -1
    for q in range(free_count):
        i = free[q]
        if i == pivot:
            continue
        if i == released:
            last = i
            continue
        order[m] = i
        m += 1
    if last >= 0:
        order[m] = last
        m += 1
    singular = False
    c = 0
    while c < m:
        i = order[c]
        for a in range(c, m):
            R[c, a] = H[i, order[a]]
        size = R[c, c]
        if pivot >= 0:
            size += H[pivot, pivot]
            for a in range(c, m):
                R[c, a] += H[pivot, pivot] - H[i, pivot] - H[pivot, order[a]]
        for k in range(c):
            factor = R[k, c]
            for a in range(m - c):  # counted from 0, so that the compiler vectorises
                R[c, c + a] -= factor * R[k, c + a]
        if R[c, c] > 2.0 * _EPS * (n + 2) * size:
            R[c, c] = math.sqrt(R[c, c])
            inverse = 1.0 / R[c, c]
            for a in range(c + 1, m):
                R[c, a] *= inverse
        elif i == last:
            singular = True
        else:
            state[i] = HELD
            for k in range(c, m - 1):
                order[k] = order[k + 1]
            for k in range(c):
                for a in range(c, m - 1):
                    R[k, a] = R[k, a + 1]
            m -= 1
            continue
        c += 1
    return row, pivot, m, singular


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False, forceinline=True)
def _solve_factored(m, R, z):
    """Solve R'Rx = z in place."""
    for a in range(m):
        v = z[a] / R[a, a]
        z[a] = v
        for k in range(a + 1, m):
            z[k] -= R[a, k] * v
    for a in range(m - 1, -1, -1):
        v = z[a]
        for k in range(a + 1, m):
            v -= R[a, k] * z[k]
        z[a] = v / R[a, a]


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False, forceinline=True)
def _marginals(n, w, desk):
    """rho = g - Hw, and the size of its terms, which sets its rounding."""
    H, rho, scale = desk.H, desk.rho, desk.scale
    for i in range(n):
        rho[i] = desk.g[i]
        scale[i] = abs(desk.g[i]) + abs(desk.below[i]) + abs(desk.above[i])
    for j in range(n):
        weight = w[j]
        for i in range(n):
            term = H[j, i] * weight
            rho[i] -= term
            scale[i] += abs(term)


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False, forceinline=True)
def _release(n, by_index, w, state, row, pivot, mu, desk):
    """The binding limit whose release gains most per unit of its scale: (position, direction), n for the row, or -1."""
    who = -1
    direction = 0
    best = 0.0
    size = desk.scale[pivot] if pivot >= 0 else 0.0
    for i in range(n):
        s = state[i]
        if s & 1 or desk.lower[i] == desk.upper[i]:
            continue
        gain = 0.0
        way = 1
        if s == AT_LOWER:
            gain = desk.rho[i] - desk.below[i] - mu
        elif s == AT_UPPER:
            gain = mu + desk.above[i] - desk.rho[i]
            way = -1
        elif s == AT_REFERENCE:
            gain = desk.rho[i] - desk.above[i] - mu
            if mu + desk.below[i] - desk.rho[i] > gain:
                gain = mu + desk.below[i] - desk.rho[i]
                way = -1
        else:
            gain = desk.rho[i] - _cost_slope(i, w, state, desk) - mu
            if gain < 0.0:
                gain = -gain
                way = -1
        total = desk.scale[i] + size
        if gain > 4.0 * _EPS * (n + 4) * total and gain > best * total:
            if by_index:
                return i, way
            best = gain / total
            who = i
            direction = way
    if row != 0:
        gain = -mu * row
        if gain > 4.0 * _EPS * (n + 4) * size and gain > best * size:
            who = n
    return who, direction


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _project(n, floor, ceiling, mu, w, state, desk):
    """Move w to the optimum of the problem in which H is its diagonal, with the marginals of w: the guess of all limits
    that bind, at once. Returns (row, done); ``mu`` is where the search for the row's multiplier starts.

    A position answers the multiplier by a piecewise linear function, so that Newton with a bracket finds it.
    """
    target, answer = desk.z, desk.move
    for i in range(n):
        answer[i] = 1.0 / desk.H[i, i]
        target[i] = w[i] + desk.rho[i] * answer[i]
        if not answer[i] < np.inf:
            return 0, False
    left, right = -np.inf, np.inf
    row = 0
    price = 0.0
    bound = 0.0
    for _ in range(_SEARCH):
        total = 0.0
        slope = 0.0
        for i in range(n):
            v = target[i] - price * answer[i]
            high = v - desk.above[i] * answer[i]
            low = v - desk.below[i] * answer[i]
            moves = True
            s = ABOVE
            if desk.kinked[i]:
                if high >= desk.reference[i]:
                    v = high
                elif low <= desk.reference[i]:
                    v = low
                    s = BELOW
                else:
                    v = desk.reference[i]
                    s = AT_REFERENCE
                    moves = False
            else:
                v = high
            if v <= desk.lower[i]:
                v = desk.lower[i]
                s = AT_LOWER
                moves = False
            elif v >= desk.upper[i]:
                v = desk.upper[i]
                s = AT_UPPER
                moves = False
            if moves:
                slope += answer[i]
            w[i] = v
            state[i] = s
            total += v
        if row == 0:
            if floor <= total <= ceiling:
                return 0, True
            row = 1 if total > ceiling else -1
            bound = ceiling if row > 0 else floor
            if row > 0:
                left = 0.0
            else:
                right = 0.0
            if mu * row > 0.0:
                price = mu
                continue
        gap = total - bound
        if abs(gap) <= 1e-13:
            break
        if gap > 0.0:
            left = price
        else:
            right = price
        price += gap / slope if slope > 0.0 else np.inf
        if not left < price < right:
            if left == -np.inf:
                price = 2.0 * right - 1.0
            elif right == np.inf:
                price = 2.0 * left + 1.0
            else:
                price = 0.5 * (left + right)
    return row, True


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _best_portfolio(n, floor, ceiling, w, state, row, guesses, desk):
    """Solve the problem on the desk from the feasible portfolio w. Returns (row, mu, pivot, m, iterations, solved).

    Up to ``guesses`` times all limits are guessed at once (``_project``), which mostly ends it; then limits are met and
    released one at a time, which always does. On return R, order[:m] and pivot factor the free set, rho = g - Hw and mu
    is the multiplier of the row.
    """
    order, z, d = desk.order, desk.z, desk.d
    released = -1
    stalled = 0
    mu = 0.0
    pivot = -1
    m = 0
    longest = 60 + 12 * n
    for iteration in range(longest):
        _marginals(n, w, desk)
        row, pivot, m, singular = _factor_free(n, row, released, state, desk)
        base = 0.0
        if pivot >= 0:
            base = desk.rho[pivot] - _cost_slope(pivot, w, state, desk)
        step = 1.0
        if singular:
            last = order[m - 1]
            for a in range(m - 1):
                i = order[a]
                v = desk.H[i, last]
                if pivot >= 0:
                    v += desk.H[pivot, pivot] - desk.H[i, pivot] - desk.H[pivot, last]
                z[a] = -v
            _solve_factored(m - 1, desk.R, z)
            z[m - 1] = 1.0
            gain = 0.0
            size = 0.0
            for a in range(m):
                i = order[a]
                gain += (desk.rho[i] - _cost_slope(i, w, state, desk) - base) * z[a]
                size += desk.scale[i] * abs(z[a])
            if abs(gain) <= 8.0 * _EPS * (n + 4) * size:
                state[last] = HELD
                released = -1
                stalled += 1
                continue
            if gain < 0.0:
                for a in range(m):
                    z[a] = -z[a]
            step = np.inf
        else:
            for a in range(m):
                i = order[a]
                z[a] = desk.rho[i] - _cost_slope(i, w, state, desk) - base
            _solve_factored(m, desk.R, z)
        drift = 0.0
        total = 0.0
        for i in range(n):
            d[i] = 0.0
            total += w[i]
        for a in range(m):
            d[order[a]] = z[a]
            drift += z[a]
        if pivot >= 0:
            d[pivot] = -drift
        # The first limit in the way.
        hit = -1
        new = 0
        for i in range(n):
            if d[i] == 0.0 or not state[i] & 1:
                continue
            low, high = _segment(i, state, desk)
            end = high if d[i] > 0.0 else low
            if (d[i] > 0.0 and w[i] + step * d[i] >= end) or (d[i] < 0.0 and w[i] + step * d[i] <= end):
                reach = max((end - w[i]) / d[i], 0.0)
                if reach < step or hit < 0:
                    step = min(reach, step)
                    hit = i
                    new = AT_UPPER if end == desk.upper[i] else (AT_LOWER if end == desk.lower[i] else AT_REFERENCE)
        if row == 0 and drift != 0.0:
            end = ceiling if drift > 0.0 else floor
            if (drift > 0.0 and total + step * drift > end) or (drift < 0.0 and total + step * drift < end):
                step = min(max((end - total) / drift, 0.0), step)
                hit = n
                new = 1 if drift > 0.0 else -1
        if step == np.inf:
            return row, mu, pivot, m, iteration + 1, False
        if hit >= 0 and guesses > 0 and not singular:
            guesses -= 1
            for i in range(n):
                w[i] += d[i]
            _marginals(n, w, desk)
            row, _ = _project(n, floor, ceiling, mu, w, state, desk)
            row = _make_feasible(n, floor, ceiling, w, state, row, desk)
            released = -1
            continue
        length = 0.0
        for i in range(n):
            w[i] += step * d[i]
            length = max(length, abs(step * d[i]))
        if hit == n:
            row = new
        elif hit >= 0:
            state[hit] = new
            w[hit] = desk.upper[hit] if new == AT_UPPER else (
                desk.lower[hit] if new == AT_LOWER else desk.reference[hit]
            )  # fmt: skip
        if pivot >= 0 and hit != pivot:
            # The balancing asset also takes the rounding of the row.
            v = ceiling if row > 0 else floor
            for i in range(n):
                if i != pivot:
                    v -= w[i]
            low, high = _segment(pivot, state, desk)
            w[pivot] = min(max(v, low), high)
        if hit >= 0:
            if length <= 1e-14:
                stalled += 1
            released = -1
            continue
        _marginals(n, w, desk)
        mu = 0.0
        if pivot >= 0:
            mu = desk.rho[pivot] - _cost_slope(pivot, w, state, desk)
        who, direction = _release(n, stalled > 2 * n + _BLAND, w, state, row, pivot, mu, desk)
        if who < 0:
            return row, mu, pivot, m, iteration + 1, True
        if guesses > 0:
            guesses -= 1
            row, _ = _project(n, floor, ceiling, mu, w, state, desk)
            row = _make_feasible(n, floor, ceiling, w, state, row, desk)
            released = -1
            continue
        if who == n:
            row = 0
            released = pivot
        else:
            if desk.kinked[who]:
                s = state[who]
                below = s == AT_LOWER or (s == AT_REFERENCE and direction < 0)
                if s == HELD:
                    below = w[who] < desk.reference[who]
                state[who] = BELOW if below else ABOVE
            else:
                state[who] = ABOVE
            released = who
    return row, mu, pivot, m, longest, False


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _trade_sign(i, w, state, investors, desk):
    """Derivative of the cost by the commission: 1 for a purchase, 0 or -1 for a sale."""
    s = state[i]
    bought = s >= ABOVE if desk.kinked[i] and s != HELD else w[i] >= desk.reference[i]
    if bought:
        return 1.0
    return -1.0 if investors.both_sides else 0.0


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _optimize(b, n, t, p, investors, w, state, row, cold, desk):
    """Investor b's portfolio at prices p, started from (w, state, row), or ``cold``: from w without its states."""
    _pose(b, n, t, p, investors, desk)
    floor = 1.0 - investors.cash_long[b]
    ceiling = 1.0 + investors.cash_short[b]
    most = 0.0
    for i in range(n):
        most += desk.upper[i]
    # Limits that leave one point only may miss it by rounding.
    floor = min(floor, most)
    guesses = 0
    if cold:
        _marginals(n, w, desk)
        row, good = _project(n, floor, ceiling, 0.0, w, state, desk)
        guesses = _GUESSES if good else 0
    row = _make_feasible(n, floor, ceiling, w, state, row, desk)
    return _best_portfolio(n, floor, ceiling, w, state, row, guesses, desk)


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _solve_slopes(b, n, t, with_t, mu, pivot, m, p, investors, w, state, desk):
    """Derivatives of the free positions, as share terms y = p dh / W, by all log prices and, ``with_t``, by the mixing
    share: row a < m of desk.Y is position order[a], row m the pivot; column j is log price j, column n is t.

    Also writes desk.move, how t moves the fixed positions (zero for the free ones).
    """
    H, R, Y, order, move = desk.H, desk.R, desk.Y, desk.order, desk.move
    fixed, row_move, tilt = desk.d, desk.dm, desk.dc
    columns = n + 1 if with_t else n
    for j in range(n):
        fixed_weight = not state[j] & 1 and state[j] != AT_REFERENCE
        fixed[j] = w[j] if fixed_weight else 0.0
        row_move[j] = fixed[j] - w[j]
    row_move_t = 0.0
    if with_t:
        mean = investors.mean
        for i in range(n):
            v = 0.0
            if state[i] == AT_LOWER:
                v = investors.short[b, i] - mean[b, 5]
            elif state[i] == AT_UPPER:
                v = mean[b, 6] - investors.long[b, i]
            elif state[i] == AT_REFERENCE:
                v = p[i] * (mean[b, 4] - investors.held[b, i]) / investors.wealth[b]
            move[i] = v
            row_move_t -= v
            # The derivative of the marginal by t, times price.
            tilt[i] = mean[b, 2] - investors.expected[b, i]
            tilt[i] -= _trade_sign(i, w, state, investors, desk) * (mean[b, 3] - investors.commission[b, i])
            tilt[i] -= 2.0 * (mean[b, 0] - mean[b, 1]) * desk.shares[i] * w[i]
        for k in range(n):
            shares = 2.0 * desk.shares[k] * w[k]
            for i in range(n):
                tilt[i] -= (mean[b, 1] - investors.covariance[b, k, i]) * shares
        for i in range(n):
            tilt[i] = tilt[i] / p[i] - 2.0 * _EXTRA_RISK * w[i]
        for k in range(n):
            if move[k] != 0.0:
                for i in range(n):
                    tilt[i] -= H[k, i] * move[k]
    rows = m + 1 if pivot >= 0 else m
    for a in range(rows):
        i = order[a] if a < m else pivot
        for j in range(n):
            Y[a, j] = H[i, j] * fixed[j]
        Y[a, i] -= 1.0 + mu + 4.0 * _EXTRA_RISK * t * w[i]
        if with_t:
            Y[a, n] = tilt[i]
    if pivot >= 0:
        for a in range(m):
            slope = H[pivot, pivot] - H[order[a], pivot]
            for j in range(n):
                Y[a, j] -= Y[m, j] - slope * row_move[j]
            if with_t:
                Y[a, n] -= Y[m, n] - slope * row_move_t
        for j in range(n):
            Y[m, j] = row_move[j]
        if with_t:
            Y[m, n] = row_move_t
    for a in range(m):
        inverse = 1.0 / R[a, a]
        for j in range(columns):
            Y[a, j] *= inverse
        for k in range(a + 1, m):
            factor = R[a, k]
            for j in range(columns):
                Y[k, j] -= factor * Y[a, j]
    for a in range(m - 1, -1, -1):
        for k in range(a + 1, m):
            factor = R[a, k]
            for j in range(columns):
                Y[a, j] -= factor * Y[k, j]
        inverse = 1.0 / R[a, a]
        for j in range(columns):
            Y[a, j] *= inverse
        if pivot >= 0:
            for j in range(columns):
                Y[m, j] -= Y[a, j]
    return rows


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _add_slopes(b, n, t, with_t, mu, pivot, m, p, investors, w, state, desk):
    """Add investor b's derivative of demand by log prices to desk.J, and by t to desk.Jt."""
    J, Jt, Y, shares = desk.J, desk.Jt, desk.Y, desk.shares
    rows = _solve_slopes(b, n, t, with_t, mu, pivot, m, p, investors, w, state, desk)
    for a in range(rows):
        i = desk.order[a] if a < m else pivot
        for j in range(n):
            J[i, j] += shares[i] * Y[a, j]
        if with_t:
            Jt[i] += shares[i] * Y[a, n]
    for j in range(n):
        if not state[j] & 1 and state[j] != AT_REFERENCE:
            J[j, j] -= shares[j] * w[j]
        if with_t:
            Jt[j] += shares[j] * desk.move[j]


# Where the market stands: w, state (B, n), row (B,), and a copy to come back to.
Positions = namedtuple("Positions", "w state row kept_w kept_state kept_row")


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _excess_demand(n, u, t, mixed, supply, p, investors, positions, desk, f, D):
    """f = log(demand / supply) at log prices u, with its derivative D (n, n+1) by (u, t). Returns whether all solved.

    ``mixed``: t moves the economy toward the one in which all assets are alike. Where demand is below a twentieth of
    supply, or negative, the logarithm continues as a straight line.
    """
    for i in range(n):
        p[i] = math.exp(u[i])
        desk.demand[i] = 0.0
        desk.Jt[i] = 0.0
        for j in range(n):
            desk.J[i, j] = 0.0
    for b in range(investors.wealth.size):
        if not investors.wealth[b] > 0.0:
            continue
        w, state = positions.w[b], positions.state[b]
        row, mu, pivot, m, _, solved = _optimize(
            b, n, t if mixed else 0.0, p, investors, w, state, positions.row[b], n < 0, desk
        )
        positions.row[b] = row
        if not solved:
            return False
        for i in range(n):
            desk.demand[i] += investors.wealth[b] * w[i] / p[i]
        _add_slopes(b, n, t if mixed else 0.0, mixed, mu, pivot, m, p, investors, w, state, desk)
    for i in range(n):
        q = desk.demand[i] / supply[i]
        if q > _LOW_DEMAND:
            f[i] = math.log(q)
            slope = 1.0 / q
        else:
            f[i] = math.log(_LOW_DEMAND) + (q - _LOW_DEMAND) / _LOW_DEMAND
            slope = 1.0 / _LOW_DEMAND
        for j in range(n):
            D[i, j] = desk.J[i, j] / supply[i] * slope
        D[i, n] = desk.Jt[i] / supply[i] * slope
    return True


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _eliminate(n, A, x):
    """Solve A x = x in place by Gaussian elimination (A is overwritten). Returns the sign of its determinant."""
    sign = 1.0
    for k in range(n):
        best = k
        for i in range(k + 1, n):
            if abs(A[i, k]) > abs(A[best, k]):
                best = i
        if not abs(A[best, k]) > 0.0:
            return 0.0
        if best != k:
            sign = -sign
            for j in range(n):
                A[k, j], A[best, j] = A[best, j], A[k, j]
            x[k], x[best] = x[best], x[k]
        if A[k, k] < 0.0:
            sign = -sign
        for i in range(k + 1, n):
            factor = A[i, k] / A[k, k]
            if factor != 0.0:
                for j in range(k + 1, n):
                    A[i, j] -= factor * A[k, j]
                x[i] -= factor * x[k]
    for i in range(n - 1, -1, -1):
        v = x[i]
        for j in range(i + 1, n):
            v -= A[i, j] * x[j]
        x[i] = v / A[i, i]
    return sign


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _index_price(n, investors):
    """Highest price of the economy in which all assets are alike, or 0: there everybody holds q units of each, and
    sum q = 1. Fills nothing; supplies are one.

    q falls with the price but for short limits, -kW/p. On all prices below P those are at most -kW/P, which gives a
    falling majorant; its root is the next P, and the sequence falls to the highest root.
    """
    B = investors.wealth.size
    high = 0.0
    for b in range(B):
        if investors.wealth[b] > 0.0:
            high += investors.wealth[b] * min(investors.mean[b, 6], (1.0 + investors.cash_short[b]) / n)
    first = high
    for _ in range(60):
        low = high * 1e-3
        for _ in range(12):
            if _index_demand(n, low, high, investors) >= 1.0 or low < 1e-30 * first:
                break
            low *= 1e-3
        if not low >= 1e-30 * first:
            return 0.0
        left, right = math.log(low), math.log(high)
        for _ in range(60):
            middle = 0.5 * (left + right)
            if _index_demand(n, math.exp(middle), high, investors) >= 1.0:
                left = middle
            else:
                right = middle
        price = math.exp(left)
        if price >= high * (1.0 - 1e-10):
            return price
        high = price
    return high


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _index_holding(b, n, p, cap, investors):
    """Units of each asset that investor b holds where all assets are alike, short limits taken at price ``cap``."""
    mean = investors.mean
    W = investors.wealth[b]
    curvature = 2.0 * max(mean[b, 0] + (n - 1) * mean[b, 1], _EPS * mean[b, 0] + 1e-300)
    curvature += 2.0 * _EXTRA_RISK * p * p / W
    least = max(-mean[b, 5], (1.0 - investors.cash_long[b]) / n) * W
    least = least / p if least > 0.0 else least / cap
    most = min(mean[b, 6], (1.0 + investors.cash_short[b]) / n) * W / p
    bought = (mean[b, 2] - p - mean[b, 3]) / curvature
    sold = (mean[b, 2] - p + (mean[b, 3] if investors.both_sides else 0.0)) / curvature
    q = min(max(mean[b, 4], bought), sold)
    return min(max(q, least), most)


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _index_demand(n, p, cap, investors):
    total = 0.0
    for b in range(investors.wealth.size):
        if investors.wealth[b] > 0.0:
            total += _index_holding(b, n, p, cap, investors)
    return total


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _settle_states(n, p, investors, positions):
    """Portfolios where all assets are alike, and which limits they stand at."""
    for b in range(investors.wealth.size):
        W = investors.wealth[b]
        q = _index_holding(b, n, p, p, investors) if W > 0.0 else 0.0
        w = q * p / W if W > 0.0 else 0.0
        positions.row[b] = 0
        state = ABOVE
        held = p * investors.mean[b, 4] / W if W > 0.0 else 0.0
        if w <= -investors.mean[b, 5]:
            state = AT_LOWER
        elif w >= investors.mean[b, 6]:
            state = AT_UPPER
        elif n * w <= (1.0 - investors.cash_long[b]) * (1.0 + 1e-12):
            positions.row[b] = -1
        elif n * w >= (1.0 + investors.cash_short[b]) * (1.0 - 1e-12):
            positions.row[b] = 1
        elif abs(w - held) <= 1e-13 * abs(held) and investors.mean[b, 3] > 0.0:
            state = AT_REFERENCE
        if (state & 1) and w < held and investors.mean[b, 3] > 0.0:
            state = BELOW
        for i in range(n):
            positions.w[b, i] = w
            positions.state[b, i] = state


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _copy_positions(w, state, row, to_w, to_state, to_row):
    for b in range(row.size):
        to_row[b] = row[b]
        for i in range(w.shape[1]):
            to_w[b, i] = w[b, i]
            to_state[b, i] = state[b, i]


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _keep(positions):
    _copy_positions(
        positions.w, positions.state, positions.row, positions.kept_w, positions.kept_state, positions.kept_row
    )


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _restore(positions):
    _copy_positions(
        positions.kept_w, positions.kept_state, positions.kept_row, positions.w, positions.state, positions.row
    )


# The path: x, x_kept, tangent, normal, ahead, move, rhs (n+1,), f, f_start (n,), D (n, n+1), A (n+1, n+1), p (n,).
Path = namedtuple("Path", "x x_kept tangent normal ahead move rhs f f_start D A p")


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _residual_on_path(n, mixed, supply, investors, positions, desk, path):
    """The equations of the path at path.x: demand meets supply in the mixed economy, or excess demand is the share t of
    what it was at the start."""
    solved = _excess_demand(n, path.x, path.x[n], mixed, supply, path.p, investors, positions, desk, path.f, path.D)
    if not mixed:
        for i in range(n):
            path.f[i] -= path.x[n] * path.f_start[i]
            path.D[i, n] = -path.f_start[i]
    return solved


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _correct(n, mixed, at_end, step, slack, tolerance, supply, investors, positions, desk, path):
    """Damped Newton from path.x back to the path, in the plane across path.normal (at the end t stays 0).

    It may go half the step away, and ``slack`` for the error left at the point before. Where the equations are steep
    staircases a Newton step leads from stair to stair; halving it until the equations' norm falls finds the right one.
    Returns (converged, evaluations, size of the first correction).
    """
    allowed = 0.5 * step + slack
    rounds = 60 if at_end else _CORRECTIONS
    first = 0.0
    norm = np.inf
    size = 0.0
    damping = 1.0
    gone = 0.0
    for k in range(rounds):
        if not _residual_on_path(n, mixed, supply, investors, positions, desk, path):
            return False, k + 1, first
        now = 0.0
        for i in range(n):
            now += path.f[i] * path.f[i]
        now = math.sqrt(now)
        if now > (1.0 - 0.1 * damping) * norm and not (at_end and now < 1e-9):
            # Back half of the last move.
            damping *= 0.5
            if damping < 1e-3:
                return False, k + 1, first
            for j in range(n + 1):
                path.x[j] -= damping * path.move[j]
            continue
        norm = now
        for i in range(n):
            for j in range(n + 1):
                path.A[i, j] = path.D[i, j]
            path.rhs[i] = -path.f[i]
        for j in range(n + 1):
            path.A[n, j] = path.normal[j]
        path.rhs[n] = 0.0
        if _eliminate(n + 1, path.A, path.rhs) == 0.0:
            return False, k + 1, first
        before = size if k > 0 else np.inf
        size = 0.0
        for j in range(n + 1):
            size += path.rhs[j] * path.rhs[j]
        size = math.sqrt(size)
        if k == 0:
            first = size
        if not size < np.inf:
            return False, k + 1, first
        if at_end and size < 1e-9 and size > 0.5 * before:
            return True, k + 1, first
        if size <= tolerance and norm <= _NEAR:
            # Where the equations are steep a small correction may still lead over a stair; it is left to the next step.
            if at_end:
                for j in range(n + 1):
                    path.x[j] += path.rhs[j]
            return True, k + 1, first
        damping = min(1.0, allowed / size) if size > 0.0 else 1.0
        gone += damping * size
        if gone > 4.0 * allowed:
            return False, k + 1, first
        for j in range(n + 1):
            path.move[j] = path.rhs[j]
            path.x[j] += damping * path.rhs[j]
    return False, rounds, first


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _set_tangent(n, orientation, path):
    """Unit tangent of the path from path.D, in the direction that keeps the sign of the augmented determinant.

    That sign is constant along a path, through folds and through kinks. Returns it (0: no tangent).
    """
    for i in range(n):
        for j in range(n + 1):
            path.A[i, j] = path.D[i, j]
        path.rhs[i] = 0.0
    for j in range(n + 1):
        path.A[n, j] = path.normal[j]
    path.rhs[n] = 1.0
    sign = _eliminate(n + 1, path.A, path.rhs)
    size = 0.0
    for j in range(n + 1):
        size += path.rhs[j] * path.rhs[j]
    size = math.sqrt(size)
    if sign == 0.0 or not size < np.inf:
        return 0.0
    if orientation != 0.0 and sign != orientation:
        size = -size
    for j in range(n + 1):
        path.tangent[j] = path.rhs[j] / size
    return sign


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _follow_path(n, mixed, first_step, limit, supply, investors, positions, desk, path):
    """Follow the solutions of f(u, t) = 0 by arc length from the one in path.x, t = 1, to t = 0.

    Kinks are crossed by steps that end on the other side. Where the path turns back at a kink no step does: then the
    piece beyond it is taken from a point just past the kink, and the sign of the determinant tells the direction.
    Returns (status, evaluations).
    """
    x = path.x
    evaluations = 1
    if not _residual_on_path(n, mixed, supply, investors, positions, desk, path):
        return LOST, evaluations
    centre = 0.0
    for j in range(n):
        centre += x[j] / n
    for j in range(n + 1):
        path.normal[j] = 0.0
    path.normal[n] = -1.0
    orientation = _set_tangent(n, 0.0, path)
    if orientation == 0.0:
        return LOST, evaluations
    step = first_step
    slack = 1e-9
    while evaluations < limit:
        _keep(positions)
        for j in range(n + 1):
            path.x_kept[j] = x[j]
            path.ahead[j] = path.tangent[j]
        turned = 0
        while True:
            at_end = False
            reach = step
            if path.x_kept[n] + reach * path.tangent[n] <= 0.0:
                at_end = True
                reach = -path.x_kept[n] / path.tangent[n]
            for j in range(n + 1):
                x[j] = path.x_kept[j] + reach * path.tangent[j]
                path.normal[j] = path.tangent[j]
            good, spent, first = True, 0, 0.0
            tolerance = min(1e-3, 1e-2 * reach) if reach > 1e-7 else 1e-9
            if not at_end:
                good, spent, first = _correct(
                    n, mixed, at_end, reach, slack, tolerance, supply, investors, positions, desk, path
                )
                evaluations += spent
                if good and x[n] < 0.0:
                    # Stepped over t = 0: the end lies between.
                    at_end = True
                    back = path.x_kept[n] / (path.x_kept[n] - x[n])
                    for j in range(n):
                        x[j] = path.x_kept[j] + back * (x[j] - path.x_kept[j])
            if good and at_end:
                x[n] = 0.0
                for j in range(n):
                    path.normal[j] = 0.0
                path.normal[n] = 1.0
                size = 1.0
                for j in range(n):
                    size = max(size, abs(x[j]))
                good, spent, first = _correct(
                    n, mixed, at_end, reach, slack, 4.0 * _EPS * size, supply, investors, positions, desk, path
                )
                evaluations += spent
                if good:
                    return FOUND, evaluations
            if good:
                break
            _restore(positions)
            step = 0.4 * reach
            if step < _SHORTEST_STEP or evaluations >= limit:
                if turned == 5 or evaluations >= limit:
                    return LOST, evaluations
                # A kink stands in the way. Look at the piece beyond it, further each time.
                turned += 1
                for j in range(n + 1):
                    x[j] = path.x_kept[j] + 10.0 ** (turned - 8) * path.ahead[j]
                evaluations += 1
                if not _residual_on_path(n, mixed, supply, investors, positions, desk, path):
                    return LOST, evaluations
                for j in range(n + 1):
                    path.normal[j] = path.ahead[j]
                if _set_tangent(n, orientation, path) == 0.0:
                    return LOST, evaluations
                _restore(positions)
                step = 1e-3
        if _set_tangent(n, orientation, path) == 0.0:
            return LOST, evaluations
        slack = 1e-9 + 2.0 * tolerance
        if first < 0.05 * reach or first < 1e-9:
            step = 2.5 * reach
        elif first < 0.2 * reach:
            step = 1.4 * reach
        else:
            step = reach
        step = min(step, _LONGEST_STEP)
        for j in range(n):
            if x[j] < centre - _FURTHEST:
                return WORTHLESS, evaluations
        if not x[n] < (1.0 + 1e-6 if mixed else 100.0):
            return LOST, evaluations
    return LOST, evaluations


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _start_elsewhere(n, attempt, top, path):
    """The starting points that are tried in turn: a fixed, evenly spread sequence below log value ``top``."""
    share = 0.5
    for i in range(n):
        # Powers of the root of x^(n+1) = x + 1 spread evenly over the cube; 2^(-i/n) is near enough for any n.
        share = 2.0 ** (-(i + 1.0) / (n + 1.0)) * attempt
        path.x[i] = top - 6.0 * (share - math.floor(share))
    path.x[n] = 1.0


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _enter(n, investors, positions, desk, path):
    """Portfolios at the prices in path.x, from nothing known. One that cannot be solved shows when demand is summed."""
    for i in range(n):
        path.p[i] = math.exp(path.x[i])
    for b in range(investors.wealth.size):
        total = investors.cash_long[b]
        for i in range(n):
            total += investors.long[b, i]
        for i in range(n):
            # Long limits scaled to sum to one: strictly inside, whatever the limits.
            positions.w[b, i] = investors.long[b, i] / total
            positions.state[b, i] = ABOVE
        positions.row[b] = 0
        if investors.wealth[b] > 0.0:
            w, state = positions.w[b], positions.state[b]
            positions.row[b], _, _, _, _, _ = _optimize(b, n, 0.0, path.p, investors, w, state, 0, n > 0, desk)


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _from_point(n, first_step, limit, supply, investors, positions, desk, path):
    """The equilibrium at the end of the path on which excess demand shrinks in proportion from what it is at path.x."""
    mixed = limit < 0  # never; numba would compile everything anew for the literal
    _enter(n, investors, positions, desk, path)
    path.x[n] = 0.0
    if not _excess_demand(n, path.x, 0.0, mixed, supply, path.p, investors, positions, desk, path.f_start, path.D):
        return LOST, 1
    largest = 0.0
    for i in range(n):
        largest = max(largest, abs(path.f_start[i]))
    if largest == 0.0:
        return FOUND, 1
    path.x[n] = 1.0
    status, evaluations = _follow_path(n, mixed, first_step, limit, supply, investors, positions, desk, path)
    return status, evaluations + 1


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _from_rich_assets(n, value, budget, supply, investors, positions, desk, path, points):
    """An equilibrium in which one asset has most of the market's value.

    Where beliefs are prices a dear asset is a safe one: few shares of it make up a position. So markets often have such
    equilibria, one for each of several assets. Each asset in turn is given most of ``value``. All these starts are
    followed for a few evaluations, those with the least excess demand first, and then in the order of how much of it is
    left; ``points`` (n, n+1) holds where each stands. The order of the assets does not matter. Returns (status,
    evaluations); no more than ``budget`` evaluations begin a new path.
    """
    mixed = budget < 0  # never, see _from_point
    spent = 0
    for k in range(n):
        for i in range(n):
            path.x[i] = math.log(value * ((1.0 - _RICH) / (n - 1) if i != k else _RICH))
            points[k, i] = path.x[i]
        _enter(n, investors, positions, desk, path)
        solved = _excess_demand(n, path.x, 0.0, mixed, supply, path.p, investors, positions, desk, path.f, path.D)
        spent += 1
        points[k, n] = 0.0
        for i in range(n):
            points[k, n] += path.f[i] * path.f[i]
        if not solved:
            points[k, n] = np.inf
    for limit in (_FIRST_LOOK, _ELSEWHERE):
        for _ in range(n):
            best = -1
            for k in range(n):
                if points[k, n] >= 0.0 and points[k, n] < np.inf and (best < 0 or points[k, n] < points[best, n]):
                    best = k
            if best < 0:
                break
            if spent + limit > budget:
                return LOST, spent
            for i in range(n):
                path.x[i] = points[best, i]
            status, evaluations = _from_point(n, _FIRST_STEP, limit + 0 * n, supply, investors, positions, desk, path)
            spent += evaluations
            if status == FOUND:
                return FOUND, spent
            # Negative: tried in this round.
            points[best, n] = -path.x_kept[n] if status == LOST else -np.inf
            for i in range(n):
                points[best, i] = path.x_kept[i]
        for k in range(n):
            points[k, n] = abs(points[k, n])
    return LOST, spent


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _from_elsewhere(n, budget, supply, investors, positions, desk, path, points):
    """An equilibrium from starts that know nothing of the branch. Returns (status, evaluations)."""
    total = 0.0
    for b in range(investors.wealth.size):
        total += max(investors.wealth[b], 0.0)
    status, spent = LOST, 0
    if 1 < n < budget:
        value = n * _index_price(n, investors)
        if not value > 0.0:
            value = 0.5 * total
        status, spent = _from_rich_assets(n, value, budget, supply, investors, positions, desk, path, points)
    for attempt in range(1, _POINTS + 1):
        if status == FOUND or spent >= budget:
            break
        _start_elsewhere(n, attempt, math.log(total), path)
        status, more = _from_point(n, _LEAP, _ELSEWHERE + 0 * n, supply, investors, positions, desk, path)
        spent += more
    return status, spent


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _settle_market(n, supply, investors, positions, desk, path, holdings):
    """Holdings at the prices found. What rounding of the prices leaves over or short is shared among the investors in
    proportion to the slopes of their demand. Returns the residual of those holdings, relative to supply, and the
    rounding of its own sum."""
    B = investors.wealth.size
    mixed = n < 0  # never, see _from_point
    solved = _excess_demand(n, path.x, 0.0, mixed, supply, path.p, investors, positions, desk, path.f, path.D)
    if not solved:
        return np.nan, 0.0
    p = path.p
    for i in range(n):
        path.rhs[i] = supply[i] - desk.demand[i]
        for j in range(n):
            path.A[i, j] = desk.J[i, j]
    regular = _eliminate(n, path.A, path.rhs) != 0.0
    if regular:
        for j in range(n):
            desk.Jt[j] = path.rhs[j]
            regular = regular and abs(path.rhs[j]) < 1e-9
    for b in range(B):
        W = investors.wealth[b]
        if not W > 0.0:
            for i in range(n):
                holdings[b, i] = 0.0
            continue
        w, state = positions.w[b], positions.state[b]
        for i in range(n):
            holdings[b, i] = W * w[i] / p[i]
        if regular:
            _pose(b, n, 0.0, p, investors, desk)
            _, pivot, m, _ = _factor_free(n, positions.row[b], -1, state, desk)
            _marginals(n, w, desk)
            mu = desk.rho[pivot] - _cost_slope(pivot, w, state, desk) if pivot >= 0 else 0.0
            rows = _solve_slopes(b, n, 0.0, mixed, mu, pivot, m, p, investors, w, state, desk)
            for a in range(rows):
                i = desk.order[a] if a < m else pivot
                for j in range(n):
                    holdings[b, i] += desk.shares[i] * desk.Y[a, j] * desk.Jt[j]
    residual = 0.0
    floor = 0.0
    for i in range(n):
        total = -supply[i]
        gross = supply[i]
        for b in range(B):
            total += holdings[b, i]
            gross += abs(holdings[b, i])
        residual = max(residual, abs(total) / supply[i])
        floor = max(floor, 16.0 * _EPS * gross / supply[i])
    return residual, floor


@njit(cache=True, error_model="numpy", nogil=True)
def find_markets(first, last, covariance, expected, commission, both_sides, held, wealth, short, long, cash_short,
                 cash_long, supply, start, given, branch, limit, budget, prices, holdings, weights, state, row,
                 residual, evaluations, status):  # fmt: skip
    """Find the equilibria of markets ``first`` to ``last - 1``. The last eight arrays are results; a market whose
    status is SKIPPED on entry is passed over.

    covariance (E, B, N, N); expected, commission, held, short, long (E, B, N); wealth, cash_short, cash_long (E, B);
    supply (E, N). Tried in turn: the path from the prices start (E, N) if ``given``; the ``branch`` from the economy in
    which all assets are alike, each with at most ``limit`` evaluations of all demand; then starts far from these, while
    fewer than ``budget`` are spent. ``evaluations`` (E,) enters with those spent before. Inside, one unit is the whole
    supply.
    """
    _, B, n = expected.shape
    desk = _new_desk(n)
    v = np.zeros((7, n + 1))
    path = Path(
        v[0], v[1], v[2], v[3], v[4], v[5], v[6], np.zeros(n), np.zeros(n), np.zeros((n, n + 1)),
        np.zeros((n + 1, n + 1)), np.zeros(n),
    )  # fmt: skip
    scaled = np.zeros((B, n, n))
    m, c, h = np.zeros((B, n)), np.zeros((B, n)), np.zeros((B, n))
    mean = np.zeros((B, 7))
    one = np.ones(n)
    points = np.zeros((n, n + 1))
    kept_w, kept_state, kept_row = np.zeros((B, n)), np.zeros((B, n), np.int8), np.zeros(B, np.int8)
    for e in range(first, last):
        residual[e] = np.nan
        prices[e] = np.nan
        holdings[e] = np.nan
        if status[e] == SKIPPED:
            continue
        for b in range(B):
            for i in range(7):
                mean[b, i] = 0.0
            for i in range(n):
                s = supply[e, i]
                for j in range(n):
                    scaled[b, i, j] = covariance[e, b, i, j] * s * supply[e, j]
                    if i == j:
                        mean[b, 0] += scaled[b, i, j] / n
                    else:
                        mean[b, 1] += scaled[b, i, j] / (n * (n - 1))
                m[b, i] = expected[e, b, i] * s
                c[b, i] = commission[e, b, i] * s
                h[b, i] = held[e, b, i] / s
                mean[b, 2] += m[b, i] / n
                mean[b, 3] += c[b, i] / n
                mean[b, 4] += h[b, i] / n
                mean[b, 5] += short[e, b, i] / n
                mean[b, 6] += long[e, b, i] / n
        investors = Investors(
            scaled, m, c, h, wealth[e], short[e], long[e], cash_short[e], cash_long[e], both_sides, mean
        )
        positions = Positions(weights[e], state[e], row[e], kept_w, kept_state, kept_row)
        outcome = LOST
        spent = evaluations[e]
        if given:
            for i in range(n):
                path.x[i] = math.log(start[e, i] * supply[e, i])
            outcome, more = _from_point(n, _LEAP, limit, one, investors, positions, desk, path)
            spent += more
        if outcome != FOUND and branch:
            price = _index_price(n, investors)
            outcome = WORTHLESS
            if price > 0.0:
                _settle_states(n, price, investors, positions)
                for i in range(n):
                    path.x[i] = math.log(price)
                path.x[n] = 1.0
                outcome, more = _follow_path(n, branch, _FIRST_STEP, limit, one, investors, positions, desk, path)
                spent += more
        failure = outcome
        if outcome != FOUND and spent < budget:
            outcome, more = _from_elsewhere(n, budget - spent, one, investors, positions, desk, path, points)
            spent += more
        evaluations[e] = spent
        status[e] = failure
        if outcome == FOUND:
            status[e] = FOUND
            residual[e], floor = _settle_market(n, one, investors, positions, desk, path, holdings[e])
            if residual[e] <= max(1e-9, floor):
                for i in range(n):
                    prices[e, i] = path.p[i] / supply[e, i]
                    for b in range(B):
                        holdings[e, b, i] *= supply[e, i]
            else:
                status[e] = LOST
                holdings[e] = np.nan


@njit(cache=True, error_model="numpy", nogil=True)
def optimize_portfolios(first, last, covariance, expected, commission, both_sides, held, wealth, short, long,
                        cash_short, cash_long, prices, holdings, weights, state, row, status):  # fmt: skip
    """Optimal holdings of portfolios ``first`` to ``last - 1``; the last five arrays are results.

    covariance (K, N, N); expected, commission, held, short, long, prices (K, N); wealth, cash_short, cash_long (K,).
    """
    n = expected.shape[1]
    desk = _new_desk(n)
    mean = np.zeros((1, 7))
    investors = Investors(
        covariance, expected, commission, held, wealth, short, long, cash_short, cash_long, both_sides, mean
    )
    for b in range(first, last):
        status[b] = FOUND
        if not wealth[b] > 0.0:
            holdings[b] = 0.0
            weights[b] = 0.0
            row[b] = 0
            state[b] = HELD
            continue
        total = cash_long[b]
        for i in range(n):
            total += long[b, i]
        for i in range(n):
            weights[b, i] = long[b, i] / total
            state[b, i] = BELOW if weights[b, i] < prices[b, i] * held[b, i] / wealth[b] else ABOVE
        row[b], _, _, _, _, solved = _optimize(b, n, 0.0, prices[b], investors, weights[b], state[b], 0, n > 0, desk)
        for i in range(n):
            holdings[b, i] = wealth[b] * weights[b, i] / prices[b, i]
            solved = solved and abs(holdings[b, i]) < np.inf
        if not solved:
            status[b] = LOST


@njit(cache=True, error_model="numpy", nogil=True)
def examine_portfolios(first, last, covariance, expected, commission, held, wealth, short, long, cash_long, symmetry,
                       found):  # fmt: skip
    """Write to found (K,) what may be wrong with problems ``first`` to ``last - 1``, all in one pass: covariances
    ASYMMETRIC in any digit, SKEWED by more than ``symmetry`` of their largest entry, or INDEFINITE if the symmetric
    part has no Cholesky factor (a singular one may have none, a non-finite one has none); DOUBTFUL if another number is
    not admissible, or the limits leave hardly any portfolio.

    covariance (K, N, N); expected, commission, held, short, long (K, N); wealth, cash_long (K,).
    """
    n = covariance.shape[-1]
    R = np.zeros((n, n))
    for k in range(first, last):
        found[k] = SOUND
        good = 0.0 <= wealth[k] < np.inf
        room = cash_long[k]
        for i in range(n):
            good &= abs(expected[k, i]) < np.inf and abs(held[k, i]) < np.inf
            good &= 0.0 <= commission[k, i] < np.inf and 0.0 <= short[k, i] < np.inf and 0.0 <= long[k, i] < np.inf
            room += long[k, i]
        if not (good and room >= 1.0):
            found[k] |= DOUBTFUL
        matrix = covariance[k]
        for i in range(n):
            for j in range(n):
                R[i, j] = matrix[i, j]
        symmetric = True
        for i in range(n):
            for j in range(i):
                symmetric &= R[i, j] == R[j, i]
        if not symmetric:
            found[k] |= ASYMMETRIC
            largest = 0.0
            asymmetry = 0.0
            for i in range(n):
                largest = max(largest, abs(R[i, i]))
                for j in range(i):
                    largest = max(largest, abs(R[i, j]), abs(R[j, i]))
                    asymmetry = max(asymmetry, abs(R[i, j] - R[j, i]))
                    R[j, i] = 0.5 * (R[i, j] + R[j, i])
            if asymmetry > symmetry * largest:
                found[k] |= SKEWED
        for c in range(n):
            for a in range(c):
                factor = R[a, c]
                for j in range(n - c):
                    R[c, c + j] -= factor * R[a, c + j]
            if not 0.0 < R[c, c] < np.inf:
                found[k] |= INDEFINITE
                break
            inverse = 1.0 / math.sqrt(R[c, c])
            for j in range(n - c):
                R[c, c + j] *= inverse


@njit(cache=True, error_model="numpy", nogil=True)
def symmetrize_covariances(first, last, covariance, symmetric):
    """Write the symmetric parts of covariances (K, N, N) ``first`` to ``last - 1``."""
    n = covariance.shape[-1]
    for k in range(first, last):
        for i in range(n):
            for j in range(n):
                symmetric[k, i, j] = 0.5 * (covariance[k, i, j] + covariance[k, j, i])


# Cotangents of one portfolio's inputs: covariance (B, N, N), expected, commission, held, short, long, log_price (B, N),
# wealth, cash_short, cash_long (B,).
Bars = namedtuple("Bars", "covariance expected commission held short long log_price wealth cash_short cash_long")


@njit(cache=True, error_model="numpy", nogil=True, _nrt=False)
def _pull_back(b, n, p, investors, w, state, row, bar, desk, bars):
    """Adjoint of investor b's holdings: ``bar`` (n,) in, cotangents written to row b of ``bars``.

    With share terms y = p dh / W the free positions solve H y + 1 dmu = q, 1'y = s; (a, beta) solves the same system
    with (W bar / p, 0) on the right, and every input enters q, s or a fixed position.
    """
    W = investors.wealth[b]
    log_price = bars.log_price
    for i in range(n):
        bars.expected[b, i] = 0.0
        bars.commission[b, i] = 0.0
        bars.held[b, i] = 0.0
        bars.short[b, i] = 0.0
        bars.long[b, i] = 0.0
        log_price[b, i] = 0.0
        for j in range(n):
            bars.covariance[b, i, j] = 0.0
    bars.wealth[b] = 0.0
    bars.cash_short[b] = 0.0
    bars.cash_long[b] = 0.0
    if not W > 0.0:
        return
    _pose(b, n, 0.0, p, investors, desk)
    row, pivot, m, _ = _factor_free(n, row, -1, state, desk)
    _marginals(n, w, desk)
    mu = desk.rho[pivot] - _cost_slope(pivot, w, state, desk) if pivot >= 0 else 0.0
    H, z, a = desk.H, desk.z, desk.d
    for i in range(n):
        a[i] = 0.0
    for q in range(m):
        z[q] = W * bar[desk.order[q]] / p[desk.order[q]]
        if pivot >= 0:
            z[q] -= W * bar[pivot] / p[pivot]
    _solve_factored(m, desk.R, z)
    beta = 0.0
    if pivot >= 0:
        beta = W * bar[pivot] / p[pivot]
    for q in range(m):
        a[desk.order[q]] = z[q]
        if pivot >= 0:
            a[pivot] -= z[q]
    if pivot >= 0:
        for j in range(n):
            beta -= H[pivot, j] * a[j]
        # The row holds sum w at 1 - cash_long or 1 + cash_short.
        if row > 0:
            bars.cash_short[b] = beta
            bars.wealth[b] += beta * (1.0 + investors.cash_short[b]) / W
        else:
            bars.cash_long[b] = -beta
            bars.wealth[b] += beta * (1.0 - investors.cash_long[b]) / W
    for i in range(n):
        log_price[b, i] -= beta * w[i]
        if state[i] & 1:
            bars.expected[b, i] = a[i] / p[i]
            bars.commission[b, i] = -_trade_sign(i, w, state, investors, desk) * a[i] / p[i]
            log_price[b, i] -= (1.0 + mu) * a[i]
            for j in range(n):
                move = W * w[j] / p[j] * a[i] / p[i]
                bars.covariance[b, i, j] -= move
                bars.covariance[b, j, i] -= move
            continue
        rho = W * bar[i] / p[i] - beta
        for j in range(n):
            rho -= H[i, j] * a[j]
        if state[i] == AT_REFERENCE:
            bars.held[b, i] = rho * p[i] / W
            continue
        if state[i] == AT_LOWER:
            bars.short[b, i] = -rho
        elif state[i] == AT_UPPER:
            bars.long[b, i] = rho
        bars.wealth[b] += rho * w[i] / W
        log_price[b, i] -= rho * w[i]


@njit(cache=True, error_model="numpy", nogil=True)
def pull_back_portfolios(first, last, covariance, expected, commission, both_sides, held, wealth, short, long,
                         cash_short, cash_long, prices, weights, state, row, holdings_bar, covariance_bar, expected_bar,
                         commission_bar, held_bar, short_bar, long_bar, log_price_bar, wealth_bar, cash_short_bar,
                         cash_long_bar):  # fmt: skip
    """Adjoint of ``optimize_portfolios``."""
    n = expected.shape[1]
    desk = _new_desk(n)
    mean = np.zeros((1, 7))
    investors = Investors(
        covariance, expected, commission, held, wealth, short, long, cash_short, cash_long, both_sides, mean
    )
    bars = Bars(
        covariance_bar, expected_bar, commission_bar, held_bar, short_bar, long_bar, log_price_bar, wealth_bar,
        cash_short_bar, cash_long_bar,
    )  # fmt: skip
    for b in range(first, last):
        _pull_back(b, n, prices[b], investors, weights[b], state[b], row[b], holdings_bar[b], desk, bars)


@njit(cache=True, error_model="numpy", nogil=True)
def pull_back_equilibria(first, last, covariance, expected, commission, both_sides, held, wealth, short, long,
                         cash_short, cash_long, supply, prices, weights, state, row, prices_bar, holdings_bar,
                         covariance_bar, expected_bar, commission_bar, held_bar, short_bar, long_bar, log_price_bar,
                         wealth_bar, cash_short_bar, cash_long_bar, supply_bar):  # fmt: skip
    """Adjoint of ``find_markets``: cotangents of prices (E, N) and holdings (E, B, N) in, of all inputs out.

    With J = d(demand)/du and L = p prices_bar + sum_b (dh_b/du)' holdings_bar_b, the multiplier J'lambda = -L turns the
    market into B separate portfolios with cotangents holdings_bar_b + lambda; the supply's is -lambda.
    """
    _, B, n = expected.shape
    desk = _new_desk(n)
    mean = np.zeros((B, 7))
    A = np.zeros((n, n))
    x = np.zeros(n)
    bar = np.zeros(n)
    for e in range(first, last):
        investors = Investors(
            covariance[e], expected[e], commission[e], held[e], wealth[e], short[e], long[e], cash_short[e],
            cash_long[e], both_sides, mean,
        )  # fmt: skip
        bars = Bars(
            covariance_bar[e], expected_bar[e], commission_bar[e], held_bar[e], short_bar[e], long_bar[e],
            log_price_bar[e], wealth_bar[e], cash_short_bar[e], cash_long_bar[e],
        )  # fmt: skip
        p = prices[e]
        if not p[0] > 0.0:
            # Not cleared: its row is a constant.
            continue
        for i in range(n):
            x[i] = -p[i] * prices_bar[e, i]
            for j in range(n):
                desk.J[i, j] = 0.0
        for b in range(B):
            if not wealth[e, b] > 0.0:
                continue
            w, s = weights[e, b], state[e, b]
            _pull_back(b, n, p, investors, w, s, row[e, b], holdings_bar[e, b], desk, bars)
            for i in range(n):
                x[i] -= log_price_bar[e, b, i]
            mu = 0.0
            _, pivot, m, _ = _factor_free(n, row[e, b], -1, s, desk)
            if pivot >= 0:
                mu = desk.rho[pivot] - _cost_slope(pivot, w, s, desk)
            _add_slopes(b, n, 0.0, False, mu, pivot, m, p, investors, w, s, desk)
        for i in range(n):
            for j in range(n):
                A[i, j] = desk.J[j, i]
        if _eliminate(n, A, x) == 0.0:
            x[:] = np.nan
        for i in range(n):
            supply_bar[e, i] = -x[i]
        for b in range(B):
            for i in range(n):
                bar[i] = holdings_bar[e, b, i] + x[i]
            _pull_back(b, n, p, investors, weights[e, b], state[e, b], row[e, b], bar, desk, bars)
