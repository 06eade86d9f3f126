"""The law of a market maker's inventory, through which a policy is trained.

A fill is a jump, which a path has no gradient through. Its probability has one. The chain's state is inventory alone,
so the law over all 2Q + 1 inventories goes through the steps as a vector, and the expected reward is differentiable by
every quote, exactly and without noise. Rows are inventories; what a row earns is weighted by its probability.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hmgym.envs.differentiable import DifferentiablePeriod
from hmgym.envs.quoting.model import OBSERVATIONS, as_config, depth_box
from hmgym.market_making import QuotingConfig
from hmgym.market_making.tables import branches_of, gathered, log_fill_probability


class DifferentiableQuoting:
    """The market makers of :class:`~hmgym.envs.quoting.MarketMakingEnv` in law, with the graph kept.

    It has the interface of :class:`~hmgym.envs.differentiable.DifferentiableMarkets`; a "market" is an inventory, −Q to
    Q. With the same actions the rewards of an episode, summed over steps and averaged over rows, are the
    `expected_reward` of :func:`hmgym.market_making.exact_law`.

    Args:
        config: the market, as in the environment.
        reward: "inventory_penalty" or "pnl".
        device: where tensors live.

    Raises:
        ValueError: `reward` is another one: the Sharpe ratio is no sum of expectations.
    """

    n_learners = 1
    smoothing = 0.0

    def __init__(
        self,
        config: QuotingConfig | Mapping[str, Any] | None = None,
        reward: str = "inventory_penalty",
        *,
        device: str | torch.device = "cpu",
    ) -> None:
        self.config = as_config(config)
        if reward not in ("inventory_penalty", "pnl"):
            raise ValueError(f'`reward` must be "inventory_penalty" or "pnl" to be differentiated, got {reward!r}')
        self.model = self.config.problem(reward)
        self.device = torch.device(device)
        self.action_map, self.observation_map = depth_box(self.config), OBSERVATIONS
        self.max_episode_steps = self.config.steps
        inventory = self.model.inventory
        self.num_markets = inventory.size
        self._inventory = torch.from_numpy(inventory.astype(np.float64)).to(self.device)
        self._may_buy, self._may_sell = (self._inventory * side < self.config.max_inventory for side in (1.0, -1.0))
        self._elapsed = 0
        self._probability: Tensor = self._certain()

    @property
    def probability(self) -> Tensor:
        """Of every inventory now, (2Q+1,), with its graph."""
        return self._probability

    @property
    def news(self) -> Tensor:
        """There is none: (2Q+1, 0)."""
        return self._inventory.new_zeros(self.num_markets, 0)

    def observe(self) -> Tensor:
        """What is known at every inventory, (2Q+1, 1, 2)."""
        left = torch.full_like(self._inventory, 1.0 - self._elapsed / self.config.steps)
        return torch.stack([self._inventory / self.config.max_inventory, left], -1)[:, None]

    def step(self, action: Tensor) -> DifferentiablePeriod:
        """Quote once at every inventory.

        Args:
            action: shape (2Q+1, 1, 2), each in [-1, 1].

        Returns:
            the reward (2Q+1, 1) of every inventory times its probability and 2Q + 1.

        Raises:
            ValueError: `action` has another shape, is out of range or not finite, or the episode has ended.
        """
        if self._elapsed == self.config.steps:
            raise ValueError("an episode that has ended must be begun anew with `restart` before `step`")
        shape = (self.num_markets, 1, 2)
        if action.shape != shape:
            raise ValueError(f"`action` must have shape {shape}, got {tuple(action.shape)}")
        if not bool((action.detach().abs() <= 1.0).all()):  # also true of NaN
            raise ValueError(f"`action` must lie in [-1, 1], got {action.detach().flatten().tolist()[:8]}")
        model, dt, q = self.model, self.config.dt, self._inventory
        depths = self.action_map.to_depths(action[:, 0])
        fills = log_fill_probability(model, dt, depths).exp()
        chances, gains = branches_of(
            depths[:, 0], depths[:, 1], fills[:, 0] * self._may_buy, fills[:, 1] * self._may_sell, q, model.impact
        )  # fmt: skip
        last = self._elapsed + 1 == self.config.steps
        held = dt * (model.drift * q - model.running_penalty * q * q)
        if last:
            held = held - model.terminal_penalty * q * q
        none = torch.zeros_like(q[:1])
        up, down = torch.cat([held[1:], none]), torch.cat([none, held[:-1]])
        earned = sum(
            chance * (gain + then) for chance, gain, then in zip(chances, gains, (held, held, up, down), strict=True)
        )
        reward = self._probability * earned * self.num_markets
        self._probability = gathered(*(self._probability * chance for chance in chances))
        self._elapsed += 1
        ended = torch.full((self.num_markets, 1), last, device=self.device)
        return DifferentiablePeriod(reward=reward[:, None], ruined=ended, truncated=torch.zeros_like(ended[:, 0]))

    def restart(self) -> None:
        """Begin a new episode where the last one has ended."""
        if self._elapsed == self.config.steps:
            self._elapsed, self._probability = 0, self._certain()

    def detach(self) -> None:
        """Cut the graph: what happened so far is given."""
        self._probability = self._probability.detach()

    def state_dict(self) -> dict[str, Any]:
        """Everything that a continued run needs."""
        return {"probability": self._probability.detach(), "elapsed": self._elapsed}

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: it was taken from another number of inventories.
        """
        if len(stored["probability"]) != self.num_markets:
            raise ValueError(f"`stored` must be of {self.num_markets} inventories, got {len(stored['probability'])}")
        self._probability, self._elapsed = stored["probability"].to(self.device), int(stored["elapsed"])

    def _certain(self) -> Tensor:
        """No inventory, for certain."""
        return (self._inventory == 0.0).to(torch.float64)


def quoting_law(
    env_id: str,
    num_markets: int,
    *,
    seed: int,
    config: QuotingConfig | Mapping[str, Any] | None = None,
    reward: str = "inventory_penalty",
    **_: Any,
) -> DifferentiableQuoting:
    """The law of an environment's market makers: it has one row an inventory and draws nothing."""
    return DifferentiableQuoting(config, reward)
