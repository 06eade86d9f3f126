"""Policies and how they are compared: constants, planners, paired evaluation; learners in modules of their own."""

from __future__ import annotations

from hmgym.agents.baselines import Baseline, baselines_of
from hmgym.agents.constant import ConstantPolicy, RandomPolicy, constant_grid, no_leverage
from hmgym.agents.estimates import Estimate, estimate
from hmgym.agents.evaluation import (
    PROTOCOL,
    Evaluation,
    Protocol,
    evaluate,
    over_training_seeds,
    paired_difference,
)
from hmgym.agents.planning import MyopicPolicy, PlannerPolicy, PlanningSettings
from hmgym.agents.policy import Planner, Policy, Predictor
from hmgym.agents.selection import ConstantChoice, choose_best_constant, evaluate_baselines

__all__ = [
    "PROTOCOL",
    "Baseline",
    "ConstantChoice",
    "ConstantPolicy",
    "Estimate",
    "Evaluation",
    "MyopicPolicy",
    "Planner",
    "PlannerPolicy",
    "PlanningSettings",
    "Policy",
    "Predictor",
    "Protocol",
    "RandomPolicy",
    "baselines_of",
    "choose_best_constant",
    "constant_grid",
    "estimate",
    "evaluate",
    "evaluate_baselines",
    "no_leverage",
    "over_training_seeds",
    "paired_difference",
]
