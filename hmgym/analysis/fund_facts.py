"""Three facts about active and passive money: what is measured of a fund market, and how it is shown.

Time comes first, E markets next. Returns are simple and monthly, of fund units, so that clients' money is no return.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hmgym.analysis.factors import factor_regression
from hmgym.analysis.figures import MUTED, SERIES, layout, new_figure, plain
from hmgym.checks import integer

Array = NDArray[np.float64]

WINDOW = 12
"""months of past performance, and of later performance"""
PER_CENT = 100.0
_YEAR = 12.0  # months

MEASURES: dict[str, str] = {
    "index_alpha": "alpha against the index, % a year",
    "factor_alpha": "alpha against index and factors, % a year",
    "over_index": "return over the index, % a year",
    "mispricing": "log(price/value), root mean square",
    "relative_mispricing": "the same, less the market's mean",
    "volatility": "volatility of assets, % a year",
    "flows": "size of fund flows, % a month",
    "flow_slope": "flow, % a month, for 1 % of past year's performance",
    "persistence": "next year's performance for 1 % of past year's",
}
"""What `fund_measures` gives, with units."""


def fund_measures(
    *, fund_returns: ArrayLike, flows: ArrayLike, index_returns: ArrayLike, factors: ArrayLike, interest: float,
    log_returns: ArrayLike, mispricing: ArrayLike,
) -> dict[str, Array]:  # fmt: skip
    """The `MEASURES` of each market, (E,) each, of F funds, N assets and K factors in T months.

    Alphas are those of the average fund after fees. The index is taken beyond interest; factors, portfolios that cost
    nothing, are taken as they are.

    Args:
        fund_returns: (T, E, F) after fees.
        flows: (T, E, F) of units, over those before.
        index_returns: (T, E).
        factors: (T, E, K) returns.
        interest: a month.
        log_returns: (T, E, N) of assets.
        mispricing: (T, E, N) log price over value.

    Raises:
        ValueError: there are fewer than 2 `WINDOW` + 1 months, or shapes do not agree.
    """
    returns, index = np.asarray(fund_returns, np.float64), np.asarray(index_returns, np.float64)
    gap = np.asarray(mispricing, np.float64)
    integer("months", len(returns), 2 * WINDOW + 1)
    average = (returns.mean(-1) - interest)[..., None]
    market = (index - interest)[..., None]
    everything = np.concatenate([market, np.asarray(factors, np.float64)], -1)
    performance = returns - index[..., None]
    a_year = PER_CENT * _YEAR
    return {
        "index_alpha": a_year * factor_regression(average, market).alpha[..., 0],
        "factor_alpha": a_year * factor_regression(average, everything).alpha[..., 0],
        "over_index": a_year * performance.mean((0, 2)),
        "mispricing": np.sqrt((gap**2).mean((0, 2))),
        "relative_mispricing": np.sqrt(((gap - gap.mean(-1, keepdims=True)) ** 2).mean((0, 2))),
        "volatility": PER_CENT * _YEAR**0.5 * np.asarray(log_returns, np.float64).std(0, ddof=1).mean(-1),
        "flows": PER_CENT * np.abs(np.asarray(flows, np.float64)).mean((0, 2)),
        "flow_slope": flow_slope(flows, performance),
        "persistence": persistence(performance),
    }


def flow_slope(flows: ArrayLike, performance: ArrayLike, window: int = WINDOW) -> Array:
    """Slope (E,) of a month's flows on the sum of performance over the `window` months before.

    Both (T, E, F), and both less the mean of all funds in the month; NaN where performance never differs.
    """
    money, past = np.asarray(flows, np.float64), _sums(np.asarray(performance, np.float64), window)
    return _slope(money[window:], past[:-1])


def persistence(performance: ArrayLike, window: int = WINDOW) -> Array:
    """Slope (E,) of the sum of performance (T, E, F) over `window` months on that over the `window` months before.

    Less the mean of all funds; windows overlap.
    """
    sums = _sums(np.asarray(performance, np.float64), window)
    return _slope(sums[window:], sums[:-window])


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean over seeds with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign is told."""
        return self.low > 0.0 or self.high < 0.0


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One value of what a fact varies."""

    value: float
    measures: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    """paired, seed by seed, to the default; none of the default itself"""


def format_fact(varied: str, shown: Sequence[str], arms: Sequence[Arm]) -> str:
    """Markdown: a row a value, a column a measure, below each mean its paired difference to the default."""
    rows = [[varied, *(MEASURES[name] for name in shown)], ["---"] * (len(shown) + 1)]
    for arm in arms:
        cells = [f"{arm.value:.3g}" + ("" if arm.differences else ", default")]
        for name in shown:
            cell = f"{arm.measures[name].mean:.3g}"
            if arm.differences:
                found = arm.differences[name]
                cell += f" ({found.mean:+.2g}: {found.low:+.2g} to {found.high:+.2g})"
            cells.append(cell)
        rows.append(cells)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


@layout()
def draw_fact(varied: str, shown: Sequence[str], arms: Mapping[str, Sequence[Arm]], *, logarithmic: bool) -> Any:
    """A matplotlib figure, a panel a measure: differences to the default with their intervals, by what is varied.

    Args:
        varied: label of the horizontal axes.
        shown: names of `MEASURES`.
        arms: by mechanism.
        logarithmic: whether values stand side by side, whatever lies between them.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = new_figure(2.8)
    values = [arm.value for arm in next(iter(arms.values()))]
    places = np.arange(len(values)) if logarithmic else np.asarray(values)
    nothing = Interval(mean=0.0, low=0.0, high=0.0)
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True):
        axes.axhline(0.0, color=MUTED, lw=0.6)
        for (mechanism, those), colour in zip(arms.items(), SERIES, strict=False):
            found = [arm.differences[name] if arm.differences else nothing for arm in those]
            mean, low, high = (np.array([getattr(one, end) for one in found]) for end in ("mean", "low", "high"))
            axes.errorbar(
                places, mean, [mean - low, high - mean], color=colour, marker="o", capsize=2.0, label=mechanism
            )
        if logarithmic:
            axes.set_xticks(places, [plain(float(f"{value:.2g}")) for value in values], fontsize=6.5)
        axes.set_title(textwrap.fill(MEASURES[name], 90 // len(shown)))
    axes.legend(loc="best")
    figure.supxlabel(f"{varied}; differences to the default", fontsize=8.0)
    return figure


def _sums(values: Array, window: int) -> Array:
    """Sums (T - window + 1, ...) over the `window` rows that end with each."""
    total = np.concatenate([np.zeros_like(values[:1]), values.cumsum(0)])
    return np.asarray(total[window:] - total[:-window])


def _slope(y: Array, x: Array) -> Array:
    """Least squares through the origin (E,) of y (T, E, F) on x, both less the mean of the last axis."""
    x = x - x[..., :1]  # exactly zero where funds are alike, which rounding would hide
    y, x = y - y.mean(-1, keepdims=True), x - x.mean(-1, keepdims=True)
    above, below = (x * y).sum((0, 2)), (x * x).sum((0, 2))
    found = np.full(below.shape, np.nan)
    np.divide(above, below, out=found, where=below > 0.0)
    return found
