"""The Gymnasium and PettingZoo faces of a simulator, and the batch of markets that is the first of these.

`parallel_env`, `ParallelMarketEnv` and `BatchParallelEnv` are loaded when they are asked for: PettingZoo is an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hmgym.envs.actions import ActionMap
from hmgym.envs.boxes import ActionBox, ObservationBox
from hmgym.envs.history import History
from hmgym.envs.markets import MarketEnv, MarketVectorEnv
from hmgym.envs.observation import OBSERVATION_TABLE, ObservationMap, observation_table
from hmgym.envs.panels import Line, Panel, Series
from hmgym.envs.protocol import Simulator, StepResult
from hmgym.envs.registration import (
    ENVIRONMENTS,
    MAX_EPISODE_STEPS,
    Registered,
    register_environment,
    register_environments,
)
from hmgym.envs.rewards import REWARDS, DifferentialSharpe, ExcessReturn, LogUnitValue
from hmgym.envs.single import BatchEnv
from hmgym.envs.vector import BatchVectorEnv, make_markets

if TYPE_CHECKING:
    from hmgym.envs.parallel import BatchParallelEnv as BatchParallelEnv
    from hmgym.envs.parallel import ParallelMarketEnv as ParallelMarketEnv
    from hmgym.envs.parallel import parallel_env as parallel_env

__all__ = [
    "ENVIRONMENTS",
    "MAX_EPISODE_STEPS",
    "OBSERVATION_TABLE",
    "REWARDS",
    "ActionBox",
    "ActionMap",
    "BatchEnv",
    "BatchVectorEnv",
    "DifferentialSharpe",
    "ExcessReturn",
    "History",
    "Line",
    "LogUnitValue",
    "MarketEnv",
    "MarketVectorEnv",
    "ObservationBox",
    "ObservationMap",
    "Panel",
    "Registered",
    "Series",
    "Simulator",
    "StepResult",
    "make_markets",
    "observation_table",
    "register_environment",
    "register_environments",
]


def __getattr__(name: str) -> Any:
    if name in ("parallel_env", "ParallelMarketEnv", "BatchParallelEnv"):
        from hmgym.envs import parallel

        return getattr(parallel, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
