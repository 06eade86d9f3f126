"""The crowd's month, payment by payment: docs/economy.md has the same table.

Trades and trading cost; interest and dividends; the close, where learners' unit values are struck; flows toward target
wealth; consumption or issuance; the shortfall of ruined funds.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from hmgym.arrays import namespace
from hmgym.market.config import MarketConfig
from hmgym.market.demand import Trade
from hmgym.market.ledger import INVESTORS, Ledger
from hmgym.market.settlement import Settlement, pay_consumption, pay_dividends, pay_for_trades, pay_interest
from hmgym.market.state import MarketState


def settle(
    config: MarketConfig, state: MarketState, trade: Trade, target_share: Tensor, offered: Mapping[str, Tensor]
) -> Settlement:
    """Settle one month at the prices of its trade.

    Args:
        config: rates.
        state: the markets before the trade; its wealth is what unit values are returns on.
        trade: prices and holdings.
        target_share: (E, B) of all wealth, which flows lead to.
        offered: (E, N) shares each that named accounts sold in this trade.
    """
    xp = namespace(state.cash)
    n_learners, prices, holdings = state.unit_value.shape[-1], trade.prices, trade.holdings
    values = state.fundamentals
    ledger = Ledger(state.cash, state.accounts)
    pay_for_trades(ledger, state, trade, config.trading_cost, sold=offered)
    pay_interest(ledger, config.interest_rate, config.borrowing_spread)
    pay_dividends(ledger, holdings, config.dividend_yield * values)
    invested = xp.dot(holdings, prices)
    closing = ledger.cash + invested  # wealth at the close, before flows

    target = target_share * closing.sum(-1)[:, None]
    ledger.net(config.flow_rate * (target - closing))
    pay_consumption(ledger, config, values, closing)
    ended = ledger.cash + invested
    ruined = ended < config.ruin_fraction * target

    reward = unit_value = state.unit_value
    if n_learners:
        start = state.wealth[:, :n_learners]
        raw = unit_value * (closing[:, :n_learners] / start)
        fell = raw < config.ruin_fraction
        ruined = xp.concatenate([fell, ruined[:, n_learners:]], 1)
        floored = xp.at_least(raw, config.ruin_fraction)
        if bool(fell.any()):
            # The fund's holders get the floor: the default fund tops the fund up to floor × units.
            shortfall = xp.zeros_like(ended)
            shortfall[:, :n_learners] = (floored - raw) * (start / unit_value)
            ledger.pay("default_fund", INVESTORS, shortfall)
            ended = ledger.cash + invested
        reward, unit_value = xp.log(floored / unit_value), floored
    return Settlement(ledger.cash, ended, unit_value, reward, ruined, ledger.accounts)
