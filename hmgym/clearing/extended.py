"""The kernels' search in sixty decimal digits: the last resort, for the few markets that float64 cannot settle.

Risk conditioned up to 1e12 takes from a transform T in float64 all digits that decide which positions are free. With
sixty digits nothing is lost, so the search is the plain one of ``docs/clearing.md``: every portfolio is followed from
the middle of its limits, Newton's direction is followed to the exact root of the slope of Psi, and nothing needs to be
refined or shared out afterwards. A market takes .02 to 1 s. What comes out is rounded to float64 and has to pass the
kernels' own check.

Arrays hold ``decimal.Decimal`` objects; names are those of ``kernels.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np

from hmgym.clearing import kernels
from hmgym.clearing.kernels import ABOVE, AT_REFERENCE, BELOW

_CONTEXT = Context(prec=60, Emin=-(10**6), Emax=10**6)
_RATE_FLOOR = Decimal("1e-40")  # a rate below this share of the terms that it sums is rounding
_ROOT = Decimal("1e-40")  # accuracy of a step length, relative
_ROOT_STEPS = 150  # Newton's; bisection alone gains this accuracy in as many
_CLEARED = Decimal("1e-20")  # excess demand over supply: what rounding to float64 leaves is far more
_STEP_CAP = 2  # largest move of a log price in one step
_FARTHEST = 100  # from the first log prices to others: there is no equilibrium where they run away
_SEARCHES = 40  # iterations before the search stops at the first kink (Katzenelson), which cures cycles
_MAX_ITERATIONS = 400
_MAX_KINKS = 20  # of a whole search, for every position of the market; 5 have been seen

_ZERO: Any = Decimal(0)
_ONE: Any = Decimal(1)
_INFINITE: Any = Decimal("inf")
_exact: Any = np.frompyfunc(Decimal, 1, 1)
_exp: Any = np.frompyfunc(Decimal.exp, 1, 1)

Array = Any  # of Decimal, where nothing else is said


class _GaveUpError(ArithmeticError):
    """The search has used up its kinks or its iterations."""


@dataclass
class _Book:
    """The portfolios of B investors, all with wealth, n positions each."""

    wealth: Array  # (B,)
    beliefs: Array  # (B, N)
    quadratic: Array  # 2G, cash included, (B, n, n)
    # By state (5, B, n): the interval of the coordinate that moves (w if free, rho if not), where the other one stands
    # (a breakpoint; a marginal cost), and which states there are.
    low: Array
    high: Array
    stand: Array
    exists: np.ndarray
    kinks_left: int
    T: Array  # (B, n, n)
    state: np.ndarray  # (B, n)
    x: Array  # the coordinate that moves, (B, n)

    @classmethod
    def of(
        cls, beliefs: np.ndarray, risk: np.ndarray, wealth: np.ndarray, lower: np.ndarray, upper: np.ndarray,
        reference: np.ndarray | None, cost: np.ndarray | None, log_prices: Array,
    ) -> _Book:  # fmt: skip
        """Portfolios that are optimal at ``log_prices``, from one market's arrays."""
        B, n = lower.shape
        kink, paid = lower.copy(), np.zeros((B, n))
        if reference is not None and cost is not None:
            kink[:, 1:], paid[:, 1:] = np.where(cost > 0.0, reference, lower[:, 1:]), cost
        over, inside = kink <= lower, (kink > lower) & (kink < upper)
        least, most, middle = _exact(lower), _exact(upper), _exact(kink)
        below, above = _exact(np.where(over, paid, -paid)), _exact(np.where(over | inside, paid, -paid))
        nowhere = np.full((B, n), _INFINITE)
        quadratic = np.full((B, n, n), _ZERO)
        quadratic[:, 1:, 1:] = _exact(risk) + _exact(risk.swapaxes(1, 2))
        sums = least.sum(1), most.sum(1)
        share = np.array([(1 - low) / (high - low) if high > low else _ZERO for low, high in zip(*sums, strict=True)])
        weights = least + share[:, None] * (most - least)
        always = np.ones((B, n), bool)
        book = cls(
            wealth=_exact(wealth),
            beliefs=_exact(beliefs),
            quadratic=quadratic,
            low=np.stack([-nowhere, least, below, np.where(inside, middle, least), above]),
            high=np.stack([below, np.where(inside, middle, most), above, most, nowhere]),
            stand=np.stack([least, below, middle, above, most]),
            exists=np.stack([always, ~over, inside, over | inside, always]),
            kinks_left=_MAX_KINKS * B * n,
            T=quadratic.copy(),
            state=np.where(over | (inside & (weights >= middle)), ABOVE, BELOW),
            x=weights,
        )
        book._start(log_prices)
        return book

    def _start(self, log_prices: Array) -> None:
        """Follow everybody from the r at which the middle of the limits is optimal."""
        r = np.hstack([np.full((len(self.wealth), 1), _ZERO), self.beliefs - log_prices])
        dr = r - (self.quadratic * self.x[:, None]).sum(-1) - self._standing()
        self.T[:, 1:, 0], self.T[:, 0, 1:] = -_ONE, _ONE  # cash alone is free
        for k in range(len(self.wealth)):
            for i in range(1, self.x.shape[1]):
                _pivot(self.T[k], i)
            self._follow(k, dr[k])

    def _standing(self) -> Array:
        standing: Array = np.take_along_axis(self.stand, self.state[None], 0)[0]
        return standing

    @property
    def free(self) -> np.ndarray:
        free: np.ndarray = self.state % 2 == 1
        return free

    @property
    def weights(self) -> Array:
        """All positions, (B, n)."""
        weights: Array = np.where(self.free, self.x, self._standing())
        return weights

    def rates(self, k: int, dr: Array) -> Array:
        """Rates of investor k's coordinates when r moves along dr; what is only rounding is exactly zero."""
        free = self.free[k]
        terms = self.T[k] * np.where(free, dr, _ZERO)
        own = np.where(free, _ZERO, dr)
        rate = terms.sum(-1) + own
        return np.where(abs(rate) > _RATE_FLOOR * (abs(terms).sum(-1) + abs(own)), rate, _ZERO)

    def next_kink(self, k: int, rate: Array, left: Decimal) -> tuple[Decimal, int]:
        """How far investor k goes before a position leaves its interval, and which; ``left`` and -1 if none does."""
        nearest, position = left, -1
        for i in np.flatnonzero(rate):
            bound = (self.high if rate[i] > 0 else self.low)[self.state[k, i], k, i]
            step = (bound - self.x[k, i]) / rate[i]
            if step < nearest:
                nearest, position = step, int(i)
        return max(nearest, _ZERO), position

    def cross(self, k: int, i: int, up: bool) -> None:
        """Carry investor k across the kink that its position i has reached."""
        old = new = self.state[k, i]
        while new == old or not self.exists[new, k, i]:
            new += 1 if up else -1
        _pivot(self.T[k], i)
        self.x[k, i], self.state[k, i] = self.stand[old, k, i], new
        free = np.flatnonzero(self.free[k])
        if len(free) == 1:  # it is held by the budget
            self.T[k, free[0], free[0]] = _ZERO
        self.kinks_left -= 1
        if self.kinks_left < 0:
            raise _GaveUpError

    def _follow(self, k: int, dr: Array) -> None:
        """Carry investor k's portfolio from r to r + dr, kink by kink."""
        left = _ONE
        while True:
            rate = self.rates(k, dr)
            step, i = self.next_kink(k, rate, left)
            self.x[k] += step * rate
            if i < 0:
                return
            left -= step
            self.cross(k, i, rate[i] > 0)

    def slopes(self) -> Array:
        """The sum of W A over investors, (N, N)."""
        free = self.free[:, 1:]
        both = free[:, :, None] & free[:, None]
        return np.where(both, self.wealth[:, None, None] * self.T[:, 1:, 1:], _ZERO).sum(0)

    def search(self, d: Array, value: Array, orders: Array, first_kink: bool) -> Any:
        """Follow everybody along d to the exact root of the slope of Psi, or to the first kink. Returns how far."""
        everybody = range(len(self.wealth))
        dr = np.concatenate([[_ZERO], -d])
        longest = _STEP_CAP / max(abs(d))
        rate = [self.rates(k, dr) for k in everybody]
        kinks = [self.next_kink(k, rate[k], longest) for k in everybody]
        stands_at = [_ZERO for _ in everybody]

        def spends(k: int) -> Any:
            return self.wealth[k] * (d * np.where(self.free[k], rate[k], _ZERO)[1:]).sum()

        linear = (self.wealth[:, None] * d * self.weights[:, 1:]).sum() + (d * orders).sum()
        linear_rate = sum((spends(k) for k in everybody), _ZERO)
        t = _ZERO
        while True:
            soonest = min(everybody, key=lambda k: kinks[k][0])
            ahead, position = kinks[soonest]
            root = _root(t, ahead, linear, linear_rate, d, value)
            linear, t = linear + linear_rate * (root - t), root
            if t < ahead or position < 0:
                break
            self.x[soonest] += (t - stands_at[soonest]) * rate[soonest]
            stands_at[soonest] = t
            linear_rate -= spends(soonest)
            self.cross(soonest, position, rate[soonest][position] > 0)
            if first_kink:
                break
            rate[soonest] = self.rates(soonest, dr)
            step, position = self.next_kink(soonest, rate[soonest], longest - t)
            kinks[soonest] = t + step, position
            linear_rate += spends(soonest)
        for k in everybody:
            self.x[k] += (t - stands_at[k]) * rate[k]
        return t


def _pivot(T: Array, j: int) -> None:
    """Exchange the roles of w_j and rho_j."""
    inverse = 1 / T[j, j]
    row, column = T[j] * inverse, T[:, j] * -inverse
    T -= np.outer(T[:, j], row)
    T[:, j], T[j] = column, row
    T[j, j] = inverse


def _root(t: Decimal, right: Decimal, linear: Decimal, linear_rate: Decimal, d: Array, value: Array) -> Any:
    """Root of the slope of Psi along d between t and ``right``, which is returned if there is none before it.

    The part of investors and orders is ``linear`` at t and moves by ``linear_rate``. Newton steps, safeguarded.
    """
    x, left, start = right, t, t
    for _ in range(_ROOT_STEPS):
        money = d * value * _exp(x * d)
        slope = money.sum() - linear - linear_rate * (x - start)
        if slope < 0:
            if x == right:
                return right
            left = x
        else:
            right = x
        new = x - slope / ((d * money).sum() - linear_rate)
        if not left < new < right:
            new = (left + right) / 2
        if abs(new - x) <= _ROOT * right:
            return new
        x = new
    return x


def _solve(matrix: Array, x: Array) -> Array:
    """Solution y of matrix y = x by elimination; the matrix is positive definite, so no pivoting is needed."""
    matrix, y = matrix.copy(), x.copy()
    for j in range(len(y)):
        for i in range(j + 1, len(y)):
            factor = matrix[i, j] / matrix[j, j]
            matrix[i] -= factor * matrix[j]
            y[i] -= factor * y[j]
    for i in reversed(range(len(y))):
        y[i] = (y[i] - (matrix[i, i + 1 :] * y[i + 1 :]).sum()) / matrix[i, i]
    return y


def _find_prices(book: _Book, log_prices: Array, supply: Array, orders: Array) -> tuple[Array, int]:
    """Newton on the slope of Psi, searched exactly. Returns log prices and the iterations."""
    start = log_prices
    for iteration in range(_MAX_ITERATIONS):
        if max(abs(log_prices - start)) > _FARTHEST:
            break
        value = supply * _exp(log_prices)
        excess = (book.wealth[:, None] * book.weights[:, 1:]).sum(0) + orders - value
        if max(abs(excess / value)) <= _CLEARED:
            return log_prices, iteration
        d = _solve(book.slopes() + np.where(np.eye(len(value)) > 0, value, _ZERO), excess)
        log_prices = log_prices + book.search(d, value, orders, iteration > _SEARCHES) * d
    raise _GaveUpError


def clear_markets(
    first: int, last: int, beliefs: np.ndarray, risk: np.ndarray, wealth: np.ndarray, short_leverage: np.ndarray,
    long_leverage: np.ndarray, supply: np.ndarray, orders: np.ndarray, costly: bool, reference: np.ndarray,
    cost: np.ndarray, base: np.ndarray, prices: np.ndarray, weights: np.ndarray, state: np.ndarray,
    residual: np.ndarray, iterations: np.ndarray, status: np.ndarray,
) -> None:  # fmt: skip
    """Clear markets ``first`` to ``last - 1``; the arguments are those of ``kernels.clear_markets``."""
    for e in range(first, last):
        prices[e] = residual[e] = np.nan
        weights[e] = np.eye(weights.shape[-1])[0]
        state[e] = AT_REFERENCE
        if status[e] == kernels.REJECTED:
            continue
        status[e] = kernels.NOT_CONVERGED
        rich = wealth[e] > 0.0
        kink, paid = (reference[e, rich], cost[e, rich]) if costly else (None, None)
        with localcontext(_CONTEXT):
            start = np.array([x.ln() for x in _exact(base[e])])
            try:
                book = _Book.of(
                    beliefs[e, rich], risk[e, rich], wealth[e, rich], -short_leverage[e, rich], long_leverage[e, rich],
                    kink, paid, start,
                )  # fmt: skip
                log_prices, iterations[e] = _find_prices(book, start, _exact(supply[e]), _exact(orders[e]))
            except ArithmeticError:  # decimal's own, of which a division by zero is one, and giving up
                continue
            prices[e], weights[e, rich], state[e, rich] = _exp(log_prices), book.weights, book.state
        status[e] = kernels.CLEARED
    np.clip(weights[first:last], -short_leverage[first:last], long_leverage[first:last], out=weights[first:last],
            where=(wealth[first:last] > 0.0)[..., None])  # fmt: skip
    kernels.check_markets(
        first, last, beliefs, risk, wealth, short_leverage, long_leverage, supply, orders, costly, reference, cost,
        prices, weights, state, residual, status,
    )  # fmt: skip
