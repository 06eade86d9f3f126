"""Compiled kernels of market making (numba, float64), all in one file: the disk cache does not see edits in others.

States are inventories −Q … Q, n = 2Q + 1 of them, at the indices 0 … n − 1; τ = T − t is time to the end, and M is the
matrix of `InventoryHJB`: `diagonal` (n,) on its diagonal and −`coupling` beside it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

_OPTIONS: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}

_NEGLIGIBLE = 2.0**-56  # share of a sum that a term no longer moves

# Alexander (1977), SIAM J. Numer. Anal. 14: implicit, three stages with one coefficient, order 3, L-stable.
_STAGE = 0.43586652150845899942
_TABLEAU = np.array(
    [
        [_STAGE, 0.0, 0.0],
        [0.5 * (1.0 - _STAGE), _STAGE, 0.0],
        [-(6.0 * _STAGE**2 - 16.0 * _STAGE + 1.0) / 4.0, (6.0 * _STAGE**2 - 20.0 * _STAGE + 5.0) / 4.0, _STAGE],
    ]
)

# Radau IIA with three stages, order 5, L-stable, in partial fractions: exp(−z) ≈ Re Σ weight / (z − pole), of two poles
# that are each other's conjugates one with twice its weight.
_NUMERATOR = np.polynomial.Polynomial([1.0, -2.0 / 5.0, 1.0 / 20.0])
_DENOMINATOR = np.polynomial.Polynomial([1.0, 3.0 / 5.0, 3.0 / 20.0, 1.0 / 60.0])
_POLES = np.array([pole for pole in _DENOMINATOR.roots().astype(complex) if pole.imag >= 0.0])
_WEIGHTS = _NUMERATOR(_POLES) / _DENOMINATOR.deriv()(_POLES) * np.where(_POLES.imag > 0.0, 2.0, 1.0)

_IMPROVEMENTS = 60  # of a policy, at most
_SETTLED = 1e-8  # change of a depth, in units of 1/k, below which the value no longer moves: its error is the square


@njit(**_OPTIONS)
def exponential(diagonal, coupling, durations, log_start):
    """ln v (K, n) and ln v_q − ln v_{q+1} (K, n − 1) with v = exp(−M τ) v(0), at the end of each of the durations (K,).

    With s the largest diagonal element, sI − M has no negative element, so no term of the series of its exponential
    does and nothing cancels. Every number has an exponent of its own: v may range over more than a float does.
    """
    n = diagonal.size
    shift = diagonal.max()
    kept = shift - diagonal
    mantissa, exponent = np.empty(n), np.empty(n, np.int64)
    for q in range(n):
        power = math.floor(log_start[q] / math.log(2.0))
        mantissa[q], exponent[q] = math.exp(log_start[q] - power * math.log(2.0)), power
    term, power_of = np.empty(n), np.empty(n, np.int64)
    new, new_power = np.empty(n), np.empty(n, np.int64)
    logs, gaps = np.empty((durations.size, n)), np.empty((durations.size, n - 1))
    passed = 0.0
    for step in range(durations.size):
        duration = durations[step]
        passed += duration
        for q in range(n):
            term[q], power_of[q] = mantissa[q], exponent[q]
        order, moving = 0, duration > 0.0
        while moving:
            order += 1
            factor = duration / order
            moving = order < n
            for q in range(n):
                top = max(power_of[max(q - 1, 0)], power_of[q], power_of[min(q + 1, n - 1)])
                total = kept[q] * math.ldexp(term[q], power_of[q] - top)
                if q > 0:
                    total += coupling * math.ldexp(term[q - 1], power_of[q - 1] - top)
                if q < n - 1:
                    total += coupling * math.ldexp(term[q + 1], power_of[q + 1] - top)
                new[q], rise = math.frexp(factor * total)
                new_power[q] = top + rise
                top = max(exponent[q], new_power[q])
                added = math.ldexp(new[q], new_power[q] - top)
                total = math.ldexp(mantissa[q], exponent[q] - top) + added
                moving |= added > _NEGLIGIBLE * total
                mantissa[q], rise = math.frexp(total)
                exponent[q] = top + rise
            term, new = new, term
            power_of, new_power = new_power, power_of
        for q in range(n):
            logs[step, q] = math.log(mantissa[q]) + exponent[q] * math.log(2.0) - shift * passed
        for q in range(n - 1):
            gaps[step, q] = math.log(mantissa[q] / mantissa[q + 1]) + (exponent[q] - exponent[q + 1]) * math.log(2.0)
    return logs, gaps


@njit(**_OPTIONS)
def finite_difference(diagonal, coupling, durations, log_start):
    """ln v (K, n) at the end of each of the durations (K,): v' = M v in steps of Radau IIA.

    A step is made in units of v at its start, D⁻¹MD with D = diag(v), less what M makes of its largest element there:
    far and common parts of v are then no source of error. NaN from where steps were too long for v to stay positive.
    """
    n = diagonal.size
    log, logs = log_start.copy(), np.empty((durations.size, n))
    up, down, grown = np.zeros(n), np.zeros(n), np.empty(n)
    pivots, y = np.empty(n, np.complex128), np.empty(n, np.complex128)
    for step in range(durations.size):
        h = durations[step]
        if h > 0.0:
            for q in range(n - 1):
                up[q] = coupling * math.exp(log[q + 1] - log[q])
                down[q + 1] = coupling * math.exp(log[q] - log[q + 1])
            centre = np.argmax(log)
            common = diagonal[centre] - up[centre] - down[centre]
            grown[:] = 0.0
            for part in range(_POLES.size):
                # Thomas: (h (D⁻¹MD − common) − pole) y = 1.
                for q in range(n):
                    pivots[q] = h * (diagonal[q] - common) - _POLES[part]
                    y[q] = 1.0
                    if q > 0:
                        ratio = h * down[q] / pivots[q - 1]
                        pivots[q] -= ratio * h * up[q - 1]
                        y[q] += ratio * y[q - 1]
                for q in range(n - 1, -1, -1):
                    if q < n - 1:
                        y[q] += h * up[q] * y[q + 1]
                    y[q] /= pivots[q]
                    grown[q] += (_WEIGHTS[part] * y[q]).real
            for q in range(n):
                log[q] += (math.log(grown[q]) if grown[q] > 0.0 else math.nan) - h * common
        logs[step] = log
    return logs


@njit(**_OPTIONS)
def _exponential_utility(gamma, money):
    """(1 − e^{−γx}) / γ, which is x where γ = 0."""
    return money if gamma == 0.0 else -math.expm1(-gamma * money) / gamma


@njit(**_OPTIONS)
def _money(gamma, utility):
    """The inverse of `_exponential_utility`."""
    return utility if gamma == 0.0 else -math.log1p(-gamma * utility) / gamma


@njit(**_OPTIONS)
def howard(carried, arrival_rate, depth_decay, gamma, half_spread, impact, durations, start):
    """Value (K, n) at the end of each of the durations (K,), and whether policies settled in all steps.

    Solves the Hamilton-Jacobi-Bellman equation itself, over depths, by Howard's policy iteration in every stage of an
    implicit Runge-Kutta step. `carried` (n,) is money a time that an inventory makes by being held.

    With θ the value at the start of a step and U_q = (1 − e^{−γ(θ'_q − θ_q)}) / γ, given depths make it linear,
    U' = carried (1 − γU) + Σ_sides λ (g + (1 − γg) U_neighbour − U), g the utility of what a fill gains at the old θ.
    The depths that are best for U come next, until they no longer move.
    """
    n = carried.size
    q_max = n // 2
    value, values = start.copy(), np.empty((durations.size, n))
    stage_value, known, slopes = np.zeros(n), np.empty(n), np.zeros((3, n))
    bid, ask = np.full(n, np.inf), np.full(n, np.inf)
    lower, upper, pivots, u = np.zeros(n), np.zeros(n), np.empty(n), np.empty(n)
    settled = True
    for step in range(durations.size):
        h = durations[step]
        if h > 0.0:
            u[:] = 0.0
            stage_value[:] = value
            # What the largest value grows by now is taken out: what all have in common is then no source of error.
            centre = np.argmax(value)
            common = carried[centre]
            for other in (centre - 1, centre + 1):
                if 0 <= other < n:
                    loss = value[centre] - value[other] + impact * (other - q_max) * (other - centre)
                    fills = arrival_rate * math.exp(-depth_decay * (half_spread + loss))
                    common += fills * _exponential_utility(gamma, half_spread)
            for stage in range(3):
                w = h * _TABLEAU[stage, stage]
                known[:] = 0.0
                for earlier in range(stage):
                    known += h * _TABLEAU[stage, earlier] * slopes[earlier]
                count, moving = 0, True
                while moving and count < _IMPROVEMENTS:
                    count += 1
                    moving = count == 1
                    # Improve: the depth that is best given what a fill makes of the value.
                    for i in range(n):
                        q = i - q_max
                        if i < n - 1:
                            depth = half_spread + stage_value[i] - stage_value[i + 1] + impact * (q + 1)
                            moving |= depth_decay * abs(depth - bid[i]) > _SETTLED
                            bid[i] = depth
                        if i > 0:
                            depth = half_spread + stage_value[i] - stage_value[i - 1] - impact * (q - 1)
                            moving |= depth_decay * abs(depth - ask[i]) > _SETTLED
                            ask[i] = depth
                    # Evaluate: (1 + w …) u = known + w …, tridiagonal, by Thomas.
                    for i in range(n):
                        q = i - q_max
                        made = carried[i] - common
                        pivot, right = 1.0 + w * gamma * made, known[i] + w * made
                        lower[i], upper[i] = 0.0, 0.0
                        if i < n - 1:
                            rate = w * arrival_rate * math.exp(-depth_decay * bid[i])
                            gain = bid[i] + value[i + 1] - value[i] - impact * (q + 1)
                            pivot, right = pivot + rate, right + rate * _exponential_utility(gamma, gain)
                            upper[i] = rate * math.exp(-gamma * gain)
                        if i > 0:
                            rate = w * arrival_rate * math.exp(-depth_decay * ask[i])
                            gain = ask[i] + value[i - 1] - value[i] + impact * (q - 1)
                            pivot, right = pivot + rate, right + rate * _exponential_utility(gamma, gain)
                            lower[i] = rate * math.exp(-gamma * gain)
                            ratio = lower[i] / pivots[i - 1]
                            pivot, right = pivot - ratio * upper[i - 1], right + ratio * u[i - 1]
                        pivots[i], u[i] = pivot, right
                    for i in range(n - 1, -1, -1):
                        if i < n - 1:
                            u[i] += upper[i] * u[i + 1]
                        u[i] /= pivots[i]
                        stage_value[i] = value[i] + _money(gamma, u[i])
                settled &= not moving
                slopes[stage] = (u - known) / w
            value[:] = stage_value + h * common
        values[step] = value
    return values, settled


@njit(**_OPTIONS)
def log_moment(chances, gains, factors, carry, start):
    """ln E exp(s · gains at fills + Σ carry of the inventory after) (J,) of factors s (J,) and carry (J, n), all real.

    `chances` and `gains` (T, 4, n) are of no fill, both, a bid alone and an ask alone, by the inventory before. Sums
    are of logs, which neither overflow nor vanish.
    """
    steps, _, n = chances.shape
    logs = np.empty(factors.size)
    state, after, terms = np.empty(n), np.empty(n), np.empty(4)
    for j in range(factors.size):
        for q in range(n):
            state[q] = -np.inf
        state[start] = 0.0
        for step in range(steps):
            for q in range(n):
                for branch in range(4):
                    before = q - (branch == 2) + (branch == 3)
                    terms[branch] = -np.inf
                    if 0 <= before < n and chances[step, branch, before] > 0.0:
                        moved = math.log(chances[step, branch, before]) + factors[j] * gains[step, branch, before]
                        terms[branch] = state[before] + moved
                after[q] = _log_sum(terms) + carry[j, q]
            state, after = after, state
        logs[j] = _log_sum(state)
    return logs


@njit(**_OPTIONS)
def _log_sum(terms):
    top = -np.inf
    for i in range(terms.size):
        top = max(top, terms[i])
    if top == -np.inf:
        return top
    total = 0.0
    for i in range(terms.size):
        total += math.exp(terms[i] - top)
    return top + math.log(total)


@njit(**_OPTIONS)
def characteristic(chances, gains, frequencies, carry, start):
    """E exp(iu · gains at fills + Σ carry of the inventory after) (J,) of frequencies u (J,), carry (J, n) complex."""
    steps, _, n = chances.shape
    found = np.empty(frequencies.size, np.complex128)
    state, after, carried = np.empty(n, np.complex128), np.empty(n, np.complex128), np.empty(n, np.complex128)
    for j in range(frequencies.size):
        for q in range(n):
            state[q] = 0.0
            carried[q] = np.exp(carry[j, q])
        state[start] = 1.0
        for step in range(steps):
            for q in range(n):
                after[q] = 0.0
            for q in range(n):
                if state[q] != 0.0:
                    for branch in range(4):
                        chance = chances[step, branch, q]
                        if chance > 0.0:
                            angle = frequencies[j] * gains[step, branch, q]
                            to = q + (branch == 2) - (branch == 3)
                            after[to] += chance * state[q] * complex(math.cos(angle), math.sin(angle))
            for q in range(n):
                state[q] = after[q] * carried[q]
        total = complex(0.0)
        for q in range(n):
            total += state[q]
        found[j] = total
    return found


@njit(**_OPTIONS)
def simulate(bid, ask, bid_fill, ask_fill, impact, bid_draws, ask_draws, moves, place, profit, trades):
    """Some steps of all paths, in place: index of the inventory, profit and number of trades (runs,).

    Depths and probabilities of fills are (steps, n); uniform draws and moves of mid but for impact (steps, runs).
    """
    largest = bid.shape[1] // 2
    for step in range(bid.shape[0]):
        for run in range(place.size):
            at = place[run]
            bought, sold = bid_draws[step, run] < bid_fill[step, at], ask_draws[step, run] < ask_fill[step, at]
            profit[run] += bought * bid[step, at] + sold * ask[step, at]
            at += int(bought) - int(sold)
            place[run] = at
            trades[run] += int(bought) + int(sold)
            profit[run] += (at - largest) * (moves[step, run] + impact * (int(sold) - int(bought)))


@njit(**_OPTIONS)
def _queue_ahead(price, levels, sizes, sign):
    """Size at a price among the levels of its side, best first: 0 where nobody quotes, infinite behind the last."""
    for level in range(levels.size):
        if levels[level] == price:
            return sizes[level]
        if sign * (levels[level] - price) > 0.0:  # the level is worse than the price, NaN is not
            return 0.0
    return np.inf


@njit(**_OPTIONS)
def book_fills(
    rows, ends, bid, ask, front, bid_level, bid_size, ask_level, ask_size, first_trade, level, size, seller
):  # fmt: skip
    """Whether a bid and an ask (E,) in ticks, posted at book rows (E,), are filled by trades before the rows `ends`.

    A trade beyond the price fills at once; one at it when, with those before it, it is more than the queue, which is
    what is visible there at posting, nothing where `front`. Levels are (M, K), trades (J,), and those of row i begin
    at `first_trade[i]`.
    """
    bought, sold = np.zeros(rows.size, np.bool_), np.zeros(rows.size, np.bool_)
    for e in range(rows.size):
        row = rows[e]
        bid_left = 0.0 if front else _queue_ahead(bid[e], bid_level[row], bid_size[row], -1.0)
        ask_left = 0.0 if front else _queue_ahead(ask[e], ask_level[row], ask_size[row], 1.0)
        # Sizes are sums of decimal fractions: what is left but for rounding is nothing.
        bid_none, ask_none = 1e-9 * bid_left, 1e-9 * ask_left
        for trade in range(first_trade[row], first_trade[ends[e]]):
            if seller[trade]:
                if level[trade] < bid[e]:
                    bought[e] = True
                elif level[trade] == bid[e]:
                    bid_left -= size[trade]
                    bought[e] |= bid_left < -bid_none
            else:
                if level[trade] > ask[e]:
                    sold[e] = True
                elif level[trade] == ask[e]:
                    ask_left -= size[trade]
                    sold[e] |= ask_left < -ask_none
    return bought, sold
