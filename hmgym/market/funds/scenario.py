"""The active/passive fund market: who is in it, and the month from plan to news.

Retail investors plan at the last close what goes into funds and out of them. Funds invest what they will have, retail
investors what is left to them; the price mechanism trades; `hmgym.market.funds.settlement` says who pays whom.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from hmgym.arrays import namespace, placed
from hmgym.investors.draws import Layout
from hmgym.investors.signals import SIGNALS, default_signals
from hmgym.market.demand import Demand, Trade
from hmgym.market.fundamentals import Fundamentals
from hmgym.market.funds.config import FundsConfig
from hmgym.market.funds.index import index_orders
from hmgym.market.funds.managers import Managers
from hmgym.market.funds.retail import Plan, Retail
from hmgym.market.funds.seats import Seats
from hmgym.market.funds.settlement import ACCOUNTS, FIRST_UNIT_VALUE, Month
from hmgym.market.funds.state import FundsState, FundsTraits
from hmgym.market.settlement import Settlement
from hmgym.market.shocks import InitialShocks, Shocks, initial_layout, period_layout
from hmgym.market.state import MarketState

_SMALLEST_TAIL = 0.01  # of the uniform behind a Pareto draw
_NOISY = slice(SIGNALS.index("value"), SIGNALS.index("growth") + 1)


class FundsScenario:
    """Funds and retail investors of one market.

    Args:
        config: the market.
        fundamentals: of the market.
    """

    config_type, numpy_ready = FundsConfig, True
    result_type = "hmgym.fund_simulation:FundsResult"
    accounts = ACCOUNTS

    def __init__(self, config: FundsConfig, fundamentals: Fundamentals) -> None:
        if not isinstance(config, FundsConfig):
            raise ValueError(f'`config` must be a FundsConfig for scenario "{config.scenario}", got {config!r}')
        self.config, self._fundamentals, self.seats = config, fundamentals, Seats(config)
        seats, n, device = self.seats, config.n_assets, fundamentals.device

        def constant(values: Any) -> Tensor:
            return placed(torch.as_tensor(values, dtype=torch.float64), device)  # type: ignore[no-any-return]

        self.managers = Managers(config, fundamentals, seats)
        self._owned, self._cash = self._first_portfolios()
        self._first_owned, self._first_cash = constant(self._owned), constant(self._cash)
        fees = [config.active_fee if active else config.passive_fee for active in seats.is_active]
        information = [config.information_cost * active for active in seats.is_active]
        self._fees, self._information = constant(fees), constant(information)
        self.retail = Retail(config, fundamentals, seats, constant(self._habits()))
        process = default_signals()
        self._decay, self._factor, self._first = (constant(x) for x in (*process.transition, process.stationary))
        self._momentum_decay = 1.0 / config.momentum_memory_months
        managed, private, policy = seats.managed, self._private, (seats.retail, 2 * n + seats.funds)
        normals = {"signals": (n, len(SIGNALS)), "errors": (private, n, 2), "noise": policy}
        traits = {"wealth": (seats.retail,), "retail": (seats.retail, 2), "managers": (managed, self.managers.draws)}
        self.layouts = (
            initial_layout(n) + Layout(normals=normals, uniforms=traits),
            period_layout(n) + Layout(normals=normals),
        )

    @property
    def _private(self) -> int:
        """Private signals: one of each active fund, and one that all learners share."""
        return self.config.n_active + min(self.seats.learners, 1)

    def _first_portfolios(self) -> tuple[list[float], list[float]]:
        """Share of the supply, and cash over market value, that each fund starts with."""
        config, seats = self.config, self.seats
        active, passive = config.shares_of_supply
        owned = [active / seats.managed if managed else passive / config.n_passive for managed in seats.is_active]
        ratio = config.fund_cash / (1.0 - config.fund_cash)
        return owned, [ratio * share if fund < seats.solved else 0.0 for fund, share in enumerate(owned)]

    def _habits(self) -> list[float]:
        """Positions over wealth that retail investors start with and are used to, assets then funds."""
        config = self.config
        whole = 1.0 + config.cash_ratio
        direct = (1.0 - sum(self._owned)) / whole
        funds = [(share + cash) / whole for share, cash in zip(self._owned, self._cash, strict=True)]
        return [direct / config.n_assets] * config.n_assets + funds

    def initial(self, shocks: InitialShocks) -> MarketState:
        """Everybody holds the market, retail investors of funds and shares in proportion to their wealth."""
        config, seats, xp = self.config, self.seats, namespace(shocks.regime)
        assert config.initial_mispricing is not None
        prices = config.initial_value * xp.exp(
            config.initial_mispricing + config.initial_mispricing_sd * shocks.mispricing
        )
        supply = xp.full_like(prices, config.shares)
        market = (supply * prices).sum(-1)
        share = self._wealth_shares(shocks.wealth)
        owned = xp.zeros_like(prices[:, :1]) + self._first_owned
        coffers = xp.zeros_like(prices[:, :1]) + self._first_cash
        direct, rest = 1.0 - sum(self._owned), config.cash_ratio - sum(self._cash)
        holdings = seats.joined(owned, direct * share)[..., None] * supply[:, None]
        cash = seats.joined(coffers, rest * share) * market[:, None]
        values = cash + xp.dot(holdings, prices)
        of_funds = seats.of_funds(values)
        unit_value = xp.full_like(of_funds, FIRST_UNIT_VALUE)
        units = share[..., None] * (of_funds / FIRST_UNIT_VALUE)[:, None]
        wealth = seats.joined(of_funds, seats.of_retail(values) + xp.dot(units, unit_value))
        first, traits = self._fundamentals.begin(shocks), self._traits(shocks)
        own = FundsState(
            traits=traits,
            target_share=share,
            units=units,
            unit_value=unit_value,
            record=-traits.fees / 12.0,
            trend=xp.full_like(prices, config.growth),
            signals=shocks.signals @ self._first.T,
            errors=self._each_manager(shocks.errors @ self._first[_NOISY, _NOISY].T),
            noise=shocks.noise,
        )
        return MarketState(
            month=xp.integers(xp.zeros_like(market)),
            prices=prices,
            cash=cash,
            holdings=holdings,
            wealth=wealth,
            unit_value=xp.ones_like(share[:, : seats.learners]),
            ruined=xp.flags_like(cash),
            accounts={name: xp.zeros_like(market) for name in self.accounts},
            supply=supply,
            dealer_holdings=xp.zeros_like(prices),
            log_value=xp.log(xp.full_like(prices, config.initial_value)) + first["news"],
            last_return=xp.zeros_like(prices),
            variance=xp.copy(
                xp.broadcast_to(self._fundamentals.deviation * self._fundamentals.deviation, prices.shape)
            ),
            scenario=own,
            **self.coming(own, first),
        )

    def open(self, state: MarketState, shocks: Shocks | None) -> tuple[MarketState, Plan]:
        """Ruined funds get new managers and new units; retail investors plan."""
        state = self._succeeded(state)
        return state, self.retail.plan(state, self._gap(state))

    def demand(self, state: MarketState, promised: Plan | None) -> Demand:
        """What everybody posts, given what goes into funds and out of them."""
        xp, seats, own = namespace(state.prices), self.seats, state.scenario
        gap = self._gap(state)
        plan = self.retail.plan(state, gap) if promised is None else promised
        flow = plan.subscriptions.sum(1) - plan.redemptions.sum(1) * own.unit_value  # (E, F)
        log_price = xp.log(state.prices)
        informed = log_price + state.news

        solved, first_index = seats.solved, seats.optimisers
        value = state.wealth[:, :solved] + flow[:, :solved]
        held = state.holdings[:, :solved] * state.prices[:, None]
        returns, risk, wealth = self.retail.demand(state, plan)
        if solved:
            own_returns, own_risk = self.managers.demand(
                self.managers.returns(state, gap), held / xp.where(value > 0.0, value, 1.0)[..., None]
            )
            returns, risk = xp.concatenate([own_returns, returns], 1), xp.concatenate([own_risk, risk], 1)
            wealth = xp.concatenate([value, wealth], 1)
        zeros = xp.zeros_like(wealth)
        demand = Demand(
            log_price=log_price,
            beliefs=informed[:, None] + returns,
            risk=risk,
            wealth=wealth,
            short_leverage=zeros,
            long_leverage=zeros + 1.0,
            holdings=state.holdings[:, :first_index],
            supply=state.supply,
            start=informed,
        )
        if not seats.index:
            return demand
        kept, orders = index_orders(
            state.cash[:, first_index:], flow[:, solved:], state.holdings[:, first_index:], state.prices,
            state.supply, self.config.trading_cost,
        )  # fmt: skip
        return demand._replace(supply=state.supply - kept.sum(1), orders=orders.sum(1), kept=kept, posted=orders)

    def settle(self, state: MarketState, promised: Plan, trade: Trade) -> Settlement:
        """Who pays whom."""
        return Month(self.config, self.seats, state, trade).settle(promised)

    def advance(self, state: MarketState, settled: Settlement, log_return: Tensor, shocks: Shocks) -> FundsState:
        """Signals, noise and records move on."""
        own: FundsState = state.scenario
        config, units = self.config, settled.scenario
        noise = self._factor[_NOISY, _NOISY]
        kept = config.noise_persistence
        return replace(
            own,
            units=units.units,
            unit_value=units.unit_value,
            record=own.record + config.learning_gain * (units.excess - own.record),
            trend=own.trend + self._momentum_decay * (log_return - own.trend),
            signals=self._decay * own.signals + shocks.signals @ self._factor.T,
            errors=self._decay[_NOISY] * own.errors + self._each_manager(shocks.errors @ noise.T),
            noise=kept * own.noise + (1.0 - kept * kept) ** 0.5 * shocks.noise,
        )

    def drift(self, own: FundsState) -> Tensor:
        """What the signals add to next month's news (E, N)."""
        return self.managers.drift(own.signals)

    def coming(self, own: FundsState, news: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the signals add to next month's news; learners' signal is what they expect of it."""
        moved = {**news, "next_news": news["next_news"] + self.drift(own)}
        if self.seats.learners:
            moved["signal"] = self.managers.forecasts(own)[:, 0]
        return moved

    # Parts

    def _gap(self, state: MarketState) -> Tensor:
        """Log value over the last close, both before this month's news (E, N)."""
        gap: Tensor = state.log_value - state.news - namespace(state.prices).log(state.prices)
        return gap

    def _succeeded(self, state: MarketState) -> MarketState:
        """Of a fund that was ruined a successor issues new units, worth as much in all, at the first unit value."""
        fell = self.seats.of_funds(state.ruined)
        if not bool(fell.any()):
            return state
        xp, own, learners = namespace(state.cash), state.scenario, self.seats.learners
        factor = xp.where(fell, own.unit_value / FIRST_UNIT_VALUE, 1.0)
        own = replace(
            own,
            units=own.units * factor[:, None],
            unit_value=own.unit_value / factor,
            record=xp.where(fell, -own.traits.fees / 12.0, own.record),
        )
        unit_value: Tensor = xp.where(fell[:, :learners], 1.0, state.unit_value)
        return replace(state, scenario=own, unit_value=unit_value)

    def _wealth_shares(self, uniforms: Tensor) -> Tensor:
        """Target shares of retail wealth (E, R): Pareto, cut at its 1 % quantile."""
        xp = namespace(uniforms)
        pareto = xp.exp(-xp.log(xp.at_least(uniforms, _SMALLEST_TAIL)) / self.config.wealth_tail)
        shares: Tensor = pareto / pareto.sum(-1)[:, None]
        return shares

    def _traits(self, shocks: InitialShocks) -> FundsTraits:
        (low, high), (slow, fast) = self.config.retail_risk_aversion, self.config.retail_pull
        weights, share = self.managers.traits(shocks.managers)
        copied, nothing = namespace(shocks.retail).copy, 0.0 * shocks.retail[:, :1, 0]
        return FundsTraits(
            fees=nothing + self._fees,
            information_costs=nothing + self._information,
            risk_aversion=copied(low + (high - low) * shocks.retail[..., 0]),
            pull=copied(slow + (fast - slow) * shocks.retail[..., 1:]),
            signal_weights=weights,
            signal_share=share,
        )

    def _each_manager(self, errors: Tensor) -> Tensor:
        """Private errors (E, M, N, 2) of all managers; learners share the first."""
        learners = self.seats.learners
        if learners < 2:
            return errors
        joined: Tensor = namespace(errors).concatenate([errors[:, :1]] * learners + [errors[:, 1:]], 1)
        return joined
