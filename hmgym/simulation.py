"""Markets run without an environment: `hmgym.simulate`, and what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hmgym.arrays import to_numpy
from hmgym.checks import integer
from hmgym.lazy import imported
from hmgym.market import Market, MarketConfig, MarketState
from hmgym.market.registry import SCENARIOS, numpy_ready, registered

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SimulationResult:
    """What E markets did in T months; row 0 of what has T + 1 rows is how they began. Money and shares are float64."""

    config: MarketConfig
    prices: Array  # (T+1, E, N) closes
    fundamentals: Array  # (T+1, E, N) fundamental value of a share
    news: Array  # (T+1, E, N) the month's log return of fundamentals
    holdings: Array  # (T+1, E, B, N) shares
    dealer_holdings: Array  # (T+1, E, N) shares of the price mechanism's own account
    supply: Array  # (T+1, E, N) shares
    cash: Array  # (T+1, E, B)
    wealth: Array  # (T+1, E, B)
    ruined: Flags  # (T+1, E, B) whose month ended in ruin
    accounts: Mapping[str, Array]  # (T+1, E) each: cash of all who are no investors
    residual: Array  # (T, E) largest relative excess demand
    converged: Flags  # (T, E); a market that did not clear is NaN from there on

    @staticmethod
    def recorded(market: Market, state: MarketState) -> dict[str, NDArray[Any]]:
        """What a month of a run adds to the arrays that every scenario has, by field; a scenario's own result says."""
        return {}

    @property
    def log_returns(self) -> Array:
        """Monthly log returns (T, E, N) of prices."""
        return np.diff(np.log(self.prices), axis=0)

    @property
    def mispricing(self) -> Array:
        """Log price over the value (T+1, E, N) that was known before the month's news."""
        return np.log(self.prices / self.fundamentals) + self.news

    @property
    def market_value(self) -> Array:
        """Money (T+1, E): all shares at the close."""
        return np.asarray((self.supply * self.prices).sum(-1))

    @property
    def turnover(self) -> Array:
        """Half the money traded by investors over market value, (T, E)."""
        traded = np.abs(np.diff(self.holdings, axis=0)) * self.prices[1:, :, None]
        return np.asarray(0.5 * traded.sum((-1, -2)) / self.market_value[1:])

    @property
    def owners_wealth(self) -> Array:
        """Wealth (T+1, E, ·) of those whom everything belongs to in the end: of all B investors."""
        return self.wealth

    @property
    def gross_leverage(self) -> Array:
        """Money in positions of either sign over the owners' wealth, all investors together, (T+1, E)."""
        positions = np.abs(self.holdings) * self.prices[:, :, None]
        return np.asarray(positions.sum((-1, -2)) / self.owners_wealth.sum(-1))

    @property
    def wealth_shares(self) -> Array:
        """Share of all wealth of each owner, (T+1, E, ·)."""
        return np.asarray(self.owners_wealth / self.owners_wealth.sum(-1, keepdims=True))

    @property
    def conservation(self) -> float:
        """Largest error of the books: cash of all accounts relative to all money, shares relative to supply."""
        named = list(self.accounts.values())
        cash = self.cash.sum(-1) + sum(named)
        gross = np.abs(self.cash).sum(-1) + sum(np.abs(account) for account in named) + self.market_value
        shares = (self.holdings.sum(2) + self.dealer_holdings) / self.supply - 1.0
        return float(max(np.abs((cash - cash[0]) / gross).max(), np.abs(shares).max()))

    def summary(self) -> dict[str, float]:
        """The run in a few figures, over all markets, assets and months."""
        returns = self.log_returns
        return {
            "months": float(len(returns)),
            "markets": float(returns.shape[1]),
            "annual log return": 12.0 * float(returns.mean()),
            "annual volatility": float(returns.std()) * 12.0**0.5,
            "mean log(price/value)": float(self.mispricing.mean()),
            "sd of log(price/value)": float(self.mispricing.std()),
            "turnover a month": float(self.turnover.mean()),
            "gross leverage": float(self.gross_leverage.mean()),
            "largest wealth share": float(self.wealth_shares.max()),
            "ruins": float(self.ruined.sum()),
            "largest residual": float(self.residual.max()),
            "error of the books": self.conservation,
        }

    def __str__(self) -> str:
        """The summary as a table."""
        figures = self.summary()
        width = max(map(len, figures))
        return "\n".join(f"{name:<{width}}{value:>13.6g}" for name, value in figures.items())

    def to_frame(self) -> pd.DataFrame:
        """A row a market and month: prices and values by ticker, turnover, leverage, wealth, accounts.

        Raises:
            ImportError: pandas is missing.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError('`to_frame` needs pandas: pip install "hmgym[data]"') from error
        rows, markets, _ = self.prices.shape
        none = np.full((1, markets), np.nan)
        index = pd.MultiIndex.from_product([range(markets), range(rows)], names=["market", "month"])
        columns = {
            name: column if len(column) == rows else np.concatenate([none, column])
            for name, column in self._columns().items()
        }
        return pd.DataFrame({name: column.T.ravel() for name, column in columns.items()}, index=index)

    def _columns(self) -> dict[str, Array]:
        """Columns of the frame, (T+1, E) each or (T, E) without the first row."""
        columns: dict[str, Array] = {}
        for i, asset in enumerate(self.assets):
            columns[f"price_{asset}"] = self.prices[..., i]
            columns[f"value_{asset}"] = self.fundamentals[..., i]
        columns["turnover"] = self.turnover
        columns["gross_leverage"] = self.gross_leverage
        columns["wealth"] = self.wealth.sum(-1)
        columns["largest_wealth_share"] = self.wealth_shares.max(-1)
        columns["ruined"] = self.ruined.sum(-1)
        return columns | {f"cash_{name}": account for name, account in self.accounts.items()}

    def plot(self, market: int = 0) -> Figure:
        """Six panels of one market: prices and values, mispricing, returns, turnover, leverage, wealth shares.

        Raises:
            ValueError: there is no such market.
            ImportError: matplotlib is missing.
        """
        self._check_market(market)
        from hmgym.analysis.market_panels import market_panels

        return market_panels(
            self.assets,
            prices=self.prices[:, market],
            fundamentals=self.fundamentals[:, market],
            mispricing=self.mispricing[:, market],
            log_returns=self.log_returns[:, market],
            turnover=self.turnover[:, market],
            gross_leverage=self.gross_leverage[:, market],
            wealth_shares=self.wealth_shares[:, market],
        )

    def _check_market(self, market: int) -> None:
        if not 0 <= market < self.prices.shape[1]:
            raise ValueError(f"`market` must be one of {self.prices.shape[1]} markets, got {market!r}")

    @property
    def assets(self) -> tuple[str, ...]:
        """Names of the N assets."""
        return self.config.selected_history.assets


def simulate(
    scenario: str = "crowd", *, months: int = 60, seed: int = 0, markets: int = 1, progress: bool = False,
    **parameters: Any,
) -> SimulationResult:  # fmt: skip
    """Run markets of a scenario without a learner.

    Args:
        scenario: a name in `hmgym.market.SCENARIOS`.
        months: T >= 1.
        seed: market e draws from ``numpy.random.default_rng(seed + e)``.
        markets: E >= 1, side by side.
        progress: show a bar, where tqdm is installed.
        parameters: fields of the scenario's configuration, for the crowd `MarketConfig`; `n_learners` is 0 where it is
            not given, and learners follow their own beliefs and limits.

    Raises:
        ValueError: an argument is out of range or unknown.
        ClearingError: a market did not clear (a ValueError; names the market and carries the solution).
    """
    months, markets, seed = integer("months", months, 1), integer("markets", markets, 1), integer("seed", seed, 0)
    config_type: type[MarketConfig] = registered("scenario", scenario, SCENARIOS).config_type
    known = {item.name for item in dataclasses.fields(config_type)} - {"scenario"}
    if unknown := sorted(set(parameters) - known):
        raise ValueError(f"`parameters` of {scenario} must be some of {sorted(known)}, got {unknown}")
    config = config_type(scenario=scenario, **({"n_learners": 0} | parameters))
    generators = [np.random.default_rng(seed + row) for row in range(markets)]
    market = Market(config, arrays="numpy" if numpy_ready(config) else "torch")
    return run(market, generators, months=months, progress=progress)


def run(
    market: Market,
    generators: Sequence[np.random.Generator],
    *,
    months: int,
    progress: bool = False,
    errors: str = "raise",
) -> SimulationResult:
    """Run a market without actions; arguments as in `simulate`, `errors` as in `Market.transition`."""
    result_type: type[SimulationResult] = imported(market.scenario.result_type)
    rows: list[dict[str, NDArray[Any]]] = []
    residual, converged = [], []
    with torch.inference_mode():
        state, memory = market.initial(market.draw_initial_shocks(generators)), market.memory()
        names = ("prices", "fundamentals", "news", "holdings", "dealer_holdings", "supply", "cash", "wealth", "ruined")
        for month in _counted(months + 1, progress):
            if month:
                state, outcome = market.transition(
                    state, None, market.draw_shocks(generators), errors=errors, memory=memory
                )
                residual.append(to_numpy(outcome.residual))
                converged.append(to_numpy(outcome.converged))
            row = {name: to_numpy(getattr(state, name)) for name in names} | _numpy(state.accounts)
            rows.append(row | result_type.recorded(market, state))
    series = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    accounts = {name: series.pop(name) for name in state.accounts}
    return result_type(
        config=market.config, accounts=accounts, residual=np.stack(residual), converged=np.stack(converged), **series
    )


def _numpy(tensors: Mapping[str, torch.Tensor]) -> dict[str, NDArray[Any]]:
    return {name: to_numpy(tensor) for name, tensor in tensors.items()}


def _counted(count: int, progress: bool) -> Iterator[int]:
    if progress:
        try:
            from tqdm import tqdm
        except ImportError:
            pass
        else:
            return iter(tqdm(range(count), unit="month", leave=False))
    return iter(range(count))
