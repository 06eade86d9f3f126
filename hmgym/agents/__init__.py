"""Policies and how they are compared: constants, random actions, paired evaluation; stable-baselines3 in `.sb3`."""

from __future__ import annotations

from hmgym.agents.constant import ConstantPolicy, RandomPolicy, constant_grid, no_leverage
from hmgym.agents.evaluation import (
    ConstantChoice,
    Estimate,
    Evaluation,
    choose_best_constant,
    estimate,
    evaluate,
    evaluate_baselines,
    over_training_seeds,
    paired_difference,
)
from hmgym.agents.policy import Planner, Policy, Predictor

__all__ = [
    "ConstantChoice",
    "ConstantPolicy",
    "Estimate",
    "Evaluation",
    "Planner",
    "Policy",
    "Predictor",
    "RandomPolicy",
    "choose_best_constant",
    "constant_grid",
    "estimate",
    "evaluate",
    "evaluate_baselines",
    "no_leverage",
    "over_training_seeds",
    "paired_difference",
]
