"""The Gymnasium and PettingZoo faces of the market: environments over one batch of markets.

`parallel_env` and `ParallelMarketEnv` are loaded when they are asked for: PettingZoo is an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hmgym.envs.actions import ActionMap
from hmgym.envs.observation import OBSERVATION_TABLE, ObservationMap, observation_table
from hmgym.envs.registration import ENVIRONMENTS, MAX_EPISODE_STEPS, register_environments
from hmgym.envs.rewards import REWARDS, DifferentialSharpe, ExcessReturn, LogUnitValue
from hmgym.envs.single import MarketEnv
from hmgym.envs.vector import MarketVectorEnv, make_markets

if TYPE_CHECKING:
    from hmgym.envs.parallel import ParallelMarketEnv as ParallelMarketEnv
    from hmgym.envs.parallel import parallel_env as parallel_env

__all__ = [
    "ENVIRONMENTS",
    "MAX_EPISODE_STEPS",
    "OBSERVATION_TABLE",
    "REWARDS",
    "ActionMap",
    "DifferentialSharpe",
    "ExcessReturn",
    "LogUnitValue",
    "MarketEnv",
    "MarketVectorEnv",
    "ObservationMap",
    "make_markets",
    "observation_table",
    "register_environments",
]


def __getattr__(name: str) -> Any:
    if name in ("parallel_env", "ParallelMarketEnv"):
        from hmgym.envs import parallel

        return getattr(parallel, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
