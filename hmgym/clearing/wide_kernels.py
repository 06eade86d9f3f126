"""The compiled kernel that clears markets of many assets (numba, float64).

The problem and its states are those of ``kernels.py``. There, as in ``lane_kernels.py``, an investor is carried as the
principal pivot transform of all n positions, and every kink costs n^2 operations. With many assets most of that is
spent on positions that stand at a limit. Here an investor is carried as the inverse X of 2G on the free assets F alone,

    w_F = X (q - beta 1),    q = r_F - slopes of cost - 2 G_FB w_B,

where B stands at breakpoints and beta is zero while cash is free and otherwise what keeps the budget. An asset that
enters F borders X and one that leaves it takes its Schur complement off, |F|^2 operations each.

Prices are found by the semismooth Newton method of the other kernels. The portfolios at new prices are not followed
there, they are guessed: every position that breaks its condition changes its state at once, in rounds, until none does
(block principal pivoting; where rounds stop to help, one position at a time). From the states at the last prices, or
those of the last clearing, two rounds do as a rule. An investor whose rounds do not end is followed by ``kernels.py``,
and a market that takes many rounds is left to ``lane_kernels.py``: where risk is so small that a little news turns
portfolios over, following is faster.

Sums run in one order, whatever the processor's vectors are and however many threads there are.

Names: E markets, B investors, N assets, n = N + 1 positions; k is an investor, i, j are positions, a, b slots of F,
c blocks of eight slots. Room for F is a multiple of 32 slots; those beyond |F| hold zeros.

``_nrt=False`` switches numba's reference counting off where nothing is allocated (docs/decisions.md). numba's disk
cache does not see edits in the files that this one calls into.
"""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np
from numba import njit

from hmgym.clearing import kernels
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
    Problem,
    _enter,
    _read,
    _slopes,
    _solve_portfolio,
)
from hmgym.clearing.lane_kernels import (
    _NEWTON_STEPS,
    _NOWHERE,
    _TO_THE_ROOT,
    _cap,
    _direction,
    _gradient_along,
    _move_prices,
    _zeros,
)
from hmgym.clearing.lanes import WIDTH, absolute, load, spread, store

_OUTER: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True}
_INNER: dict[str, Any] = {"error_model": "numpy", "nogil": True, "_nrt": False}

LEAST_ASSETS = 40
"""assets from which on this kernel clears a market that was cleared before"""

_EPS = 2.220446049250313e-16
_BUDGET = 1e-12  # by which a portfolio's sum may miss one, relative to its gross weights
_OPTIMAL = 1e-10  # by which its first-order conditions may fail, relative to their terms
_SLACK = 1e-13  # of a weight, and relative of a marginal: by less than that no condition is taken to be broken
_PATIENCE = 3  # rounds without fewer broken conditions, after which positions change one at a time
_ROUNDS = 30  # of one portfolio, after which it is followed
_WORK = 40  # rounds an investor, on average, that a market may take; portfolios that are followed count 2 n
_OVERSHOOT = 0.5  # share of the slope of Psi before a step that may be left, with the other sign, after it
_SECANTS = 8  # by which such a step is shortened
_MAX_ITERATIONS = 40
_LARGEST_FLOOR = 1e-6  # where rounding leaves more than this of the supply unplaced, the market has not cleared
_UNROLLED = 4  # lane values that are summed side by side
_ROOM = _UNROLLED * WIDTH

# Portfolios: X (B, N, P / 8, 8), the position in each slot (B, P), the slot of each position (B, n), the number of free
# assets (B,); of every position (B, n) the state, free (1.0 or 0.0), the interval [low, high] of its weight if it is
# free and of its marginal if not, the breakpoint where it then stands (place), and its weight.
Book = namedtuple("Book", "X position slot n_free state free low high place weight")
# The market, as in lane_kernels.py but one investor after the other: beliefs (B, N), wealth (B,).
Market = namedtuple("Market", "beliefs wealth supply orders base v value d excess A M step")
# Room to work in: r and marginals y (n,), vectors over F (P,), new states (n,), and the rounds that are left (1,).
Room = namedtuple("Room", "r y q x ones step new left")


def memory_size(n_investors: int, n_assets: int) -> int:
    """Float64 numbers of one market's memory: the states of all positions, and room for X, which is never read.

    The room is there because X is large: to have it from the system in every clearing took as long as to clear.
    """
    slots = -(-n_assets // _ROOM) * _ROOM
    return _states_size(n_investors, n_assets) + n_investors * n_assets * slots


def _states_size(n_investors: int, n_assets: int) -> int:
    return -(-n_investors * (n_assets + 1) // WIDTH) * WIDTH


def states_of(memory: np.ndarray[Any, Any], n_investors: int, n_assets: int) -> np.ndarray[Any, Any]:
    """The states (E, B (N+1)) in the memory of some markets; the first of them is negative if there are none."""
    return memory[:, : n_investors * (n_assets + 1)]


# --- One portfolio


@njit(**_INNER)
def _apply(k, book, x, out):
    """X x of investor k."""
    for c in range(0, -(-book.n_free[k] // WIDTH), _UNROLLED):
        s = spread(0.0)
        t = spread(0.0)
        u = spread(0.0)
        v = spread(0.0)
        for a in range(book.n_free[k]):
            s += load(book.X[k, a, c]) * x[a]
            t += load(book.X[k, a, c + 1]) * x[a]
            u += load(book.X[k, a, c + 2]) * x[a]
            v += load(book.X[k, a, c + 3]) * x[a]
        store(out[c * WIDTH :], s)
        store(out[(c + 1) * WIDTH :], t)
        store(out[(c + 2) * WIDTH :], u)
        store(out[(c + 3) * WIDTH :], v)


@njit(**_INNER)
def _free(k, i, problem, book, room):
    """Let position i of investor k into F. False if rounding has made its own response negative."""
    f = book.n_free[k]
    X, q, x = book.X, room.q, room.step
    for a in range(f):
        q[a] = 2.0 * problem.risk[k, i - 1, book.position[k, a] - 1]
    _apply(k, book, q, x)
    rest = 2.0 * problem.risk[k, i - 1, i - 1]
    for a in range(f):
        rest -= q[a] * x[a]
    if not rest > 0.0:
        return False
    blocks = f // WIDTH + 1
    x[f] = -1.0
    for a in range(f + 1, blocks * WIDTH):
        x[a] = 0.0
    for c in range(X.shape[2]):
        store(X[k, f, c], 0.0)
    for a in range(f + 1):
        factor = x[a] / rest
        for c in range(blocks):
            store(X[k, a, c], load(X[k, a, c]) + load(x[c * WIDTH :]) * factor)
    book.position[k, f] = i
    book.slot[k, i] = f
    book.n_free[k] = f + 1
    return True


@njit(**_INNER)
def _fix(k, i, book, room):
    """Take position i of investor k out of F; the last slot's moves into the one that it leaves."""
    at = book.slot[k, i]
    last = book.n_free[k] - 1
    X, x = book.X, room.step
    blocks = last // WIDTH + 1
    for c in range(blocks):
        store(x[c * WIDTH :], load(X[k, at, c]))
    own = x[at]
    for a in range(last + 1):
        factor = x[a] / own
        for c in range(blocks):
            store(X[k, a, c], load(X[k, a, c]) - load(x[c * WIDTH :]) * factor)
    if at != last:
        for c in range(blocks):
            store(X[k, at, c], load(X[k, last, c]))
        for a in range(last + 1):
            X[k, a, at // WIDTH, at % WIDTH] = X[k, a, last // WIDTH, last % WIDTH]
        book.position[k, at] = book.position[k, last]
        book.slot[k, book.position[k, at]] = at
    for a in range(last + 1):
        X[k, a, last // WIDTH, last % WIDTH] = 0.0
    for c in range(blocks):
        store(X[k, last, c], 0.0)
    book.n_free[k] = last


@njit(**_INNER)
def _build(k, n, problem, book, room):
    """Build X of investor k from its states, asset by asset. False if risk is too nearly singular for that."""
    book.n_free[k] = 0
    good = True
    for i in range(1, n):
        if book.state[k, i] & 1:
            good = good and _free(k, i, problem, book, room)
    return good


@njit(**_INNER)
def _returns(k, n, market, room):
    """r of investor k at the present prices, and how large it is."""
    largest = 0.0
    room.r[0] = 0.0
    for i in range(1, n):
        room.r[i] = market.beliefs[k, i - 1] - market.v[i - 1]
        largest = max(largest, abs(room.r[i]))
    return largest


@njit(**_INNER)
def _marginals(k, n, problem, book, room):
    """y = r - 2Gw of investor k, beta aside. The last blocks overlap, so that nothing beyond the assets is read."""
    N = n - 1
    room.y[0] = 0.0
    r, y, risk = room.r[1:], room.y[1:], problem.risk
    for block in range(0, N, _ROOM):
        c = min(block, N - WIDTH)
        c1 = min(block + WIDTH, N - WIDTH)
        c2 = min(block + 2 * WIDTH, N - WIDTH)
        c3 = min(block + 3 * WIDTH, N - WIDTH)
        s, t, u, v = load(r[c:]), load(r[c1:]), load(r[c2:]), load(r[c3:])
        for j in range(N):
            twice = -2.0 * book.weight[k, j + 1]
            if twice != 0.0:
                s += load(risk[k, j, c:]) * twice
                t += load(risk[k, j, c1:]) * twice
                u += load(risk[k, j, c2:]) * twice
                v += load(risk[k, j, c3:]) * twice
        store(y[c:], s)
        store(y[c1:], t)
        store(y[c2:], u)
        store(y[c3:], v)


@njit(**_INNER)
def _sum_of_ones(k, book, room):
    """What every free asset's weight answers to one less beta, X 1, into ``room.ones``. Returns its sum."""
    for a in range(book.n_free[k]):
        room.q[a] = 1.0
    _apply(k, book, room.q, room.ones)
    s = 0.0
    for a in range(book.n_free[k]):
        s += room.ones[a]
    return s


@njit(**_INNER)
def _respond(k, book, room):
    """Into ``room.x`` what the free weights answer to ``room.q``, the budget kept. Returns what cash loses."""
    _apply(k, book, room.q, room.x)
    spent = 0.0
    for a in range(book.n_free[k]):
        spent += room.x[a]
    if book.state[k, 0] & 1:
        return spent
    beta = spent / _sum_of_ones(k, book, room)
    for a in range(book.n_free[k]):
        room.x[a] -= beta * room.ones[a]
    return 0.0


@njit(**_INNER)
def _place(k, n, problem, book, room):
    """Weights of investor k on its present free set, and the marginals that go with them. Returns beta."""
    f = book.n_free[k]
    q, x = room.q, room.x
    spent = 0.0
    anything = False
    for i in range(n):
        if not book.state[k, i] & 1:
            book.weight[k, i] = book.place[k, i]
            spent += book.place[k, i]
            anything |= i > 0 and book.place[k, i] != 0.0
    for a in range(f):
        i = book.position[k, a]
        q[a] = room.r[i]
        if problem.costly:
            below, above = _slopes(k, i, problem)
            q[a] -= below if book.state[k, i] == BELOW else above
        if anything:
            s = 0.0
            for j in range(1, n):
                if not book.state[k, j] & 1:
                    s += problem.risk[k, i - 1, j - 1] * book.place[k, j]
            q[a] -= 2.0 * s
    _apply(k, book, q, x)
    for a in range(f):
        spent += x[a]
    beta = 0.0
    if book.state[k, 0] & 1:
        book.weight[k, 0] = 1.0 - spent
    else:
        beta = (spent - 1.0) / _sum_of_ones(k, book, room)
        for a in range(f):
            x[a] -= beta * room.ones[a]
    for a in range(f):
        book.weight[k, book.position[k, a]] = x[a]
    _marginals(k, n, problem, book, room)
    return beta


@njit(**_INNER)
def _next_state(k, i, up, problem, book):
    """The state on one side of that of investor k's position i."""
    state = book.state[k, i]
    if state & 1:
        if up:
            return AT_UPPER if book.high[k, i] == problem.upper[k, i] else AT_REFERENCE
        return AT_LOWER if book.low[k, i] == problem.lower[k, i] else AT_REFERENCE
    if state == AT_REFERENCE:
        return ABOVE if up else BELOW
    if state == AT_LOWER:
        return ABOVE if problem.reference[k, i] <= problem.lower[k, i] else BELOW
    return BELOW if problem.reference[k, i] >= problem.upper[k, i] else ABOVE


@njit(**_INNER)
def _broken(k, n, beta, slack, problem, book, room):
    """How many positions of investor k break the condition of their state; ``room.new`` are the states to try."""
    broken = 0
    for i in range(n):
        free = book.state[k, i] & 1
        x = book.weight[k, i] if free else room.y[i] - beta
        room.new[i] = book.state[k, i]
        margin = _SLACK if free else slack
        if x > book.high[k, i] + margin or x < book.low[k, i] - margin:
            room.new[i] = _next_state(k, i, x > book.high[k, i], problem, book)
            broken += 1
    return broken


@njit(**_INNER)
def _change(k, i, state, problem, book, room):
    """Bring investor k's position i into another state. False if X has lost its digits."""
    was_free = book.state[k, i] & 1
    _enter(k, i, state, problem, book)
    if i == 0 or was_free == state & 1:
        return True
    if was_free:
        _fix(k, i, book, room)
        return True
    return _free(k, i, problem, book, room)


@njit(**_INNER)
def _follow_alone(k, n, problem, book, room, alone):
    """Investor k's portfolio by ``kernels.py``, from nothing. False if it gave up."""
    one = slice(k, k + 1)
    theirs = kernels.Problem(
        problem.costly, problem.lower[one], problem.upper[one], problem.reference[one], problem.slope_below[one],
        problem.slope_above[one], problem.risk[one],
    )  # fmt: skip
    tableau = kernels.Book(
        alone.T, book.state[one], book.free[one], alone.x, book.low[one], book.high[one], alone.rate, book.place[one],
        alone.free_count,
    )  # fmt: skip
    if _solve_portfolio(0, n, room.r, alone.dr, theirs, tableau) < 0 or not _build(k, n, problem, book, room):
        return False
    _place(k, n, problem, book, room)
    return True


@njit(**_INNER)
def _solve(k, n, problem, market, book, room, alone):
    """Investor k's portfolio at the present prices, guessed from its states. Returns the changes of state, or -1."""
    slack = _SLACK * _returns(k, n, market, room)
    changes = 0
    fewest = n + 1
    patience = _PATIENCE
    for _ in range(_ROUNDS):
        room.left[0] -= 1
        if room.left[0] < 0:
            return -1
        if book.n_free[k] == 0 and not book.state[k, 0] & 1:  # the budget needs one position that may move
            _enter(k, 0, _next_state(k, 0, book.state[k, 0] < AT_REFERENCE, problem, book), problem, book)
            changes += 1
        beta = _place(k, n, problem, book, room)
        broken = _broken(k, n, beta, slack, problem, book, room)
        if broken == 0:
            return changes
        if broken < fewest:
            fewest = broken
            patience = _PATIENCE
        else:
            patience -= 1
        kept = True
        for i in range(n - 1, -1, -1):
            if room.new[i] != book.state[k, i]:
                kept = kept and _change(k, i, room.new[i], problem, book, room)
                changes += 1
                if patience < 0:
                    break
        if not kept:
            break
    room.left[0] -= 2 * n
    return changes if _follow_alone(k, n, problem, book, room, alone) else -1


@njit(**_INNER)
def _is_optimal(k, n, problem, market, book, room):
    """Whether investor k's weights satisfy budget and first-order conditions, as ``kernels._is_optimal`` does."""
    scale = _returns(k, n, market, room)
    _marginals(k, n, problem, book, room)
    missing = 1.0
    gross = 1.0
    gain = -np.inf
    loss = np.inf
    for i in range(n):
        weight, state = book.weight[k, i], book.state[k, i]
        missing -= weight
        gross += abs(weight)
        below, above = _slopes(k, i, problem)
        scale = max(scale, abs(below), abs(above))
        beyond = max(book.low[k, i] - weight, weight - book.high[k, i])
        if state & 1 and beyond > _BUDGET * (1.0 + abs(weight)):
            return False
        if state != AT_UPPER:
            gain = max(gain, room.y[i] - (below if state <= BELOW else above))
        if state != AT_LOWER:
            loss = min(loss, room.y[i] - (above if state >= ABOVE else below))
    if not abs(missing) <= _BUDGET * gross:
        return False
    return gain - loss <= _OPTIMAL * scale or gain - loss <= _OPTIMAL * _largest_terms(k, n, problem, book, room)


@njit(**_INNER)
def _largest_terms(k, n, problem, book, room):
    """The largest, over assets, of the sum of the terms of y, each without its sign."""
    N = n - 1
    largest = 0.0
    for block in range(0, N, WIDTH):
        c = min(block, N - WIDTH)
        s = absolute(load(room.r[1 + c :]))
        for j in range(N):
            twice = 2.0 * abs(book.weight[k, j + 1])
            if twice != 0.0:
                s += absolute(load(problem.risk[k, j, c:])) * twice
        store(room.q, s)
        for a in range(WIDTH):
            largest = max(largest, room.q[a])
    return largest


# --- The market


@njit(**_INNER)
def _solve_all(n, problem, market, book, room, alone):
    """All portfolios at the present prices. Returns the changes of state, or -1."""
    changes = 0
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            changed = _solve(k, n, problem, market, book, room, alone)
            if changed < 0:
                return -1
            changes += changed
    return changes


@njit(**_INNER)
def _excess(n, market, book, room):
    """Excess demand. Returns the residual relative to supply and its floor, as in ``lane_kernels._excess``."""
    excess, gross = market.excess, room.y
    for i in range(n - 1):
        excess[i] = market.orders[i] - market.value[i]
        gross[i] = abs(market.orders[i]) + market.value[i]
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0:
            for i in range(n - 1):
                money = market.wealth[k] * book.weight[k, i + 1]
                excess[i] += money
                gross[i] += abs(money)
    residual = 0.0
    floor = 0.0
    for i in range(n - 1):
        residual = max(residual, abs(excess[i]) / market.value[i])
        floor = max(floor, 16.0 * _EPS * gross[i] / market.value[i])
    return residual, floor


@njit(**_INNER)
def _response(n, market, book, room):
    """A, the response of all demand to prices."""
    A = market.A
    for i in range(n - 1):
        for j in range(n - 1):
            A[i, j] = 0.0
    for k in range(market.wealth.shape[0]):
        f = book.n_free[k]
        cash = book.state[k, 0] & 1
        if not market.wealth[k] > 0.0 or (f == 1 and not cash):  # a single free position is held by the budget
            continue
        s = 1.0 if cash else _sum_of_ones(k, book, room)
        for a in range(f):
            i = book.position[k, a] - 1
            part = 0.0 if cash else room.ones[a] / s
            for b in range(a + 1):
                response = book.X[k, a, b // WIDTH, b % WIDTH]
                if not cash:
                    response -= part * room.ones[b]
                A[i, book.position[k, b] - 1] += market.wealth[k] * response
    # Each pair of assets has been added up on either side of the diagonal, in the order of slots.
    for i in range(n - 1):
        for j in range(i):
            A[i, j] += A[j, i]
            A[j, i] = A[i, j]


@njit(**_INNER)
def _find_prices(n, problem, market, book, room, alone):
    """Semismooth Newton on the slope of Psi. Returns (status, iterations)."""
    _move_prices(0.0, market)
    for k in range(market.wealth.shape[0]):
        if market.wealth[k] > 0.0 and not _build(k, n, problem, book, room):
            return DEGENERATE, 0
    if _solve_all(n, problem, market, book, room, alone) < 0:
        return DEGENERATE, 0
    residual, floor = _excess(n, market, book, room)
    for iteration in range(_MAX_ITERATIONS):
        if not residual < np.inf:
            return NOT_CONVERGED, iteration
        if residual <= floor:
            return CLEARED, iteration
        _response(n, market, book, room)
        reach = _direction(n, _NEWTON_STEPS, market)
        if reach == _NOWHERE:
            return NOT_CONVERGED, iteration
        before = -_gradient_along(market)
        t = min(1.0, _cap(market))
        whole = t == 1.0 and reach == _TO_THE_ROOT
        _move_prices(t, market)
        for _ in range(_SECANTS):
            changes = _solve_all(n, problem, market, book, room, alone)
            if changes < 0:
                return DEGENERATE, iteration
            residual, floor = _excess(n, market, book, room)
            if changes == 0 and whole:
                return CLEARED, iteration + 1
            after = _gradient_along(market)
            if residual <= floor or not after > _OVERSHOOT * before:
                break
            whole = False
            back = t * after / (after + before)
            _move_prices(-back, market)
            t -= back
    return NOT_CONVERGED, _MAX_ITERATIONS


@njit(**_INNER)
def _refine(k, n, problem, market, book, room):
    """One step of iterative refinement of investor k's portfolio on its present free set."""
    f = book.n_free[k]
    cash = book.state[k, 0] & 1
    missing = 1.0
    for i in range(n):
        missing -= book.weight[k, i]
    last = 0 if cash else book.position[k, f - 1]
    book.weight[k, last] += missing
    _returns(k, n, market, room)
    _marginals(k, n, problem, book, room)
    # Less what is common to them, beta: X maps that to zero, but only up to rounding.
    beta = 0.0
    for a in range(f - 1, -1, -1):
        i = book.position[k, a]
        below, above = _slopes(k, i, problem)
        room.q[a] = room.y[i] - (below if book.state[k, i] == BELOW else above)
        if a == f - 1 and not cash:
            beta = room.q[a]
        room.q[a] -= beta
    _move_weights(k, book, room)


@njit(**_INNER)
def _move_weights(k, book, room):
    """Let investor k's free weights answer to ``room.q``."""
    if book.n_free[k] > 1 or book.state[k, 0] & 1:  # a single free position is held by the budget
        book.weight[k, 0] -= _respond(k, book, room)
        for a in range(book.n_free[k]):
            book.weight[k, book.position[k, a]] += room.x[a]


@njit(**_INNER)
def _settle(n, problem, market, book, room, prices):
    """Prices and weights of a cleared market, to the last digit. Returns (status, residual).

    Portfolios are refined on their final free sets. What excess is left by the rounding of prices is shared among the
    free positions in proportion to their slopes.
    """
    B = market.wealth.shape[0]
    for k in range(B):
        if market.wealth[k] > 0.0:
            _refine(k, n, problem, market, book, room)
    residual, floor = _excess(n, market, book, room)
    if not residual < np.inf:
        return NOT_CONVERGED, residual
    _response(n, market, book, room)
    if _direction(n, 1, market) == _NOWHERE:
        return NOT_CONVERGED, residual
    _move_prices(1.0, market)
    for i in range(n - 1):
        prices[i] = market.base[i] * math.exp(market.v[i])
    for k in range(B):
        if not market.wealth[k] > 0.0:
            continue
        for a in range(book.n_free[k]):
            room.q[a] = -market.d[book.position[k, a] - 1]
        _move_weights(k, book, room)
        for i in range(n):
            low, high = problem.lower[k, i], problem.upper[k, i]
            if book.weight[k, i] <= low + 4.0 * _EPS:
                book.weight[k, i] = low
            elif book.weight[k, i] >= high - 4.0 * _EPS:
                book.weight[k, i] = high
        if not _is_optimal(k, n, problem, market, book, room):
            return NOT_CONVERGED, residual
    residual, _ = _excess(n, market, book, room)
    if not residual <= max(1e-9, min(floor, _LARGEST_FLOOR)):
        return NOT_CONVERGED, residual
    return CLEARED, residual


# --- Markets in and out


@njit(**_INNER)
def _open(n, remembered, problem, market, book):
    """States to start from: those of an earlier clearing, or every position free; in line with this problem."""
    for k in range(market.wealth.shape[0]):
        for i in range(n):
            lower, upper, reference = problem.lower[k, i], problem.upper[k, i], problem.reference[k, i]
            kept = remembered[k, i]
            state = int(kept) if AT_LOWER <= kept <= AT_UPPER and remembered[0, 0] >= 0.0 else BELOW
            if state == AT_REFERENCE and not (problem.costly and lower < reference < upper):
                state = BELOW
            _enter(k, i, state, problem, book)


@njit(**_INNER)
def _close(n, market, book):
    """What the states and weights of those who demand nothing are taken to be."""
    for k in range(market.wealth.shape[0]):
        if not market.wealth[k] > 0.0:
            for i in range(n):
                book.weight[k, i] = 0.0
                book.state[k, i] = AT_REFERENCE
            book.weight[k, 0] = 1.0


# Room of ``kernels.py`` for one portfolio that is followed.
Alone = namedtuple("Alone", "T x rate dr free_count")


@njit(**_OUTER)
def clear_markets(first, last, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, costly, reference,
                  cost, base, memory, prices, weights, state, residual, iterations, status):  # fmt: skip
    """Clear markets ``first`` to ``last - 1`` of at least eight assets. Arguments as of ``lane_kernels.clear_markets``.

    memory (E, ``memory_size(B, N)``) begins with the states of an earlier clearing (``states_of``); they are only read.
    """
    _, B, N = beliefs.shape
    n = N + 1
    P = -(-N // _ROOM) * _ROOM
    position, slot, n_free = np.zeros((B, P), np.int64), np.zeros((B, n), np.int64), np.zeros(B, np.int64)
    free, low, high, place = np.zeros((B, n)), np.zeros((B, n)), np.zeros((B, n)), np.zeros((B, n))
    kink, slope_below, slope_above = np.zeros((B, n)), np.zeros((B, n)), np.zeros((B, n))
    relative, lower, upper = np.zeros((B, N)), np.zeros((B, n)), np.zeros((B, n))
    vectors, matrices, over_free = np.zeros((5, N)), np.zeros((2, N, N)), _zeros(4 * P).reshape((4, P))
    room = Room(np.zeros(n), np.zeros(n), over_free[0], over_free[1], over_free[2], over_free[3],
                np.zeros(n, np.int64), np.zeros(1, np.int64))  # fmt: skip
    alone = Alone(np.zeros((1, n, n)), np.zeros((1, n)), np.zeros((1, n)), np.zeros(n), np.zeros(1, np.int64))
    for e in range(first, last):
        residual[e] = np.nan
        prices[e] = np.nan
        weights[e] = np.nan
        iterations[e] = 0
        if status[e] == REJECTED:
            continue
        vectors[:] = 0.0
        problem = Problem(costly, lower, upper, kink, slope_below, slope_above, risk[e])
        _read(e, beliefs, short_leverage, long_leverage, reference, cost, base[e], relative, problem)
        X = memory[e, memory.shape[1] - B * N * P :].reshape((B, N, P // WIDTH, WIDTH))
        book = Book(X, position, slot, n_free, state[e], free, low, high, place, weights[e])
        market = Market(
            relative, wealth[e], supply[e], orders[e], base[e], vectors[0], vectors[1], vectors[2], vectors[3],
            matrices[0], matrices[1], vectors[4],
        )  # fmt: skip
        _open(n, memory[e, : B * n].reshape((B, n)), problem, market, book)
        room.left[0] = _WORK * B
        status[e], iterations[e] = _find_prices(n, problem, market, book, room, alone)
        if status[e] == CLEARED:
            status[e], residual[e] = _settle(n, problem, market, book, room, prices[e])
        if status[e] == CLEARED:
            _close(n, market, book)
        else:
            prices[e] = np.nan
            weights[e] = np.nan
