"""Train the agents that backpropagate through the market, with checkpoints that continue a run bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hmgym.agents.algorithms import Algorithm, find_algorithm
from hmgym.agents.analytic_policy_gradient import AnalyticPolicyGradient, WindowSettings
from hmgym.agents.loop import MEAN_RETURN, train_learner
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.run import TrainingResult, TrainingRun
from hmgym.agents.shac import ActorCriticSettings, ShortHorizonActorCritic
from hmgym.agents.training import TrainingPlan
from hmgym.envs.differentiable import make_differentiable

_AGENT_FILE, _POLICY_FILE = "agent.pt", "policy.pt"


class GradientLearner:
    """A gradient agent as the training loop takes it.

    Args:
        agent: with its markets.
    """

    def __init__(self, agent: AnalyticPolicyGradient) -> None:
        self._agent = agent

    @property
    def policy(self) -> SquashedGaussianPolicy:
        """What it has learnt so far."""
        return self._agent.policy

    @property
    def env_steps(self) -> int:
        """Periods so far, over all learners of all markets."""
        return self._agent.updates * self._agent.env_steps_per_update

    @property
    def gradient_steps(self) -> int:
        """Optimiser steps so far."""
        return self._agent.gradient_steps

    def update(self, progress: float) -> Mapping[str, float]:
        """Run one window and take the gradient steps that follow it."""
        done = self._agent.update(progress)
        months = self._agent.markets.max_episode_steps or self._agent.settings.horizon
        return {MEAN_RETURN: months * done.reward, "train/gradient_norm": done.gradient_norm}

    def save(self, folder: Path) -> None:
        """Write the agent, and its policy alone beside it."""
        torch.save(self._agent.state_dict(), folder / _AGENT_FILE)
        self._agent.policy.save(folder / _POLICY_FILE)

    def load(self, folder: Path) -> None:
        """Go on where `save` was called."""
        self._agent.load_state_dict(torch.load(folder / _AGENT_FILE, weights_only=True))


def train(agent_type: type[AnalyticPolicyGradient], run: TrainingRun) -> TrainingResult:
    """Train a gradient agent as the run says."""
    return train_learner(run, GradientLearner(_make(agent_type, run.plan, run.hyperparameters)))


def load_policy(folder: Path, plan: TrainingPlan | None = None) -> SquashedGaussianPolicy:
    """The policy of a checkpoint folder."""
    return SquashedGaussianPolicy.load(folder / _POLICY_FILE)


# A window is an episode, and what is exact needs no exploration and nothing replayed.
_MARKET_MAKING = "hmgym/MarketMaking-v0"
_OF_A_LAW = {"horizon": 200, "deviation": 0.0, "learning_rate": 5e-3, "replay": 1}

APG = Algorithm(
    name="apg", hyperparameters=WindowSettings, train=partial(train, AnalyticPolicyGradient),
    load_policy=load_policy, timesteps=100_000, num_envs=16, by_environment={_MARKET_MAKING: _OF_A_LAW},
    timesteps_by_environment={_MARKET_MAKING: 400_000},
)  # fmt: skip
SHAC = Algorithm(
    name="shac", hyperparameters=ActorCriticSettings, train=partial(train, ShortHorizonActorCritic),
    load_policy=load_policy, timesteps=100_000, num_envs=16,
)  # fmt: skip

_AGENTS: dict[str, type[AnalyticPolicyGradient]] = {"apg": AnalyticPolicyGradient, "shac": ShortHorizonActorCritic}


def make_agent(plan: TrainingPlan) -> AnalyticPolicyGradient:
    """The agent of a plan for ``apg`` or ``shac``, untrained, with its markets."""
    hyperparameters = find_algorithm(plan.algo).hyperparameters_for(plan.env_id, plan.hyperparameters)
    return _make(_AGENTS[plan.algo], plan, hyperparameters)


def _make(agent_type: type[AnalyticPolicyGradient], plan: TrainingPlan, settings: Any) -> AnalyticPolicyGradient:
    markets = make_differentiable(plan.env_id, plan.num_markets, seed=plan.market_seed, **plan.env_kwargs)
    return agent_type(markets, settings, plan.seed)
