"""Markets that market makers quote in, by name, with the strategies that go with them: for several subcommands."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hmgym.agents.quoting import Strategy, law_of, strategies_of
from hmgym.agents.quoting_books import book_strategies
from hmgym.agents.report import episode_figure, record_episode
from hmgym.commands.console import own_arguments
from hmgym.data import BookSource
from hmgym.envs.quoting import BookQuoting, QuotingSeries
from hmgym.envs.quoting.model import ModelQuoting, as_config
from hmgym.market_making import PolicyLaw, QuotingConfig
from hmgym.market_making.backtest import QuotedMarket

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

STRATEGIES = ("hjb", "avellaneda-stoikov", "symmetric", "inventory-aware", "constant")


@dataclass(frozen=True, kw_only=True)
class QuotingMarket:
    """A market by name, and who may quote in it.

    Attributes:
        title: what it is, for a heading.
        make: a simulator of a number of market makers.
        strategies: by name.
        law: the exact law of what a strategy makes; None where the market has none.
        env_id: of the same market as an environment.
        env_kwargs: its arguments.
    """

    title: str
    make: Callable[[int], QuotedMarket]
    strategies: Mapping[str, Strategy]
    law: Callable[[Strategy], PolicyLaw] | None
    env_id: str
    env_kwargs: Mapping[str, Any]

    def choose(self, names: Sequence[str], argument: str = "strategies") -> dict[str, Strategy]:
        """Some of the strategies; an underscore in a name is as good as a hyphen.

        Args:
            names: of them.
            argument: that the names came with.

        Raises:
            ValueError: there is no such strategy, none is named, or one twice.
        """
        if not names:
            raise ValueError(f"`{argument}` must be at least one of {list(self.strategies)}, got none")
        given = [name.replace("_", "-") for name in names]
        if len(set(given)) < len(given):
            raise ValueError(f"`{argument}` must differ from each other, got {list(names)}")
        for name in given:
            if name not in self.strategies:
                raise ValueError(f"`{argument}` must be among {list(self.strategies)}, got {name!r}")
        return {name: self.strategies[name] for name in given}


def simulated_market(parameters: Mapping[str, Any]) -> QuotingMarket:
    """The simulated market: every strategy is a table by step and inventory there and has an exact law.

    Args:
        parameters: of `QuotingConfig` that differ from its own.

    Raises:
        ValueError: one is unknown or out of range.
    """
    config = as_config(parameters, "parameters")
    own = strategies_of(config.problem(), config.problem("utility"), config.steps)
    return QuotingMarket(
        title=f"Market making, simulated: {_written(config)}",
        make=lambda rows: ModelQuoting(config, "inventory_penalty", rows),
        strategies={name: own[name.replace("-", "_")] for name in STRATEGIES},
        law=lambda strategy: law_of(strategy, config),
        env_id="hmgym/MarketMaking-v0",
        env_kwargs={"config": config},
    )


def recorded_market(book: BookSource, parameters: Mapping[str, Any]) -> QuotingMarket:
    """A recorded book: strategies of the model of its training rows, run on the held-out ones; there is no exact law.

    Args:
        book: recorded, or its description.
        parameters: arguments of ``hmgym/LOBMarketMaking-v0`` that differ from its own.

    Raises:
        ValueError: one is unknown or out of range, or the span is too short for an episode.
    """
    env_id = "hmgym/LOBMarketMaking-v0"
    env_kwargs = {"history": "held-out", **own_arguments(env_id, parameters), "book": book}
    if left_out := sorted({"autoreset_mode", "max_episode_steps", "render_mode"} & set(env_kwargs)):
        raise ValueError(f"`parameters` must be those of the market, got {left_out}, which are an environment's")
    one = BookQuoting(**env_kwargs)
    own = book_strategies(one)
    first, last = one.starts
    return QuotingMarket(
        title=f"Market making on a recorded book, {one.book.source}: episodes that begin in rows {first} to {last} "
        f"of {len(one.book.time)}",
        make=lambda rows: BookQuoting(**env_kwargs, num_markets=rows),
        strategies={name: own[name.replace("-", "_")] for name in STRATEGIES},
        law=None,
        env_id=env_id,
        env_kwargs=env_kwargs,
    )


@dataclass(frozen=True, kw_only=True)
class QuotingRuns:
    """Episodes of one strategy, as `hmgym simulate` writes them.

    Attributes:
        title: of market and strategy.
        series: one an episode.
        law: of what the strategy makes, where there is one.
    """

    title: str
    series: Sequence[QuotingSeries]
    law: PolicyLaw | None

    def to_frame(self) -> pd.DataFrame:
        """A row an episode and step, row 0 of each the start: mid, quotes, fills, inventory, profit.

        Raises:
            ImportError: pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError('series.csv needs pandas: pip install "hmgym[data]"') from error
        frames = {market: pd.DataFrame(dataclasses.asdict(one)) for market, one in enumerate(self.series)}
        return pd.concat(frames, names=["market", "step"])

    def plot(self) -> Figure:
        """Panels of the first episode."""
        return episode_figure(self.series[0], self.title)

    def __str__(self) -> str:
        profits = np.array([one.profit[-1] for one in self.series])
        quoted = np.concatenate([one.ask - one.bid for one in self.series])
        figures = {
            "markets": float(len(self.series)),
            "steps": float(len(self.series[0]) - 1),
            "profit": float(profits.mean()),
            "trades": float(np.mean([one.bought.sum() + one.sold.sum() for one in self.series])),
            "spread quoted": float(np.nanmean(quoted)) if np.isfinite(quoted).any() else float("nan"),
            "largest inventory": max(float(np.abs(one.inventory).max()) for one in self.series),
        }
        if self.law is not None:
            figures["expected profit, exact"] = self.law.mean
            figures["its standard deviation, exact"] = self.law.std
        lines = (f"{name.ljust(30)}{value:14.6g}" for name, value in figures.items())
        return "\n".join([self.title, "", *lines])


def run_episodes(
    market: QuotingMarket, name: str, *, seed: int, markets: int, progress: Callable[[int, int], None] | None = None
) -> QuotingRuns:
    """Episodes of one strategy; market e draws from ``numpy.random.default_rng(seed + e)``."""
    (strategy,) = market.choose([name], "strategy").values()
    series = []
    for row in range(markets):
        series.append(record_episode(strategy, market.env_id, seed=seed + row, env_kwargs=market.env_kwargs))
        if progress is not None:
            progress(row + 1, markets)
    law = None if market.law is None else market.law(strategy)
    return QuotingRuns(title=f"{market.title}; strategy {name}", series=series, law=law)


def _written(config: QuotingConfig) -> str:
    """The parameters that differ from their defaults."""
    own = QuotingConfig()
    changed = [
        f"{field.name}={getattr(config, field.name)!r}"
        for field in dataclasses.fields(QuotingConfig)
        if getattr(config, field.name) != getattr(own, field.name)
    ]
    return ", ".join(changed) or "the parameters of Avellaneda and Stoikov"
