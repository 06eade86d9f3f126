"""Performance of funds, clients' money left out of it.

Time comes first: values (T+1, ...), flows and returns (T, ...). Simple returns a period; money is that of the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.checks import check_number

Array = NDArray[np.float64]


def flow_adjusted_returns(values: ArrayLike, flows: ArrayLike) -> Array:
    """Returns (T, ...) of a fund's units, (V_t − F_t)/V_{t−1} − 1: time-weighted, whoever brought or took money.

    NaN where a period began without value.

    Args:
        values: (T+1, ...) what a fund is worth at the end of each period, after that period's flows.
        flows: (T, ...) money of clients into the fund less money out of it, at the end of the period.

    Raises:
        ValueError: shapes do not agree.
    """
    worth, money = _values_and_flows(values, flows)
    return _per_value(worth[1:] - money, worth) - 1.0


def flow_rates(values: ArrayLike, flows: ArrayLike) -> Array:
    """Flows (T, ...) over the value at the start of the period; arguments as of `flow_adjusted_returns`."""
    worth, money = _values_and_flows(values, flows)
    return _per_value(money, worth)


def cumulative_flows(flows: ArrayLike) -> Array:
    """Money (T+1, ...) that has come in since the start, from flows (T, ...)."""
    money = _series("flows", flows, 0)
    return np.concatenate([np.zeros((1, *money.shape[1:])), money.cumsum(0)])


def annual_return(returns: ArrayLike, *, periods_per_year: float = 12.0) -> Array:
    """Constant return a year (...) with the same growth as returns (T, ...); -1 where one of them is a total loss."""
    series = _series("returns", returns, 1)
    growth = np.maximum(1.0 + series, 0.0).prod(0)
    return np.asarray(growth ** (_positive("periods_per_year", periods_per_year) / len(series)) - 1.0)


def annual_deviation(returns: ArrayLike, *, periods_per_year: float = 12.0) -> Array:
    """Standard deviation (...) of returns (T, ...), T − 1 degrees of freedom, times √(periods a year)."""
    series = _series("returns", returns, 2)
    return np.asarray(series.std(0, ddof=1) * np.sqrt(_positive("periods_per_year", periods_per_year)))


def sharpe_ratio(returns: ArrayLike, risk_free: ArrayLike = 0.0, *, periods_per_year: float = 12.0) -> Array:
    """Mean of returns beyond interest over their standard deviation, a year, (...); NaN where they never change.

    Args:
        returns: (T, ...), flows left out.
        risk_free: interest a period, one number or what broadcasts with returns.
        periods_per_year: of the returns.

    Raises:
        ValueError: there are fewer than two periods.

    Source: Sharpe (1994), The Sharpe ratio.
    """
    series = _series("returns", returns, 2)
    excess = series - np.asarray(risk_free, np.float64)
    deviation, mean = excess.std(0, ddof=1), excess.mean(0)
    ratio = np.full(mean.shape, np.nan)
    # Returns that are all the same would be left with a deviation of some 1e-17.
    np.divide(mean, deviation, out=ratio, where=(excess != excess[:1]).any(0))
    return np.asarray(ratio * np.sqrt(_positive("periods_per_year", periods_per_year)))


def maximum_drawdown(returns: ArrayLike) -> Array:
    """Largest loss (...) from an earlier high, as a share of it, from returns (T, ...)."""
    series = _series("returns", returns, 1)
    value = np.concatenate([np.ones_like(series[:1]), np.maximum(1.0 + series, 0.0).cumprod(0)])
    return np.asarray((1.0 - value / np.maximum.accumulate(value, 0)).max(0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Performance:
    """Of the funds of a group; each statistic is one a fund, then averaged."""

    funds: int
    annual_return: Array  # (...)
    annual_deviation: Array  # (...)
    sharpe_ratio: Array  # (...)
    maximum_drawdown: Array  # (...)


def performance_by_group(
    returns: ArrayLike, groups: Sequence[str], risk_free: ArrayLike = 0.0, *, periods_per_year: float = 12.0
) -> dict[str, Performance]:
    """Performance of funds by their style, or any other label, in the order in which labels first come.

    Args:
        returns: (T, ..., F), flows left out.
        groups: F labels.
        risk_free: interest a period, one number or what broadcasts with returns.
        periods_per_year: of the returns.

    Raises:
        ValueError: there are not as many labels as funds, or fewer than two periods.
    """
    series = _series("returns", returns, 2)
    if series.ndim < 2 or len(groups) != series.shape[-1]:
        raise ValueError(f"`groups` must have a name for each fund of `returns` {series.shape}, got {len(groups)}")
    per_year = {"periods_per_year": periods_per_year}
    statistics = {
        "annual_return": annual_return(series, **per_year),
        "annual_deviation": annual_deviation(series, **per_year),
        "sharpe_ratio": sharpe_ratio(series, risk_free, **per_year),
        "maximum_drawdown": maximum_drawdown(series),
    }
    found = {}
    for group in dict.fromkeys(groups):
        members = np.array([name == group for name in groups])
        means = {name: np.asarray(value[..., members].mean(-1)) for name, value in statistics.items()}
        found[group] = Performance(funds=int(members.sum()), **means)
    return found


def _values_and_flows(values: ArrayLike, flows: ArrayLike) -> tuple[Array, Array]:
    worth, money = _series("values", values, 1), _series("flows", flows, 0)
    if money.shape != (len(worth) - 1, *worth.shape[1:]):
        raise ValueError(f"`flows` must have shape {(len(worth) - 1, *worth.shape[1:])}, got {money.shape}")
    return worth, money


def _per_value(money: Array, worth: Array) -> Array:
    rates = np.full(money.shape, np.nan)
    np.divide(money, worth[:-1], out=rates, where=worth[:-1] > 0.0)
    return rates


def _positive(name: str, value: float) -> float:
    check_number(name, value, 0.0, strict=True)
    return value


def _series(name: str, values: ArrayLike, least: int) -> Array:
    series = np.asarray(values, dtype=np.float64)
    if series.ndim < 1 or len(series) < least:
        raise ValueError(f"`{name}` must have at least {least} rows, time first, got shape {series.shape}")
    return series
