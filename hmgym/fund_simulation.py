"""What a run of the active/passive fund market returns: `hmgym.simulate("active-passive", ...)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hmgym.analysis.factors import factor_correlations, factor_returns, reclassification_rate
from hmgym.analysis.performance import Performance, performance_by_group
from hmgym.arrays import to_numpy
from hmgym.investors.signals import SIGNALS
from hmgym.investors.styles import classification
from hmgym.market import Market, MarketState
from hmgym.market.funds import FundsConfig
from hmgym.market.funds.companies import extra_payout
from hmgym.market.funds.seats import Seats
from hmgym.simulation import Array, SimulationResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INDEX, MOMENTUM = "index", "momentum"


@dataclass(frozen=True, kw_only=True)
class FundsResult(SimulationResult):
    """What E fund markets of R retail investors and F funds did in T months; investors in the order of their seats.

    Seats: learners, active funds, momentum funds, retail investors, index funds; funds in the same order.
    """

    config: FundsConfig
    units: Array  # (T+1, E, R, F) of each fund that each retail investor holds
    unit_values: Array  # (T+1, E, F) money a unit at the end of the month
    records: Array  # (T+1, E, F) average monthly return over the index that retail investors go by
    signals: Array  # (T+1, E, N, K) true signals
    drift: Array  # (T+1, E, N) what they add to next month's news

    @staticmethod
    def recorded(market: Market, state: MarketState) -> dict[str, NDArray[Any]]:
        """What a month of a run adds to the arrays of every scenario."""
        own, managers = state.scenario, market.scenario.managers  # type: ignore[attr-defined]
        series = {
            "units": own.units, "unit_values": own.unit_value, "records": own.record, "signals": own.signals,
            "drift": managers.drift(own.signals),
        }  # fmt: skip
        return {name: to_numpy(x) for name, x in series.items()}

    @property
    def seats(self) -> Seats:
        """Who is where."""
        return Seats(self.config)

    @property
    def styles(self) -> tuple[str, ...]:
        """Of the F funds: styles of active managers, "momentum", "index"."""
        seats, config = self.seats, self.config
        managed = [config.styles[i % len(config.styles)] for i in range(config.n_active)]
        return (*["blend"] * seats.learners, *managed, *[MOMENTUM] * seats.momentum, *[INDEX] * seats.index)

    def of_funds(self, series: NDArray[Any]) -> NDArray[Any]:
        """The funds' columns (T, E, F, ...) of an array (T, E, B, ...) of all investors."""
        seats = self.seats
        return np.concatenate([series[:, :, : seats.solved], series[:, :, seats.optimisers :]], 2)

    def of_retail(self, series: NDArray[Any]) -> NDArray[Any]:
        """The retail investors' columns (T, E, R, ...)."""
        return series[:, :, self.seats.solved : self.seats.optimisers]

    @property
    def retail_wealth(self) -> Array:
        """Cash, shares and fund units, (T+1, E, R)."""
        return self.of_retail(self.wealth)

    @property
    def fund_values(self) -> Array:
        """Net asset values (T+1, E, F)."""
        return self.of_funds(self.wealth)

    @property
    def fund_returns(self) -> Array:
        """Monthly returns (T, E, F) of fund units after fees; flows have no part in them."""
        return np.asarray(self.unit_values[1:] / self._opening_values - 1.0)

    @property
    def fund_flows(self) -> Array:
        """Units issued less units redeemed over those before, (T, E, F)."""
        issued = self.units.sum(2)
        before = issued[:-1] * (self.unit_values[:-1] / self._opening_values)
        return np.asarray(issued[1:] / before - 1.0)

    @property
    def _opening_values(self) -> Array:
        """Unit values (T, E, F) at which months begin: a ruined fund's successor begins at 1."""
        return np.where(self.of_funds(self.ruined)[:-1], 1.0, self.unit_values[:-1])

    @property
    def asset_returns(self) -> Array:
        """Monthly returns (T, E, N) of shares, dividends included."""
        dividends = (self.config.dividend_yield + self._extra_payout) * self.fundamentals[:-1]
        return np.asarray((self.prices[1:] + dividends) / self.prices[:-1] - 1.0)

    @property
    def index_returns(self) -> Array:
        """Monthly returns (T, E) of all shares together, dividends included."""
        before = self.supply[:-1] * self.prices[:-1]
        return np.asarray((before * self.asset_returns).sum(-1) / before.sum(-1))

    @property
    def factor_returns(self) -> Array:
        """Monthly returns (T, E, K) of portfolios sorted by last month's signals."""
        return factor_returns(self.asset_returns, self.signals[:-1])

    @property
    def classes(self) -> NDArray[Any]:
        """Value 1, core 0, growth −1: (T+1, E, N)."""
        return np.asarray(classification(self.signals))

    @property
    def signal_r2(self) -> float:
        """Squared correlation of the signals' drift with the news of the month after, all assets and markets."""
        deviation = np.sqrt(np.diag(np.atleast_2d(np.cov(self.config.fundamental_returns, rowvar=False))))
        earned = (self.news[1:] + self._extra_payout - self.config.growth) / deviation
        return float(np.corrcoef((self.drift[:-1] / deviation).ravel(), earned.ravel())[0, 1] ** 2)

    @property
    def _extra_payout(self) -> Array:
        """Beyond the dividend yield, of value, (T, E, N)."""
        return np.asarray(extra_payout(np.log(self.fundamentals[:-1]), self.config.payout_reversion))

    @property
    def active_ownership(self) -> Array:
        """Share of the market that active funds hold, (T+1, E)."""
        held = (self.holdings[:, :, : self.seats.managed].sum(2) * self.prices).sum(-1)
        return np.asarray(held / self.market_value)

    @property
    def passive_ownership(self) -> Array:
        """Share of the market that passive funds hold, (T+1, E)."""
        held = (self.of_funds(self.holdings)[:, :, self.seats.managed :].sum(2) * self.prices).sum(-1)
        return np.asarray(held / self.market_value)

    @property
    def owners_wealth(self) -> Array:
        """The retail investors' (T+1, E, R): funds and who else there is belong to them."""
        return self.retail_wealth

    def performance(self) -> dict[str, Performance]:
        """Return, deviation, Sharpe ratio and drawdown of funds by style."""
        return performance_by_group(self.fund_returns, self.styles, self.config.interest_rate)

    def summary(self) -> dict[str, float]:
        """The run in a few figures, over all markets, assets and months; means of funds weigh them alike."""
        flows = np.abs(self.fund_flows)
        managed = self.seats.managed
        figures = super().summary()
        figures |= {
            "fund flow a month, of value": float(flows.mean()),
            "active funds, of the market": float(self.active_ownership.mean()),
            "passive funds, of the market": float(self.passive_ownership.mean()),
        }
        for name, funds in (("active", slice(managed)), ("passive", slice(managed, None))):
            returns = self.fund_returns[:, :, funds]
            if returns.shape[-1]:
                figures[f"{name} funds, annual return"] = 12.0 * float(returns.mean())
                excess = returns - self.config.interest_rate
                figures[f"{name} funds, Sharpe ratio"] = _ratio(excess.mean(0), excess.std(0, ddof=1)) * 12.0**0.5
        figures |= {
            "index, annual return": 12.0 * float(self.index_returns.mean()),
            "R2 of signals": self.signal_r2,
            "reclassified a month": float(reclassification_rate(self.classes).mean()),
            "fees, of the market a year": self._paid("companies", "vendor"),
            "information, of the market a year": self._paid("vendor"),
        }
        if self.config.price_mechanism == "impact":
            figures["largest dealer stock, of supply"] = float(np.abs(self.dealer_holdings / self.supply).max())
        return figures

    def _paid(self, *accounts: str) -> float:
        """What these accounts got, over mean market value, a year."""
        total = sum(self.accounts[name][-1] - self.accounts[name][0] for name in accounts)
        years = (len(self.prices) - 1) / 12.0
        return float((total / self.market_value.mean(0)).mean()) / years

    def factor_correlations(self) -> Array:
        """Correlations (E, K, K) of the factors' returns."""
        return factor_correlations(self.factor_returns)

    def _columns(self) -> dict[str, Array]:
        """What every scenario has, and of funds their ownership, value, return, flow."""
        columns, managed = super()._columns(), self.seats.managed
        columns["retail_wealth"] = self.retail_wealth.sum(-1)
        columns["index_return"] = self.index_returns
        for name, funds, owned in (
            ("active", slice(managed), self.active_ownership),
            ("passive", slice(managed, None), self.passive_ownership),
        ):
            columns[f"{name}_ownership"] = owned
            values = self.fund_values[:, :, funds]
            if not values.shape[-1]:
                continue
            columns[f"{name}_value"] = values.sum(-1)
            columns[f"{name}_return"] = self.fund_returns[:, :, funds].mean(-1)
            money = self.fund_flows[:, :, funds] * values[:-1]
            columns[f"{name}_flow"] = money.sum(-1) / values[:-1].sum(-1)
        none = np.full((*self.index_returns.shape, len(SIGNALS)), np.nan)
        factors = self.factor_returns if self.config.n_assets > 1 else none
        return columns | {f"factor_{signal}": factors[..., k] for k, signal in enumerate(SIGNALS)}

    def plot(self, market: int = 0) -> Figure:
        """Eight panels of one market: prices, factors, funds, styles, Sharpe ratios, positions, classes, flows.

        Raises:
            ValueError: there is no such market.
            ImportError: matplotlib is missing.
        """
        self._check_market(market)
        from hmgym.analysis.fund_panels import fund_panels

        managed = self.seats.managed
        positions = self.holdings[:, market, :managed].sum(1) * self.prices[:, market]
        positions = positions / self.fund_values[:, market, :managed].sum(-1)[:, None]
        return fund_panels(
            self.assets,
            self.styles,
            prices=self.prices[:, market],
            fundamentals=self.fundamentals[:, market],
            factor_returns=self.factor_returns[:, market] if self.config.n_assets > 1 else None,
            fund_returns=self.fund_returns[:, market],
            fund_values=self.fund_values[:, market],
            fund_flows=self.fund_flows[:, market],
            positions=positions,
            classes=self.classes[:, market],
            interest=self.config.interest_rate,
        )


def _ratio(above: Array, below: Array) -> float:
    """Mean of the ratios where there is one."""
    good = below > 0.0
    return float((above[good] / below[good]).mean()) if good.any() else float("nan")
