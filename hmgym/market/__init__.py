"""The economy: configuration, state, shocks, one period's transition, settlement."""

from __future__ import annotations

from hmgym.market.config import MarketConfig
from hmgym.market.market import Market
from hmgym.market.shocks import InitialShocks, Shocks
from hmgym.market.state import ACCOUNTS, Action, MarketState, Outcome

__all__ = ["ACCOUNTS", "Action", "InitialShocks", "Market", "MarketConfig", "MarketState", "Outcome", "Shocks"]
