"""Analytic policy gradient: ascent on the return of short windows, backpropagated through the market.

    max_φ  Σ_{t<H} γ^t r_t,   a_t = π_φ(o_t, ε_t),   s_{t+1} = f(s_t, a_t, ξ_t)

with the graph of f kept. A window starts where the last one ended. With several learners in a market they share φ and
each ascends its own return with respect to its own actions: the others are part of its market.

Source: Freeman et al. (2021), Brax; Xu et al. (2022), Accelerated policy learning with parallel differentiable
simulation, for the window and its clipping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from hmgym.agents.differentiable import DifferentiableMarkets
from hmgym.agents.networks import SquashedGaussianPolicy


@dataclass(frozen=True, kw_only=True)
class WindowSettings:
    """How a gradient agent learns.

    Attributes:
        horizon: H, months of a window.
        discount: γ a month.
        learning_rate: of Adam at the start; it falls to `last_learning_rate` times that over the run.
        last_learning_rate: as a share of the first.
        betas: of Adam.
        max_gradient_norm: longer gradients are shortened to it.
        deviation: σ of the exploring policy, before tanh.
        feedback: whether gradients also flow through what the policy observes. An action moves later observations and
            so later actions; where these are good already their change is worth nothing to first order, and leaving
            that path out removes most of the gradient's variance.
        smoothing: of the clearing at the start of the run; 0 is exact.
        last_smoothing: at its end, reached geometrically; None keeps it.
    """

    horizon: int = 16
    discount: float = 1.0
    learning_rate: float = 5e-3
    last_learning_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    max_gradient_norm: float = 1.0
    deviation: float = 0.3
    feedback: bool = False
    smoothing: float = 0.0
    last_smoothing: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.horizon, int) or self.horizon < 1:
            raise ValueError(f"`horizon` must be an integer >= 1, got {self.horizon!r}")
        for name, low, high in (
            ("discount", 0.0, 1.0),
            ("learning_rate", 0.0, 1.0),
            ("last_learning_rate", 0.0, 1.0),
            ("smoothing", 0.0, 1.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"`{name}` must lie in [{low:g}, {high:g}], got {value!r}")
        if not self.max_gradient_norm > 0.0:
            raise ValueError(f"`max_gradient_norm` must be > 0, got {self.max_gradient_norm!r}")
        if self.last_smoothing is not None and not 0.0 < self.last_smoothing <= self.smoothing:
            raise ValueError(f"`last_smoothing` must lie in (0, smoothing], got {self.last_smoothing!r}")

    def smoothing_at(self, progress: float) -> float:
        """Smoothing of the clearing when this share of the run is done."""
        if self.last_smoothing is None or self.smoothing == 0.0:
            return self.smoothing
        return float(self.smoothing * (self.last_smoothing / self.smoothing) ** progress)

    def learning_rate_at(self, progress: float) -> float:
        """Learning rate when this share of the run is done."""
        return self.learning_rate * (1.0 - (1.0 - self.last_learning_rate) * progress)


class Window(NamedTuple):
    """What a window left behind, outside any graph; H periods, E markets, L learners."""

    observations: Tensor  # (H, E, L, size)
    rewards: Tensor  # (H, E, L)
    ended: Tensor  # (H, E, L) the learner's episode ended with this period
    values: Tensor  # (H, E, L) worth of what follows this period, where it is bootstrapped, else 0


class Update(NamedTuple):
    """One gradient step."""

    objective: float  # mean return of a window, a month
    reward: float  # mean reward of a month
    gradient_norm: float  # before it is shortened


class AnalyticPolicyGradient:
    """The agent without a critic: what follows a window counts for nothing.

    Args:
        markets: to learn in; their state goes on from window to window.
        settings: how.
        seed: of the networks and of the exploration.
        learning_seats: learners of each market that the policy is trained on; None is all of them.
        others: the policy of the other learners; needed where there are any.

    Raises:
        ValueError: a seat is not there, or nobody plays for the others.
    """

    def __init__(
        self,
        markets: DifferentiableMarkets,
        settings: WindowSettings,
        seed: int,
        *,
        learning_seats: tuple[int, ...] | None = None,
        others: SquashedGaussianPolicy | None = None,
    ) -> None:
        self.markets, self.settings, self.others = markets, settings, others
        everybody = tuple(range(markets.n_learners))
        self.seats = everybody if learning_seats is None else learning_seats
        if not self.seats or any(seat not in everybody for seat in self.seats):
            raise ValueError(f"`learning_seats` must be some of {everybody}, got {learning_seats}")
        if others is None and len(self.seats) < len(everybody):
            raise ValueError("`others` must be given where some learners are not trained, got None")
        device = markets.market.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = SquashedGaussianPolicy(
                markets.observation_map.size, markets.action_map.size, settings.deviation
            ).to(device)
            self._make_critic()
        self._random = torch.Generator().manual_seed(seed)
        self._optimizer = torch.optim.Adam(
            self.policy.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=False
        )
        self.gradient_steps = 0

    @property
    def env_steps_per_update(self) -> int:
        """Periods of a window, over all learners of all markets."""
        return self.settings.horizon * self.markets.num_markets * self.markets.n_learners

    def update(self, progress: float) -> Update:
        """Run one window and take one gradient step.

        Args:
            progress: share of the run that is done, in [0, 1].

        Raises:
            RuntimeError: the gradient is not finite.
        """
        self.markets.smoothing = self.settings.smoothing_at(progress)
        copies = [dict(self._parameter_copies()) for _ in self.seats]
        returns, window = self.window(copies)
        objectives = returns.mean(0) / self.settings.horizon  # (seats,)
        self._ascend(objectives, copies, progress)
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.max_gradient_norm)
        if not bool(torch.isfinite(norm)):
            raise RuntimeError(f"the gradient of step {self.gradient_steps} is not finite: shorten `horizon`")
        self._optimizer.step()
        self.gradient_steps += 1
        self._learn_values(window)
        self.policy.normalizer.update(window.observations)
        return Update(float(objectives.detach().mean()), float(window.rewards.mean()), float(norm))

    def window(self, copies: list[dict[str, Tensor]]) -> tuple[Tensor, Window]:
        """Discounted returns (E, seats) of one window with their graph, and what the window left behind.

        Args:
            copies: the policy's parameters by name, one copy for every learning seat.
        """
        settings, markets, seats = self.settings, self.markets, list(self.seats)
        markets.restart()
        markets.detach()
        shape = (markets.num_markets, len(seats))
        weight = torch.ones(shape, dtype=torch.float64, device=markets.market.device)
        total = torch.zeros_like(weight)
        observations, rewards, ends, values = [], [], [], []
        for month in range(settings.horizon):
            seen = markets.observe()
            noise = torch.randn(*shape, self.policy.action_size, generator=self._random, dtype=torch.float64)
            period = markets.step(self._act(seen, noise.to(weight.device), copies))
            reward, ended, ruined = period.reward[:, seats], period.ended[:, seats], period.ruined[:, seats]
            total = total + weight * reward
            weight = weight * settings.discount
            value = torch.zeros_like(weight)
            last = month == settings.horizon - 1
            if last or bool(ended.any()):
                value = self._worth(ended | last)
                value = torch.where((ended | last) & ~ruined, value, torch.zeros_like(value))
                total = total + weight * value
            weight = torch.where(ended, torch.ones_like(weight), weight)
            observations.append(seen[:, seats].detach())
            rewards.append(reward.detach())
            ends.append(ended)
            values.append(value.detach())
            if not last:
                markets.restart()
        return total, Window(*(torch.stack(part) for part in (observations, rewards, ends, values)))

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs, as tensors, numbers and strings."""
        return {
            "policy": self.policy.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "random": self._random.get_state(),
            "gradient_steps": self.gradient_steps,
            "markets": self.markets.state_dict(),
        }

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.policy.load_state_dict(stored["policy"])
        self._optimizer.load_state_dict(stored["optimizer"])
        self._random.set_state(stored["random"])
        self.gradient_steps = stored["gradient_steps"]
        self.markets.load_state_dict(stored["markets"])

    def _parameter_copies(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.policy.named_parameters():
            yield name, parameter.detach().clone().requires_grad_()

    def _act(self, seen: Tensor, noise: Tensor, copies: list[dict[str, Tensor]]) -> Tensor:
        """Actions (E, L, size) of all learners; each learning seat acts with its own copy of the parameters."""
        known = seen if self.settings.feedback else seen.detach()
        chosen: dict[int, Tensor] = {}
        for at, seat in enumerate(self.seats):
            chosen[seat] = functional_call(self.policy, copies[at], (known[:, seat], noise[:, at]))
        if self.others is not None:
            with torch.no_grad():
                rest = self.others(seen)
            for seat in range(self.markets.n_learners):
                chosen.setdefault(seat, rest[:, seat])
        return torch.stack([chosen[seat] for seat in range(self.markets.n_learners)], 1)

    def _ascend(self, objectives: Tensor, copies: list[dict[str, Tensor]], progress: float) -> None:
        """Put the mean over seats of each one's own gradient into the optimiser."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.settings.learning_rate_at(progress)
        self._optimizer.zero_grad()
        for at, copy in enumerate(copies):
            remaining = at + 1 < len(copies)
            gradients = torch.autograd.grad(-objectives[at], list(copy.values()), retain_graph=remaining)
            for parameter, gradient in zip(self.policy.parameters(), gradients, strict=True):
                share = gradient / len(copies)
                parameter.grad = share if parameter.grad is None else parameter.grad + share

    # What a critic adds

    def _make_critic(self) -> None:
        """No critic."""

    def _worth(self, asked: Tensor) -> Tensor:
        """Worth (E, seats) of going on from the state as it is; only the entries `asked` for count."""
        return torch.zeros_like(asked, dtype=torch.float64)

    def _learn_values(self, window: Window) -> None:
        """Nothing to learn."""
