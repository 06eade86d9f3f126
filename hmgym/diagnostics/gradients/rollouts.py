"""Rollouts in which every market's learner acts with its own copy of the policy's parameters: gradients by market.

The rollout itself is the window of the gradient agents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from hmgym.agents.analytic_policy_gradient import ActionRecord, AnalyticPolicyGradient, WindowSettings
from hmgym.agents.gradient_training import make_agent
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.training import TrainingPlan
from hmgym.envs.differentiable import DifferentiableMarkets


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is differentiated.

    Attributes:
        env_id: a registered id.
        num_markets: E, markets side by side.
        env_kwargs: further arguments of the environment.
    """

    env_id: str
    num_markets: int
    env_kwargs: tuple[tuple[str, Any], ...] = ()

    def markets(self, seed: int, smoothing: float = 0.0, *, stagger: bool = False) -> DifferentiableMarkets:
        """Markets at their start; market e draws from ``numpy.random.default_rng(seed + e)``."""
        return DifferentiableMarkets(
            self.env_id, self.num_markets, seed=seed, smoothing=smoothing, stagger=stagger, **dict(self.env_kwargs)
        )


MakeMarkets = Callable[[int, float], DifferentiableMarkets]
"""From a seed and the smoothing of the clearing to markets at their start."""


class Sample(NamedTuple):
    """One window of E markets."""

    returns: Tensor  # (E,) sum of rewards, with its graph
    surprise: Tensor  # (E,) the part of it that is unforeseeable news, to first order, with its graph
    log_likelihoods: Tensor  # (H, E) of each action, but for a constant; with the graph of the policy alone
    rewards: Tensor  # (H, E) outside any graph
    ruined: Tensor  # (H, E, B) bool, who was ruined in each month; of the last month only the learner


class OwnParameters(AnalyticPolicyGradient):
    """The agent without a critic, every market's learner acting with parameters of its own.

    Args:
        markets: one learner each.
        policy: whose normaliser is used; its parameters are only a place to start from.
        settings: horizon, exploration, feedback.
        seed: of the exploration.

    Raises:
        ValueError: the markets have several learners.
    """

    def __init__(
        self, markets: DifferentiableMarkets, policy: SquashedGaussianPolicy, settings: WindowSettings, seed: int
    ) -> None:
        if markets.n_learners != 1:
            raise ValueError(f"`markets` must have one learner each, got {markets.n_learners}")
        super().__init__(markets, settings, seed)
        self.policy.load_state_dict(policy.state_dict())
        self._both = _ActionAndCenter(self.policy)
        self._likelihoods: list[Tensor] = []
        self._ruined: list[Tensor] = []

    def sample(self, parameters: Tensor) -> Sample:
        """Run one window.

        Args:
            parameters: shape (E, P), each market's own, in the order of `parameters_of`.
        """
        self._likelihoods, self._ruined = [], []
        named, start = {}, 0
        for name, value in self.policy.named_parameters():
            part = parameters[:, start : start + value.numel()]
            named["policy." + name] = part.reshape(-1, *value.shape)
            start += value.numel()
        record = ActionRecord()
        returns, window = self.window([named], record)
        surprise = record.surprise if isinstance(record.surprise, Tensor) else torch.zeros_like(returns)
        likelihoods = torch.stack(self._likelihoods)
        ruined = torch.stack([*self._ruined[1:], torch.zeros_like(self._ruined[0])])
        ruined[:, :, :1] = window.ended  # its market began anew before it was seen again
        return Sample(returns[:, 0], surprise[:, 0], likelihoods, window.rewards[:, :, 0], ruined)

    def _act(self, seen: Tensor, noise: Tensor, copies: list[dict[str, Tensor]]) -> Tensor:
        markets = cast(DifferentiableMarkets, self.markets)
        self._ruined.append(markets.state.ruined)
        known = seen if self.settings.feedback else seen.detach()

        def one(parameters: dict[str, Tensor], observation: Tensor, draw: Tensor) -> tuple[Tensor, Tensor]:
            both: tuple[Tensor, Tensor] = functional_call(self._both, parameters, (observation, draw))
            return both

        action, center = torch.vmap(one)(copies[0], known[:, 0], noise[:, 0])
        if self.settings.deviation > 0.0:
            # The action before tanh is given; the gradient of its log density in the centre is noise / deviation.
            self._likelihoods.append((center * noise[:, 0]).sum(-1) / self.settings.deviation)
        else:
            self._likelihoods.append(torch.zeros_like(center[:, 0]))
        return action[:, None]


class _ActionAndCenter(nn.Module):
    """An action, and the centre of the distribution it was drawn from with the observation given."""

    def __init__(self, policy: SquashedGaussianPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        policy = self.policy
        return policy(observation, noise)[0], policy.mean(policy.normalizer(observation.detach()))


def parameters_of(policy: SquashedGaussianPolicy, num_markets: int) -> Tensor:
    """The policy's parameters in one row a market, shape (E, P), outside any graph."""
    flat = torch.cat([value.detach().flatten() for value in policy.parameters()])
    return flat.expand(num_markets, -1).clone()


def untrained_policy(setting: Setting, seed: int) -> SquashedGaussianPolicy:
    """A fresh policy whose normaliser has seen one window, as that of an agent after its first step."""
    agent = AnalyticPolicyGradient(setting.markets(seed), WindowSettings(), seed)
    with torch.no_grad():
        _, window = agent.window([dict(agent.policy.named_parameters())])
    agent.policy.normalizer.update(window.observations)
    return agent.policy


def trained_policy(setting: Setting, seed: int, timesteps: int) -> SquashedGaussianPolicy:
    """A policy trained by analytic policy gradient on the exact market for so many periods."""
    return run_agent(setting, seed, timesteps, {})


def load_policy(path: Path) -> SquashedGaussianPolicy:
    """The policy of a checkpoint's `policy.pt`.

    Raises:
        ValueError: it has a memory, whose entries would be part of the state.
    """
    policy = SquashedGaussianPolicy.load(path)
    if policy.memory_size:
        raise ValueError(
            f"`path` must be of a policy without a memory, got one of {policy.memory_size} entries: {path}"
        )
    return policy


def run_agent(setting: Setting, seed: int, timesteps: int, hyperparameters: dict[str, Any]) -> SquashedGaussianPolicy:
    """Train with `AnalyticPolicyGradient` in memory; no checkpoint is written."""
    plan = TrainingPlan(
        algo="apg", env_id=setting.env_id, timesteps=timesteps, seed=seed, env_kwargs=dict(setting.env_kwargs),
        hyperparameters=hyperparameters,
    )  # fmt: skip
    agent = make_agent(plan)
    each = agent.env_steps_per_update
    for done in range(0, timesteps, each):
        agent.update(done / timesteps)
    return agent.policy
