"""Short-horizon actor-critic: a window's return is continued by a critic, through which gradients flow into the state.

    max_φ  Σ_{t<H} γ^t r_t + γ^H V(o_H)

True ends are worth nothing, a truncated episode is worth V of its last observation. The critic learns TD(λ) targets

    y_t = r_t + γ ((1 − λ) V(o_{t+1}) + λ y_{t+1})

and a slow copy of it, V, is what windows are continued with.

Source: Xu et al. (2022), Accelerated policy learning with parallel differentiable simulation.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hmgym.agents.analytic_policy_gradient import AnalyticPolicyGradient, Window, WindowSettings
from hmgym.agents.networks import perceptron
from hmgym.checks import integer
from hmgym.envs.differentiable import DifferentiableMarkets


@dataclass(frozen=True, kw_only=True)
class ActorCriticSettings(WindowSettings):
    """How SHAC learns."""

    discount: float = 0.99
    """γ a month"""
    trace: float = 0.95
    """λ"""
    critic_learning_rate: float = 2e-3
    """of Adam"""
    critic_epochs: int = 4
    """passes over a window"""
    critic_batches: int = 4
    """minibatches of a pass"""
    target_rate: float = 0.2
    """share of the way that V moves to the critic after every window"""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("trace", "critic_learning_rate", "target_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"`{name}` must lie in [0, 1], got {getattr(self, name)!r}")
        for name in ("critic_epochs", "critic_batches"):
            integer(name, getattr(self, name), 1)


class ShortHorizonActorCritic(AnalyticPolicyGradient):
    """The agent with a critic; arguments as in `AnalyticPolicyGradient`."""

    settings: ActorCriticSettings
    _has_critic = True

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs, as tensors, numbers and strings."""
        return {
            **super().state_dict(),
            "critic": self._critic.state_dict(),
            "target": self._target.state_dict(),
            "critic_optimizer": self._critic_optimizer.state_dict(),
        }

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(stored)
        self._critic.load_state_dict(stored["critic"])
        self._target.load_state_dict(stored["target"])
        self._critic_optimizer.load_state_dict(stored["critic_optimizer"])

    def _make_critic(self) -> None:
        if not isinstance(self.markets, DifferentiableMarkets):
            raise ValueError(
                "`env_id` must name markets whose rows are paths, which a critic values, "
                f"got {type(self.markets).__name__}"
            )
        self._critic: nn.Module = perceptron(self.markets.observation_map.size, 1, last_gain=1.0)
        self._critic.to(self.markets.device)
        self._target = copy.deepcopy(self._critic)
        for parameter in self._target.parameters():
            parameter.requires_grad_(False)
        self._critic_optimizer = torch.optim.Adam(
            self._critic.parameters(), lr=self.settings.critic_learning_rate, betas=self.settings.betas
        )

    def _bootstrap_value(self, asked: Tensor) -> Tensor:
        seen = self.markets.observe()[:, list(self.seats)]
        worth: Tensor = self._target(self.policy.normalizer(seen))[..., 0]
        return worth

    def _learn_values(self, window: Window) -> None:
        settings = self.settings
        inputs = self.policy.normalizer(window.observations)
        with torch.no_grad():
            targets = self._targets(window, self._target(inputs)[..., 0])
        inputs, targets = inputs.flatten(0, 2), targets.flatten()
        for _ in range(settings.critic_epochs):
            order = torch.randperm(len(inputs), generator=self._random).to(inputs.device)
            for rows in order.chunk(settings.critic_batches):
                loss = nn.functional.mse_loss(self._critic(inputs[rows])[..., 0], targets[rows])
                self._critic_optimizer.zero_grad()
                torch.autograd.backward(loss)
                self._critic_optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self._target.parameters(), self._critic.parameters(), strict=True):
                slow.lerp_(fast, settings.target_rate)

    def _targets(self, window: Window, values: Tensor) -> Tensor:
        """TD(λ) targets, shape of `values`, the worth (H, E, L) of the window's observations."""
        settings = self.settings
        targets = torch.empty_like(values)
        after = window.values[-1]
        for month in reversed(range(settings.horizon)):
            if month < settings.horizon - 1:
                going_on = (1.0 - settings.trace) * values[month + 1] + settings.trace * targets[month + 1]
                after = torch.where(window.ended[month], window.values[month], going_on)
            targets[month] = window.rewards[month] + settings.discount * after
        return targets
