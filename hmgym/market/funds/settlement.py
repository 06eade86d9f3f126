"""A month of the fund market, payment by payment, in the order in which it happens.

Trades and their cost; net asset value is struck; subscriptions, redemptions; interest, dividends; fees to the
management companies, cost of information to the vendor; the shortfall of ruined funds; consumption or issuance; flows
between retail investors, in kind; the shortfall of ruined retail investors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.demand import Trade
from hmgym.market.funds.companies import extra_payout
from hmgym.market.funds.config import FundsConfig
from hmgym.market.funds.retail import Plan
from hmgym.market.funds.seats import Seats
from hmgym.market.funds.state import FundsState
from hmgym.market.ledger import INVESTORS, Ledger
from hmgym.market.mechanisms import DEALER
from hmgym.market.settlement import Settlement, pay_consumption, pay_dividends, pay_for_trades, pay_interest
from hmgym.market.state import MarketState

ACCOUNTS = ("households", "issuer", "bank", "exchange", "default_fund", "companies", "vendor")
_MONTH = 1.0 / 12.0  # years


class Units(NamedTuple):
    """What a month leaves of fund units, for the scenario's own state."""

    units: Tensor  # (E, R, F)
    unit_value: Tensor  # (E, F) at the end of the month
    excess: Tensor  # (E, F) return over an index portfolio with the same share of cash


class Month:
    """The settlement of one month.

    Args:
        config: rates.
        seats: of the market.
        state: the markets before the trade.
        trade: prices and holdings.
    """

    def __init__(self, config: FundsConfig, seats: Seats, state: MarketState, trade: Trade) -> None:
        self._config, self._seats, self._state, self._trade = config, seats, state, trade
        self._own: FundsState = state.scenario
        self._xp: Any = namespace(state.cash)
        self.ledger = Ledger(state.cash, state.accounts)
        self.holdings, self.units = trade.holdings, self._own.units
        self._nothing = self._xp.zeros_like(seats.of_retail(state.cash))

    def settle(self, plan: Plan) -> Settlement:
        """Everything that is paid."""
        config, seats, state, xp, ledger = self._config, self._seats, self._state, self._xp, self.ledger
        prices, trade = self._trade.prices, self._trade
        pay_for_trades(ledger, state, trade, config.trading_cost)
        struck, fell_early = self._top_up()
        self._subscribe(plan.subscriptions, struck)
        self._redeem(plan.redemptions, struck)
        pay_interest(ledger, config.interest_rate, config.borrowing_spread)
        payout = config.dividend_yield + extra_payout(state.log_value, config.payout_reversion)
        values = state.fundamentals
        a_share = payout * values
        pay_dividends(ledger, self.holdings, a_share)
        if trade.dealer_holdings is not None:
            ledger.pay("issuer", DEALER, (trade.dealer_holdings * a_share).sum(-1))
        self._charge_fees()
        unit_value, fell = self._top_up()
        fell = fell | fell_early
        # From here on funds are not touched.
        wealth = self._retail_wealth(unit_value)
        pay_consumption(ledger, config, values, self._to_retail(wealth))
        wealth = self._retail_wealth(unit_value)
        target = self._own.target_share * wealth.sum(-1)[:, None]
        self._flow_in_kind(wealth, target)
        wealth = self._retail_wealth(unit_value)
        least = config.ruin_fraction * target
        ruined = wealth < least
        ledger.pay("default_fund", INVESTORS, self._to_retail(xp.at_least(least - wealth, 0.0)))

        funds = seats.of_funds(ledger.cash) + xp.dot(seats.of_funds(self.holdings), prices)
        learners = unit_value[:, : seats.learners] / FIRST_UNIT_VALUE
        return Settlement(
            cash=ledger.cash,
            wealth=seats.joined(funds, self._retail_wealth(unit_value)),
            unit_value=learners,
            reward=xp.log(learners / state.unit_value),
            ruined=seats.joined(fell, ruined),
            accounts=ledger.accounts,
            holdings=self.holdings,
            scenario=Units(self.units, unit_value, self._excess(unit_value, a_share)),
        )

    def _fund_values(self) -> Tensor:
        seats = self._seats
        invested = self._xp.dot(seats.of_funds(self.holdings), self._trade.prices)
        values: Tensor = seats.of_funds(self.ledger.cash) + invested
        return values

    def _retail_wealth(self, unit_value: Tensor) -> Tensor:
        """Cash, shares and fund units (E, R)."""
        seats, xp = self._seats, self._xp
        direct = seats.of_retail(self.ledger.cash) + xp.dot(seats.of_retail(self.holdings), self._trade.prices)
        wealth: Tensor = direct + xp.dot(self.units, unit_value)
        return wealth

    def _to_funds(self, amounts: Tensor) -> Tensor:
        """(E, F) as payments to investors (E, B)."""
        return self._seats.joined(amounts, self._nothing)

    def _to_retail(self, amounts: Tensor) -> Tensor:
        """(E, R) likewise."""
        return self._seats.joined(self._xp.zeros_like(self._own.unit_value), amounts)

    def _top_up(self) -> tuple[Tensor, Tensor]:
        """Net asset values a unit (E, F), and which funds fell through the floor: the default fund pays up to it."""
        xp, issued = self._xp, self.units.sum(1)
        raw = self._fund_values() / issued
        floor = self._config.ruin_fraction * FIRST_UNIT_VALUE
        fell = raw < floor
        if not bool(fell.any()):
            return raw, fell
        floored = xp.at_least(raw, floor)
        self.ledger.pay("default_fund", INVESTORS, self._to_funds((floored - raw) * issued))
        return floored, fell

    def _subscribe(self, money: Tensor, unit_value: Tensor) -> None:
        self.ledger.net(self._seats.joined(money.sum(1), -money.sum(-1)))
        self.units = self.units + money / unit_value[:, None]

    def _redeem(self, units: Tensor, unit_value: Tensor) -> None:
        money = units * unit_value[:, None]
        self.ledger.net(self._seats.joined(-money.sum(1), money.sum(-1)))
        self.units = self.units - units

    def _charge_fees(self) -> None:
        yearly = _MONTH * self._fund_values()
        self.ledger.pay(INVESTORS, "companies", self._to_funds(self._own.traits.fees * yearly))
        self.ledger.pay("companies", "vendor", (self._own.traits.information_costs * yearly).sum(-1))

    def _flow_in_kind(self, wealth: Tensor, target: Tensor) -> None:
        """Those above their target wealth give a part of all that they have to those below, in kind."""
        xp, seats = self._xp, self._seats
        above = xp.at_least(wealth - target, 0.0)
        given = self._config.flow_rate * above / xp.where(above > 0.0, wealth, 1.0)
        below = xp.at_least(target - wealth, 0.0)
        total = below.sum(-1)[:, None]
        share = below / xp.where(total > 0.0, total, 1.0)

        def passed_on(owned: Tensor) -> Tensor:
            """What each receives, net, of (E, R, ...)."""
            giving = given[..., None] * owned
            received: Tensor = share[..., None] * giving.sum(1)[:, None] - giving
            return received

        self.ledger.net(self._to_retail(passed_on(seats.of_retail(self.ledger.cash)[..., None])[..., 0]))
        self.units = self.units + passed_on(self.units)
        direct = seats.of_retail(self.holdings)
        self.holdings = seats.joined(seats.of_funds(self.holdings), direct + passed_on(direct))

    def _excess(self, unit_value: Tensor, a_share: Tensor) -> Tensor:
        """The month's return of each fund over an index portfolio with the same share in cash (E, F)."""
        xp, state, own, seats = self._xp, self._state, self._own, self._seats
        before = state.supply * state.prices
        market = (state.supply * (self._trade.prices + a_share)).sum(-1) / before.sum(-1) - 1.0
        invested = xp.dot(seats.of_funds(state.holdings), state.prices) / seats.of_funds(state.wealth)
        rate = self._config.interest_rate
        excess: Tensor = unit_value / own.unit_value - 1.0 - rate - invested * (market - rate)[:, None]
        return excess


FIRST_UNIT_VALUE = 1.0
"""money, of every fund"""
