"""Six panels of one market's run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hmgym.analysis.figures import ASSETS, CROWD, MUTED, PAGE_WIDTH, layout, log_scale, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]


@layout()
def market_panels(
    assets: Sequence[str],
    *,
    prices: Array,
    fundamentals: Array,
    mispricing: Array,
    log_returns: Array,
    turnover: Array,
    gross_leverage: Array,
    wealth_shares: Array,
) -> Figure:
    """Prices and values, mispricing, returns, turnover, leverage and wealth shares against months.

    Args:
        assets: N names.
        prices, fundamentals, mispricing: (T+1, N) closes, values (money) and log(price/value).
        log_returns: (T, N) of the month that row t+1 of the prices closes.
        turnover: (T,) half the money traded over market value.
        gross_leverage: (T+1,) of all investors together.
        wealth_shares: (T+1, B).
    """
    figure = new_figure(7.2, PAGE_WIDTH)
    axes = figure.subplots(3, 2, sharex=True)
    months = np.arange(len(prices))
    (top, gap), (returns, traded), (leverage, shares) = axes
    colours = [ASSETS[i % len(ASSETS)] for i in range(len(assets))]
    for i, (asset, colour) in enumerate(zip(assets, colours, strict=True)):
        top.plot(months, prices[:, i], color=colour, label=asset)
        top.plot(months, fundamentals[:, i], color=colour, linestyle=":", linewidth=1.0)
        gap.plot(months, mispricing[:, i], color=colour)
        returns.plot(months[1:], log_returns[:, i], color=colour, linewidth=0.9)
    log_scale(top, "y")
    top.set(title="Price (line) and fundamental value (dots)", ylabel="money a share")
    top.legend(ncols=min(4, len(assets)), fontsize=7)
    gap.axhline(0.0, color=MUTED, linewidth=0.8)
    gap.set(title="Mispricing", ylabel="log(price/value)")
    returns.set(title="Monthly returns", ylabel="log return")
    traded.plot(months[1:], turnover, color=CROWD)
    traded.set(title="Turnover", ylabel="of market value a month", ylim=(0.0, None))
    leverage.plot(months, gross_leverage, color=CROWD)
    leverage.set(title="Gross leverage of all investors", ylabel="of wealth", xlabel="month")
    order = np.argsort(wealth_shares[-1])[::-1]
    shares.stackplot(months, wealth_shares[:, order].clip(min=0.0).T, edgecolor="white", linewidth=0.2)
    shares.set(title="Wealth, investor by investor", ylabel="share of all wealth", xlabel="month", ylim=(0.0, 1.0))
    drawn: Figure = figure
    return drawn
