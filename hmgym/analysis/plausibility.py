"""Is an economy plausible? Its stylised facts over many markets beside those of the real history.

The history is one path, and its figures are one draw: how far another path of its length may lie from it is told by the
5 % and 95 % quantiles over simulated paths of the model that was fitted to it (`history_band`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmgym.analysis import stylised_facts as facts
from hmgym.analysis.figures import ASSETS, MUTED, SERIES, layout, log_scale, new_figure, save
from hmgym.market.volatility import garch

Array = NDArray[np.float64]

LAGS = (1, 3, 6, 12)
"""months at which clustering of volatility is compared"""
LACKING = {"bootstrap": "clustering of volatility", "gaussian": "fat tails and clustering of volatility"}
"""What an economy lacks by construction, by its `fundamentals`"""
_PATHS, _SEED = 1000, 0


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What many markets did, after the burn-in."""

    returns: Array  # (E, N, T) monthly log returns of prices
    news: Array  # (E, N, T) monthly log returns of fundamentals
    history: Array  # (N, T') monthly log returns of the history behind them
    mispricing: Array  # (E, N, T) log(price/value)
    turnover: Array  # (E, T) half the money traded over market value
    gross_leverage: Array  # (E, T) sum of |positions| over wealth, all investors
    largest_share: Array  # (E, T) largest investor's share of all wealth
    learner_share: Array  # (E, T) share of the first investor
    ruins: Array  # (E, T) investors ruined in the month
    residual: float  # worst relative excess demand
    not_cleared: int  # markets times months that did not clear
    conservation: float  # worst relative error of cash and of shares


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One row of the table: median and spread over markets, target, the history and the spread of such histories."""

    name: str
    median: float
    low: float
    """5 % quantile over seeds and assets"""
    high: float
    """95 % quantile"""
    target: str
    met: bool | None
    history: float | None
    history_low: float | None = None
    """5 % quantile over simulated paths of the history's length"""
    history_high: float | None = None
    """95 % quantile"""


def history_paths(history: Array) -> Array:
    """Monthly log returns (P, N, T) of 1,000 paths of the model that is fitted to a history (N, T), of its length."""
    model, months = garch(history.T), history.shape[1]
    random = np.random.default_rng(_SEED)
    variance = model.first[random.integers(0, len(model.first), _PATHS)]
    paths = np.empty((months, _PATHS, len(history)))
    for month, row in enumerate(random.integers(0, len(model.residuals), (months, _PATHS))):
        paths[month] = np.sqrt(variance) * model.residuals[row]
        variance = model.following(variance, paths[month])
    return np.moveaxis(paths, 0, -1)


def table(simulation: Simulation) -> list[Fact]:
    """The plausibility table.

    Fat tails and clustering are means over the assets of a market, and as wanted where each lies in the other's 90 %
    band: the median over markets in that of paths of the history's length, the history in that of the markets.
    """
    run, real = simulation, simulation.history
    paths, lags = history_paths(real), [lag for lag in LAGS if lag <= real.shape[1] - 2]

    def clustered(name: str, returns: Array, statistic: Callable[[Array], Array], wanted: bool = True) -> Fact:
        values, beside, band = (np.asarray(statistic(x)).mean(-1) for x in (returns, real, paths))
        low, high = (float(np.quantile(band, level)) for level in (0.05, 0.95))
        row = fact(name, values, "in the bands" if wanted else "", None, beside)
        met = low <= row.median <= high and row.low <= float(beside) <= row.high
        return replace(row, history_low=low, history_high=high, met=met if wanted else None)

    def fact(name: str, values: Array, target: str, met: Any = None, beside: Array | None = None) -> Fact:
        median = float(np.median(values))
        return Fact(
            name=name,
            median=median,
            low=float(np.quantile(values, 0.05)),
            high=float(np.quantile(values, 0.95)),
            target=target,
            met=None if met is None else bool(met(median)),
            history=None if beside is None else float(np.median(beside)),
        )

    return [
        fact(
            "annual volatility",
            facts.annual_volatility(run.returns),
            "0.10 to 0.40",
            lambda x: 0.1 <= x <= 0.4,
            facts.annual_volatility(real),
        ),
        clustered("excess kurtosis", run.returns, facts.excess_kurtosis),
        fact("skewness", facts.skewness(run.returns), "", None, facts.skewness(real)),
        fact(
            "autocorrelation of returns",
            facts.autocorrelation(run.returns),
            "within ± 0.1",
            lambda x: abs(x) < 0.1,
            facts.autocorrelation(real),
        ),
        *(
            clustered(
                f"autocorrelation of |returns|, {lag}", run.returns, partial(facts.absolute_autocorrelation, lag=lag)
            )
            for lag in lags
        ),
        clustered("excess kurtosis of news", run.news, facts.excess_kurtosis, wanted=False),
        *(
            clustered(
                f"autocorrelation of |news|, {lag}",
                run.news,
                partial(facts.absolute_autocorrelation, lag=lag),
                wanted=False,
            )
            for lag in lags
        ),
        fact("sd of log(price/value)", run.mispricing.std(axis=-1), "< 0.4", lambda x: x < 0.4),
        fact("pooled sd of log(price/value)", run.mispricing.std(keepdims=True), "< 0.4", lambda x: x < 0.4),
        fact("mean of log(price/value)", run.mispricing.mean(axis=-1), ""),
        fact("turnover a month", run.turnover.mean(axis=-1), ""),
        fact("gross leverage", run.gross_leverage.mean(axis=-1), ""),
        fact("largest wealth share", run.largest_share.mean(axis=-1), "< 0.5", lambda x: x < 0.5),
        fact("learner's wealth share", run.learner_share.mean(axis=-1), ""),
        fact("ruins a year", 12.0 * run.ruins.mean(axis=-1), ""),
    ]


def format_table(rows: list[Fact]) -> str:
    """The table as text."""
    lines = [f"{'':<34}{'median':>9}{'5 %':>9}{'95 %':>9}   {'target':<14}{'history':>8}{'5 %':>9}{'95 %':>9}"]
    for row in rows:
        mark = {None: " ", True: "✓", False: "✗"}[row.met]
        own = f"{row.name:<34}{row.median:9.3f}{row.low:9.3f}{row.high:9.3f} {mark} {row.target:<14}"
        beside = (row.history, row.history_low, row.history_high)
        others = (f"{x:{width}.3f}" for x, width in zip(beside, (8, 9, 9), strict=True) if x is not None)
        lines.append((own + "".join(others)).rstrip())
    return "\n".join(lines)


@layout()
def plot(simulation: Simulation, path: str | Path) -> None:
    """One picture: return distribution, clustering of volatility, prices against value, beside the history.

    Raises:
        ImportError: matplotlib is missing (`pip install hmgym[train]`).
    """
    real = simulation.history
    model = simulation.returns.reshape(-1, simulation.returns.shape[-1])
    figure = new_figure(2.8)
    left, middle, right = figure.subplots(1, 3)
    ours, theirs = SERIES[:2]

    def standardised(series: Array) -> Array:
        return np.asarray((series - series.mean(-1, keepdims=True)) / series.std(-1, keepdims=True)).ravel()

    bins = np.linspace(-6.0, 6.0, 61)
    for series, label, colour in ((model, "hmgym", ours), (real, "history", theirs)):
        left.hist(standardised(series), bins=bins, density=True, histtype="step", color=colour, label=label)
    left.plot(bins, np.exp(-0.5 * bins**2) / np.sqrt(2.0 * np.pi), ":", color=MUTED, label="Gaussian")
    log_scale(left, "y")
    left.set(xlabel="monthly return, in standard deviations", ylabel="density", ylim=(1e-6, 1.0))
    left.legend(loc="lower center")
    lags = np.arange(1, min(12, real.shape[1] - 2) + 1)
    for series, label, colour in ((model, "hmgym", ours), (real, "history", theirs)):
        clustering = [np.mean(facts.absolute_autocorrelation(series, int(lag))) for lag in lags]
        middle.plot(lags, clustering, color=colour, label=label)
    paths = history_paths(real)
    spread = [facts.absolute_autocorrelation(paths, int(lag)).mean(-1) for lag in lags]
    low, high = np.quantile(spread, [0.05, 0.95], axis=1)
    middle.fill_between(lags, low, high, color=theirs, alpha=0.15, lw=0)
    signed = [np.median(facts.autocorrelation(model, int(lag))) for lag in lags]
    middle.plot(lags, signed, "--", color=ours, label="hmgym, signed returns")
    middle.axhline(0.0, color=MUTED, lw=0.6)
    middle.set(xlabel="lag, months", ylabel="autocorrelation of |returns|", xticks=lags[::2])
    middle.set_ylim(top=1.6 * middle.get_ylim()[1])
    middle.legend(loc="upper right")
    for asset, colour in zip(simulation.mispricing[0], itertools.cycle(ASSETS), strict=False):
        right.plot(asset, color=colour, lw=0.8)
    right.axhline(0.0, color=MUTED, lw=0.6)
    right.set(xlabel="month", ylabel="log(price/value), one market")
    save(figure, path)
