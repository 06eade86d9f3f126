"""Policies that read nothing: constants, the grid of them that an agent has to beat, and random actions."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from hmgym.envs import ActionMap

LEVERAGE_POINTS = 7
"""Points of the grid along each of short and long leverage."""
BELIEF_POINTS = 21
"""Points of the grid over one expected return for all assets."""
JOINT_LEVERAGE_POINTS, JOINT_BELIEF_POINTS = 4, 7
"""Coarser grid where an action sets both."""


class ConstantPolicy:
    """The same action in every market and every period.

    Args:
        action: shape (size of one action,), each in [-1, 1].
        name: what it is called in a table.
    """

    def __init__(self, action: npt.ArrayLike, name: str = "constant") -> None:
        self.action = np.asarray(action, np.float32)
        if self.action.ndim != 1 or not (np.abs(self.action) <= 1.0).all():
            raise ValueError(f"`action` must be one row of numbers in [-1, 1], got {action!r}")
        self.name = name

    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The action, once a market."""
        return np.broadcast_to(self.action, (observation.shape[0], self.action.size))

    def __repr__(self) -> str:
        return f"ConstantPolicy({self.name})"


class RandomPolicy:
    """Uniform actions, independent over markets and periods.

    Args:
        size: entries of one action.
        seed: of its own random stream.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)

    def __call__(self, observation: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """One draw a market."""
        return self._random.uniform(-1.0, 1.0, (observation.shape[0], self._size))


def no_leverage(action_map: ActionMap) -> ConstantPolicy:
    """κ = 0 and θ = 1: no borrowing, no short sales.

    Raises:
        ValueError: the action sets no leverage.
    """
    return ConstantPolicy(action_map.from_leverage(0.0, 1.0), "no leverage")


def constant_grid(action_map: ActionMap) -> list[ConstantPolicy]:
    """Constants over the whole action box: 7×7 of leverage, or 21 common expected returns, or both, coarser.

    The scale of risk, where an action holds it, stays at 1.
    """
    leverage = action_map.leverage
    points = LEVERAGE_POINTS if not action_map.beliefs else JOINT_LEVERAGE_POINTS
    limits = list(itertools.product(np.linspace(-1.0, 1.0, points), repeat=2)) if leverage else [()]
    points = BELIEF_POINTS if not leverage else JOINT_BELIEF_POINTS
    beliefs = np.linspace(-1.0, 1.0, points).tolist() if action_map.beliefs else [None]
    policies = []
    for limit, belief in itertools.product(limits, beliefs):
        action = np.zeros(action_map.size)
        action[: len(limit)] = limit
        if belief is not None:
            action[len(limit) : len(limit) + action_map.n_assets] = belief
        policies.append(ConstantPolicy(action, action_map.describe(action)))
    return policies
