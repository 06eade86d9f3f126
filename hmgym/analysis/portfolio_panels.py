"""Figures of portfolio flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hmgym.analysis.figures import CROWD, INK, PAGE_WIDTH, layout, log_scale, new_figure


@layout()
def flow_figure(
    times: ArrayLike,
    weights: ArrayLike,
    names: Sequence[str],
    *,
    rest: ArrayLike,
    distance: ArrayLike,
    missed: ArrayLike,
) -> Any:
    """Weights along a flow, and how far they are from its end and from the groups' totals.

    Args:
        times: (T,) > 0 but perhaps the first.
        weights: (T, N).
        names: N, of the assets.
        rest: (N,) the exact solution.
        distance: (T,) largest difference of a weight from it.
        missed: (T,) largest difference of a group from its total.
    """
    t, w = np.asarray(times, np.float64), np.asarray(weights, np.float64)
    seen = t > 0.0
    figure = new_figure(5.6, PAGE_WIDTH)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    from matplotlib import colormaps

    colours = colormaps["viridis"](np.linspace(0.0, 0.92, w.shape[1]))
    for i in np.argsort(-w[-1]):
        above.plot(t[seen], w[seen, i], color=colours[i], label=names[i])
        above.plot(t[-1], np.asarray(rest)[i], "o", color=colours[i], ms=4.0, mec=INK, mew=0.5, clip_on=False, zorder=5)
    above.set(ylabel="weight, share of wealth")
    above.set_title("Weights along the flow; dots: the exact solution")
    above.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    for values, colour, label in (
        (np.asarray(distance), INK, "weights from the exact solution, largest"),
        (np.asarray(missed), CROWD, "groups from their totals, largest"),
    ):
        shown = seen & (values > 0.0)
        below.plot(t[shown], values[shown], color=colour, ls="-" if colour == INK else "--", label=label)
    log_scale(below, "x")
    log_scale(below, "y")
    below.set(xlabel="time of the flow", ylabel="share of wealth")
    below.legend()
    return figure
