"""One palette and one layout for every picture of the package.

Colours are ``"#rrggbb"``, which matplotlib and pygame both take. matplotlib, of the `train` extra, is imported where a
figure is made.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

INK, MUTED, GRID, PAPER = "#262a33", "#787f8c", "#e2e5eb", "#ffffff"
LEARNER = "#c83e32"
LEARNERS_END = "#f0aa3c"
"""The last of several learners; those between are mixed."""
CROWD = "#606878"
ASSETS = ("#1f63b0", "#de8420", "#228b5e", "#8957a8", "#78563c", "#0096aa")
SERIES = ("#1f63b0", "#c83e32", "#228b5e", "#de8420", "#8957a8", "#0096aa", "#78563c", "#606878")
"""Of lines that stand for nothing above, in this order."""

PAGE_WIDTH = 8.0
"""Inches: a page of the documentation, on which the text of a figure is as large as that of the page."""

_DPI = 150
_STYLE: dict[Any, Any] = {
    "font.size": 8.0, "axes.titlesize": 9.0, "axes.titlelocation": "left", "axes.labelsize": 8.0,
    "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "legend.fontsize": 8.0, "legend.frameon": False,
    "figure.titlesize": 9.0, "figure.facecolor": PAPER, "text.color": INK, "axes.labelcolor": INK,
    "axes.edgecolor": MUTED, "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK,
    "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": GRID, "grid.linewidth": 0.6, "lines.linewidth": 1.3, "lines.markersize": 3.0,
}  # fmt: skip


@contextmanager
def layout() -> Iterator[None]:
    """Figures made inside have the layout of the package; also a decorator of a function that draws.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        import matplotlib
        from cycler import cycler
    except ImportError as error:
        raise ImportError('figures need matplotlib: pip install "hmgym[train]"') from error
    with matplotlib.rc_context({**_STYLE, "axes.prop_cycle": cycler(color=SERIES)}):
        yield


@layout()
def new_figure(height: float, width: float = PAGE_WIDTH) -> Any:
    """An empty matplotlib figure, sizes in inches.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


@layout()
def save(figure: Any, path: str | Path) -> None:
    """Write a figure as a picture."""
    figure.savefig(path, dpi=_DPI)


@layout()
def picture(figure: Any) -> bytes:
    """A figure as a PNG picture, as `save` writes it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=_DPI, format="png")
    return buffer.getvalue()


def plain(value: float) -> str:
    """A number of an axis without powers of ten where that is readable: 0.01, 500, 20k, 3M, 1e-6."""
    size = abs(value)
    if size >= 1e6 or (0.0 < size < 1e-3):
        if 1e6 <= size < 1e9:
            return f"{value / 1e6:g}M"
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value / 1e3:g}k" if size >= 1e4 else f"{value:g}"


def log_scale(axes: Any, which: str, ticks: Sequence[float] | None = None) -> None:
    """Make the axis `which`, "x" or "y", logarithmic, with plain numbers at `ticks` or where they fit."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogFormatter, NullLocator

    class Plain(LogFormatter):  # decides which ticks have room for a number
        def __call__(self, x: float, pos: int | None = None) -> str:
            return plain(x) if super().__call__(x, pos) else ""

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    if ticks is None:
        axis.set_major_formatter(Plain())
        axis.set_minor_formatter(Plain(minor_thresholds=(1.2, 0.6)))
    else:
        axis.set_major_locator(FixedLocator(list(ticks)))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda x, _: plain(x)))


def median_band(
    axes: Any, xs: Sequence[ArrayLike], ys: Sequence[ArrayLike], *, colour: str, label: str, points: int = 200
) -> None:
    """Median over curves, and a band from the lowest to the highest, where all of them are; x is logarithmic.

    Args:
        axes: to draw on.
        xs: of every curve, ascending; what is not positive is left out.
        ys: likewise.
        colour: of both.
        label: of the median in the legend.
        points: at which curves are interpolated.
    """
    both = [np.stack([np.asarray(x, np.float64), np.asarray(y, np.float64)]) for x, y in zip(xs, ys, strict=True)]
    curves = [curve[:, curve[0] > 0.0] for curve in both]
    first, last = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    grid = np.geomspace(first, last, points)
    values = np.stack([np.interp(np.log(grid), np.log(x), y) for x, y in curves])
    axes.fill_between(grid, values.min(0), values.max(0), color=colour, alpha=0.18, lw=0.0)
    axes.plot(grid, np.median(values, axis=0), color=colour, label=label)
