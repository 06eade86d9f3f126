"""The Gymnasium and PettingZoo faces of a simulator, and the batch of markets that is the first of these.

Everything but the registry is loaded when it is asked for: torch takes a second, PettingZoo is an extra.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hmgym.envs.registration import (
    ENVIRONMENTS,
    MAX_EPISODE_STEPS,
    Registered,
    register_environment,
    register_environments,
)
from hmgym.lazy import lazy_names

if TYPE_CHECKING:
    from hmgym.envs.actions import ActionMap
    from hmgym.envs.boxes import ActionBox, ObservationBox
    from hmgym.envs.history import History
    from hmgym.envs.markets import MarketEnv, MarketVectorEnv
    from hmgym.envs.observation import OBSERVATION_TABLE, ObservationMap, observation_table
    from hmgym.envs.panels import Line, Panel, Series
    from hmgym.envs.parallel import BatchParallelEnv as BatchParallelEnv
    from hmgym.envs.parallel import ParallelMarketEnv as ParallelMarketEnv
    from hmgym.envs.parallel import parallel_env as parallel_env
    from hmgym.envs.protocol import Simulator, StepResult
    from hmgym.envs.rewards import REWARDS, DifferentialSharpe, ExcessReturn, LogUnitValue
    from hmgym.envs.single import BatchEnv
    from hmgym.envs.vector import BatchVectorEnv, make_markets

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

__getattr__ = lazy_names(
    __name__,
    {
        "hmgym.envs.actions": ("ActionMap",),
        "hmgym.envs.boxes": ("ActionBox", "ObservationBox"),
        "hmgym.envs.history": ("History",),
        "hmgym.envs.markets": ("MarketEnv", "MarketVectorEnv"),
        "hmgym.envs.observation": ("OBSERVATION_TABLE", "ObservationMap", "observation_table"),
        "hmgym.envs.panels": ("Line", "Panel", "Series"),
        "hmgym.envs.protocol": ("Simulator", "StepResult"),
        "hmgym.envs.rewards": ("REWARDS", "DifferentialSharpe", "ExcessReturn", "LogUnitValue"),
        "hmgym.envs.single": ("BatchEnv",),
        "hmgym.envs.vector": ("BatchVectorEnv", "make_markets"),
        "hmgym.envs.parallel": ("BatchParallelEnv", "ParallelMarketEnv", "parallel_env"),
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
