"""The economy: configuration, state, shocks, one period's transition, settlement."""

from __future__ import annotations

from hmgym.market.config import MarketConfig
from hmgym.market.demand import Demand, Trade
from hmgym.market.market import Market
from hmgym.market.registry import COHORTS, MECHANISMS, SCENARIOS
from hmgym.market.shocks import InitialShocks, Shocks
from hmgym.market.state import Action, MarketState, Outcome

__all__ = [
    "COHORTS",
    "MECHANISMS",
    "SCENARIOS",
    "Action",
    "Demand",
    "InitialShocks",
    "Market",
    "MarketConfig",
    "MarketState",
    "Outcome",
    "Shocks",
    "Trade",
]
