"""Market making as an environment: in the simulated market of its model, and on recorded books."""

from __future__ import annotations

from hmgym.envs.quoting.book_environments import LOBMarketMakingEnv, LOBMarketMakingVectorEnv
from hmgym.envs.quoting.books import BookQuoting
from hmgym.envs.quoting.depths import DepthBox
from hmgym.envs.quoting.differentiable import DifferentiableQuoting
from hmgym.envs.quoting.environments import MarketMakingEnv, MarketMakingVectorEnv
from hmgym.envs.quoting.series import QuotingSeries
from hmgym.envs.quoting.simulator import QuotingState

__all__ = [
    "BookQuoting",
    "DepthBox",
    "DifferentiableQuoting",
    "LOBMarketMakingEnv",
    "LOBMarketMakingVectorEnv",
    "MarketMakingEnv",
    "MarketMakingVectorEnv",
    "QuotingSeries",
    "QuotingState",
]
