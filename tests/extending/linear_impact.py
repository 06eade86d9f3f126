"""A price mechanism, as docs/extending.md adds it: a dealer fills all demand and moves the price with its size."""

from __future__ import annotations

from typing import ClassVar

import torch

from hmgym import optimize_portfolio
from hmgym.market import Demand, MarketConfig, MarketState, Shocks, Trade
from hmgym.market.mechanisms import DEALER, with_posted

IMPACT = 2.0
"""log price for net demand of the whole supply"""
LARGEST = 0.05
"""share of the supply that the dealer buys or sells in a month at most; beyond it everybody is rationed alike"""


class LinearImpact:
    """Investors say at the last close what they want; the price moves by IMPACT · net demand / supply."""

    accounts: ClassVar[tuple[str, ...]] = (DEALER,)

    def __init__(self, config: MarketConfig) -> None:
        self.config = config

    def __call__(self, state: MarketState, demand: Demand, shocks: Shocks | None) -> Trade:
        wealth = demand.wealth.clamp(min=1e-9)
        # In money rather than shares: unit prices, risk over wealth.
        risk = demand.risk / wealth[..., None, None]
        expected = 1.0 + demand.beliefs - demand.log_price[:, None]
        money = optimize_portfolio(
            risk, expected, 0.0, 0.0, wealth, demand.short_leverage, demand.long_leverage, torch.ones_like(state.prices)
        )
        wanted = money / state.prices[:, None]
        trades, posted = wanted - demand.holdings, demand.posted
        net = trades.sum(1) if posted is None else trades.sum(1) + posted.sum(1) / state.prices
        filled = (LARGEST * state.supply / net.abs().clamp(min=1e-9)).clamp(max=1.0)
        prices = state.prices * torch.exp(IMPACT * filled * net / state.supply)
        rationed = demand._replace(posted=None if posted is None else filled[:, None] * posted)
        holdings = with_posted(demand.holdings + filled[:, None] * trades, rationed, prices)
        everything = torch.ones_like(prices[:, 0])
        return Trade(
            prices=prices,
            holdings=holdings,
            weights=torch.cat([1.0 - money.sum(-1, keepdim=True) / wealth[..., None], money / wealth[..., None]], -1),
            residual=torch.zeros_like(everything),
            iterations=torch.zeros_like(everything, dtype=torch.int64),
            converged=torch.isfinite(prices).all(-1),
            dealer_holdings=state.supply - holdings.sum(1),
        )
