"""Stylised facts of returns: one number a series, over the last axis of an array.

All take monthly log returns with time last, `(…, T)`, and give `(…)`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def annual_volatility(returns: ArrayLike, *, periods_per_year: float = 12.0) -> Array:
    """Standard deviation times √(periods a year)."""
    series = _series(returns, 2)
    return np.asarray(series.std(axis=-1, ddof=1) * np.sqrt(periods_per_year))


def excess_kurtosis(returns: ArrayLike) -> Array:
    """Fourth moment over squared variance, less 3."""
    series = _series(returns, 2)
    centred = series - series.mean(axis=-1, keepdims=True)
    return np.asarray((centred**4).mean(axis=-1) / (centred**2).mean(axis=-1) ** 2 - 3.0)


def skewness(returns: ArrayLike) -> Array:
    """Third moment over variance to the 3/2."""
    series = _series(returns, 2)
    centred = series - series.mean(axis=-1, keepdims=True)
    return np.asarray((centred**3).mean(axis=-1) / (centred**2).mean(axis=-1) ** 1.5)


def autocorrelation(series: ArrayLike, lag: int = 1) -> Array:
    """Correlation of the series with itself `lag` periods before, both about the common mean."""
    values = _series(series, lag + 2)
    centred = values - values.mean(axis=-1, keepdims=True)
    return np.asarray((centred[..., lag:] * centred[..., :-lag]).sum(axis=-1) / (centred**2).sum(axis=-1))


def absolute_autocorrelation(returns: ArrayLike, lag: int = 1) -> Array:
    """Autocorrelation of absolute returns, the clustering of volatility."""
    return autocorrelation(np.abs(_series(returns, lag + 2)), lag)


def _series(values: ArrayLike, least: int) -> Array:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim < 1 or series.shape[-1] < least:
        raise ValueError(f"`returns` must have at least {least} periods on its last axis, got shape {series.shape}")
    return series
