"""Volatility of the history, and its rows without it: GARCH(1,1), one asset at a time.

    e_t = √h_t ∘ u_t,      h_{t+1} = (1 − α − β) σ² + α e_t² + β h_t,

e the de-meaned returns, σ² their variance. α and β maximise the Gaussian quasi-likelihood −½ Σ_t (log h_t + e_t²/h_t),
h_1 = σ²; the variance is not fitted, so that simulated returns have the history's. What is left, u, keeps the fat tails
and, row by row, what the assets have in common.

Source: Bollerslev (1986), Generalized autoregressive conditional heteroskedasticity; Engle and Mezrich (1996), GARCH
for groups, for the variance that is given; Barone-Adesi, Giannopoulos and Vosper (1999), VaR without correlations for
portfolios of derivative securities, for drawing the rows of u (filtered historical simulation).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEAST_MONTHS = 60
"""returns below which a history is taken to have constant volatility"""
LARGEST_PERSISTENCE = 0.99
"""of α + β: a shock to the variance is halved in 69 months at most"""
LARGEST_VARIANCE = 25.0
"""cap of h, in σ²"""
_CHAINS, _BURN_IN, _APART, _KEPT, _SEED = 256, 240, 12, 16, 1990  # 16 draws a chain, a year apart
_GRID, _ROUNDS, _SHRINK = 11, 9, 0.35


@dataclass(frozen=True, kw_only=True, eq=False)
class Volatility:
    """A volatility model of N assets and the rows that drive it.

    Attributes:
        residuals: (T, N) rows of u, of mean 0 and variance 1.
        variance: (N,) σ² of a month's log return.
        alpha: (N,) weight of the last squared return.
        beta: (N,) weight of the last variance.
        first: (S, N) joint draws of h from its stationary distribution; one row of σ² where volatility is constant.
    """

    residuals: Array
    variance: Array
    alpha: Array
    beta: Array
    first: Array

    @property
    def omega(self) -> Array:
        """(N,) what the variance gains every month whatever happens."""
        return np.asarray((1.0 - self.alpha - self.beta) * self.variance)

    @property
    def cap(self) -> Array:
        """(N,) largest h."""
        return LARGEST_VARIANCE * self.variance

    def following(self, variance: Array, error: Array) -> Array:
        """h of the next month, from h of this one and what the return was beyond its mean, all (…, N)."""
        return np.asarray(np.minimum(self.omega + self.alpha * error**2 + self.beta * variance, self.cap))


def constant(returns: Array) -> Volatility:
    """Constant volatility: rows are the history's own, standardised."""
    errors = returns - returns.mean(axis=0)
    variance, none = returns.var(axis=0, ddof=1), np.zeros(returns.shape[1])
    return Volatility(
        residuals=errors / errors.std(axis=0), variance=variance, alpha=none, beta=none, first=variance[None]
    )


def garch(returns: Array) -> Volatility:
    """GARCH(1,1) fitted to monthly log returns (T, N); constant volatility where T < `LEAST_MONTHS`."""
    if len(returns) < LEAST_MONTHS:
        return constant(returns)
    found = np.ascontiguousarray(returns, dtype=np.float64)
    return _fitted(found.tobytes(), found.shape)


@functools.lru_cache(maxsize=64)
def _fitted(data: bytes, shape: tuple[int, int]) -> Volatility:
    """A market is made often and its history changes rarely."""
    returns = np.frombuffer(data).reshape(shape)
    errors = returns - returns.mean(axis=0)
    alpha, beta = fit(errors)
    residuals = errors / np.sqrt(filtered(errors, alpha, beta))
    residuals -= residuals.mean(axis=0)
    model = Volatility(
        residuals=residuals / residuals.std(axis=0),
        variance=returns.var(axis=0, ddof=1),
        alpha=alpha,
        beta=beta,
        first=np.empty((0, shape[1])),
    )
    variance = np.broadcast_to(model.variance, (_CHAINS, shape[1]))
    months = _BURN_IN + _APART * _KEPT
    rows, first = np.random.default_rng(_SEED).integers(0, shape[0], (months, _CHAINS)), []
    for month, row in enumerate(rows, start=1):
        variance = model.following(variance, np.sqrt(variance) * model.residuals[row])
        if month > _BURN_IN and month % _APART == 0:
            first.append(variance)
    fields = {name: getattr(model, name) for name in ("residuals", "variance", "alpha", "beta")}
    return Volatility(**fields, first=np.concatenate(first))


def fit(errors: Array) -> tuple[Array, Array]:
    """α and β (N,) of de-meaned returns (T, N): a grid over α + β and the part of α in it, refined around its best.

    The search is the same for every asset whatever stands beside it, and needs no derivative at the bounds.
    """
    n = errors.shape[1]
    middle, width = np.full((2, n), 0.5), 0.5
    steps = np.linspace(-1.0, 1.0, _GRID)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij")).reshape(2, -1, 1)
    for _ in range(_ROUNDS):
        points = np.clip(middle[:, None] + width * grid, 0.0, 1.0)  # (2, candidates, N)
        best = negative_likelihood(errors, *_parameters(points)).argmin(0)
        middle = points[:, best, np.arange(n)]
        width *= _SHRINK
    alpha, beta = _parameters(middle)
    return alpha, beta


def _parameters(points: Array) -> tuple[Array, Array]:
    """α and β of two numbers in [0, 1]; near an α + β of 1 and an α of 0, where most histories lie, it is fine."""
    persistence = LARGEST_PERSISTENCE * (1.0 - (1.0 - points[0]) ** 2)
    alpha = persistence * points[1] ** 2
    return alpha, persistence - alpha


def negative_likelihood(errors: Array, alpha: Array, beta: Array) -> Array:
    """½ Σ_t (log h_t + e_t²/h_t), of the shape of α and β (…, N)."""
    variance = (errors**2).mean(axis=0)
    omega = (1.0 - alpha - beta) * variance
    h, total = np.broadcast_to(variance, alpha.shape), np.zeros(alpha.shape)
    for square in errors**2:
        total += np.log(h) + square / h
        h = omega + alpha * square + beta * h
    return 0.5 * total


def filtered(errors: Array, alpha: Array, beta: Array) -> Array:
    """h (T, N) of every month of the history."""
    variance = (errors**2).mean(axis=0)
    found = np.empty_like(errors)
    found[0] = variance
    for month in range(1, len(errors)):
        found[month] = (1.0 - alpha - beta) * variance + alpha * errors[month - 1] ** 2 + beta * found[month - 1]
    return found
