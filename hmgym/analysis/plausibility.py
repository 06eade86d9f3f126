"""Is an economy plausible? Its stylised facts over many markets beside those of the real history."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hmgym.analysis import stylised_facts as facts
from hmgym.analysis.figures import ASSETS, MUTED, SERIES, layout, log_scale, new_figure, save
from hmgym.data import sp500_monthly

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What many markets did, after the burn-in."""

    returns: Array  # (E, N, T) monthly log returns of prices
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
    """One row of the table: median and spread over markets, the target, the history."""

    name: str
    median: float
    low: float
    """5 % quantile over seeds and assets"""
    high: float
    """95 % quantile"""
    target: str
    met: bool | None
    history: float | None


def table(simulation: Simulation, history: Array | None = None) -> list[Fact]:
    """The plausibility table; `history` (N, T) monthly log returns, the packaged stocks when None."""
    real = sp500_monthly().log_returns.T if history is None else history
    run = simulation

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
        fact(
            "excess kurtosis",
            facts.excess_kurtosis(run.returns),
            "> 0.5",
            lambda x: x > 0.5,
            facts.excess_kurtosis(real),
        ),
        fact("skewness", facts.skewness(run.returns), "", None, facts.skewness(real)),
        fact(
            "autocorrelation of returns",
            facts.autocorrelation(run.returns),
            "within ± 0.1",
            lambda x: abs(x) < 0.1,
            facts.autocorrelation(real),
        ),
        fact(
            "autocorrelation of |returns|",
            facts.absolute_autocorrelation(run.returns),
            "> 0",
            lambda x: x > 0.0,
            facts.absolute_autocorrelation(real),
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
    lines = [f"{'':<30}{'median':>9}{'5 %':>9}{'95 %':>9}   {'target':<14}{'history':>8}"]
    for row in rows:
        mark = {None: " ", True: "✓", False: "✗"}[row.met]
        beside = "" if row.history is None else f"{row.history:8.3f}"
        lines.append(f"{row.name:<30}{row.median:9.3f}{row.low:9.3f}{row.high:9.3f} {mark} {row.target:<14}{beside:>8}")
    return "\n".join(lines)


@layout()
def plot(simulation: Simulation, path: str | Path, history: Array | None = None) -> None:
    """One picture: return distribution, clustering of volatility, prices against value, beside the history.

    Raises:
        ImportError: matplotlib is missing (`pip install hmgym[train]`).
    """
    real = sp500_monthly().log_returns.T if history is None else history
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
    lags = np.arange(1, 13)
    for series, label, colour in ((model, "hmgym", ours), (real, "history", theirs)):
        clustering = [np.median(facts.absolute_autocorrelation(series, int(lag))) for lag in lags]
        middle.plot(lags, clustering, color=colour, label=label)
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
