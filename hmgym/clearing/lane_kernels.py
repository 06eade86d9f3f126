"""The compiled kernel that clears markets, eight investors side by side (numba, float64).

One investor's problem, on the polytope of ``docs/clearing.md``, is

    w(r) = argmax  r'w - w'Gw - sum_i cost_i(w_i)    over  sum w = 1,  lower <= w <= upper,

with cash at index 0, ``r_0 = 0`` and zero risk in row and column 0; ``cost_i`` has the slope ``below`` under a
reference position and ``above`` over it. The solution is piecewise affine in r. On one piece some positions F are free
and the others stand at breakpoints; with y = r - 2Gw - beta 1 the marginals,

    dw_i = sum_{m in F} T_im dr_m   (i in F),      dy_i = dr_i + sum_{m in F} T_im dr_m   (i not in F),

where T is the principal pivot transform on F of the optimality conditions. A position that enters or leaves F is one
pivot of T. The graph of y_i against w_i is a staircase of five states: a free position moves w along a step and keeps
its y, a fixed one moves y and keeps its w, and at the end of a step it crosses to the next state.

An investor is carried as T, w and y: no portfolio is solved twice, it is *followed*, kink by kink, along a straight
line of r. Since 2Gw + y is an r at which the portfolio is optimal, whatever w in P and y on the staircase are,
portfolios of an earlier clearing are as good a start as any, even if limits, references and costs have moved since.

Investors stand in groups of eight, the lanes of ``lanes.py``, and every group is followed in lockstep: all its lanes go
to their next kink, all that have reached one cross it. Lanes beyond the last investor repeat it without wealth. A
market takes whole Newton steps; one that goes too far is taken back to the secant's root, and if that is not near
enough the slope of Psi is searched exactly, from then on in every step.

What this kernel gives up is left to ``kernels.py``, which takes more care. This file calls into ``lanes.py`` and a
factorisation of ``kernels.py``; numba's disk cache does not see edits there.

Names: E markets, B investors, N assets, n = N + 1 positions, G groups; g is a group, i, j, m are positions.

``_nrt=False`` switches numba's reference counting off where nothing is allocated (docs/decisions.md).
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit

from hmgym.clearing.kernels import (
    ABOVE,
    AT_LOWER,
    AT_REFERENCE,
    AT_UPPER,
    BELOW,
    CLEARED,
    DEGENERATE,
    NOT_CONVERGED,
    REJECTED,
    _cholesky_solve,
)
from hmgym.clearing.lanes import (
    WIDTH,
    absolute,
    count,
    gather,
    lane_numbers,
    least,
    load,
    most,
    some,
    spread,
    store,
    total,
    where,
)

_OUTER: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}
_INNER: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}

_EPS = 2.220446049250313e-16
_RATE_FLOOR = 1e-14  # a rate of change below this share of the terms that it sums is rounding, not a movement
_BUDGET = 1e-12  # by which a portfolio's sum may miss one, relative to its gross weights
_OPTIMAL = 1e-10  # by which its first-order conditions may fail, relative to their terms
_STEP_CAP = 2.0  # largest move of a log price in one Newton step
_OVERSHOOT = 0.5  # share of the slope of Psi before a step that may be left, with the other sign, after it
_WHOLE_STEPS = 10  # iterations after which every step is searched
_SEARCHES = 40  # iterations before the search stops at the first kink (Katzenelson), which cures cycles
_FRESH_START = 20  # iterations after which portfolios are rebuilt, so that pivots do not drift
_FINAL_STEP = 1e-4  # relative residual below which two linear steps, this one and the settlement's, leave only rounding
_NEWTON_STEPS = 6  # on one piece, where only supply's value is curved
_MAX_ITERATIONS = 400
_LARGEST_FLOOR = 1e-6  # where rounding leaves more than this of the supply unplaced, the market has not cleared
_OLDEST = 64.0  # pivots after which T is built anew
_UNKNOWN = -1.0  # age of a portfolio that is not there

# What follows has lanes as its last axis, of length WIDTH. The problem's limits and kinks (G, n); no reference is
# outside the limits, and one at a limit is no kink.
Problem = namedtuple("Problem", "lower upper reference below above")
# Portfolios. What lasts: pivots since T was built (G,), the number of free positions (G,), states, w and y (G, n),
# T (G, n, n), risk (G, N, N). What is found anew: free (1 or 0), the step [low, high] of the staircase on which the
# moving coordinate is, and its rate along the current direction (G, n).
Book = namedtuple("Book", "age n_free state weight marginal T risk free low high rate")
# The market: beliefs (G, n) and the unknown v (N,) are log prices relative to the prices base (N,); value (N,) is
# supply times price; wealth (G,). d (N,) is the step, excess (N,) demand less supply in money, A (N, N) its response to
# prices. dr (G, n) are moves of r; kink_t, kink_i, time (G,) belong to the search, the rest is room to work in.
Market = namedtuple("Market", "beliefs wealth supply orders base v value d excess A M step dr kink_t kink_i time r row")


def memory_size(n_investors: int, n_assets: int) -> int:
    """Float64 numbers that the lasting part of one market's ``Book`` takes."""
    n = n_assets + 1
    return WIDTH * -(-n_investors // WIDTH) * (2 + 3 * n + n * n + n_assets * n_assets)


# --- One group of portfolios


@njit(**_INNER)
def _rates(g, n, dr, row, book):
    """Rates of the moving coordinates when r moves along dr; what is only rounding is exactly zero."""
    for i in range(n):
        store(row[i], load(dr[i]) * load(book.free[g, i]))
    for i in range(n):
        rate = load(dr[i]) * (1.0 - load(book.free[g, i]))
        gross = absolute(rate)
        for m in range(n):
            term = load(book.T[g, i, m]) * load(row[m])
            rate += term
            gross += absolute(term)
        store(book.rate[g, i], where(absolute(rate) > _RATE_FLOOR * gross, rate, 0.0))


@njit(**_INNER)
def _coordinate(g, i, book):
    return where(load(book.free[g, i]) > 0.5, load(book.weight[g, i]), load(book.marginal[g, i]))


@njit(**_INNER)
def _advance(g, n, t, book):
    for i in range(n):
        move = t * load(book.rate[g, i])
        free = load(book.free[g, i])
        store(book.weight[g, i], load(book.weight[g, i]) + move * free)
        store(book.marginal[g, i], load(book.marginal[g, i]) + move * (1.0 - free))


@njit(**_INNER)
def _reaches_kink(g, n, left, book):
    """Whether any lane leaves its step of the staircase before ``left``."""
    leaves = left < 0.0
    for i in range(n):
        end = _coordinate(g, i, book) + left * load(book.rate[g, i])
        leaves |= (end > load(book.high[g, i])) | (end < load(book.low[g, i]))
    return some(leaves)


@njit(**_INNER)
def _next_kink(g, n, left, book):
    """How far each lane goes before a position leaves its step, ``left`` at most, and which (or -1)."""
    nearest = left
    position = spread(-1.0)
    for i in range(n):
        rate = load(book.rate[g, i])
        bound = where(rate > 0.0, load(book.high[g, i]), load(book.low[g, i]))
        step = (bound - _coordinate(g, i, book)) / rate
        sooner = (rate != 0.0) & (step < nearest)
        nearest = where(sooner, step, nearest)
        position = where(sooner, i, position)
    return most(nearest, 0.0), position


@njit(**_INNER)
def _pivot(g, n, crossing, position, T, row):
    """In the lanes that are crossing, exchange the roles of w_j and y_j, j = position."""
    lane = lane_numbers()
    down = position * WIDTH + lane
    across = position * (WIDTH * n) + lane
    inverse = where(crossing, 1.0 / gather(T[g, 0, 0], position * (WIDTH * (n + 1)) + lane), 0.0)
    for m in range(n):
        here = crossing & (position == m)
        store(row[m], where(here, 1.0, gather(T[g, 0, m], across)))
        store(row[n + m], where(here, 0.0, 1.0))
    # Row j and column j are wiped by the factors keep, and then made by the same update as everything else.
    for i in range(n):
        keep = load(row[n + i])
        factor = where(keep == 0.0, -inverse, gather(T[g, i, 0], down) * inverse)
        for m in range(n):
            store(T[g, i, m], load(T[g, i, m]) * (keep * load(row[n + m])) - factor * load(row[m]))


@njit(**_INNER)
def _hold_single(g, n, book):
    """A single free position is held by the budget: its response is zero, not the rounding of one."""
    single = load(book.n_free[g]) == 1.0
    if some(single):
        for i in range(n):
            store(book.T[g, i, i], where(single & (load(book.free[g, i]) > 0.5), 0.0, load(book.T[g, i, i])))


@njit(**_INNER)
def _step_of(state, lower, upper, reference, below, above):
    """The step of the staircase that belongs to a state: of w if it is free, of y if it is not."""
    low = where(state == BELOW, lower, where(state == AT_REFERENCE, below, where(state == ABOVE, reference, above)))
    high = where(state == AT_LOWER, below, where(state == BELOW, reference, where(state == AT_REFERENCE, above, upper)))
    return where(state == AT_LOWER, -np.inf, low), where(state == AT_UPPER, np.inf, high)


@njit(**_INNER)
def _cross(g, n, crossing, position, problem, book, row):
    """Carry the crossing lanes across the kink that their positions have reached, in the direction of its rate."""
    position = most(position, 0.0)
    at = position * WIDTH + lane_numbers()
    up = gather(book.rate[g, 0], at) > 0.0
    was_free = gather(book.free[g, 0], at) > 0.5
    bound = where(up, gather(book.high[g, 0], at), gather(book.low[g, 0], at))
    lower = gather(problem.lower[g, 0], at)
    upper = gather(problem.upper[g, 0], at)
    reference = gather(problem.reference[g, 0], at)
    below = gather(problem.below[g, 0], at)
    above = gather(problem.above[g, 0], at)
    state = gather(book.state[g, 0], at) + where(up, 1.0, -1.0)
    # A reference at a limit takes two steps out of the staircase.
    only_above = reference <= lower
    only_below = (reference >= upper) & ~only_above
    state = where(only_above & ((state == BELOW) | (state == AT_REFERENCE)), where(up, ABOVE, AT_LOWER), state)
    state = where(only_below & ((state == AT_REFERENCE) | (state == ABOVE)), where(up, AT_UPPER, BELOW), state)
    low, high = _step_of(state, lower, upper, reference, below, above)
    store(book.n_free[g], load(book.n_free[g]) + where(crossing, where(was_free, -1.0, 1.0), 0.0))
    store(book.age[g], load(book.age[g]) + where(crossing, 1.0, 0.0))
    _pivot(g, n, crossing, position, book.T, row)
    for i in range(n):
        here = crossing & (position == i)
        store(book.state[g, i], where(here, state, load(book.state[g, i])))
        store(book.free[g, i], where(here, where(was_free, 0.0, 1.0), load(book.free[g, i])))
        store(book.low[g, i], where(here, low, load(book.low[g, i])))
        store(book.high[g, i], where(here, high, load(book.high[g, i])))
        store(book.weight[g, i], where(here & was_free, bound, load(book.weight[g, i])))
        store(book.marginal[g, i], where(here & ~was_free, bound, load(book.marginal[g, i])))
    _hold_single(g, n, book)


@njit(**_INNER)
def _follow(g, n, left, dr, row, problem, book):
    """Carry the portfolios of group g along ``left`` (0 or 1) of dr, kink by kink. Returns the kinks crossed, or -1."""
    kinks = 0
    for _ in range(40 * n + 100):
        _rates(g, n, dr, row, book)
        if not _reaches_kink(g, n, left, book):
            _advance(g, n, left, book)
            return kinks
        nearest, position = _next_kink(g, n, left, book)
        crossing = (position >= 0.0) & (left > 0.0)
        nearest = where(left > 0.0, nearest, 0.0)
        _advance(g, n, nearest, book)
        if not some(crossing):
            return kinks
        left = where(crossing, left - nearest, 0.0)
        _cross(g, n, crossing, position, problem, book, row)
        kinks += count(crossing)
    return -1


@njit(**_INNER)
def _factor(g, n, stale, book, row):
    """Build T of the stale lanes from their states alone: in closed form with cash alone free, then pivot by pivot."""
    T = book.T
    store(T[g, 0, 0], where(stale, 0.0, load(T[g, 0, 0])))
    for i in range(1, n):
        store(T[g, i, 0], where(stale, -1.0, load(T[g, i, 0])))
        store(T[g, 0, i], where(stale, 1.0, load(T[g, 0, i])))
        for m in range(1, n):
            store(T[g, i, m], where(stale, 2.0 * load(book.risk[g, i - 1, m - 1]), load(T[g, i, m])))
    n_free = spread(0.0)
    for i in range(1, n):
        free = load(book.free[g, i])
        _pivot(g, n, stale & (free > 0.5), spread(i), T, row)
        n_free += free
    cash = load(book.free[g, 0])
    _pivot(g, n, stale & (cash < 0.5) & (n_free > 0.5), spread(0), T, row)
    store(book.n_free[g], where(stale, n_free + cash, load(book.n_free[g])))
    store(book.age[g], where(stale, 0.0, load(book.age[g])))
    _hold_single(g, n, book)


@njit(**_INNER)
def _stand(g, n, problem, book):
    """Bring states, weights and marginals that another problem may have left in line with this one."""
    for i in range(n):
        lower, upper = load(problem.lower[g, i]), load(problem.upper[g, i])
        reference = load(problem.reference[g, i])
        below, above = load(problem.below[g, i]), load(problem.above[g, i])
        state, weight = load(book.state[g, i]), load(book.weight[g, i])
        free = (state == BELOW) | (state == ABOVE)
        weight = least(most(weight, lower), upper)
        inside = (reference > lower) & (reference < upper)
        is_above = (weight >= reference) & (inside | (reference <= lower))
        state = where(free, where(is_above, ABOVE, BELOW), state)
        state = where((state == AT_REFERENCE) & ~inside, where(reference <= lower, AT_LOWER, AT_UPPER), state)
        state = where(free | (state == AT_REFERENCE) | (state == AT_UPPER), state, AT_LOWER)
        fixed = where(state == AT_LOWER, lower, where(state == AT_REFERENCE, reference, upper))
        low, high = _step_of(state, lower, upper, reference, below, above)
        marginal = least(most(load(book.marginal[g, i]), low), high)
        store(book.state[g, i], state)
        store(book.free[g, i], where(free, 1.0, 0.0))
        store(book.weight[g, i], where(free, weight, fixed))
        store(book.marginal[g, i], where(free, where(is_above, above, below), marginal))
        store(book.low[g, i], low)
        store(book.high[g, i], high)


@njit(**_INNER)
def _keep_budget(g, n, book):
    """Let free positions take, in turn, what the others leave of wealth. Returns the lanes in which they cannot."""
    missing = spread(1.0)
    for i in range(n):
        missing -= load(book.weight[g, i])
    for i in range(n):
        weight = load(book.weight[g, i])
        taken = least(most(missing, load(book.low[g, i]) - weight), load(book.high[g, i]) - weight)
        taken = where(load(book.free[g, i]) > 0.5, taken, 0.0)
        store(book.weight[g, i], weight + taken)
        missing -= taken
    return ~(absolute(missing) <= _BUDGET)


@njit(**_INNER)
def _stand_in_middle(g, n, lanes, problem, book):
    """Put some lanes in the middle of their limits, every position free."""
    low = spread(0.0)
    high = spread(0.0)
    for i in range(n):
        low += load(problem.lower[g, i])
        high += load(problem.upper[g, i])
    share = where(high > low, (1.0 - low) / (high - low), 0.0)
    for i in range(n):
        lower = load(problem.lower[g, i])
        middle = lower + share * (load(problem.upper[g, i]) - lower)
        store(book.weight[g, i], where(lanes, middle, load(book.weight[g, i])))
        store(book.state[g, i], where(lanes, ABOVE, load(book.state[g, i])))
    _stand(g, n, problem, book)


@njit(**_INNER)
def _gap(g, n, r, dr, book):
    """dr = r - (2Gw + y): from the r at which the portfolios are optimal to r."""
    store(dr[0], load(r[0]) - load(book.marginal[g, 0]))
    for i in range(1, n):
        s = spread(0.0)
        for m in range(1, n):
            s += load(book.risk[g, i - 1, m - 1]) * load(book.weight[g, m])
        store(dr[i], load(r[i]) - 2.0 * s - load(book.marginal[g, i]))


@njit(**_INNER)
def _open(g, n, fresh, problem, market, book):
    """Make group g's portfolios, ``fresh`` ones from nothing, optimal for some r, and dr the way from it to r."""
    stale = fresh | (load(book.age[g]) > _OLDEST)
    if some(fresh):
        _stand_in_middle(g, n, fresh, problem, book)
    else:
        _stand(g, n, problem, book)
    lost = _keep_budget(g, n, book) & (load(market.wealth[g]) > 0.0)
    if some(lost):
        stale |= lost
        _stand_in_middle(g, n, lost, problem, book)
    if some(stale):
        _factor(g, n, stale, book, market.row)
    _returns(g, n, market)
    _gap(g, n, market.r, market.dr[g], book)


@njit(**_INNER)
def _refine(g, n, market, book):
    """One step of iterative refinement of group g's portfolios on their present free sets."""
    missing = spread(1.0)
    last = spread(0.0)
    for i in range(n):
        missing -= load(book.weight[g, i])
        last = where(load(book.free[g, i]) > 0.5, i, last)
    for i in range(n):
        store(book.weight[g, i], load(book.weight[g, i]) + where(last == i, missing, 0.0))
    _returns(g, n, market)
    dr = market.dr[0]
    _gap(g, n, market.r, dr, book)
    # Less what is common to them, beta: T maps that to zero, but only up to rounding.
    beta = gather(dr[0], last * WIDTH + lane_numbers())
    for i in range(n):
        store(dr[i], load(dr[i]) - beta)
    _rates(g, n, dr, market.row, book)
    _advance(g, n, spread(1.0), book)


@njit(**_INNER)
def _are_optimal(g, n, problem, market, book):
    """Whether group g's weights satisfy budgets and first-order conditions, from weights and states alone.

    Moving money from any position that can shrink to any that can grow must not pay, and a free position must be on
    the side of its reference whose cost it is taken to pay.
    """
    missing = spread(1.0)
    gross = spread(1.0)
    scale = spread(0.0)
    gain = spread(-np.inf)
    loss = spread(np.inf)
    strays = gross < 0.0
    _returns(g, n, market)
    for i in range(n):
        weight = load(book.weight[g, i])
        missing -= weight
        gross += absolute(weight)
        marginal = load(market.r[i])
        terms = absolute(marginal)
        if i > 0:
            for m in range(1, n):
                term = 2.0 * load(book.risk[g, i - 1, m - 1]) * load(book.weight[g, m])
                marginal -= term
                terms += absolute(term)
        below, above = load(problem.below[g, i]), load(problem.above[g, i])
        state = load(book.state[g, i])
        beyond = most(load(book.low[g, i]) - weight, weight - load(book.high[g, i]))
        strays |= (load(book.free[g, i]) > 0.5) & (beyond > _BUDGET * (1.0 + absolute(weight)))
        scale = most(scale, terms + most(absolute(below), absolute(above)))
        grown = marginal - where(state <= BELOW, below, above)
        shrunk = marginal - where(state >= ABOVE, above, below)
        gain = where(state != AT_UPPER, most(gain, grown), gain)
        loss = where(state != AT_LOWER, least(loss, shrunk), loss)
    good = (absolute(missing) <= _BUDGET * gross) & (gain - loss <= _OPTIMAL * scale) & ~strays
    return not some(~good & (load(market.wealth[g]) > 0.0))


# --- The market


@njit(**_INNER)
def _returns(g, n, market):
    """r of group g at the present prices."""
    store(market.r[0], 0.0)
    for i in range(1, n):
        store(market.r[i], load(market.beliefs[g, i]) - market.v[i - 1])


@njit(**_INNER)
def _move_prices(t, market):
    for i in range(market.v.shape[0]):
        market.v[i] += t * market.d[i]
        market.value[i] = market.supply[i] * market.base[i] * math.exp(market.v[i])


@njit(**_INNER)
def _excess(n, ahead, market, book):
    """Excess demand and its response to prices; ``ahead``: as if nobody met a kink along its rates.

    Returns the residual relative to supply and its floor, the rounding of the sums in demand: 16 eps times their gross
    value, relative to supply.
    """
    groups = market.wealth.shape[0]
    residual = 0.0
    floor = 0.0
    for i in range(1, n):
        demand = spread(0.0)
        gross = spread(0.0)
        for g in range(groups):
            weight = load(book.weight[g, i])
            if ahead:
                weight += load(book.rate[g, i]) * load(book.free[g, i])
            money = load(market.wealth[g]) * weight
            demand += money
            gross += absolute(money)
        for j in range(1, i + 1):
            s = spread(0.0)
            for g in range(groups):
                s += load(market.wealth[g]) * load(book.free[g, i]) * (load(book.free[g, j]) * load(book.T[g, i, j]))
            market.A[i - 1, j - 1] = total(s)
            market.A[j - 1, i - 1] = market.A[i - 1, j - 1]
        value, order = market.value[i - 1], market.orders[i - 1]
        excess = total(demand) + order - value
        market.excess[i - 1] = excess
        residual = max(residual, abs(excess) / value)
        floor = max(floor, 16.0 * _EPS * (total(gross) + value + abs(order)) / value)
    return residual, floor


# How far a direction reaches.
_NOWHERE, _A_STEP, _TO_THE_ROOT = 0, 1, 2


@njit(**_INNER)
def _direction(n, steps, market):
    """Make d the way to the root of excess demand on the present piece, in Newton steps: only supply's value is curved.

    One step is Newton's on Psi, d = -H^{-1} grad Psi. Returns how far d reaches.
    """
    N = n - 1
    d, step, A, M = market.d, market.step, market.A, market.M
    for i in range(N):
        d[i] = 0.0
    for _ in range(steps):
        for i in range(N):
            growth = math.exp(d[i])
            s = market.excess[i] - market.value[i] * (growth - 1.0)
            for j in range(N):
                s -= A[i, j] * d[j]
                M[i, j] = A[i, j]
            M[i, i] += market.value[i] * growth
            step[i] = s
        if not _cholesky_solve(N, M, step):
            return _NOWHERE
        largest = 0.0
        last = 0.0
        for i in range(N):
            d[i] += step[i]
            largest = max(largest, abs(d[i]))
            last = max(last, abs(step[i]))
        if last < 1e-7:  # the next would be its square
            return _TO_THE_ROOT
        if not largest < 1.0:
            return _A_STEP
    return _A_STEP


@njit(**_INNER)
def _cap(market):
    """The multiple of d at which the first log price has moved by the most that a step may."""
    largest = 0.0
    for i in range(market.d.shape[0]):
        largest = max(largest, abs(market.d[i]))
    return _STEP_CAP / largest if largest > 0.0 else np.inf


@njit(**_INNER)
def _follow_all(n, together, problem, market, book):
    """Carry all portfolios, along dr[0] if they move ``together``, else each group along its own dr. Kinks, or -1."""
    kinks = 0
    for g in range(market.wealth.shape[0]):
        left = where(load(market.wealth[g]) > 0.0, 1.0, 0.0)
        crossed = _follow(g, n, left, market.dr[0 if together else g], market.row, problem, book)
        if crossed < 0:
            return -1
        kinks += crossed
    return kinks


@njit(**_INNER)
def _step(n, t, problem, market, book):
    """Move prices by t d and all portfolios with them. Returns the kinks crossed, or -1."""
    dr = market.dr[0]
    store(dr[0], 0.0)
    for i in range(1, n):
        store(dr[i], -t * market.d[i - 1])
    kinks = _follow_all(n, True, problem, market, book)
    _move_prices(t, market)
    return kinks


@njit(**_INNER)
def _start(n, from_nothing, problem, market, book):
    """All portfolios, from nothing or as they stand, at the prices to which they lead. False if there are none.

    Portfolios optimal for other r tell, to first order, what demand will be at the present prices; so the first Newton
    step is taken before anybody has been followed anywhere.
    """
    groups = market.wealth.shape[0]
    for g in range(groups):
        _open(g, n, load(book.age[g]) < (np.inf if from_nothing else 0.0), problem, market, book)
        _rates(g, n, market.dr[g], market.row, book)
    residual, _ = _excess(n, True, market, book)
    if not residual < np.inf or _direction(n, _NEWTON_STEPS, market) == _NOWHERE:
        return False
    t = min(1.0, _cap(market))
    for g in range(groups):
        for i in range(1, n):
            store(market.dr[g, i], load(market.dr[g, i]) - t * market.d[i - 1])
    _move_prices(t, market)
    return _follow_all(n, False, problem, market, book) >= 0


@njit(**_INNER)
def _start_again(n, problem, market, book):
    """All portfolios from nothing at the present prices, whose search is under way."""
    for g in range(market.wealth.shape[0]):
        _open(g, n, load(book.age[g]) < np.inf, problem, market, book)
    return _follow_all(n, False, problem, market, book) >= 0


# --- The exact search


@njit(**_INNER)
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


@njit(**_INNER)
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
def _soonest(market):
    """When the next kink is reached, and by which group and lane."""
    lane = lane_numbers()
    first = load(market.kink_t[0])
    who = lane
    for g in range(1, market.wealth.shape[0]):
        other = load(market.kink_t[g])
        sooner = other < first
        first = where(sooner, other, first)
        who = where(sooner, lane + float(g * WIDTH), who)
    times, numbers = market.row[0], market.row[1]
    store(times, first)
    store(numbers, who)
    best = 0
    for k in range(1, WIDTH):
        if times[k] < times[best]:
            best = k
    number = int(numbers[best])
    return times[best], number // WIDTH, number % WIDTH


@njit(**_INNER)
def _search(n, longest, first_kink, problem, market, book):
    """Follow all investors along d to the exact root of the slope of Psi, ``longest`` at most, or to the first kink.

    Values of Psi are never compared: near the solution they are all rounding. The slope is monotone, and between two
    kinks it is linear but for the value of supply. Returns how far it went.
    """
    d, dr, wealth = market.d, market.dr[0], market.wealth
    kink_t, kink_i, time = market.kink_t, market.kink_i, market.time
    store(dr[0], 0.0)
    for i in range(1, n):
        store(dr[i], -d[i - 1])
    linear_all = spread(0.0)
    rate_all = spread(0.0)
    for g in range(wealth.shape[0]):
        store(time[g], 0.0)
        _rates(g, n, dr, market.row, book)
        step, position = _next_kink(g, n, spread(longest), book)
        store(kink_t[g], where((position >= 0.0) & (load(wealth[g]) > 0.0), step, np.inf))
        store(kink_i[g], position)
        for i in range(1, n):
            money = load(wealth[g]) * d[i - 1]
            linear_all += money * load(book.weight[g, i])
            rate_all += money * load(book.rate[g, i]) * load(book.free[g, i])
    linear = total(linear_all)
    linear_rate = total(rate_all)
    t = 0.0
    for _ in range(100 * n * wealth.shape[0] * WIDTH):
        soonest, g, k = _soonest(market)
        ahead = min(soonest, longest)
        linear_ahead = linear + linear_rate * (ahead - t)
        if not _is_downhill(ahead, linear_ahead, market) and _slope(ahead, linear_ahead, market)[0] >= 0.0:
            t = _root(t, ahead, t, linear, linear_rate, market)
            break
        linear = linear_ahead
        t = ahead
        if soonest >= longest:
            break
        here = lane_numbers() == k
        _advance(g, n, where(here, t - load(time[g]), 0.0), book)
        store(time[g], where(here, t, load(time[g])))
        for i in range(1, n):
            linear_rate -= wealth[g, k] * d[i - 1] * book.rate[g, i, k] * book.free[g, i, k]
        _cross(g, n, here, load(kink_i[g]), problem, book, market.row)
        _rates(g, n, dr, market.row, book)
        if first_kink:
            break
        step, position = _next_kink(g, n, spread(longest - t), book)
        store(kink_t[g], where(here, where(position >= 0.0, t + step, np.inf), load(kink_t[g])))
        store(kink_i[g], where(here, position, load(kink_i[g])))
        for i in range(1, n):
            linear_rate += wealth[g, k] * d[i - 1] * book.rate[g, i, k] * book.free[g, i, k]
    for g in range(wealth.shape[0]):
        _advance(g, n, where(load(wealth[g]) > 0.0, t - load(time[g]), 0.0), book)
    return t


@njit(**_INNER)
def _gradient_along(market):
    """Slope of Psi along d, where portfolios now stand."""
    slope = 0.0
    for i in range(market.d.shape[0]):
        slope -= market.d[i] * market.excess[i]
    return slope


@njit(**_INNER)
def _go_back(n, t, before, problem, market, book):
    """Take back what a step t d went too far: ``before`` was the slope's size, and now it has the other sign.

    First to the secant's root, then, if that is not near enough, to the exact one. Returns whether it took the search,
    or -1.
    """
    after = _gradient_along(market)
    back = after / (after + before)
    if _step(n, -back * t, problem, market, book) < 0:
        return -1
    _excess(n, False, market, book)
    after = _gradient_along(market)
    if abs(after) <= _OVERSHOOT * before:
        return 0
    longest = t * back
    if after > 0.0:
        longest = t - longest
        for i in range(n - 1):
            market.d[i] = -market.d[i]
    _move_prices(_search(n, longest, False, problem, market, book), market)
    return 1


@njit(**_INNER)
def _find_prices(n, from_nothing, problem, market, book):
    """Semismooth Newton on the slope of Psi. Returns (status, iterations)."""
    exact = False
    t = 0.0
    before = np.inf
    _move_prices(0.0, market)
    for iteration in range(_MAX_ITERATIONS):
        if iteration == 0:
            if not _start(n, from_nothing, problem, market, book):
                return DEGENERATE, iteration
        elif iteration % _FRESH_START == 0:
            if not _start_again(n, problem, market, book):
                return DEGENERATE, iteration
            before = np.inf
        residual, floor = _excess(n, False, market, book)
        if before < np.inf and _gradient_along(market) > _OVERSHOOT * before:
            searched = _go_back(n, t, before, problem, market, book)
            if searched < 0:
                return DEGENERATE, iteration
            exact = exact or searched > 0
            residual, floor = _excess(n, False, market, book)
        if not residual < np.inf:
            return NOT_CONVERGED, iteration
        if residual <= floor:
            return CLEARED, iteration
        exact = exact or iteration >= _WHOLE_STEPS
        reach = _direction(n, 1 if iteration >= _WHOLE_STEPS else _NEWTON_STEPS, market)
        if reach == _NOWHERE:
            return NOT_CONVERGED, iteration
        cap = _cap(market)
        if exact and residual > _FINAL_STEP:
            _move_prices(_search(n, cap, iteration > _SEARCHES, problem, market, book), market)
            before = np.inf
            continue
        t = min(1.0, cap)
        before = np.inf if exact else -_gradient_along(market)
        kinks = _step(n, t, problem, market, book)
        if kinks < 0:
            return DEGENERATE, iteration
        if kinks == 0 and t == 1.0 and (reach == _TO_THE_ROOT or residual <= _FINAL_STEP):
            return CLEARED, iteration + 1
    return NOT_CONVERGED, _MAX_ITERATIONS


@njit(**_INNER)
def _settle(n, problem, market, book, prices):
    """Prices and weights of a cleared market, to the last digit. Returns (status, residual).

    Portfolios are solved again on their final free sets. What excess is left by the rounding of prices is shared among
    the free positions in proportion to their slopes, so that holdings clear even where one ulp of price moves demand
    visibly.
    """
    groups = market.wealth.shape[0]
    for g in range(groups):
        _refine(g, n, market, book)
    residual, floor = _excess(n, False, market, book)
    if not residual < np.inf or _direction(n, 1, market) == _NOWHERE:
        return NOT_CONVERGED, residual
    _move_prices(1.0, market)
    dr = market.dr[0]
    store(dr[0], 0.0)
    for i in range(1, n):
        store(dr[i], -market.d[i - 1])
        prices[i - 1] = market.base[i - 1] * math.exp(market.v[i - 1])
    for g in range(groups):
        _rates(g, n, dr, market.row, book)
        for i in range(n):
            # The one position that a corner keeps free may miss its limit by rounding.
            low, high = load(problem.lower[g, i]), load(problem.upper[g, i])
            weight = load(book.weight[g, i]) + load(book.rate[g, i]) * load(book.free[g, i])
            weight = where(weight <= low + 4.0 * _EPS, low, where(weight >= high - 4.0 * _EPS, high, weight))
            store(book.weight[g, i], weight)
        if not _are_optimal(g, n, problem, market, book):
            return NOT_CONVERGED, residual
    residual = 0.0
    for i in range(1, n):
        s = spread(0.0)
        for g in range(groups):
            s += load(market.wealth[g]) * load(book.weight[g, i])
        value = market.supply[i - 1] * prices[i - 1]
        residual = max(residual, abs(total(s) + market.orders[i - 1] - value) / value)
    if not residual <= max(1e-9, min(floor, _LARGEST_FLOOR)):
        return NOT_CONVERGED, residual
    return CLEARED, residual


# --- Markets in and out


@njit(**_INNER)
def _read(e, n, beliefs, risk, wealth, short_leverage, long_leverage, costly, reference, cost, problem, market, book):
    """Market e's investors into lanes. A portfolio whose risk is not what it was is as good as stale."""
    N = n - 1
    lane = lane_numbers()
    last = wealth.shape[1] - 1.0
    for g in range(market.wealth.shape[0]):
        number = lane + float(g * WIDTH)
        k = least(number, last)
        money = gather(wealth[e], k)
        store(market.wealth[g], where((number <= last) & (money > 0.0), money, 0.0))
        for i in range(n):
            lower = -gather(short_leverage[e, 0], k * n + i)
            upper = gather(long_leverage[e, 0], k * n + i)
            kink = lower
            below = spread(0.0)
            above = spread(0.0)
            if costly and i > 0:
                rate = gather(cost[e, 0], k * N + (i - 1))
                # Without a cost there is no kink; a reference at the limit says so.
                kink = where(rate > 0.0, gather(reference[e, 0], k * N + (i - 1)), lower)
                below = where(kink <= lower, rate, -rate)
                above = where((kink >= upper) & (kink > lower), -rate, rate)
                kink = least(most(kink, lower), upper)
            store(problem.lower[g, i], lower)
            store(problem.upper[g, i], upper)
            store(problem.reference[g, i], kink)
            store(problem.below[g, i], below)
            store(problem.above[g, i], above)
        same = lane >= 0.0
        for i in range(N):
            store(market.beliefs[g, i + 1], gather(beliefs[e, 0], k * N + i) - math.log(market.base[i]))
            for m in range(N):
                new = gather(risk[e, 0, 0], k * (N * N) + (i * N + m))
                same &= load(book.risk[g, i, m]) == new
                store(book.risk[g, i, m], new)
        age = load(book.age[g])
        store(book.age[g], where(same | (age < 0.0), age, 2.0 * _OLDEST))


@njit(**_INNER)
def _write(book, wealth, weights, state):
    """Weights (B, n) and states of one market out of their lanes."""
    B, n = weights.shape
    for k in range(B):
        g, lane = divmod(k, WIDTH)
        if wealth[k] > 0.0:
            for i in range(n):
                weights[k, i] = book.weight[g, i, lane]
                state[k, i] = int(book.state[g, i, lane])
        else:
            for i in range(n):
                weights[k, i] = 0.0
                state[k, i] = AT_REFERENCE
            weights[k, 0] = 1.0


@njit(**_OUTER)
def _zeros(size):
    """Zeros that start at a multiple of a lane value's size, which saves a third of the time to read them."""
    room = np.zeros(size + WIDTH)
    start = (-(room.ctypes.data // 8)) % WIDTH
    return room[start : start + size]


@njit(**_OUTER)
def clear_markets(first, last, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, costly, reference,
                  cost, base, memory, prices, weights, state, residual, iterations, status):  # fmt: skip
    """Clear markets ``first`` to ``last - 1``. The last six arrays are results; a market whose status is REJECTED on
    entry is passed over.

    beliefs (E, B, N) log prices; risk (E, B, N, N); wealth (E, B), at most zero for an investor that demands nothing;
    limits (E, B, N+1); supply (E, N) shares; orders (E, N) money; base (E, N) prices to start from, to which the
    kernel's own log prices are relative. With ``costly``: reference (E, B, N) weights and cost (E, B, N) on each side
    of them. memory (E, ``memory_size(B, N)``) are the portfolios of an earlier clearing, first of all their ages
    (negative if there are none), and is written; (0, ...) if nothing is to be remembered.
    """
    _, B, N = beliefs.shape
    n = N + 1
    groups = (B + WIDTH - 1) // WIDTH
    lanes = groups * WIDTH
    remembers = memory.shape[0] > 0
    own = _zeros(0 if remembers else memory.shape[1])
    parts = _zeros(11 * lanes * n).reshape((11, groups, n, WIDTH))
    singles = _zeros(4 * lanes).reshape((4, groups, WIDTH))
    rows = _zeros(3 * n * WIDTH).reshape((3 * n, WIDTH))
    vectors, matrices = np.zeros((5, N)), np.zeros((2, N, N))
    problem = Problem(parts[0], parts[1], parts[2], parts[3], parts[4])
    for e in range(first, last):
        residual[e] = np.nan
        prices[e] = np.nan
        weights[e] = np.nan
        iterations[e] = 0
        if status[e] == REJECTED:
            continue
        kept = memory[e] if remembers else own
        ages = kept[:lanes].reshape((groups, WIDTH))
        triple = kept[2 * lanes : (2 + 3 * n) * lanes].reshape((3, groups, n, WIDTH))
        squares = kept[(2 + 3 * n) * lanes : (2 + 3 * n + n * n) * lanes].reshape((groups, n, n, WIDTH))
        risks = kept[(2 + 3 * n + n * n) * lanes :].reshape((groups, N, N, WIDTH))
        book = Book(
            ages, kept[lanes : 2 * lanes].reshape((groups, WIDTH)), triple[0], triple[1], triple[2], squares, risks,
            parts[5], parts[6], parts[7], parts[8],
        )  # fmt: skip
        market = Market(
            parts[9], singles[0], supply[e], orders[e], base[e], vectors[0], vectors[1], vectors[2], vectors[3],
            matrices[0], matrices[1], vectors[4], parts[10], singles[1], singles[2], singles[3], rows[:n], rows[n:],
        )  # fmt: skip
        known = remembers and ages[0, 0] >= 0.0
        status[e] = NOT_CONVERGED
        for from_nothing in (False, True) if known else (True, True):
            vectors[:] = 0.0
            _read(e, n, beliefs, risk, wealth, short_leverage, long_leverage, costly, reference, cost, problem, market,
                  book)  # fmt: skip
            status[e], iterations[e] = _find_prices(n, from_nothing, problem, market, book)
            if status[e] == CLEARED:
                status[e], residual[e] = _settle(n, problem, market, book, prices[e])
            if status[e] == CLEARED or from_nothing:
                break
        if status[e] == CLEARED:
            _write(book, wealth[e], weights[e], state[e])
        else:
            ages[:] = _UNKNOWN
            prices[e] = np.nan
