"""Policies that read nothing: constants, the grid of them that an agent has to beat, and random actions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hmgym.envs import ActionBox, ActionMap


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


def constant_grid(action_map: ActionBox) -> list[ConstantPolicy]:
    """Constants over the whole action box, as the box itself lays them out."""
    return [ConstantPolicy(action, action_map.describe(action)) for action in action_map.grid()]
