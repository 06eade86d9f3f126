"""Compiled kernels of ``clear_market`` (numba, float64).

They stand in one file, which is why it is long: numba's disk cache does not see edits in the files that a kernel calls
into, so a kernel split over files could silently run old code.

One investor's problem, on the polytope of ``docs/clearing.md``, is

    w(r) = argmax  r'w - w'Gw - sum_i cost_i(w_i)    over  sum w = 1,  lower <= w <= upper,

with cash at index 0, ``r_0 = 0`` and zero risk in row and column 0. ``cost_i`` has the slope ``slope_below`` under a
reference position and ``slope_above`` over it. The solution is piecewise affine in r. On one piece some positions F are
free and the others stand at breakpoints (a limit or the reference); with rho = r - 2Gw - beta 1 the marginals,

    dw_i = sum_{m in F} T_il dr_l   (i in F),      drho_i = dr_i + sum_{m in F} T_il dr_l   (i not in F),

where T is the principal pivot transform on F of the optimality conditions. A position that enters or leaves F is one
pivot of T. An investor is carried as T and, for each position, a coordinate x (its w if free, its rho if not) with the
interval in which its state holds: no portfolio is solved twice, the kernels follow it, kink by kink, along a straight
line of r.

Names: E markets, B investors, N assets, n = N + 1 positions; k is an investor, i, j, m are positions.

``_nrt=False`` switches numba's reference counting off where nothing is allocated: counting took more than half of the
time (docs/decisions.md). It is safe because all arrays belong to the caller.
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

# State of one position. Odd states are free, even ones sit at a breakpoint of the investor's problem.
AT_LOWER, BELOW, AT_REFERENCE, ABOVE, AT_UPPER = 0, 1, 2, 3, 4

# Outcome of one market.
CLEARED, NOT_CONVERGED, DEGENERATE, REJECTED = 0, 1, 2, 3

_EPS = 2.220446049250313e-16
_RATE_FLOOR = 1e-14  # a rate of change below this share of the terms that it sums is rounding, not a movement
_STEP_CAP = 2.0  # largest move of a log price in one Newton step
_SEARCHES = 40  # iterations before the search stops at the first kink (Katzenelson), which cures cycles
_FRESH_START = 20  # iterations after which portfolios are rebuilt, so that pivots do not drift
_FINAL_STEP = 1e-4  # relative residual below which two linear steps, this one and the settlement's, leave only rounding
_MAX_ITERATIONS = 400
_BUDGET = 1e-12  # by which a portfolio's sum may miss one, relative to its gross weights
_OPTIMAL = 1e-10  # by which its first-order conditions may fail, relative to their terms
_SETTLEMENTS = 6  # of a market, the first of them as a rule
_SOLUTIONS = 3  # of all portfolios in each of the others
_SHARINGS = 3  # of excess demand after them
_FIRST_SHIFT = 1e-12  # of H where it is not positive definite, relative to its diagonal
_LARGEST_FLOOR = 1e-6  # where rounding leaves more than this of the supply unplaced, the market has not cleared

# The problem of all investors of one market: limits and references (B, n), slopes of the cost (B, n), risk (B, N, N).
Problem = namedtuple("Problem", "costly lower upper reference slope_below slope_above risk")
# Their solution: T (B, n, n); of each position (B, n) the state, free (1.0 or 0.0), coordinate x in [low, high], its
# rate along the current direction, and place, the breakpoint at which it stands if it is not free; free_count (B,).
Book = namedtuple("Book", "T state free x low high rate place free_count")


@njit(**_INLINE)
def _pivot(k, j, n, T):
    """Exchange the roles of w_j and rho_j of investor k; the same step lets j into the free set and out of it."""
    inverse = 1.0 / T[k, j, j]
    for i in range(n):
        if i != j:
            factor = T[k, i, j] * inverse
            for m in range(n):
                T[k, i, m] -= factor * T[k, j, m]
            T[k, i, j] = -factor
    for m in range(n):
        T[k, j, m] *= inverse
    T[k, j, j] = inverse


@njit(**_INLINE)
def _slopes(k, i, problem):
    """The slopes of cost under and over the kink of investor k's position i; equal where no kink lies inside."""
    below = 0.0
    above = 0.0
    if problem.costly:
        below = problem.slope_below[k, i]
        above = problem.slope_above[k, i]
        if problem.reference[k, i] <= problem.lower[k, i]:
            below = above
        elif problem.reference[k, i] >= problem.upper[k, i]:
            above = below
    return below, above


@njit(**_INLINE)
def _enter(k, i, state, problem, book):
    """Note the interval that belongs to a new state of investor k's position i, and where it stands if it is fixed."""
    below, above = _slopes(k, i, problem)
    low = problem.lower[k, i]
    high = problem.upper[k, i]
    book.state[k, i] = state
    book.free[k, i] = 0.0
    if state & 1:
        book.free[k, i] = 1.0
        if problem.costly and low < problem.reference[k, i] < high:
            if state == BELOW:
                high = problem.reference[k, i]
            else:
                low = problem.reference[k, i]
        book.low[k, i] = low
        book.high[k, i] = high
    elif state == AT_LOWER:
        book.place[k, i] = low
        book.low[k, i] = -np.inf
        book.high[k, i] = below
    elif state == AT_UPPER:
        book.place[k, i] = high
        book.low[k, i] = above
        book.high[k, i] = np.inf
    else:
        book.place[k, i] = problem.reference[k, i]
        book.low[k, i] = below
        book.high[k, i] = above


@njit(**_INLINE)
def _cross(k, i, n, problem, book):
    """Carry investor k across the kink that its position i has reached, in the direction of its rate."""
    up = book.rate[k, i] > 0.0
    old = book.state[k, i]
    below, above = _slopes(k, i, problem)
    if old & 1:
        if up:
            new = AT_UPPER if book.high[k, i] == problem.upper[k, i] else AT_REFERENCE
        else:
            new = AT_LOWER if book.low[k, i] == problem.lower[k, i] else AT_REFERENCE
        x = below if old == BELOW else above
        book.free_count[k] -= 1
    else:
        if old == AT_REFERENCE:
            new = ABOVE if up else BELOW
        elif old == AT_LOWER:
            new = ABOVE if problem.reference[k, i] <= problem.lower[k, i] else BELOW
        else:
            new = BELOW if problem.reference[k, i] >= problem.upper[k, i] else ABOVE
        x = book.place[k, i]
        book.free_count[k] += 1
    _pivot(k, i, n, book.T)
    _enter(k, i, new, problem, book)
    book.x[k, i] = x
    if book.free_count[k] == 1:
        # A single free position is held by the budget: its response is zero, not the rounding of one.
        for j in range(n):
            if book.state[k, j] & 1:
                book.T[k, j, j] = 0.0


@njit(**_INLINE)
def _rates(k, n, dr, book):
    """Rates of investor k's coordinates when r moves along dr; what is only rounding is exactly zero."""
    for i in range(n):
        rate = dr[i] * (1.0 - book.free[k, i])
        gross = abs(rate)
        for m in range(n):
            term = book.T[k, i, m] * dr[m] * book.free[k, m]
            rate += term
            gross += abs(term)
        book.rate[k, i] = rate if abs(rate) > _RATE_FLOOR * gross else 0.0


@njit(**_INLINE)
def _next_kink(k, n, left, book):
    """How far investor k goes before one of its positions leaves its interval, ``left`` at most, and which (or -1)."""
    nearest = left
    position = -1
    for i in range(n):
        rate = book.rate[k, i]
        bound = book.high[k, i] if rate > 0.0 else book.low[k, i]
        step = (bound - book.x[k, i]) / rate if rate != 0.0 else np.inf
        if step < nearest:
            nearest = step
            position = i
    return max(nearest, 0.0), position


@njit(**_INLINE)
def _advance(k, n, t, book):
    for i in range(n):
        book.x[k, i] += t * book.rate[k, i]


@njit(**_INLINE)
def _weight(k, i, book):
    return book.x[k, i] if book.state[k, i] & 1 else book.place[k, i]


@njit(**_INNER)
def _follow(k, n, dr, problem, book):
    """Carry investor k's portfolio from r to r + dr, kink by kink. Returns the kinks crossed, -1 if it gave up."""
    left = 1.0
    kinks = 0
    while True:
        _rates(k, n, dr, book)
        step, i = _next_kink(k, n, left, book)
        _advance(k, n, step, book)
        if i < 0:
            return kinks
        left -= step
        _cross(k, i, n, problem, book)
        kinks += 1
        if kinks > 40 * n + 100:
            return -1


@njit(**_INNER)
def _factor(k, n, risk, book):
    """Build T of investor k from its states alone: in closed form with cash alone free, then pivot by pivot."""
    T = book.T
    T[k, 0, 0] = 0.0
    count = 0
    for i in range(1, n):
        T[k, i, 0] = -1.0
        T[k, 0, i] = 1.0
        for m in range(1, n):
            T[k, i, m] = 2.0 * risk[k, i - 1, m - 1]
    for i in range(1, n):
        if book.state[k, i] & 1:
            _pivot(k, i, n, T)
            count += 1
    if book.state[k, 0] & 1:
        count += 1
    elif count > 0:
        _pivot(k, 0, n, T)
        if count == 1:
            for i in range(1, n):
                if book.state[k, i] & 1:
                    T[k, i, i] = 0.0
    book.free_count[k] = count


@njit(**_INNER)
def _refine(k, n, r, problem, book):
    """One step of iterative refinement of investor k's portfolio at r on its present free set."""
    missing = 1.0
    last = 0
    for i in range(n):
        missing -= _weight(k, i, book)
        if book.state[k, i] & 1:
            last = i
    book.x[k, last] += missing
    for i in range(n):
        book.rate[k, i] = 0.0
        if book.state[k, i] & 1:
            s = 0.0
            if i > 0:
                for m in range(1, n):
                    s += problem.risk[k, i - 1, m - 1] * _weight(k, m, book)
            below, above = _slopes(k, i, problem)
            book.rate[k, i] = r[i] - 2.0 * s - (below if book.state[k, i] == BELOW else above)
    # The error of the marginals less what is common to them, beta: T maps that to zero, but only up to rounding.
    for i in range(n):
        if book.state[k, i] & 1 and i != last:
            book.rate[k, i] -= book.rate[k, last]
    book.rate[k, last] = 0.0
    for i in range(n):
        if book.state[k, i] & 1:
            s = 0.0
            for m in range(n):
                s += book.T[k, i, m] * book.rate[k, m]
            book.place[k, i] = s
    for i in range(n):
        if book.state[k, i] & 1:
            book.x[k, i] += book.place[k, i]


@njit(**_INNER)
def _solve_portfolio(k, n, r, dr, problem, book):
    """Investor k's portfolio at r from nothing: follow it from the r at which the middle of P is optimal."""
    low = 0.0
    high = 0.0
    for i in range(n):
        low += problem.lower[k, i]
        high += problem.upper[k, i]
    share = (1.0 - low) / (high - low) if high > low else 0.0
    for i in range(n):
        w = problem.lower[k, i] + share * (problem.upper[k, i] - problem.lower[k, i])
        _enter(k, i, ABOVE if problem.costly and w >= problem.reference[k, i] else BELOW, problem, book)
        book.x[k, i] = w
    _factor(k, n, problem.risk, book)
    for i in range(n):
        s = 0.0
        if i > 0:
            for m in range(1, n):
                s += problem.risk[k, i - 1, m - 1] * book.x[k, m]
        below, above = _slopes(k, i, problem)
        dr[i] = r[i] - 2.0 * s - (below if book.state[k, i] == BELOW else above)
    return _follow(k, n, dr, problem, book)


@njit(**_INNER)
def _cholesky_solve(n, M, x):
    """Solve M x = x in place, M symmetric positive definite (overwritten by its factor). False if it is not."""
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
    return True


# --- The market

# One market: beliefs (B, N) and the unknown v (N,) are log prices relative to the positive prices base (N,); value (N,)
# is supply times price. d is the direction of search, M (N, N) the Hessian of Psi; kink_*, time (B,) belong to _search.
Market = namedtuple("Market", "beliefs wealth supply orders base v value d M r dr kink_t kink_i time")


@njit(**_INLINE)
def _slope(t, linear, market):
    """Slope of Psi along d at t (``linear`` is the investors' part) and its derivative without the investors."""
    slope = -linear
    curvature = 0.0
    for i in range(market.d.shape[0]):
        d = market.d[i]
        money = d * market.value[i] * math.exp(t * d)
        slope += money - d * market.orders[i]
        curvature += d * money
    return slope, curvature


@njit(**_INLINE)
def _is_downhill(t, linear, market):
    """Whether the slope of Psi along d is surely negative at t: 1 + x <= e^x <= 1 + x + x^2 for |x| <= 1, no exp."""
    bound = -linear
    for i in range(market.d.shape[0]):
        d = market.d[i]
        x = t * d
        if not abs(x) <= 1.0:
            return False
        money = market.value[i] * (1.0 + x + (x * x if d > 0.0 else 0.0))
        bound += d * (money - market.orders[i])
    return bound < 0.0


@njit(**_INNER)
def _root(left, right, t, linear, linear_rate, market):
    """Root in (left, right] of the slope of Psi along d; the investors' part is linear there. Safeguarded Newton."""
    x = right
    for _ in range(100):
        slope, curvature = _slope(x, linear + linear_rate * (x - t), market)
        if slope >= 0.0:
            right = x
        else:
            left = x
        new = x - slope / (curvature - linear_rate)
        if not left < new < right:
            new = 0.5 * (left + right)
        if abs(new - x) <= 1e-15 * right or new in (left, right):
            return new
        x = new
    return x


@njit(**_INNER)
def _search(n, first_kink, market, problem, book):
    """Follow all investors along d to the exact root of the slope of Psi, or to the first kink. Returns t.

    Values of Psi are never compared: near the solution they are all rounding. The slope is monotone, and between two
    kinks it is linear but for the value of supply.
    """
    B = market.wealth.shape[0]
    d, dr, wealth, kink_t, kink_i = market.d, market.dr, market.wealth, market.kink_t, market.kink_i
    largest = 0.0
    for i in range(n - 1):
        dr[i + 1] = -d[i]
        largest = max(largest, abs(d[i]))
    dr[0] = 0.0
    longest = _STEP_CAP / largest if largest > 0.0 else 1.0
    linear = 0.0
    linear_rate = 0.0
    for k in range(B):
        market.time[k] = 0.0
        kink_t[k] = np.inf
        if wealth[k] > 0.0:
            _rates(k, n, dr, book)
            step, kink_i[k] = _next_kink(k, n, longest, book)
            if kink_i[k] >= 0:
                kink_t[k] = step
            for i in range(1, n):
                linear += wealth[k] * d[i - 1] * _weight(k, i, book)
                linear_rate += wealth[k] * d[i - 1] * book.rate[k, i] * book.free[k, i]
    t = 0.0
    for _ in range(100 * n * B):
        k = 0
        for other in range(1, B):
            if kink_t[other] < kink_t[k]:
                k = other
        ahead = min(kink_t[k], longest)
        linear_ahead = linear + linear_rate * (ahead - t)
        if not _is_downhill(ahead, linear_ahead, market) and _slope(ahead, linear_ahead, market)[0] >= 0.0:
            t = _root(t, ahead, t, linear, linear_rate, market)
            break
        linear = linear_ahead
        t = ahead
        if kink_t[k] >= longest:
            break
        _advance(k, n, t - market.time[k], book)
        market.time[k] = t
        for i in range(1, n):
            linear_rate -= wealth[k] * d[i - 1] * book.rate[k, i] * book.free[k, i]
        _cross(k, kink_i[k], n, problem, book)
        if first_kink:
            break
        _rates(k, n, dr, book)
        step, kink_i[k] = _next_kink(k, n, longest - t, book)
        kink_t[k] = t + step if kink_i[k] >= 0 else np.inf
        for i in range(1, n):
            linear_rate += wealth[k] * d[i - 1] * book.rate[k, i] * book.free[k, i]
    for k in range(B):
        # The investor that stopped the search at a first kink already stands at t, and its rates are those before.
        if wealth[k] > 0.0 and market.time[k] < t:
            _advance(k, n, t - market.time[k], book)
    return t


@njit(**_INNER)
def _newton_direction(n, market, book):
    """d = -H^{-1} grad Psi. Returns the residual relative to supply (NaN if H is not positive definite) and its floor.

    The floor is the rounding of the sums in demand: 16 eps times their gross value, relative to supply.
    """
    wealth, orders, value, M = market.wealth, market.orders, market.value, market.M
    residual = 0.0
    floor = 0.0
    for i in range(n - 1):
        demand = orders[i]
        gross = value[i] + abs(orders[i])
        for j in range(i + 1):
            M[i, j] = 0.0
        for k in range(wealth.shape[0]):
            if wealth[k] > 0.0:
                money = wealth[k] * _weight(k, i + 1, book)
                demand += money
                gross += abs(money)
                for j in range(i + 1):
                    M[i, j] += wealth[k] * book.free[k, i + 1] * book.free[k, j + 1] * book.T[k, i + 1, j + 1]
        M[i, i] += value[i]
        market.dr[i] = M[i, i]  # kept, as is the upper half of M, for another try
        for j in range(i):
            M[j, i] = M[i, j]
        market.d[i] = demand - value[i]  # the right side; the solve below turns it into the direction
        residual = max(residual, abs(market.d[i]) / value[i])
        floor = max(floor, 16.0 * _EPS * gross / value[i])
    if _cholesky_solve(n - 1, M, market.d):
        return residual, floor
    # Rounding in T of a nearly singular risk may outweigh supply: the least shift that gives a direction downhill.
    shift = _FIRST_SHIFT
    while shift < 1.0:
        for i in range(n - 1):
            M[i, i] = (1.0 + shift) * market.dr[i]
            for j in range(i):
                M[i, j] = M[j, i]
        if _cholesky_solve(n - 1, M, market.d):
            return residual, floor
        shift *= 10.0
    return np.nan, floor


@njit(**_INLINE)
def _move_prices(t, market):
    for i in range(market.v.shape[0]):
        market.v[i] += t * market.d[i]
        market.value[i] = market.supply[i] * market.base[i] * math.exp(market.v[i])


@njit(**_INNER)
def _solve_portfolios(n, market, problem, book):
    """Every investor's portfolio at the present prices. False if one of them could not be found."""
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            market.r[0] = 0.0
            for i in range(1, n):
                market.r[i] = market.beliefs[k, i - 1] - market.v[i - 1]
            if _solve_portfolio(k, n, market.r, market.dr, problem, book) < 0:
                return False
    return True


@njit(**_INNER)
def _find_prices(n, market, problem, book):
    """Event-exact semismooth Newton on the slope of Psi. Returns (status, iterations)."""
    _move_prices(0.0, market)
    for iteration in range(_MAX_ITERATIONS):
        if iteration % _FRESH_START == 0 and not _solve_portfolios(n, market, problem, book):
            return DEGENERATE, iteration
        residual, floor = _newton_direction(n, market, book)
        if not residual < np.inf:
            return NOT_CONVERGED, iteration
        if residual > max(_FINAL_STEP, floor):
            _move_prices(_search(n, iteration > _SEARCHES, market, problem, book), market)
            continue
        market.dr[0] = 0.0
        for i in range(1, n):
            market.dr[i] = -market.d[i - 1]
        kinks = 0
        for k in range(market.wealth.shape[0]):
            if market.wealth[k] > 0.0:
                crossed = _follow(k, n, market.dr, problem, book)
                if crossed < 0:
                    return DEGENERATE, iteration
                kinks += crossed
        _move_prices(1.0, market)
        if kinks == 0:
            return CLEARED, iteration + 1
    return NOT_CONVERGED, _MAX_ITERATIONS


@njit(**_INNER)
def _refine_portfolios(n, market, problem, book):
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            market.r[0] = 0.0
            for i in range(1, n):
                market.r[i] = market.beliefs[k, i - 1] - market.v[i - 1]
            _refine(k, n, market.r, problem, book)


@njit(**_INLINE)
def _keep_budget(k, n, book):
    """Let the roomiest free position of investor k take what the others leave of its wealth. Returns that position."""
    missing = 1.0
    roomiest = 0
    most = -np.inf
    for i in range(n):
        missing -= _weight(k, i, book)
        if book.state[k, i] & 1:
            room = min(book.x[k, i] - book.low[k, i], book.high[k, i] - book.x[k, i])
            if room > most:
                most = room
                roomiest = i
    book.x[k, roomiest] += missing
    return roomiest


@njit(**_INNER)
def _solve_again(k, n, r, dr, problem, book):
    """Follow investor k's portfolio to r from the r at which it is optimal as it stands. False if it gave up.

    Refinement that may change the free set, on a transform made afresh: what rounding has left in T of a nearly
    singular risk can be more than the room that a position has.
    """
    _factor(k, n, problem.risk, book)
    basic = _keep_budget(k, n, book)
    for i in range(n):
        s = 0.0
        if i > 0:
            for m in range(1, n):
                s += problem.risk[k, i - 1, m - 1] * _weight(k, m, book)
        below, above = _slopes(k, i, problem)
        state = book.state[k, i]
        # The marginal that the position is taken to have, beta aside.
        marginal = book.x[k, i] if not state & 1 else below if state == BELOW else above
        dr[i] = r[i] - 2.0 * s - marginal
    beta = dr[basic]
    for i in range(n):
        dr[i] -= beta
    if _follow(k, n, dr, problem, book) < 0:
        return False
    _keep_budget(k, n, book)
    return True


@njit(**_INNER)
def _solve_portfolios_again(n, market, problem, book):
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            market.r[0] = 0.0
            for i in range(1, n):
                market.r[i] = market.beliefs[k, i - 1] - market.v[i - 1]
            if not _solve_again(k, n, market.r, market.dr, problem, book):
                return False
    return True


@njit(**_INNER)
def _share_excess(n, market, book):
    """Move prices by d and the free positions of all investors with them, each investor's budget kept."""
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            for i in range(n):
                if book.state[k, i] & 1:
                    for m in range(1, n):
                        book.x[k, i] -= book.T[k, i, m] * book.free[k, m] * market.d[m - 1]
            _keep_budget(k, n, book)
    _move_prices(1.0, market)


@njit(**_INNER)
def _follow_prices(n, market, problem, book):
    """Move prices by d and all investors with them. False if one of them gave up."""
    market.dr[0] = 0.0
    for i in range(1, n):
        market.dr[i] = -market.d[i - 1]
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            if _follow(k, n, market.dr, problem, book) < 0:
                return False
            _keep_budget(k, n, book)
    _move_prices(1.0, market)
    return True


@njit(**_INNER)
def _is_optimal(k, n, r, weights, problem, book):
    """Whether investor k's weights satisfy its budget and its first-order conditions at r, from the weights alone.

    Sharing money out differently must not pay: what is gained by moving it into any position that can grow is at most
    what is lost by taking it from any position that can shrink.
    """
    missing = 1.0
    gross = 1.0
    scale = 0.0
    gain = -np.inf
    loss = np.inf
    for i in range(n):
        missing -= weights[k, i]
        gross += abs(weights[k, i])
        marginal = r[i]
        terms = abs(r[i])
        if i > 0:
            for m in range(1, n):
                term = 2.0 * problem.risk[k, i - 1, m - 1] * weights[k, m]
                marginal -= term
                terms += abs(term)
        below, above = _slopes(k, i, problem)
        scale = max(scale, terms + abs(below), terms + abs(above))
        state = book.state[k, i]
        if problem.costly and state & 1 and problem.lower[k, i] < problem.reference[k, i] < problem.upper[k, i]:
            # On the side of the reference whose cost it is taken to pay.
            beyond = weights[k, i] - problem.reference[k, i]
            if (beyond if state == BELOW else -beyond) > _BUDGET * (1.0 + abs(problem.reference[k, i])):
                return False
        if state != AT_UPPER:
            gain = max(gain, marginal - (below if state <= BELOW else above))
        if state != AT_LOWER:
            loss = min(loss, marginal - (above if state >= ABOVE else below))
    return abs(missing) <= _BUDGET * gross and gain - loss <= _OPTIMAL * scale


@njit(**_INNER)
def _write(n, shared, market, problem, book, prices, weights):
    """Prices and weights as results; unless it is ``shared`` already, with the excess shared among free positions."""
    for i in range(n - 1):
        prices[i] = market.base[i] * math.exp(market.v[i])
    for k in range(market.wealth.shape[0]):
        for i in range(n):
            if market.wealth[k] > 0.0:
                # The one position that a corner keeps free may miss its limit by rounding.
                s = _weight(k, i, book)
                if book.state[k, i] & 1 and not shared:
                    for m in range(1, n):
                        s -= book.T[k, i, m] * book.free[k, m] * market.d[m - 1]
                if s <= problem.lower[k, i] + 4.0 * _EPS:
                    s = problem.lower[k, i]
                elif s >= problem.upper[k, i] - 4.0 * _EPS:
                    s = problem.upper[k, i]
                weights[k, i] = s
            else:
                weights[k, i] = 1.0 if i == 0 else 0.0


@njit(**_INNER)
def _verify(n, market, problem, book, prices, weights):
    """Whether the results clear the market, and every investor's portfolio is optimal. Returns (verdict, residual)."""
    residual = 0.0
    floor = 0.0
    for i in range(n - 1):
        holdings = market.orders[i] / prices[i] - market.supply[i]
        gross = abs(market.orders[i]) / prices[i] + market.supply[i]
        for k in range(market.wealth.shape[0]):
            if market.wealth[k] > 0.0:
                held = market.wealth[k] * weights[k, i + 1] / prices[i]
                holdings += held
                gross += abs(held)
        error = abs(holdings) / market.supply[i]
        if not error < np.inf:
            return False, error
        residual = max(residual, error)
        floor = max(floor, 16.0 * _EPS * gross / market.supply[i])
    if not residual <= max(1e-9, min(floor, _LARGEST_FLOOR)):
        return False, residual
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            market.r[0] = 0.0
            for i in range(1, n):
                market.r[i] = market.beliefs[k, i - 1] - market.v[i - 1]
            if not _is_optimal(k, n, market.r, weights, problem, book):
                return False, residual
    return True, residual


@njit(**_INNER)
def _settle_solution(n, market, problem, book, prices, weights):
    """Write prices and weights of a cleared market, to the last digit. Returns (status, residual).

    Portfolios are solved again on their final free sets. What excess is left by the rounding of prices is shared
    among the free positions in proportion to their slopes, so that holdings clear even where one ulp of price moves
    demand visibly. Where risk is so nearly singular that T has lost the digits for that, both are repeated.
    """
    residual = np.nan
    for attempt in range(_SETTLEMENTS):
        if attempt == 0:
            _refine_portfolios(n, market, problem, book)
            residual, _ = _newton_direction(n, market, book)
            if not residual < np.inf:
                return NOT_CONVERGED, residual
            _move_prices(1.0, market)
        else:
            follows = attempt > 2
            for _ in range(_SOLUTIONS):
                if not follows:
                    _refine_portfolios(n, market, problem, book)
                elif not _solve_portfolios_again(n, market, problem, book):
                    return DEGENERATE, residual
            for _ in range(_SHARINGS):
                residual, _ = _newton_direction(n, market, book)
                if not residual < np.inf:
                    return NOT_CONVERGED, residual
                if not follows:
                    _share_excess(n, market, book)
                elif not _follow_prices(n, market, problem, book):
                    return DEGENERATE, residual
        _write(n, attempt > 0, market, problem, book, prices, weights)
        verdict, residual = _verify(n, market, problem, book, prices, weights)
        if verdict:
            for k in range(market.wealth.shape[0]):
                if not market.wealth[k] > 0.0:
                    for i in range(n):
                        book.state[k, i] = AT_REFERENCE
            return CLEARED, residual
    return NOT_CONVERGED, residual


@njit(**_INNER)
def _read(e, beliefs, short_leverage, long_leverage, reference, cost, base, relative, problem):
    """Market e into a problem's arrays, with its beliefs relative to the log of the prices ``base``."""
    B, n = problem.lower.shape
    for i in range(n - 1):
        log_base = math.log(base[i])
        for k in range(B):
            relative[k, i] = beliefs[e, k, i] - log_base
    for k in range(B):
        for i in range(n):
            problem.lower[k, i] = -short_leverage[e, k, i]
            problem.upper[k, i] = long_leverage[e, k, i]
    if problem.costly:
        for k in range(B):
            problem.reference[k, 0] = problem.lower[k, 0]
            for i in range(1, n):
                paid = cost[e, k, i - 1]
                problem.slope_below[k, i] = -paid
                problem.slope_above[k, i] = paid
                # Without a cost there is no kink; a reference at the limit says so.
                problem.reference[k, i] = reference[e, k, i - 1] if paid > 0.0 else problem.lower[k, i]


@njit(**_OUTER)
def clear_markets(first, last, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, costly, reference,
                  cost, base, prices, weights, state, residual, iterations, status):  # fmt: skip
    """Clear markets ``first`` to ``last - 1``. The last six arrays are results; a market whose status is REJECTED on
    entry is passed over.

    beliefs (E, B, N) log prices; risk (E, B, N, N); wealth (E, B), at most zero for an investor that demands nothing;
    limits (E, B, N+1); supply (E, N) shares; orders (E, N) money; base (E, N) prices to start from, to which the
    kernel's own log prices are relative. With ``costly``: reference (E, B, N) weights and cost
    (E, B, N) on each side of them.
    """
    _, B, N = beliefs.shape
    n = N + 1
    slope_below, slope_above, kink = np.zeros((B, n)), np.zeros((B, n)), np.zeros((B, n))
    relative, lower, upper = np.zeros((B, N)), np.zeros((B, n)), np.zeros((B, n))
    T, free, x, low = np.zeros((B, n, n)), np.zeros((B, n)), np.zeros((B, n)), np.zeros((B, n))
    high, rate, place, free_count = np.zeros((B, n)), np.zeros((B, n)), np.zeros((B, n)), np.zeros(B, np.int64)
    v, value, d, M = np.zeros(N), np.zeros(N), np.zeros(N), np.zeros((N, N))
    r, dr, kink_t, time = np.zeros(n), np.zeros(n), np.zeros(B), np.zeros(B)
    kink_i = np.zeros(B, np.int64)
    for e in range(first, last):
        residual[e] = np.nan
        prices[e] = np.nan
        weights[e] = np.nan
        iterations[e] = 0
        if status[e] == REJECTED:
            continue
        v[:] = 0.0
        d[:] = 0.0  # a market that failed may have left anything
        problem = Problem(costly, lower, upper, kink, slope_below, slope_above, risk[e])
        _read(e, beliefs, short_leverage, long_leverage, reference, cost, base[e], relative, problem)
        book = Book(T, state[e], free, x, low, high, rate, place, free_count)
        market = Market(relative, wealth[e], supply[e], orders[e], base[e], v, value, d, M, r, dr, kink_t, kink_i, time)
        status[e], iterations[e] = _find_prices(n, market, problem, book)
        if status[e] == CLEARED:
            status[e], residual[e] = _settle_solution(n, market, problem, book, prices[e], weights[e])
            if status[e] != CLEARED:
                prices[e] = np.nan
                weights[e] = np.nan


@njit(**_OUTER)
def check_markets(first, last, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, costly, reference,
                  cost, prices, weights, state, residual, status):  # fmt: skip
    """Check markets ``first`` to ``last - 1`` that another method has cleared, as ``clear_markets`` checks its own.

    Arguments as there, prices, weights and state given. A market that fails is marked, and its prices and weights NaN.
    """
    _, B, N = beliefs.shape
    n = N + 1
    parts, relative, r, unused = np.zeros((5, B, n)), np.zeros((B, N)), np.zeros(n), np.zeros((1, n))
    none, never, T = np.zeros(N), np.zeros(B), np.zeros((1, n, n))
    nobody = np.zeros(B, np.int64)
    matrix = np.zeros((N, N))
    for e in range(first, last):
        verdict = False
        if status[e] == CLEARED:
            problem = Problem(costly, parts[0], parts[1], parts[2], parts[3], parts[4], risk[e])
            _read(e, beliefs, short_leverage, long_leverage, reference, cost, prices[e], relative, problem)
            book = Book(T, state[e], unused, unused, unused, unused, unused, unused, nobody)
            market = Market(relative, wealth[e], supply[e], orders[e], prices[e], none, none, none, matrix, r, r, never,
                            nobody, never)  # fmt: skip
            verdict, residual[e] = _verify(n, market, problem, book, prices[e], weights[e])
            if not verdict:
                status[e] = NOT_CONVERGED
        if not verdict:
            prices[e] = np.nan
            weights[e] = np.nan


@njit(**_OUTER)
def pull_back_markets(first, last, risk, wealth, supply, prices, weights, state, reference, costly, prices_bar,
                      weights_bar, holdings_bar, beliefs_bar, risk_bar, wealth_bar, short_bar, long_bar, supply_bar,
                      orders_bar, reference_bar, cost_bar):  # fmt: skip
    """Adjoint of ``clear_markets``: cotangents of prices (E, N), weights (E, B, N+1) and holdings (E, B, N) in, those
    of every input out (the last nine arrays, zero on entry). A market that did not clear (NaN prices) keeps its zeros,
    so that it does not spoil parameters that it shares with others."""
    _, B, n = weights.shape
    N = n - 1
    T, free_count, unused = np.zeros((B, n, n)), np.zeros(B, np.int64), np.zeros((1, n))
    omega, q, a, u_bar, M = np.zeros((B, n)), np.zeros(n), np.zeros(n), np.zeros(N), np.zeros((N, N))
    for e in range(first, last):
        if not prices[e, 0] > 0.0:
            continue
        book = Book(T, state[e], unused, unused, unused, unused, unused, unused, free_count)
        for i in range(N):
            u_bar[i] = prices[e, i] * prices_bar[e, i]
            for j in range(N):
                M[i, j] = 0.0
            M[i, i] = supply[e, i] * prices[e, i]
        for k in range(B):
            wealth_bar[e, k] = 0.0
            if not wealth[e, k] > 0.0:
                continue
            _factor(k, n, risk[e], book)
            omega[k, 0] = weights_bar[e, k, 0]
            for i in range(N):
                per_price = holdings_bar[e, k, i] / prices[e, i]
                omega[k, i + 1] = weights_bar[e, k, i + 1] + wealth[e, k] * per_price
                wealth_bar[e, k] += weights[e, k, i + 1] * per_price
                u_bar[i] -= wealth[e, k] * weights[e, k, i + 1] * per_price
            for i in range(1, n):
                for m in range(n):
                    if state[e, k, i] & 1 and state[e, k, m] & 1:
                        u_bar[i - 1] -= T[k, i, m] * omega[k, m]
                        if m > 0:
                            M[i - 1, m - 1] += wealth[e, k] * T[k, i, m]
        if not _cholesky_solve(N, M, u_bar):
            for i in range(N):
                u_bar[i] = np.nan
        for i in range(N):
            supply_bar[e, i] = -u_bar[i] * prices[e, i]
            orders_bar[e, i] = u_bar[i]
        for k in range(B):
            if costly:
                for i in range(N):
                    reference_bar[e, k, i] = 0.0
                    cost_bar[e, k, i] = 0.0
            if not wealth[e, k] > 0.0:
                for i in range(N):
                    beliefs_bar[e, k, i] = 0.0
                    for j in range(N):
                        risk_bar[e, k, i, j] = 0.0
                continue
            q[0] = omega[k, 0]
            for i in range(1, n):
                q[i] = omega[k, i] + wealth[e, k] * u_bar[i - 1]
                wealth_bar[e, k] += u_bar[i - 1] * weights[e, k, i]
            for i in range(n):
                # T q on the free set: a for a free position, what rho gains beyond q for one that is not.
                s = 0.0
                for m in range(n):
                    if state[e, k, m] & 1:
                        s += T[k, i, m] * q[m]
                a[i] = s if state[e, k, i] & 1 else 0.0
                q[i] = q[i] if state[e, k, i] & 1 else q[i] + s
            for i in range(N):
                beliefs_bar[e, k, i] = a[i + 1]
                for j in range(N):
                    risk_bar[e, k, i, j] = -(a[i + 1] * weights[e, k, j + 1] + weights[e, k, i + 1] * a[j + 1])
            for i in range(n):
                s = state[e, k, i]
                if s & 1:
                    if costly and i > 0:
                        cost_bar[e, k, i - 1] = -a[i] if weights[e, k, i] > reference[e, k, i - 1] else a[i]
                    continue
                if s == AT_LOWER:
                    short_bar[e, k, i] = -q[i]
                elif s == AT_UPPER:
                    long_bar[e, k, i] = q[i]
                else:
                    reference_bar[e, k, i - 1] = q[i]


# --- Admissible input

# Reasons for which a market is not admissible; a value of FINITE + i says that argument i holds a number that is not.
(
    ADMISSIBLE, SHORT, LONG, CROSSED, LOWER_SUM, UPPER_SUM, SUPPLY, LAST_PRICES, COST, SYMMETRIC, DEFINITE, WEALTH,
    UNWANTED, ORDERS, FINITE,
) = range(15)  # fmt: skip

_SLACK = 1e-12  # by which limits may miss the budget
_ALL_SUBSETS = 10  # assets up to which the buying power for every subset of them is compared with sell orders


@njit(**_INNER)
def _first_not_finite(values):
    for i in range(values.shape[0]):
        if not abs(values[i]) < np.inf:
            return i
    return -1


@njit(**_INNER)
def _sort(x):
    """Insertion sort, in place: a handful of assets."""
    for i in range(1, x.shape[0]):
        value = x[i]
        j = i
        while j > 0 and x[j - 1] > value:
            x[j] = x[j - 1]
            j -= 1
        x[j] = value


@njit(**_INNER)
def _examine_limits(short, long, n, strict):
    """Whether the limits of one investor's positions leave a portfolio (``strict``: one inside all of them)."""
    low, high, gross = 0.0, 0.0, 1.0
    for i in range(n):
        if long[i] < -short[i] or (strict and long[i] <= -short[i]):
            return CROSSED, long[i] + short[i]
        low -= short[i]
        high += long[i]
        gross += abs(short[i]) + abs(long[i])
    if low > 1.0 + _SLACK * gross or (strict and low >= 1.0):
        return LOWER_SUM, -low
    if high < 1.0 - _SLACK * gross or (strict and high <= 1.0):
        return UPPER_SUM, high
    return ADMISSIBLE, 0.0


@njit(**_INNER)
def _power(mask, N, wealth, short, long):
    """The most money that investors can hold of the assets in ``mask``, limits being those of every position."""
    power = 0.0
    for k in range(wealth.shape[0]):
        if wealth[k] > 0.0:
            most, room = 0.0, 1.0 + short[k * (N + 1)]
            for i in range(N):
                p = k * (N + 1) + i + 1
                if mask >> i & 1:
                    most += long[p]
                else:
                    room += short[p]
            power += wealth[k] * min(most, room)
    return power


@njit(**_INNER)
def _middle_clears(N, wealth, short, long, orders):
    """Whether every asset is wanted when all investors stand in the middle of their limits."""
    for i in range(N):
        money = orders[i]
        for k in range(wealth.shape[0]):
            if wealth[k] > 0.0:
                low, width = 0.0, 0.0
                for p in range(k * (N + 1), (k + 1) * (N + 1)):
                    low -= short[p]
                    width += long[p] + short[p]
                p = k * (N + 1) + i + 1
                share = (1.0 - low) / width if width > 0.0 else 0.0
                money += wealth[k] * (share * (long[p] + short[p]) - short[p])
        if not money > 0.0:
            return False
    return True


@njit(**_INNER)
def _examine_power(N, wealth, short, long, orders):
    """Whether buying power exceeds the sell orders in every set of assets, limits being those of every position.

    Most markets pass because the portfolios in the middle of the limits would do. Where they do not, every set is
    tried, or of many assets only single ones and the whole: there the search finds out.
    """
    richest = 0.0
    for k in range(wealth.shape[0]):
        richest = max(richest, wealth[k])
    if not richest > 0.0:
        return WEALTH, richest
    if _middle_clears(N, wealth, short, long, orders):
        return ADMISSIBLE, 0.0
    every = 1 << N
    for turn in range(1, every if N <= _ALL_SUBSETS else N + 2):
        mask = turn if N <= _ALL_SUBSETS else (1 << (turn - 1) if turn <= N else every - 1)
        sold = 0.0
        for i in range(N):
            if mask >> i & 1:
                sold -= orders[i]
        power = _power(mask, N, wealth, short, long)
        if not power > sold:
            return (ORDERS, sold - power) if sold > 0.0 else (UNWANTED, power - sold)
    return ADMISSIBLE, 0.0


@njit(**_INNER)
def _examine(e, N, arrays, long_min, strict, symmetry, M, x):
    """The first reason for which market e is not admissible, with where it was found or what was found."""
    _, risk, wealth, short, long, supply, orders, last_prices, _, cost = arrays
    for argument, values in enumerate(arrays):
        i = _first_not_finite(values[e])
        if i >= 0:
            return FINITE + argument, values[e, i]
    per_position = short.shape[1] > wealth.shape[1]
    for k in range(wealth.shape[1]):
        if per_position:
            reason, what = _examine_limits(short[e, k * (N + 1) :], long[e, k * (N + 1) :], N + 1, strict)
            if reason != ADMISSIBLE:
                return reason, what
            continue
        if short[e, k] < 0.0:
            return SHORT, short[e, k]
        if long[e, k] < long_min * (1.0 - _SLACK) or (strict and long[e, k] <= long_min):
            return LONG, long[e, k]
    for i in range(N):
        if not supply[e, i] > 0.0:
            return SUPPLY, supply[e, i]
    for i in range(last_prices.shape[1]):
        if not last_prices[e, i] > 0.0:
            return LAST_PRICES, last_prices[e, i]
    for i in range(cost.shape[1]):
        if cost[e, i] < 0.0:
            return COST, cost[e, i]
    for k in range(wealth.shape[1]):
        largest = 0.0
        asymmetry = 0.0
        for i in range(N):
            for j in range(N):
                g = risk[e, (k * N + i) * N + j]
                h = risk[e, (k * N + j) * N + i]
                M[i, j] = 0.5 * (g + h)
                largest = max(largest, abs(g))
                asymmetry = max(asymmetry, abs(g - h))
            x[i] = 0.0
        if asymmetry > symmetry * largest:
            return SYMMETRIC, asymmetry
        if not _cholesky_solve(N, M, x):
            return DEFINITE, float(k)
    before = 0.0
    for i in range(N):
        x[i] = orders[e, i] if orders.shape[1] > 0 else 0.0
    if per_position:
        return _examine_power(N, wealth[e], short[e], long[e], x)
    _sort(x)
    for i in range(N):
        # The most that can be spent on any i + 1 assets, after the largest sell orders in as many.
        power = 0.0
        for k in range(wealth.shape[1]):
            power += max(wealth[e, k], 0.0) * min((i + 1) * long[e, k], 1.0 + short[e, k] * (N - i))
        before += x[i]
        if not power > 0.0:
            return WEALTH, power
        if not power + before > 0.0:
            return ORDERS, -(power + before)
    return ADMISSIBLE, 0.0


@njit(**_OUTER)
def examine_markets(first, last, N, arrays, long_min, strict, symmetry, reason, found):
    """Why each of markets ``first`` to ``last - 1`` is not admissible (or ADMISSIBLE), and what was ``found``.

    ``arrays`` are beliefs, risk, wealth, limits, supply, orders, last prices, positions and cost with all but the first
    axis flattened; those that are absent have no columns. Limits are both per investor or both per position.
    """
    M, x = np.zeros((N, N)), np.zeros(N)
    for e in range(first, last):
        reason[e], found[e] = _examine(e, N, arrays, long_min, strict, symmetry, M, x)
