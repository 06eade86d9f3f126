"""hmgym: Gymnasium environments of markets whose prices are outcomes. Importing it registers the environments."""

from __future__ import annotations

from hmgym.clearing import ClearingError, ClearingSolution, clear_market
from hmgym.envs import register_environments
from hmgym.market import Action, Market, MarketConfig

__version__ = "0.1.0"

__all__ = [
    "Action",
    "ClearingError",
    "ClearingSolution",
    "Market",
    "MarketConfig",
    "__version__",
    "clear_market",
]

register_environments()
