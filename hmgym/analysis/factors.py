"""Factors: what portfolios sorted by a signal earn, and how returns depend on them.

Time comes first, assets or factors last, whatever is between: returns (T, ..., N), factors (T, ..., K), both simple and
a period. A row of signals is what was known before the returns of the same row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.checks import integer, is_finite_number, shown

Array = NDArray[np.float64]

_COLLINEAR = 1e-10  # least part of a factor that the others do not explain, of its deviation


def factor_returns(returns: ArrayLike, signals: ArrayLike, *, share: float = 0.1) -> Array:
    """Return of the assets with the highest signals less that of those with the lowest, equally weighted, (T, ..., K).

    Each side has a share of the assets, rounded, but one at least and half of them at most. Of equals the first counts
    as lower.

    Args:
        returns: (T, ..., N).
        signals: (T, ..., N, K), known before the returns of the row.
        share: of the assets on either side, in (0, 0.5].

    Raises:
        ValueError: shapes do not agree, there are fewer than two assets, or `share` is no such number.

    Source: Fama and French (1993), Common risk factors in the returns on stocks and bonds, for the sorting.
    """
    values, ranked = _table("returns", returns), _table("signals", signals)
    if ranked.shape[:-1] != values.shape:
        raise ValueError(f"`signals` must have shape {(*values.shape, 'K')} as `returns` has, got {ranked.shape}")
    assets = values.shape[-1]
    if assets < 2:
        raise ValueError(f"`returns` must be of at least 2 assets, got shape {values.shape}")
    if not is_finite_number(share) or not 0.0 < share <= 0.5:
        raise ValueError(f"`share` must be a number in (0, 0.5], got {shown(share)}")
    count = min(max(int(share * assets + 0.5), 1), assets // 2)
    order = np.argsort(ranked, axis=-2, kind="stable")
    sorted_returns = np.take_along_axis(values[..., None], order, axis=-2)
    return np.asarray(sorted_returns[..., -count:, :].mean(-2) - sorted_returns[..., :count, :].mean(-2))


@dataclass(frozen=True, kw_only=True, eq=False)
class FactorRegression:
    """Least squares of returns on factors and a constant; NaN where the factors are collinear."""

    alpha: Array  # (..., N) return a period that the factors do not explain
    beta: Array  # (..., N, K)
    alpha_error: Array  # (..., N) standard error, T - K - 1 degrees of freedom
    beta_error: Array  # (..., N, K)
    residual_variance: Array  # (..., N) likewise
    r_squared: Array  # (..., N)


def factor_regression(returns: ArrayLike, factors: ArrayLike) -> FactorRegression:
    """Regress returns (T, ..., N) on factors (T, ..., K), both of the same periods and beyond interest.

    Raises:
        ValueError: shapes do not agree, or there are fewer than K + 2 periods.
    """
    y, f = _pair(returns, factors)
    periods, count = f.shape[0], f.shape[-1]
    if periods < count + 2:
        raise ValueError(f"`factors` must have at least K + 2 = {count + 2} periods, got {periods}")
    y, f = np.moveaxis(y, 0, -2), np.moveaxis(f, 0, -2)
    return _regression(y, f)


def rolling_betas(returns: ArrayLike, factors: ArrayLike, window: int = 12, *, multivariate: bool = True) -> Array:
    """Betas (T - window + 1, ..., N, K) of returns on factors over the `window` periods that end with each row.

    Row 0 is of the periods 0 to window - 1, the same of returns as of factors.

    Args:
        returns: (T, ..., N).
        factors: (T, ..., K), of the same periods.
        window: periods, at least K + 2, or 2 where factors are taken one by one; at most T.
        multivariate: on all factors at once and a constant; else on each alone, covariance over variance.

    Raises:
        ValueError: shapes do not agree, or `window` is no such number.
    """
    y, f = _pair(returns, factors)
    least = f.shape[-1] + 2 if multivariate else 2
    if integer("window", window, least) > len(y):
        raise ValueError(f"`window` must be at most the number of periods, {len(y)}, got {window}")
    y, f = (np.lib.stride_tricks.sliding_window_view(x, window, axis=0).swapaxes(-1, -2) for x in (y, f))
    if multivariate:
        return _regression(y, f).beta
    y, f = _centred(y), _centred(f)
    return _ratio(y.swapaxes(-1, -2) @ f, (f * f).sum(-2)[..., None, :])


def factor_correlations(factors: ArrayLike) -> Array:
    """Correlations (..., K, K) of factors (T, ..., K); NaN with one that never changes.

    Raises:
        ValueError: there are fewer than two periods.
    """
    values = _table("factors", factors)
    if len(values) < 2:
        raise ValueError(f"`factors` must have at least 2 periods, got {len(values)}")
    centred = _centred(np.moveaxis(values, 0, -2))
    covariance = centred.swapaxes(-1, -2) @ centred
    deviation = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    return _ratio(covariance, deviation[..., :, None] * deviation[..., None, :])


def reclassification_rate(classes: ArrayLike) -> Array:
    """Share of the assets (T, ...) whose class is another than a period before, from classes (T+1, ..., N).

    The classes are those of `hmgym.investors.styles.classification`, or any others.

    Raises:
        ValueError: there are fewer than two rows.
    """
    values = np.asarray(classes)
    if values.ndim < 2 or len(values) < 2:
        raise ValueError(f"`classes` must have shape (T+1, ..., N) with T >= 1, got {values.shape}")
    return np.asarray((values[1:] != values[:-1]).mean(-1))


def _regression(y: Array, f: Array) -> FactorRegression:
    """Of y (..., T, N) on f (..., T, K)."""
    periods, count = f.shape[-2:]
    y_mean, f_mean = y.mean(-2), f.mean(-2)
    y, f = _centred(y), _centred(f)
    q, r = np.linalg.qr(f)
    pivots = np.abs(np.diagonal(r, axis1=-2, axis2=-1))
    bad = (pivots <= _COLLINEAR * np.sqrt((f * f).sum(-2))).any(-1)
    r = np.where(bad[..., None, None], np.eye(count), r)
    explained = q.swapaxes(-1, -2) @ y  # (..., K, N)
    inverse = np.linalg.inv(r)
    beta = np.where(bad[..., None, None], np.nan, inverse @ explained)
    left = y - q @ explained
    squares, whole = (left * left).sum(-2), (y * y).sum(-2)
    variance = np.where(bad[..., None], np.nan, squares / (periods - count - 1))
    spread = (inverse * inverse).sum(-1)  # diagonal of (f'f)⁻¹
    lever = (np.einsum("...kj,...k->...j", inverse, f_mean) ** 2).sum(-1)  # mean' (f'f)⁻¹ mean
    return FactorRegression(
        alpha=y_mean - (f_mean[..., None] * beta).sum(-2),
        beta=beta.swapaxes(-1, -2),
        alpha_error=np.sqrt(variance * (1.0 / periods + lever[..., None])),
        beta_error=np.sqrt(variance[..., None] * spread[..., None, :]),
        residual_variance=variance,
        r_squared=np.where(bad[..., None], np.nan, 1.0 - _ratio(squares, whole)),
    )


def _centred(values: Array) -> Array:
    """Less their means over time, (..., T, n): exactly zero where they never change, which rounding would hide."""
    centred = values - values.mean(-2, keepdims=True)
    changes = (values != values[..., :1, :]).any(-2, keepdims=True)
    return np.where(changes, centred, 0.0)


def _ratio(above: Array, below: Array) -> Array:
    """Above over below, NaN where that is zero."""
    found = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=found, where=below > 0.0)
    return found


def _pair(returns: ArrayLike, factors: ArrayLike) -> tuple[Array, Array]:
    y, f = _table("returns", returns), _table("factors", factors)
    if y.shape[:-1] != f.shape[:-1]:
        raise ValueError(f"`factors` must have shape {(*y.shape[:-1], 'K')} as `returns` has, got {f.shape}")
    return y, f


def _table(name: str, values: ArrayLike) -> Array:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim < 2 or 0 in table.shape:
        raise ValueError(f"`{name}` must have time first and at least one more axis, none empty, got {table.shape}")
    return table
