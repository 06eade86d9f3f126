"""Eight panels of one run of the active/passive fund market."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hmgym.analysis.figures import ASSETS, CROWD, MUTED, PAGE_WIDTH, SERIES, layout, log_scale, new_figure
from hmgym.analysis.performance import performance_by_group
from hmgym.investors.signals import SIGNALS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

_SHOWN = 5  # assets by name in the panel of positions
_PASSIVE = ("momentum", "index")


@layout()
def fund_panels(
    assets: Sequence[str],
    styles: Sequence[str],
    *,
    prices: Array,
    fundamentals: Array,
    factor_returns: Array | None,
    fund_returns: Array,
    fund_values: Array,
    fund_flows: Array,
    positions: Array,
    classes: NDArray[Any],
    interest: float,
) -> Figure:
    """Prices, factors, unit values, returns and Sharpe ratios by style, positions, classes and flows against months.

    Args:
        assets: N names.
        styles: F styles of funds.
        prices, fundamentals: (T+1, N) closes and values, money.
        factor_returns: (T, K) of the signals' factors; None for none.
        fund_returns: (T, F) of units, after fees.
        fund_values: (T+1, F) net asset values.
        fund_flows: (T, F) over the value at the start of the month.
        positions: (T+1, N) of all active funds together over their value.
        classes: (T+1, N) value 1, core 0, growth −1.
        interest: a month.
    """
    figure = new_figure(10.5, PAGE_WIDTH)
    (top, factors), (units, returns), (sharpe, held), (kinds, flows) = figure.subplots(4, 2)
    months, n = np.arange(len(prices)), len(assets)
    colours = [ASSETS[i % len(ASSETS)] for i in range(n)]

    for i, colour in enumerate(colours):
        top.plot(months, prices[:, i], color=colour, linewidth=0.8)
        top.plot(months, fundamentals[:, i], color=colour, linestyle=":", linewidth=0.5)
    log_scale(top, "y")
    top.set(title="Price (line) and fundamental value (dots)", ylabel="money a share", xlabel="month")

    if factor_returns is not None:
        wealth = np.concatenate([np.ones((1, factor_returns.shape[1])), (1.0 + factor_returns).cumprod(0)])
        for k, name in enumerate(SIGNALS):
            factors.plot(months, wealth[:, k], label=name.replace("_", " "))
        factors.legend(ncols=2, fontsize=7)
    factors.axhline(1.0, color=MUTED, linewidth=0.8)
    factors.set(title="Factors: highest less lowest decile", ylabel="growth of 1", xlabel="month")

    growth = np.concatenate([np.ones((1, len(styles))), (1.0 + fund_returns).cumprod(0)])
    passive = np.array([style in _PASSIVE for style in styles])
    for label, members, colour in (("active", ~passive, SERIES[1]), ("passive", passive, SERIES[0])):
        for fund in np.flatnonzero(members):
            units.plot(months, growth[:, fund], color=colour, linewidth=0.4, alpha=0.5)
        if members.any():
            units.plot(months, growth[:, members].mean(-1), color=colour, linewidth=2.0, label=label)
    units.legend(fontsize=7)
    units.set(title="Fund units, mean in bold", ylabel="growth of 1", xlabel="month")

    groups = performance_by_group(fund_returns, styles, interest) if len(fund_returns) > 1 else {}
    names = list(groups)
    colour_of = {name: SERIES[0] if name in _PASSIVE else SERIES[1] for name in names}
    bars = [colour_of[name] for name in names]
    returns.bar(names, [100.0 * float(one.annual_return) for one in groups.values()], color=bars)
    returns.set(title="Return by style, after fees", ylabel="% a year")
    sharpe.bar(names, [float(one.sharpe_ratio) for one in groups.values()], color=bars)
    sharpe.set(title="Sharpe ratio by style", ylabel="a year")
    for axes in (returns, sharpe):
        axes.axhline(0.0, color=MUTED, linewidth=0.8)

    largest = np.argsort(positions.mean(0))[::-1][:_SHOWN]
    rest = np.setdiff1d(np.arange(n), largest)
    layers = np.concatenate([positions[:, largest], positions[:, rest].sum(-1)[:, None]], -1)
    labels = [*(assets[i] for i in largest), "others"]
    held.stackplot(months, layers.clip(min=0.0).T, labels=labels, colors=[*SERIES[: len(largest)], CROWD])
    held.legend(ncols=3, fontsize=7, loc="lower left")
    held.set(title="Positions of active funds", ylabel="of their value", xlabel="month", ylim=(0.0, None))

    counts = np.stack([(classes == kind).sum(-1) for kind in (1, 0, -1)])
    kinds.stackplot(months, counts, labels=("value", "core", "growth"), colors=(SERIES[0], MUTED, SERIES[3]))
    kinds.legend(ncols=3, fontsize=7, loc="lower left")
    kinds.set(title="Classes of assets", ylabel="assets", xlabel="month", ylim=(0, n))

    for label, members, colour in (("active", ~passive, SERIES[1]), ("passive", passive, SERIES[0])):
        if members.any():
            money = (fund_flows * fund_values[:-1])[:, members].sum(-1) / fund_values[:-1][:, members].sum(-1)
            flows.plot(months[1:], 100.0 * money, color=colour, label=label)
    flows.axhline(0.0, color=MUTED, linewidth=0.8)
    flows.legend(fontsize=7)
    flows.set(title="Net flows into funds", ylabel="% of value a month", xlabel="month")
    drawn: Figure = figure
    return drawn
