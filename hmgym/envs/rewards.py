"""Rewards of one period: by name, or any function of the states before and after.

The default, the change of log unit value, sums over an episode to the log of the final unit value. A user's reward is
a function ``reward(previous, outcome, state)`` that returns one number a market, or, where a market has several
learners, one for each of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hmgym.arrays import to_numpy
from hmgym.market import MarketState, Outcome

RewardFunction = Callable[[MarketState, Outcome, MarketState], Any]
"""``reward(previous, outcome, state)`` → numbers of shape (E,) with one learner, (E, L) with L of them."""


class Reward(Protocol):
    """A reward with memory; `restart` begins new episodes."""

    def restart(self, starting: npt.NDArray[np.bool_]) -> None:
        """Forget the past of the learners that `starting`, shape (E, L), is true for; called before the first step."""

    def __call__(self, previous: MarketState, outcome: Outcome, state: MarketState) -> npt.NDArray[np.float64]:
        """Reward of one period for every learner, shape (E, L), a fresh array."""


class LogUnitValue:
    """Change of the log of the learner's unit value: ``log u_t − log u_{t−1}``."""

    def restart(self, starting: npt.NDArray[np.bool_]) -> None:
        """Nothing to forget."""

    def __call__(self, previous: MarketState, outcome: Outcome, state: MarketState) -> npt.NDArray[np.float64]:
        """The learner's reward as the market settles it."""
        growth: npt.NDArray[np.float64] = np.array(to_numpy(outcome.reward))
        return growth


class ExcessReturn(LogUnitValue):
    """Change of log unit value less the log return of the market portfolio: ``Δ log u − log Σ S p_t / Σ S p_{t−1}``.

    Dividends are left out of the market's return, so holding the market earns its dividends.
    """

    def __call__(self, previous: MarketState, outcome: Outcome, state: MarketState) -> npt.NDArray[np.float64]:
        """The learner's log return over that of all shares."""
        supply = to_numpy(previous.supply)
        after, before = ((supply * to_numpy(one.prices)).sum(-1) for one in (state, previous))
        growth: npt.NDArray[np.float64] = super().__call__(previous, outcome, state) - np.log(after / before)[:, None]
        return growth


class OverActiveFunds(LogUnitValue):
    """Change of log unit value less the mean over the other active funds: ``Δ log u − mean Δ log u_f``.

    Only where there are such funds: ``scenario="active-passive"``.
    """

    def __call__(self, previous: MarketState, outcome: Outcome, state: MarketState) -> npt.NDArray[np.float64]:
        """The learner's log return over that of the average active fund, fees paid by all.

        Raises:
            ValueError: the market has no other active funds.
        """
        growth = super().__call__(previous, outcome, state)
        learners, managers = growth.shape[1], getattr(state.scenario, "managers", 0)
        if managers <= learners:
            raise ValueError('`reward` must be another than "over_active_funds" where there are no other active funds')
        after, before = (to_numpy(one.scenario.unit_value)[:, learners:managers] for one in (state, previous))
        growth -= np.log(after / before).mean(1, keepdims=True)
        return growth


class MovingSharpe:
    """How much a period's return moves an exponentially weighted Sharpe ratio.

    With A and B the moving first and second moments of the return R, adapted at rate η,
    ``D = (B ΔA − A ΔB / 2) / (B − A²)^{3/2}``, ``ΔA = R − A``, ``ΔB = R² − B``.

    Source: Moody and Saffell (2001), Learning to trade via direct reinforcement, eq. 14.

    Args:
        rate: η a period, in (0, 1).
        mean: of returns, where the moments start, so that D is finite from the first period.
        deviation: likewise.
        floor: of the moving standard deviation.
    """

    def __init__(self, rate: float, mean: float, deviation: float, floor: float) -> None:
        self._rate, self._start = rate, (mean, deviation**2 + mean**2)
        self._variance_floor = floor**2
        self.first, self.second = np.zeros(0), np.zeros(0)

    def restart(self, starting: npt.NDArray[np.bool_]) -> None:
        """Set the moments of these entries back to where they start."""
        if self.first.shape != starting.shape:
            self.first, self.second = np.zeros(starting.shape), np.zeros(starting.shape)
        self.first[starting], self.second[starting] = self._start

    def __call__(self, returns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """D of this period, then move the moments."""
        to_first, to_second = returns - self.first, returns * returns - self.second
        variance = np.maximum(self.second - self.first * self.first, self._variance_floor)
        value: npt.NDArray[np.float64] = (self.second * to_first - 0.5 * self.first * to_second) / (
            variance * np.sqrt(variance)
        )
        self.first = self.first + self._rate * to_first
        self.second = self.second + self._rate * to_second
        return value


class DifferentialSharpe(LogUnitValue):
    """Differential Sharpe ratio of log returns, see :class:`MovingSharpe`.

    Moments start from a monthly log return of .5 % with volatility 7 %.

    Args:
        adaptation_rate: η a period, in (0, 1).
    """

    MEAN, DEVIATION = 0.005, 0.07
    _FLOOR = 0.001

    def __init__(self, adaptation_rate: float = 1.0 / 24.0) -> None:
        if not 0.0 < adaptation_rate < 1.0:
            raise ValueError(f"`adaptation_rate` must lie in (0, 1), got {adaptation_rate}")
        self.sharpe = MovingSharpe(adaptation_rate, self.MEAN, self.DEVIATION, self._FLOOR)

    def restart(self, starting: npt.NDArray[np.bool_]) -> None:
        """Set the moments of these learners back to where they start."""
        self.sharpe.restart(starting)

    def __call__(self, previous: MarketState, outcome: Outcome, state: MarketState) -> npt.NDArray[np.float64]:
        """D of this period, then move the moments."""
        return self.sharpe(super().__call__(previous, outcome, state))


class _UserReward:
    """A user's function, the shape of its result checked each time."""

    def __init__(self, function: RewardFunction) -> None:
        self._function = function

    def restart(self, starting: npt.NDArray[np.bool_]) -> None:
        pass

    def __call__(self, previous: MarketState, outcome: Outcome, state: MarketState) -> npt.NDArray[np.float64]:
        returned = self._function(previous.as_tensors(), outcome.as_tensors(), state.as_tensors())
        if isinstance(returned, torch.Tensor):
            returned = returned.detach().numpy()
        values = np.array(returned, dtype=np.float64)
        full = tuple(outcome.reward.shape)
        expected = full[:1] if full[1] == 1 else full
        if values.shape != expected:
            raise ValueError(f"`reward` must return numbers of shape {expected}, got shape {values.shape}")
        return values.reshape(full)


REWARDS: dict[str, Callable[[], Reward]] = {
    "log_unit_value": LogUnitValue,
    "excess_return": ExcessReturn,
    "over_active_funds": OverActiveFunds,
    "differential_sharpe": DifferentialSharpe,
}
"""Rewards that have a name."""


def make_reward(reward: str | RewardFunction | Reward) -> Reward:
    """The reward of that name, or the given function checked at every call.

    Raises:
        ValueError: no reward has this name, or `reward` cannot be called.
    """
    if isinstance(reward, str):
        if reward not in REWARDS:
            raise ValueError(f"`reward` must be one of {sorted(REWARDS)} or a function, got {reward!r}")
        return REWARDS[reward]()
    if not callable(reward) or isinstance(reward, type):
        raise ValueError(f"`reward` must be one of {sorted(REWARDS)} or a function, got {reward!r}")
    if hasattr(reward, "restart"):
        return copy.deepcopy(reward)  # type: ignore[return-value]  # its memory belongs to one environment
    return _UserReward(reward)
