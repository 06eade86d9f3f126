"""Every registered id, and one from outside the package, with arguments that keep it small."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from hmgym.envs import ENVIRONMENTS
from tests.extending import liquidation  # noqa: F401  registers an id of its own

MARKET_IDS = sorted(
    env_id
    for env_id, registered in ENVIRONMENTS.items()
    if registered.vector_entry_point == "hmgym.envs.markets:MarketVectorEnv"
)


@dataclass(frozen=True)
class Face:
    """An id and the arguments that make it small."""

    env_id: str
    small: dict[str, Any] = field(default_factory=dict)

    def make(self, **arguments: Any) -> Any:
        """The single environment."""
        return gym.make(self.env_id, **{**self.small, **arguments})

    def make_vec(self, num_envs: int, **arguments: Any) -> Any:
        """The vector environment."""
        return gym.make_vec(self.env_id, num_envs, **{**self.small, **arguments})


FACES = [
    Face(env_id, {"n_assets": 2, "n_investors": 8} if env_id in MARKET_IDS else {}) for env_id in sorted(ENVIRONMENTS)
]
OPTIONS = {"hidden_regime": False, "leverage_axes": 2, "history": "held-out", "n_assets": 1, "n_investors": 8}
FACES.append(Face("hmgym/LeverageBeliefs-v0", OPTIONS))
FACES.append(Face("hmgym/Pool-v0", {"action": "parameters"}))
