"""Five figures of a backtest of market makers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hmgym.analysis.figures import ASSETS, CROWD, MUTED, PAGE_WIDTH, SERIES, layout, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hmgym.market_making import Backtest

_BINS = 60
_95 = 1.96  # standard errors to either side of a mean


@layout()
def backtest_figures(backtest: Backtest) -> dict[str, Figure]:
    """Profit and inventory over time, a typical path, the distribution of profit, what risk each mean was had for.

    Args:
        backtest: of any market.
    """
    return {
        "profit": _over_time(backtest, "profit", "money"),
        "inventory": _over_time(backtest, "inventory", "shares"),
        "path": _path(backtest),
        "distribution": _distribution(backtest),
        "trade_off": _trade_off(backtest),
    }


def _colours(backtest: Backtest) -> dict[str, str]:
    return {name: SERIES[i % len(SERIES)] for i, name in enumerate(backtest.results)}


def _over_time(backtest: Backtest, what: str, unit: str) -> Figure:
    """Median, middle half and middle nine tenths of all runs, a panel a strategy, and the typical run."""
    columns = min(3, len(backtest.results))
    rows = -(-len(backtest.results) // columns)
    figure: Figure = new_figure(0.5 + 2.2 * rows, PAGE_WIDTH)
    panels: Any = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    steps = np.arange(backtest.steps + 1)
    for axes, (name, colour) in zip(panels.flat, _colours(backtest).items(), strict=False):
        found = backtest.results[name]
        lowest, low, median, high, highest = getattr(found, f"{what}_quantiles")
        axes.fill_between(steps, lowest, highest, color=colour, alpha=0.15, lw=0.0, label="9 of 10 runs")
        axes.fill_between(steps, low, high, color=colour, alpha=0.3, lw=0.0, label="half of them")
        axes.plot(steps, median, color=colour, label="median")
        axes.plot(steps, getattr(found.path, what), color=CROWD, lw=0.7, label=f"run {found.path.run}")
        axes.set(title=name)
        axes.label_outer()
    for axes in panels.flat[len(backtest.results) :]:
        axes.set_axis_off()
    for axes in panels[:, 0]:
        axes.set_ylabel(unit)
    last = panels.flat[len(backtest.results) - columns : len(backtest.results)]
    for axes in last:
        axes.set_xlabel("step")
        axes.tick_params(labelbottom=True)
    figure.suptitle(f"{what.capitalize()} over time, {backtest.runs:,} runs")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _path(backtest: Backtest) -> Figure:
    """The typical run: mid, quotes and fills, a panel a strategy."""
    figure: Figure = new_figure(0.5 + 1.9 * len(backtest.results), PAGE_WIDTH)
    panels: Any = figure.subplots(len(backtest.results), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    steps, (blue, orange) = np.arange(backtest.steps + 1), ASSETS[:2]
    for axes, (name, found) in zip(panels, backtest.results.items(), strict=True):
        path = found.path
        axes.plot(steps, path.bid, color=blue, lw=0.8, alpha=0.6, label="bid")
        axes.plot(steps, path.ask, color=orange, lw=0.8, alpha=0.6, label="ask")
        axes.plot(steps, path.mid, color=CROWD, lw=1.0, label="mid")
        for filled, price, colour, label in (
            (path.bought, path.bid, blue, "bought"), (path.sold, path.ask, orange, "sold"),
        ):  # fmt: skip
            axes.plot(steps[filled], price[filled], "o", color=colour, label=label)
        made = f"profit {path.profit[-1]:.4g}, inventory {path.inventory[-1]:+d} at the end"
        axes.set(title=f"{name}: {int(path.bought.sum())} bought, {int(path.sold.sum())} sold, {made}", ylabel="price")
    panels[-1].set_xlabel("step")
    run = next(iter(backtest.results.values())).path.run
    figure.suptitle(
        f"Run {run}, near the middle of all for every strategy: quotes in force during a step, mid after it"
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


def _distribution(backtest: Backtest) -> Figure:
    """Histograms of profit at the end, and their means."""
    figure: Figure = new_figure(3.2, PAGE_WIDTH)
    axes: Any = figure.subplots()
    together = np.concatenate([found.profit for found in backtest.results.values()])
    low, high = np.quantile(together, [0.001, 0.999])
    edges = np.linspace(low, high, _BINS + 1) if high > low else _BINS
    for name, colour in _colours(backtest).items():
        profit = backtest.results[name].profit
        inside = np.clip(profit, low, high)
        axes.hist(inside, edges, histtype="stepfilled", color=colour, alpha=0.12)
        axes.hist(inside, edges, histtype="step", color=colour, label=name)
        axes.axvline(profit.mean(), color=colour, ls="--", lw=1.0)
    axes.set(xlabel="profit of a run, money (dashed: mean; ends gather what lies beyond)", ylabel="runs")
    axes.set_title(f"Profit at the end, {backtest.runs:,} runs")
    axes.legend()
    return figure


def _trade_off(backtest: Backtest) -> Figure:
    """Mean profit against its standard deviation, and against the mean drawdown."""
    figure: Figure = new_figure(3.2, PAGE_WIDTH)
    left, right = figure.subplots(1, 2, sharey=True)
    for name, colour in _colours(backtest).items():
        found = backtest.results[name]
        half = _95 * found.standard_error
        for axes, risk in ((left, found.deviation), (right, float(found.drawdown.mean()))):
            axes.errorbar(risk, found.mean, half, fmt="o", color=colour, ecolor=MUTED, capsize=2.0, label=name, ms=5.0)
    left.set(xlabel="standard deviation of profit, money", ylabel="mean profit, money (95 %)")
    right.set(xlabel="mean largest drawdown, money")
    for axes in (left, right):
        axes.set_xlim(left=0.0)
    left.set_title(f"What risk each mean was had for, {backtest.runs:,} runs")
    right.legend()
    return figure
