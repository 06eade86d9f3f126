"""What a step of market making is rewarded with."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from hmgym.envs.rewards import MovingSharpe

FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REWARDS = ("inventory_penalty", "pnl", "sharpe")


class QuotingReward(Protocol):
    """A reward with memory; `restart` begins new episodes."""

    def restart(self, rows: Flags) -> None:
        """Forget the past of these markets (E,)."""

    def __call__(self, profit: FloatArray, inventory: npt.NDArray[np.int64], ended: Flags) -> FloatArray:
        """Reward (E,) of a step.

        Args:
            profit: (E,) of the step, money.
            inventory: (E,) after it, lots.
            ended: (E,) whether it was the last.
        """


class Profit:
    """Change of cash and inventory at mid."""

    def restart(self, rows: Flags) -> None:
        """Nothing to forget."""

    def __call__(self, profit: FloatArray, inventory: npt.NDArray[np.int64], ended: Flags) -> FloatArray:
        """The profit itself."""
        return profit


class InventoryPenalty(Profit):
    """Profit less φ q² dt, and a q² at the end.

    Args:
        running: φ dt, money / lot².
        terminal: a, money / lot².
    """

    def __init__(self, running: float, terminal: float) -> None:
        self._running, self._terminal = running, terminal

    def __call__(self, profit: FloatArray, inventory: npt.NDArray[np.int64], ended: Flags) -> FloatArray:
        """Profit less the penalties."""
        square = inventory * inventory
        reward: FloatArray = profit - self._running * square
        if self._terminal > 0.0:
            reward = reward - self._terminal * square * ended
        return reward


class SharpeOfProfit:
    """Differential Sharpe ratio of profits, see :class:`~hmgym.envs.rewards.MovingSharpe`.

    Args:
        mean: of a step's profit, money, at the start.
        deviation: likewise.
        rate: η a step.
    """

    def __init__(self, mean: float, deviation: float, rate: float = 0.02) -> None:
        self._sharpe = MovingSharpe(rate, mean, deviation, floor=1e-3 * deviation)

    def restart(self, rows: Flags) -> None:
        """Set the moments of these markets back to where they start."""
        self._sharpe.restart(rows)

    def __call__(self, profit: FloatArray, inventory: npt.NDArray[np.int64], ended: Flags) -> FloatArray:
        """How much the profit moves the ratio."""
        return self._sharpe(profit)


def make_reward(
    name: str, *, running_penalty: float, terminal_penalty: float, mean: float, deviation: float
) -> QuotingReward:
    """The reward of that name.

    Args:
        name: "inventory_penalty", "pnl" or "sharpe".
        running_penalty: φ dt of the first, money / lot².
        terminal_penalty: a of the first, money / lot².
        mean: of a step's profit, where the last begins, money.
        deviation: likewise.

    Raises:
        ValueError: no reward has this name.
    """
    if name not in REWARDS:
        raise ValueError(f"`reward` must be one of {list(REWARDS)}, got {name!r}")
    if name == "pnl":
        return Profit()
    if name == "sharpe":
        return SharpeOfProfit(mean, deviation)
    return InventoryPenalty(running_penalty, terminal_penalty)
