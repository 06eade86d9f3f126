"""Pools whose weights follow a power law of price trends: the rule, reserves, training."""

from __future__ import annotations

from hmgym.pools.parameters import (
    PoolConfig,
    PoolParameters,
    Rule,
    decay_for_memory,
    inverse_squareplus,
    memory_days,
    squareplus,
)
from hmgym.pools.performance import OBJECTIVES, Performance, performance
from hmgym.pools.pool import PoolRun, PoolState, PowerChannelPool
from hmgym.pools.reserves import reserves_with_fees, reserves_without_fees
from hmgym.pools.rule import price_trend, weight_changes
from hmgym.pools.training import PoolTraining, PoolTuning, train_pool, tune_pool
from hmgym.pools.weights import CoarseWeights, coarse_weights, fine_weights

__all__ = [
    "OBJECTIVES",
    "CoarseWeights",
    "Performance",
    "PoolConfig",
    "PoolParameters",
    "PoolRun",
    "PoolState",
    "PoolTraining",
    "PoolTuning",
    "PowerChannelPool",
    "Rule",
    "coarse_weights",
    "decay_for_memory",
    "fine_weights",
    "inverse_squareplus",
    "memory_days",
    "performance",
    "price_trend",
    "reserves_with_fees",
    "reserves_without_fees",
    "squareplus",
    "train_pool",
    "tune_pool",
    "weight_changes",
]
