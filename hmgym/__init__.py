"""hmgym: Gymnasium environments of markets whose prices are outcomes. Importing it registers the environments."""

from __future__ import annotations

from hmgym.clearing import (
    ClearingError,
    ClearingSolution,
    EquilibriumSolution,
    clear_market,
    find_equilibrium_prices,
    optimize_portfolio,
)
from hmgym.envs import register_environments
from hmgym.market import Action, Market, MarketConfig
from hmgym.simulation import SimulationResult, simulate

__version__ = "0.1.0"

__all__ = [
    "Action",
    "ClearingError",
    "ClearingSolution",
    "EquilibriumSolution",
    "Market",
    "MarketConfig",
    "SimulationResult",
    "__version__",
    "clear_market",
    "find_equilibrium_prices",
    "optimize_portfolio",
    "simulate",
]

register_environments()
