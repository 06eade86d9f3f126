"""The picture of one episode: prices against fundamental values, the learner's unit value, everybody's leverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hmgym.analysis.figures import ASSETS, CROWD, LEARNER, MUTED, layout, log_scale, new_figure


@layout()
def episode_figure(
    *,
    title: str,
    prices: ArrayLike,
    fundamentals: ArrayLike,
    unit_value: ArrayLike,
    learner_leverage: ArrayLike,
    crowd_leverage: ArrayLike,
    assets: Sequence[str] | None = None,
    beside: Mapping[str, ArrayLike] | None = None,
) -> Any:
    """A matplotlib figure of T closes.

    Args:
        title: one line.
        prices: shape (T, N), money a share.
        fundamentals: shape (T, N), money a share.
        unit_value: shape (T,), or (T, L) of several learners; 1 at the start.
        learner_leverage: likewise, multiple of wealth.
        crowd_leverage: shape (T,), multiple of wealth.
        assets: N names; None numbers them from 1.
        beside: unit values (T,) that other policies end up with on the same shocks, by name.

    Raises:
        ValueError: the number of names is not that of the assets.
        ImportError: matplotlib is missing.
    """
    prices, fundamentals, unit_value = np.asarray(prices), np.asarray(fundamentals), np.asarray(unit_value)
    n_assets = prices.shape[1]
    names = [f"asset {i + 1}" for i in range(n_assets)] if assets is None else list(assets)
    if len(names) != n_assets:
        raise ValueError(f"`assets` must hold one name for each of {n_assets} assets, got {len(names)}")
    figure = new_figure(5.0)
    top, value, leverage = figure.subplot_mosaic(
        [["prices", "prices"], ["value", "leverage"]], height_ratios=[3, 2]
    ).values()
    for i, name in enumerate(names):
        colour = ASSETS[i % len(ASSETS)]
        top.plot(prices[:, i], color=colour, label=name)
        top.plot(fundamentals[:, i], color=colour, ls="--", lw=1.0, alpha=0.6)
    top.plot([], [], color=MUTED, ls="--", lw=1.0, label="fundamental value")
    top.set(ylabel="price, money a share", title=title)
    who = "learner" if unit_value.ndim == 1 else "learners"
    for style, (name, values) in zip(("--", ":", "-."), (beside or {}).items(), strict=False):
        value.plot(np.asarray(values), color=MUTED, ls=style, label=name)
    for axes, values in ((value, unit_value), (leverage, np.asarray(learner_leverage))):
        first, *_ = axes.plot(values, color=LEARNER)
        first.set_label(who)
    leverage.plot(np.asarray(crowd_leverage), color=CROWD, label="crowd")
    value.set(ylabel="unit value")
    leverage.set(ylabel="gross leverage, of wealth")
    leverage.set_ylim(bottom=0.0)
    for axes in (top, value):
        log_scale(axes, "y")
    for axes in (top, value, leverage):
        axes.set(xlabel="month")
        axes.legend(ncols=n_assets + 1 if axes is top else 1)
    return figure
