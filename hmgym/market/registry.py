"""Scenarios, price mechanisms and cohorts by name: a newcomer is a file of its own and a line here.

An entry is the class or, so that it is only imported where it is used, its place as ``"module:name"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hmgym.lazy import imported

if TYPE_CHECKING:
    from hmgym.market.config import MarketConfig

SCENARIOS: dict[str, Any] = {
    "crowd": "hmgym.market.crowd:CrowdScenario",
    "active-passive": "hmgym.market.funds:FundsScenario",
}
"""What makes the scenario of a configuration and its fundamentals, as `MarketConfig.scenario` names it."""

MECHANISMS: dict[str, Any] = {
    "clearing": "hmgym.market.mechanisms:Clearing",
    "impact": "hmgym.market.impact:Impact",
    "pools": "hmgym.market.pooled:PooledClearing",
}
"""What makes the price mechanism of a configuration, as `MarketConfig.price_mechanism` names it."""

COHORTS: dict[str, Any] = {
    "flow-followers": "hmgym.investors.flow_followers:FlowFollowerConfig",
}
"""Parameters of cohorts that join the crowd, as `MarketConfig.cohorts` may name them."""


def registered(argument: str, name: Any, registry: Mapping[str, Any]) -> Any:
    """The entry of that name, imported.

    Raises:
        ValueError: there is none; names the argument.
    """
    if not isinstance(name, str) or name not in registry:
        raise ValueError(f"`{argument}` must be one of {sorted(registry)}, got {name!r}")
    entry = registry[name]
    return imported(entry) if isinstance(entry, str) else entry


def numpy_ready(config: MarketConfig) -> bool:
    """Whether every part of a market takes numpy arrays as well as tensors."""
    parts = (
        registered("scenario", config.scenario, SCENARIOS),
        registered("price_mechanism", config.price_mechanism, MECHANISMS),
        *config.cohorts,
    )
    return all(getattr(part, "numpy_ready", False) for part in parts)
