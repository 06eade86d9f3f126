"""An algorithm, as docs/extending.md adds it: evolution strategies on a linear policy, with no gradient of the market.

    θ ← θ + α / (2 P σ) Σ_p (R(θ + σ ε_p) − R(θ − σ ε_p)) / s · ε_p

over P pairs of markets; the two of a pair meet the same shocks, and s is the deviation of all returns.

Source: Salimans et al. (2017), Evolution strategies as a scalable alternative to reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hmgym.agents.algorithms import Algorithm
from hmgym.agents.loop import MEAN_RETURN, train_learner
from hmgym.agents.run import TrainingResult, TrainingRun
from hmgym.agents.training import TrainingPlan
from hmgym.envs import make_markets

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class EvolutionHyperparameters:
    """How evolution strategies learn."""

    learning_rate: float = 0.1
    """α"""
    deviation: float = 0.3
    """σ of the perturbed weights"""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "deviation"):
            if not 0.0 < getattr(self, name) <= 10.0:
                raise ValueError(f"`{name}` must lie in (0, 10], got {getattr(self, name)}")


class LinearPolicy:
    """``a = tanh(θ (o, 1))``.

    Args:
        weights: θ, shape (size of one action, size of one observation + 1).
    """

    def __init__(self, weights: Array) -> None:
        self.weights = weights

    def __call__(self, observation: npt.NDArray[np.float32]) -> Array:
        """Actions (E, size) for observations (E, size)."""
        return np.tanh(observation @ self.weights[:, :-1].T + self.weights[:, -1])


class Evolution:
    """The learner; what it is asked for is in :class:`hmgym.agents.loop.Learner`."""

    def __init__(self, plan: TrainingPlan, hyperparameters: EvolutionHyperparameters) -> None:
        if plan.num_markets % 2:
            raise ValueError(f"`num_envs` must be even for pairs of markets, got {plan.num_markets}")
        self._plan, self._hyperparameters = plan, hyperparameters
        self._markets = make_markets(plan.env_id, plan.num_markets, autoreset_mode="SameStep", **plan.env_kwargs)
        if self._markets.num_envs != plan.num_markets:
            raise ValueError("`n_learners` must be 1 for evolution")
        sizes = self._markets.action_map.size, self._markets.observation_map.size + 1
        self.policy = LinearPolicy(np.zeros(sizes))
        self.env_steps = self.gradient_steps = 0

    def update(self, progress: float) -> Mapping[str, float]:
        """One episode in every market, one step on θ."""
        pairs, chosen = self._plan.num_markets // 2, self._hyperparameters
        # A stream of its own for every update: a resumed run draws what the uninterrupted one draws.
        random = np.random.default_rng([self._plan.seed, self.gradient_steps])
        noise = random.standard_normal((pairs, *self.policy.weights.shape))
        weights = self.policy.weights + chosen.deviation * np.concatenate([noise, -noise])
        returns = self._returns(weights, random.integers(2**31, size=pairs).tolist() * 2)
        ahead = (returns[:pairs] - returns[pairs:]) / (2.0 * pairs * chosen.deviation * (returns.std() + 1e-9))
        self.policy = LinearPolicy(self.policy.weights + chosen.learning_rate * np.tensordot(ahead, noise, 1))
        self.gradient_steps += 1
        return {MEAN_RETURN: float(returns.mean())}

    def save(self, folder: Path) -> None:
        """Plain arrays: loading them runs no code."""
        np.savez(folder / "evolution.npz", weights=self.policy.weights, done=[self.env_steps, self.gradient_steps])

    def load(self, folder: Path) -> None:
        """Go on where `save` was called."""
        with np.load(folder / "evolution.npz", allow_pickle=False) as stored:
            self.policy = LinearPolicy(stored["weights"])
            self.env_steps, self.gradient_steps = stored["done"].tolist()

    def _returns(self, weights: Array, seeds: list[int]) -> Array:
        observation, _ = self._markets.reset(seed=seeds)
        total, running = np.zeros(len(seeds)), np.ones(len(seeds), np.bool_)
        while running.any():
            action = np.tanh(np.einsum("eao,eo->ea", weights[..., :-1], observation) + weights[..., -1])
            period = self._markets.advance(action)
            observation = period.observation
            total += np.where(running, period.reward, 0.0)
            running &= ~(period.terminated | period.truncated)
            self.env_steps += len(seeds)
        return total


def train(run: TrainingRun) -> TrainingResult:
    """Train as the run says."""
    return train_learner(run, Evolution(run.plan, run.hyperparameters))


def load_policy(folder: Path, plan: TrainingPlan) -> LinearPolicy:
    """The policy of a checkpoint folder."""
    with np.load(folder / "evolution.npz", allow_pickle=False) as stored:
        return LinearPolicy(stored["weights"])


EVOLUTION = Algorithm(
    name="evolution", hyperparameters=EvolutionHyperparameters, train=train, load_policy=load_policy,
    timesteps=300_000, num_envs=64,
)  # fmt: skip
