"""The Gymnasium faces of the market: single and vector environments over one batch of markets."""

from __future__ import annotations

from hmgym.envs.actions import ActionMap
from hmgym.envs.observation import OBSERVATION_TABLE, ObservationMap, observation_table
from hmgym.envs.registration import ENVIRONMENTS, MAX_EPISODE_STEPS, register_environments
from hmgym.envs.rewards import REWARDS, DifferentialSharpe, ExcessReturn, LogUnitValue
from hmgym.envs.single import MarketEnv
from hmgym.envs.vector import MarketVectorEnv, make_markets

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
