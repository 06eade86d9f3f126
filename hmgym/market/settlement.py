"""Payments that every scenario has, and the accounts that a month ends with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.config import MarketConfig
from hmgym.market.demand import Trade
from hmgym.market.ledger import INVESTORS, Ledger
from hmgym.market.mechanisms import DEALER
from hmgym.market.state import MarketState


class Settlement(NamedTuple):
    """Accounts after a month."""

    cash: Tensor  # (E, B)
    wealth: Tensor  # (E, B)
    unit_value: Tensor  # (E, L)
    reward: Tensor  # (E, L)
    ruined: Tensor  # (E, B) bool
    accounts: Mapping[str, Tensor]  # (E,) each
    holdings: Tensor | None = None  # (E, B, N) shares, where what followed the trade moved some
    scenario: Any = None  # what the scenario's own next state is made from


def pay_for_trades(
    ledger: Ledger, state: MarketState, trade: Trade, cost_rate: float, *, sold: Mapping[str, Tensor] | None = None
) -> None:
    """Buyers pay sellers at the price, and everybody pays the exchange for what it trades.

    Args:
        ledger: of the month.
        state: who held what before the trade.
        trade: prices, and who holds what after it.
        cost_rate: fraction of the money traded.
        sold: (E, N) shares each that came from these named accounts rather than from an investor; negative if bought.
    """
    prices = trade.prices
    xp, bought = namespace(prices), trade.holdings - state.holdings
    others = {}
    if trade.dealer_holdings is not None:
        others[DEALER] = ((state.dealer_holdings - trade.dealer_holdings) * prices).sum(-1)
    for seller, shares in (sold or {}).items():
        sale = shares * prices
        others[seller] = sale.sum(-1)
        if cost_rate:
            ledger.pay(seller, "exchange", cost_rate * abs(sale).sum(-1))
    ledger.net(-xp.dot(bought, prices), **others)
    for payee, amount in (trade.dealer_pays or {}).items():
        ledger.pay(DEALER, payee, amount)
    if cost_rate:
        ledger.pay(INVESTORS, "exchange", cost_rate * xp.dot(abs(bought), prices))


def pay_interest(ledger: Ledger, rate: float, spread: float = 0.0) -> None:
    """The bank pays `rate` on cash, and charges `rate` + `spread` on debt."""
    interest = rate * ledger.cash
    if spread:
        interest = interest + spread * namespace(ledger.cash).at_most(ledger.cash, 0.0)
    ledger.pay("bank", INVESTORS, interest)


def pay_dividends(ledger: Ledger, holdings: Tensor, a_share: Tensor) -> None:
    """The issuer pays the holders, the short pay the issuer; `a_share` (E, N) money."""
    ledger.pay("issuer", INVESTORS, namespace(holdings).dot(holdings, a_share))


def pay_consumption(ledger: Ledger, config: MarketConfig, values: Tensor, wealth: Tensor) -> None:
    """Households consume a part of what cash exceeds its share of value, else the issuer pays some in.

    In proportion to `wealth` (E, B) where that is positive; `values` (E, N) are of a share, money. Money follows what
    companies are worth, at the first supply, rather than what they are priced at: whoever lifts prices prints no money,
    and what companies sell or buy back leaves less or more of it for a share.
    """
    xp = namespace(wealth)
    wanted = config.cash_ratio * config.shares * values.sum(-1)
    total = config.cash_adjustment * (ledger.cash.sum(-1) - wanted)
    able = xp.at_least(wealth, 0.0)
    each = able * (total / able.sum(-1))[:, None]
    ledger.pay(INVESTORS, "households", xp.at_least(each, 0.0))
    ledger.pay("issuer", INVESTORS, xp.at_least(-each, 0.0))
