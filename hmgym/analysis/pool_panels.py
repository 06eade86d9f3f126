"""Panels of a pool's run: weights, reserves, value; and of how its training went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.analysis.figures import ASSETS, CROWD, LEARNER, MUTED, SERIES, layout, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hmgym.pools import PoolRun, PoolTraining

_POINTS = 2000  # of a line


@layout()
def pool_figure(
    run: PoolRun, assets: Sequence[str], x: ArrayLike, *, title: str = "", x_label: str = "", split: Any = None
) -> Figure:
    """Weights, reserves over the first, and value beside that of holding, of one run.

    Args:
        run: of one parameter set.
        assets: N names.
        x: (T,) dates or numbers of the rows.
        title: of the figure.
        x_label: of the lowest axis.
        split: x at which what was not trained on begins; None is no line.
    """
    figure: Figure = new_figure(6.0)
    weights, reserves, value = figure.subplots(3, 1, sharex=True)
    at = np.asarray(x)
    kept = np.unique(np.linspace(0, len(at) - 1, min(len(at), _POINTS)).round().astype(np.int64))
    lines = {name: np.asarray(getattr(run, name).detach())[kept] for name in ("weights", "reserves", "value", "hold")}
    for i, name in enumerate(assets):
        colour = _colour(i)
        weights.plot(at[kept], lines["weights"][:, i], color=colour, label=name)
        reserves.plot(at[kept], lines["reserves"][:, i] / lines["reserves"][0, i], color=colour)
    value.plot(at[kept], lines["hold"], color=CROWD, label="hold")
    value.plot(at[kept], lines["value"], color=LEARNER, label="pool")
    weights.set(title="Weights", ylabel="share of value", ylim=(0.0, None))
    reserves.set(title="Reserves over those at the start", ylabel="ratio", yscale="log")
    value.set(title="Value", ylabel="money", yscale="log", xlabel=x_label)
    weights.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    value.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    if split is not None:
        for axes in (weights, reserves, value):
            axes.axvline(split, color=MUTED, ls="--", lw=0.8)
    if title:
        figure.suptitle(title)
    return figure


@layout()
def training_figure(training: PoolTraining) -> Figure:
    """The objective of every set on the validation part by epoch, and on the windows of the epoch."""
    figure: Figure = new_figure(3.0)
    left, right = figure.subplots(1, 2, sharey=True)
    trained, validated = (np.asarray(each) for each in (training.trained, training.validated))
    for i in range(validated.shape[1]):
        best = i == training.best_set
        style = {"color": LEARNER if best else MUTED, "lw": 1.3 if best else 0.7}
        left.plot(np.arange(1, len(trained) + 1), trained[:, i], **style)
        right.plot(np.arange(len(validated)), validated[:, i], label="chosen set" if best else None, **style)
    right.plot(training.best_epoch, training.objective, "o", color=LEARNER)
    left.set(title="Windows of the epoch", xlabel="epoch", ylabel="objective")
    right.set(title="Validation part", xlabel="epoch")
    right.legend()
    return figure


def _colour(number: int) -> str:
    palette: NDArray[np.str_] = np.array([*ASSETS, *SERIES])
    return str(palette[number % len(palette)])
