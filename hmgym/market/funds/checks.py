"""What must hold in every month of a fund market, as relative errors."""

from __future__ import annotations

import numpy as np

from hmgym.arrays import to_numpy
from hmgym.market.market import Market
from hmgym.market.state import MarketState


def month_errors(market: Market, before: MarketState, after: MarketState) -> dict[str, float]:
    """Largest relative errors of a month's books over all markets.

    Shares: of investors and dealer against the supply. Cash: of all accounts against the month before, relative to all
    money. Look-through wealth: of retail investors against all shares and cash of investors. Fund value: cash and
    shares of each fund against its units times their value. Wealth: of each investor against what it holds.
    """
    seats = market.scenario.seats  # type: ignore[attr-defined]
    own = after.scenario
    prices, holdings, cash, wealth = (to_numpy(x) for x in (after.prices, after.holdings, after.cash, after.wealth))
    supply, dealer = to_numpy(after.supply), to_numpy(after.dealer_holdings)
    units, unit_value = to_numpy(own.units), to_numpy(own.unit_value)
    gross = to_numpy(after.gross_money)
    shares = (holdings.sum(1) + dealer) / supply - 1.0
    drift = (to_numpy(after.total_cash) - to_numpy(before.total_cash)) / gross
    retail = seats.of_retail(wealth)
    everything = cash.sum(1) + (holdings * prices[:, None]).sum((1, 2))
    marked = cash + (holdings * prices[:, None]).sum(-1)
    funds, direct = seats.of_funds(marked), seats.of_retail(marked)
    owned = (units * unit_value[:, None]).sum(-1)
    return {
        "shares": float(np.abs(shares).max()),
        "cash": float(np.abs(drift).max()),
        "look-through wealth": float(np.abs((retail.sum(1) - everything) / gross).max()),
        "fund value": float(np.abs(units.sum(1) * unit_value / funds - 1.0).max()),
        "wealth of funds": float(np.abs(seats.of_funds(wealth) / funds - 1.0).max()),
        "wealth of retail": float(np.abs((retail - direct - owned) / (np.abs(retail) + owned)).max()),
    }
