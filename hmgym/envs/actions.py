"""What the numbers of an action mean: from a box of [-1, 1] to leverage limits, beliefs and a scale of risk.

Knows the market's :class:`~hmgym.market.Action` and Gymnasium's boxes; knows no state beyond last prices.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hmgym.arrays import Torch, namespace
from hmgym.envs.boxes import ActionBox
from hmgym.market import Action

LEVERAGE_RANGE = (0.3, 3.0)
"""Smallest and largest ℓ = κ = θ that an action of one leverage axis can set, a multiple of wealth."""
SHORT_LEVERAGE_MAX = 2.0
"""Largest κ that an action of two leverage axes can set, a multiple of wealth."""
LONG_LEVERAGE_MAX = 4.0
"""Largest θ that an action of two leverage axes can set, a multiple of wealth."""
BELIEF_RANGE = 0.25
"""Largest expected log return of one period, of either sign, that an action can set."""
LOG_RISK_RANGE = math.log(2.0)
"""The scale of risk lies between 1/2 and 2."""


LEVERAGE_POINTS = {1: 21, 2: 7}
"""Points of the grid of constants along each leverage axis, by their number."""
BELIEF_POINTS = 21
"""Points of the grid of constants over one expected return for all assets."""
JOINT_LEVERAGE_POINTS, JOINT_BELIEF_POINTS = {1: 7, 2: 4}, 7
"""Coarser grid where an action sets both."""


def long_leverage_min(n_assets: int) -> float:
    """Smallest θ that an action can set: 20 % above 1/(N+1), below which no portfolio is feasible, and at least .4."""
    return max(0.4, 1.2 / (n_assets + 1))


def leverage_range(n_assets: int) -> tuple[float, float]:
    """Smallest and largest ℓ that an action can set: no less than 20 % above 1/(N+1)."""
    low, high = LEVERAGE_RANGE
    return max(low, 1.2 / (n_assets + 1)), high


class ActionMap(ActionBox):
    """The action space of each learner, and its map to natural units.

    An action is the concatenation, in this order, of those parts that the environment offers, each in [-1, 1]:

    ============= ==== ======================================= ==========================================
    part          size natural unit                            map
    ============= ==== ======================================= ==========================================
    leverage      1    ℓ = κ = θ, multiple of wealth           log scale, .3 (at least 1.2/(N+1)) to 3
    beliefs       N    log price expected next period          log p_last + .25 a
    risk          1    factor on the learner's risk matrix     2^a
    ============= ==== ======================================= ==========================================

    With `leverage_axes=2` two parts stand in place of the first: short, κ, affine to [0, 2], and long, θ, affine to
    [max(.4, 1.2/(N+1)), 4]. κ limits borrowing as well as short sales, because cash is a position: θ above 1 matters
    only with κ above 0, which is why one axis is the default.

    Args:
        n_assets: number of assets N.
        leverage: whether the action holds leverage.
        beliefs: whether the action holds expected returns.
        confidence: whether the action also holds the scale of risk; needs `beliefs`.
        leverage_axes: 1 for one limit κ = θ, or 2 for one each.
    """

    def __init__(
        self,
        *,
        n_assets: int,
        leverage: bool = False,
        beliefs: bool = False,
        confidence: bool = False,
        leverage_axes: int = 1,
    ) -> None:
        if leverage_axes not in (1, 2):
            raise ValueError(f"`leverage_axes` must be 1 or 2, got {leverage_axes!r}")
        if not (leverage or beliefs):
            raise ValueError("`leverage` or `beliefs` must be True, got neither")
        if confidence and not beliefs:
            raise ValueError("`confidence` must be False where the action holds no beliefs, got True")
        self.n_assets, self.leverage, self.beliefs, self.confidence = n_assets, leverage, beliefs, confidence
        self.leverage_axes = leverage_axes
        axes = ("leverage",) if leverage_axes == 1 else ("short_leverage", "long_leverage")
        self._first_belief = len(axes) * leverage
        super().__init__(
            axes * leverage + tuple(f"belief_{i}" for i in range(n_assets * beliefs)) + ("risk_scale",) * confidence
        )

    def to_market(self, values: npt.NDArray[np.float64] | Tensor, last_prices: Tensor) -> Action:
        """The action in natural units; gradients flow to `values` and `last_prices` where these require them.

        Args:
            values: checked actions, shape (E, L, size), float64, each in [-1, 1].
            last_prices: prices at the last close, shape (E, N), money; the action is of arrays where they are one.
        """
        if isinstance(values, np.ndarray) and namespace(last_prices) is Torch:
            values = torch.from_numpy(values).to(last_prices.device)
        xp = namespace(values)
        parts: dict[str, Any] = {}
        if self.leverage and self.leverage_axes == 1:
            low, high = (math.log(bound) for bound in leverage_range(self.n_assets))
            level = xp.exp(low + (values[..., 0] + 1.0) * (0.5 * (high - low)))
            parts["short_leverage"] = parts["long_leverage"] = level
        elif self.leverage:
            least = long_leverage_min(self.n_assets)
            parts["short_leverage"] = (values[..., 0] + 1.0) * (0.5 * SHORT_LEVERAGE_MAX)
            parts["long_leverage"] = least + (values[..., 1] + 1.0) * (0.5 * (LONG_LEVERAGE_MAX - least))
        if self.beliefs:
            start, stop = self._first_belief, self._first_belief + self.n_assets
            parts["beliefs"] = xp.log(last_prices)[:, None] + BELIEF_RANGE * values[..., start:stop]
            if self.confidence:
                parts["risk_scale"] = xp.exp(LOG_RISK_RANGE * values[..., stop])
        return Action(**parts)

    def describe(self, action: npt.ArrayLike) -> str:
        """One action in natural units, for tables: ``"κ 0.67, θ 2.2, log return +0.05"``."""
        values = self.check(np.asarray(action)[None], 1)
        natural = self.to_market(values, torch.ones(1, self.n_assets, dtype=torch.float64))
        parts = []
        if natural.short_leverage is not None and natural.long_leverage is not None:
            short, long = natural.short_leverage.item(), natural.long_leverage.item()
            parts.append(f"ℓ {long:.3g}" if self.leverage_axes == 1 else f"κ {short:.3g}, θ {long:.3g}")
        if natural.beliefs is not None:
            returns = natural.beliefs[0, 0].tolist()
            shown = returns[:1] if max(returns) == min(returns) else returns
            parts.append("log return " + " ".join(f"{value:+.3g}" for value in shown))
        if natural.risk_scale is not None:
            parts.append(f"risk × {natural.risk_scale.item():.3g}")
        return ", ".join(parts)

    def grid(self) -> npt.NDArray[np.float64]:
        """Constants over the whole box, shape (G, size): 21 of leverage, 21 common expected returns, fewer of both.

        The scale of risk, where an action holds it, stays at 1.
        """
        both = self.leverage and self.beliefs
        limits = np.linspace(-1.0, 1.0, (JOINT_LEVERAGE_POINTS if both else LEVERAGE_POINTS)[self.leverage_axes])
        beliefs = np.linspace(-1.0, 1.0, JOINT_BELIEF_POINTS if both else BELIEF_POINTS)
        first = self._first_belief
        axes = [limits] * first + [beliefs] * self.beliefs
        rows = []
        for chosen in itertools.product(*axes):
            row = np.zeros(self.size)
            row[:first] = chosen[:first]
            if self.beliefs:
                row[first : first + self.n_assets] = chosen[-1]
            rows.append(row)
        return np.array(rows)

    def from_leverage(self, short_leverage: float, long_leverage: float) -> npt.NDArray[np.float32]:
        """The action that sets these limits and, where it also sets beliefs, expects no return.

        Raises:
            ValueError: the action sets no leverage, a limit lies outside the box, or one axis is asked for two values.
        """
        if not self.leverage:
            raise ValueError("`from_leverage` needs an environment whose action sets leverage")
        if self.leverage_axes == 1:
            low, high = leverage_range(self.n_assets)
            if short_leverage != long_leverage:
                raise ValueError(
                    "`short_leverage` must be `long_leverage` where they are one axis (`leverage_axes=2` has two), "
                    f"got {short_leverage} and {long_leverage}"
                )
            if not low <= long_leverage <= high:
                raise ValueError(f"`long_leverage` must lie in [{low:.3g}, {high}], got {long_leverage}")
            action = np.zeros(self.size, np.float32)
            action[0] = 2.0 * math.log(long_leverage / low) / math.log(high / low) - 1.0
            return action
        low = long_leverage_min(self.n_assets)
        if not 0.0 <= short_leverage <= SHORT_LEVERAGE_MAX:
            raise ValueError(f"`short_leverage` must lie in [0, {SHORT_LEVERAGE_MAX}], got {short_leverage}")
        if not low <= long_leverage <= LONG_LEVERAGE_MAX:
            raise ValueError(f"`long_leverage` must lie in [{low:.3g}, {LONG_LEVERAGE_MAX}], got {long_leverage}")
        action = np.zeros(self.size, np.float32)
        action[0] = 2.0 * short_leverage / SHORT_LEVERAGE_MAX - 1.0
        action[1] = 2.0 * (long_leverage - low) / (LONG_LEVERAGE_MAX - low) - 1.0
        return action
