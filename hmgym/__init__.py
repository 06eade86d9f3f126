"""hmgym: Gymnasium environments of markets whose prices are outcomes. Importing it registers the environments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hmgym.envs.registration import register_environments
from hmgym.lazy import lazy_names

if TYPE_CHECKING:
    from hmgym.clearing import (
        ClearingError,
        ClearingSolution,
        EquilibriumSolution,
        clear_market,
        find_equilibrium_prices,
        optimize_portfolio,
    )
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

__getattr__ = lazy_names(
    __name__,
    {
        "hmgym.clearing": (
            "ClearingError",
            "ClearingSolution",
            "EquilibriumSolution",
            "clear_market",
            "find_equilibrium_prices",
            "optimize_portfolio",
        ),
        "hmgym.market": ("Action", "Market", "MarketConfig"),
        "hmgym.simulation": ("SimulationResult", "simulate"),
    },
    rooms=("clearing", "data", "investors", "market", "market_making", "pools", "portfolio", "simulation"),
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_environments()
