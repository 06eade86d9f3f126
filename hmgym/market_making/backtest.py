"""Backtests: strategies side by side on the same random draws.

A run draws from a generator of its own, the same for every strategy, so that differences between strategies are theirs.
Any market will do that resets, steps and tells of itself as `QuotedMarket` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hmgym.checks import integer, shown
from hmgym.market_making.law import PolicyLaw
from hmgym.market_making.quotes import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the quantiles over runs that are kept of every step."""

_BATCH = 1000  # runs side by side
_NORMAL_975 = 1.959963984540054
_TAIL = 0.05  # of profits that value at risk and conditional value at risk are about
_SUSPECT = 4.0  # standard errors between a mean and the exact one

Row = dict[str, str | int | float]


class Strategy(Protocol):
    """What quotes."""

    def act(self, state: Any) -> NDArray[Any]:
        """Actions (E, 2), for bid and ask, from what E market makers know."""


class ActionSpace(Protocol):
    """What an action may be."""

    def check(self, action: Any, num_markets: int) -> Floats:
        """Actions (E, 2) as (E, 1, 2), entries outside [-1, 1] clipped; a ValueError where they are none."""


class QuotedMarket(Protocol):
    """E market makers that quote in every step of runs of one length; nothing is shared between them.

    `infos()` has arrays (E,) by name: `mid` price, `bid` and `ask` the last quotes (price), `bought` and `sold` whether
    they were filled, `inventory` shares, `profit` money since the start.

    Attributes:
        steps: of a run.
        max_inventory: at which there is no bid; at its negative there is no ask.
    """

    steps: int
    max_inventory: int

    @property
    def action_map(self) -> ActionSpace:
        """What an action may be."""

    @property
    def state(self) -> Any:
        """What strategies know."""

    def reset(self, rows: NDArray[np.int64], generators: list[np.random.Generator]) -> None:
        """Begin new runs in these rows; a generator for each of all E."""

    def step(self, action: Floats, generators: list[np.random.Generator]) -> Any:
        """Quote once, at actions (E, 1, 2)."""

    def infos(self) -> Mapping[str, NDArray[Any]]:
        """What is known after the last step."""


@dataclass(frozen=True, kw_only=True, eq=False)
class QuotedPath:
    """One run of one strategy; row 0 is the start, before any quote.

    Attributes:
        run: its number; it drew from the backtest's seed plus this.
        mid: (steps+1,) price after the step.
        bid: (steps+1,) price quoted in it; NaN where there was no bid.
        ask: (steps+1,) likewise.
        bought: (steps+1,) whether the bid was filled.
        sold: (steps+1,) whether the ask was.
        inventory: (steps+1,) shares after it.
        profit: (steps+1,) money since the start.
    """

    run: int
    mid: Floats
    bid: Floats
    ask: Floats
    bought: NDArray[np.bool_]
    sold: NDArray[np.bool_]
    inventory: NDArray[np.int64]
    profit: Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class StrategyRuns:
    """What one strategy made.

    Attributes:
        profit: (runs,) cash and inventory at mid at the end, money.
        trades: (runs,) fills on both sides.
        drawdown: (runs,) largest loss of profit from an earlier high, the start's 0 among them, money, ≥ 0.
        inventory: (runs,) at the end, shares.
        spread: ask less bid, price, the mean over runs and steps where both are quoted; NaN where they never are.
        inventory_quantiles: (5, steps+1) over runs, at `LEVELS`, shares.
        profit_quantiles: (5, steps+1) likewise, money.
        path: of the run that is typical of the whole backtest, see :class:`Backtest`.
    """

    profit: Floats
    trades: NDArray[np.int64]
    drawdown: Floats
    inventory: NDArray[np.int64]
    spread: float
    inventory_quantiles: Floats
    profit_quantiles: Floats
    path: QuotedPath

    @property
    def mean(self) -> float:
        """Mean profit, money."""
        return float(self.profit.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation of profit over runs (n − 1), money."""
        return float(self.profit.std(ddof=1))

    @property
    def standard_error(self) -> float:
        """Of mean profit, money."""
        return self.deviation / math.sqrt(self.profit.size)

    @property
    def sharpe(self) -> float:
        """Mean profit of a run over its standard deviation over runs, of the horizon, no year; NaN where that is 0."""
        deviation = self.deviation
        return self.mean / deviation if deviation > 0.0 else math.nan

    @property
    def value_at_risk(self) -> float:
        """The loss (positive, money) that one run in twenty exceeds: minus the 5 % quantile of profit."""
        return -float(np.quantile(self.profit, _TAIL))

    @property
    def conditional_value_at_risk(self) -> float:
        """The mean loss (positive, money) over the worst 5 % of runs."""
        quantile = -self.value_at_risk
        return float(np.maximum(quantile - self.profit, 0.0).mean()) / _TAIL - quantile


@dataclass(frozen=True, kw_only=True, eq=False)
class Backtest:
    """What strategies made in the same runs.

    The typical run is the one whose profit is nearest the middle for all strategies together: the largest distance of
    its rank from the median's is the smallest there is. With one strategy it is the (lower) median itself.

    Attributes:
        results: by strategy.
        steps: of a run.
        seed: run i drew from ``numpy.random.default_rng(seed + i)``.
    """

    results: Mapping[str, StrategyRuns]
    steps: int
    seed: int

    @property
    def runs(self) -> int:
        """Of every strategy."""
        return int(next(iter(self.results.values())).profit.size)

    def table(self, laws: Mapping[str, PolicyLaw] | None = None) -> list[Row]:
        """A row a strategy.

        Columns: `strategy`; `runs`; `mean` profit and its 95 % interval `low` to `high`; `sd` of profit; `sharpe`, mean
        over sd of a run's profit; `drawdown`, `trades` and `spread` in the mean; `value_at_risk` and
        `conditional_value_at_risk` at 5 %, losses positive; `sd_inventory` at the end; `minus_first`, how much more it
        made than the first strategy in the same runs, in the mean, and its interval `minus_first_low` to
        `minus_first_high`. With laws: `exact_mean`, `exact_sd` and `exact_reward`, profit less the model's penalties,
        NaN where there is none. Intervals are 1.96 standard errors to either side.

        Args:
            laws: exact laws, by strategy, of those that have one.
        """
        first = next(iter(self.results.values()))
        rows: list[Row] = []
        for name, found in self.results.items():
            half = _NORMAL_975 * found.standard_error
            ahead = found.profit - first.profit
            ahead_half = _NORMAL_975 * float(ahead.std(ddof=1)) / math.sqrt(ahead.size)
            row: Row = {
                "strategy": name, "runs": self.runs,
                "mean": found.mean, "low": found.mean - half, "high": found.mean + half, "sd": found.deviation,
                "sharpe": found.sharpe, "drawdown": float(found.drawdown.mean()), "trades": float(found.trades.mean()),
                "spread": found.spread, "value_at_risk": found.value_at_risk,
                "conditional_value_at_risk": found.conditional_value_at_risk,
                "sd_inventory": float(found.inventory.std(ddof=1)), "minus_first": float(ahead.mean()),
                "minus_first_low": float(ahead.mean()) - ahead_half,
                "minus_first_high": float(ahead.mean()) + ahead_half,
            }  # fmt: skip
            if laws is not None:
                law = laws.get(name)
                row["exact_mean"] = math.nan if law is None else law.mean
                row["exact_sd"] = math.nan if law is None else law.std
                row["exact_reward"] = math.nan if law is None else law.expected_reward
            rows.append(row)
        return rows

    def text(self, laws: Mapping[str, PolicyLaw] | None = None) -> str:
        """The table as text, first what was made and then at what risk and how; arguments as of `table`."""
        rows = self.table(laws)
        first = str(rows[0]["strategy"])
        money = _digits([float(row["sd"]) for row in rows])
        price = _digits([float(row["spread"]) for row in rows]) + 1
        exact = laws is not None
        made = [["strategy", "profit", "95 %", *["exact"] * exact, "sd", *["exact"] * exact, "Sharpe"]]
        made[0] += [*["exact reward"] * exact, f"minus {first} (95 %)"]
        how = [["strategy", "VaR 5 %", "CVaR 5 %", "drawdown", "trades", "spread", "sd of inventory"]]
        for row in rows:

            def at(name: str, digits: int = money, sign: str = "", row: Row = row) -> str:
                return f"{row[name]:{sign}z.{digits}f}"

            def known(name: str, at: Callable[[str], str] = at) -> list[str]:
                return [at(name)] if exact else []

            ends = f"[{at('minus_first_low', sign='+')}, {at('minus_first_high', sign='+')}]"
            ahead = "" if row["strategy"] == first else f"{at('minus_first', sign='+')} {ends}"
            made.append([
                str(row["strategy"]), at("mean"), f"[{at('low')}, {at('high')}]", *known("exact_mean"), at("sd"),
                *known("exact_sd"), at("sharpe", 2), *known("exact_reward"), ahead,
            ])  # fmt: skip
            how.append([
                str(row["strategy"]), at("value_at_risk"), at("conditional_value_at_risk"), at("drawdown"),
                at("trades", 1), at("spread", price), at("sd_inventory", 2),
            ])  # fmt: skip
        return f"{_aligned(made)}\n\n{_aligned(how)}"

    def __str__(self) -> str:
        return self.text()

    def suspect(self, laws: Mapping[str, PolicyLaw]) -> dict[str, float]:
        """Strategies whose mean profit is more than four standard errors from that of their law: something is wrong.

        The standard error is the law's or that of the runs, whichever is larger.

        Args:
            laws: by strategy.

        Returns:
            How many standard errors, by strategy.
        """
        away = {}
        for name, law in laws.items():
            found = self.results[name]
            error = max(found.standard_error, law.std / math.sqrt(self.runs), 1e-9 * abs(law.mean), 1e-300)
            away[name] = abs(found.mean - law.mean) / error
        return {name: gap for name, gap in away.items() if gap > _SUSPECT}

    def plot(self) -> dict[str, Figure]:
        """Five figures: "profit" and "inventory" over time, "path", "distribution" of profit, "trade_off".

        Raises:
            ImportError: matplotlib is missing.
        """
        from hmgym.analysis.quoting_panels import backtest_figures

        return backtest_figures(self)


def backtest(
    strategies: Mapping[str, Strategy],
    market: Callable[[int], QuotedMarket],
    *,
    runs: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Backtest:
    """Run strategies side by side on the same random draws.

    It needs some 13 bytes a run and step of each strategy, and goes through a thousand runs at a time.

    Args:
        strategies: by name; each has ``act(state)`` and no memory.
        market: makes a market of a number of market makers.
        runs: of every strategy, ≥ 2.
        seed: run i draws from ``numpy.random.default_rng(seed + i)``, whatever the strategy; ≥ 0.
        progress: called with the steps that are done, over all runs and strategies, and with how many there are.

    Raises:
        ValueError: an argument is none of these, or a strategy's actions are no numbers of shape (E, 2).
    """
    runs, seed = integer("runs", runs, 2), integer("seed", seed, 0)
    if not isinstance(strategies, Mapping) or not strategies:
        raise ValueError(f"`strategies` must be a mapping with at least one strategy, got {shown(strategies)}")
    for name, strategy in strategies.items():
        if not callable(getattr(strategy, "act", None)):
            raise ValueError(f"`strategies` must have `act(state)`, got {shown(strategy)} for {name!r}")
    if not callable(market):
        raise ValueError(f"`market` must make a market from a number of market makers, got {shown(market)}")
    batches = [range(first, min(first + _BATCH, runs)) for first in range(0, runs, _BATCH)]
    markets = {size: market(size) for size in sorted({len(batch) for batch in batches})}
    steps = markets[len(batches[0])].steps
    tallies, done = {}, 0
    for name, strategy in strategies.items():
        tally = tallies[name] = _Tally(runs, steps)
        for batch in batches:
            for step, close in enumerate(_closes(strategy, markets[len(batch)], [seed + run for run in batch])):
                tally.add(slice(batch.start, batch.stop), step, close)
                done += len(batch) if step else 0
                if progress is not None:
                    progress(done, len(strategies) * runs * steps)
        tally.finish()
    typical = _typical([tally.profit for tally in tallies.values()])
    single = market(1)
    results = {}
    for name, strategy in strategies.items():
        closes = list(_closes(strategy, single, [seed + typical]))
        path = {field: np.concatenate([close[field] for close in closes]) for field in closes[0]}
        tally = tallies[name]
        results[name] = StrategyRuns(
            profit=tally.profit, trades=tally.trades, drawdown=tally.drawdown, inventory=tally.inventory,
            spread=tally.spread, inventory_quantiles=tally.inventory_quantiles,
            profit_quantiles=tally.profit_quantiles, path=QuotedPath(run=typical, **path),
        )  # fmt: skip
    return Backtest(results=results, steps=steps, seed=seed)


class _Tally:
    """What is kept of one strategy's runs; whole series only until `finish`."""

    def __init__(self, runs: int, steps: int) -> None:
        self.drawdown, self.trades = np.zeros(runs), np.zeros(runs, np.int64)
        self._high, self._spreads, self._quoted = np.zeros(runs), 0.0, 0
        self._profits: Any = np.empty((steps + 1, runs))
        self._inventories: Any = np.empty((steps + 1, runs), np.int32)

    def add(self, rows: slice, step: int, close: Mapping[str, NDArray[Any]]) -> None:
        """A step of some runs."""
        profit = close["profit"]
        self._profits[step, rows], self._inventories[step, rows] = profit, close["inventory"]
        self._high[rows] = np.maximum(self._high[rows], profit)
        self.drawdown[rows] = np.maximum(self.drawdown[rows], self._high[rows] - profit)
        self.trades[rows] += close["bought"].astype(np.int64) + close["sold"]
        spread = close["ask"] - close["bid"]
        both = np.isfinite(spread)
        self._spreads, self._quoted = self._spreads + float(spread[both].sum()), self._quoted + int(both.sum())

    def finish(self) -> None:
        """All runs are there."""
        self.profit: Floats = self._profits[-1].copy()
        self.inventory: NDArray[np.int64] = self._inventories[-1].astype(np.int64)
        self.profit_quantiles: Floats = np.quantile(self._profits, LEVELS, axis=1, overwrite_input=True)
        self.inventory_quantiles: Floats = np.quantile(self._inventories, LEVELS, axis=1, overwrite_input=True)
        self.spread = self._spreads / self._quoted if self._quoted else math.nan
        del self._profits, self._inventories


def _closes(strategy: Strategy, market: QuotedMarket, seeds: list[int]) -> Iterator[dict[str, NDArray[Any]]]:
    """The start of runs with these seeds and what each step brought, NaN for quotes that the limit does not allow."""
    generators = [np.random.default_rng(seed) for seed in seeds]
    market.reset(np.arange(len(seeds)), generators)
    for step in range(market.steps + 1):
        if step:
            market.step(market.action_map.check(strategy.act(market.state), len(seeds)), generators)
        infos = market.infos()
        bought, sold, inventory = infos["bought"].astype(bool), infos["sold"].astype(bool), infos["inventory"]
        before = inventory - bought.astype(np.int64) + sold
        yield {
            "mid": infos["mid"], "bid": np.where(before >= market.max_inventory, np.nan, infos["bid"]),
            "ask": np.where(before <= -market.max_inventory, np.nan, infos["ask"]), "bought": bought, "sold": sold,
            "inventory": inventory, "profit": infos["profit"],
        }  # fmt: skip


def _typical(profits: list[Floats]) -> int:
    """The run whose rank is nearest the lower median's, by the strategy where it is farthest from it."""
    middle = (profits[0].size - 1) // 2
    away = [np.abs(np.argsort(np.argsort(profit, kind="stable"), kind="stable") - middle) for profit in profits]
    return int(np.argmin(np.max(away, axis=0)))


def _aligned(lines: list[list[str]]) -> str:
    """Columns of text, the first to the left and the others to the right, a rule under the heading."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    texts = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    texts.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text.rstrip() for text in texts)


def _digits(values: list[float]) -> int:
    """Digits behind the point with which the smallest of some sizes has three that count."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0.0]
    return min(max(2 - math.floor(math.log10(min(sizes))), 0), 8) if sizes else 2
