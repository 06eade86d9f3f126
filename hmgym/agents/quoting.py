"""Strategies of market makers: what agents are compared with, each with `act(state)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.agents.baselines import Baseline
from hmgym.agents.policy import Actor, Policy
from hmgym.checks import is_finite_number, shown
from hmgym.envs import make_markets
from hmgym.envs.quoting import QuotingState
from hmgym.envs.quoting.model import depth_box
from hmgym.market_making import InventoryHJB, PolicyLaw, QuotingConfig, QuotingSolution, exact_law

FloatArray = npt.NDArray[np.float64]


class Strategy:
    """Depths of bid and ask from what a market maker knows; its actions are the nearest that there are."""

    def depths(self, state: QuotingState) -> tuple[FloatArray, FloatArray]:
        """Depth of the bid below mid and of the ask above it, price, (E,) each; NaN is no quote."""
        raise NotImplementedError

    def act(self, state: QuotingState) -> FloatArray:
        """Actions (E, 2)."""
        return state.depths.from_depths(*self.depths(state))


class TableStrategy(Strategy):
    """Quotes by time and inventory, such as the best ones.

    Args:
        solution: the last of its times that has come holds; inventories beyond its own count as its largest.
    """

    def __init__(self, solution: QuotingSolution) -> None:
        order = np.argsort(solution.times, kind="stable")
        self._times, self._largest = solution.times[order], int(solution.inventory[-1])
        self._bid, self._ask = solution.bid[order], solution.ask[order]
        # A time that is a step too early by rounding is that step's.
        self._slack = 1e-9 * max(float(self._times[-1] - self._times[0]), 1e-300)

    def depths(self, state: QuotingState) -> tuple[FloatArray, FloatArray]:
        """Of the table."""
        row = np.maximum(np.searchsorted(self._times, state.time + self._slack, side="right") - 1, 0)
        column = np.clip(state.inventory, -self._largest, self._largest) + self._largest
        return self._bid[row, column], self._ask[row, column]


class AvellanedaStoikov(Strategy):
    """Quotes about a reservation price: c + ½γσ²τ ± qγσ²τ, τ what is left of the horizon.

    Args:
        model: with the risk aversion γ.
    """

    def __init__(self, model: InventoryHJB) -> None:
        self._model = model

    def depths(self, state: QuotingState) -> tuple[FloatArray, FloatArray]:
        """Wider and more skewed the more time is left."""
        return self._model.reservation_depths(state.inventory, np.maximum(self._model.horizon - state.time, 0.0))


class SymmetricSpread(AvellanedaStoikov):
    """The spread of Avellaneda and Stoikov about mid, whatever the inventory."""

    def depths(self, state: QuotingState) -> tuple[FloatArray, FloatArray]:
        """The mean of both."""
        bid, ask = super().depths(state)
        middle = 0.5 * (bid + ask)
        return middle, middle


class InventoryAware(Strategy):
    """One depth, and a skew in proportion to inventory: δ + s q and δ − s q.

    Args:
        depth: δ, price.
        skew: s, price a lot.

    Raises:
        ValueError: an argument is no finite number.
    """

    def __init__(self, depth: float, skew: float) -> None:
        for name, value in (("depth", depth), ("skew", skew)):
            if not is_finite_number(value):
                raise ValueError(f"`{name}` must be a finite number, got {shown(value)}")
        self._depth, self._skew = float(depth), float(skew)

    def depths(self, state: QuotingState) -> tuple[FloatArray, FloatArray]:
        """The same at all times."""
        skew: FloatArray = np.asarray(self._skew * state.inventory, np.float64)
        return self._depth + skew, self._depth - skew


class ConstantSpread(InventoryAware):
    """One depth on both sides, whatever happens.

    Args:
        depth: price.

    Raises:
        ValueError: `depth` is no finite number.
    """

    def __init__(self, depth: float) -> None:
        super().__init__(depth, 0.0)


def quote_tables(policy: Policy, config: QuotingConfig) -> tuple[FloatArray, FloatArray]:
    """What a policy quotes at every step and inventory of a simulated market: tables for `exact_law`.

    Args:
        policy: of any kind but one with a memory; asked once for every row.
        config: the market.

    Returns:
        bid, ask: depths (steps, 2Q+1), clipped to what an action can say.
    """
    depths, steps = depth_box(config), config.steps
    inventory = np.arange(-config.max_inventory, config.max_inventory + 1)
    step, held = (part.ravel() for part in np.meshgrid(np.arange(steps), inventory, indexing="ij"))
    nothing = np.zeros(step.size)
    state = QuotingState(
        step=step,
        time=np.asarray(step * config.dt, np.float64),
        inventory=held,
        cash=nothing,
        mid=nothing + config.initial_mid,
        depths=depths,
    )
    seen = np.stack([held / config.max_inventory, 1.0 - step / steps], -1).astype(np.float32)
    action = Actor(policy, _Held(state))(seen, np.ones(step.size, np.bool_))
    quoted = depths.to_depths(np.clip(np.asarray(action, np.float64), -1.0, 1.0)).reshape(steps, inventory.size, 2)
    return quoted[..., 0], quoted[..., 1]


def law_of(policy: Policy, config: QuotingConfig) -> PolicyLaw:
    """The exact law of what a policy makes in a simulated market; its `expected_reward` has the penalties.

    Args:
        policy: of any kind but one with a memory.
        config: the market.
    """
    return exact_law(config.problem(), *quote_tables(policy, config), dt=config.dt)


class _Held:
    """A state that is asked for."""

    def __init__(self, state: QuotingState) -> None:
        self.state = state


def strategies_of(model: InventoryHJB, averse: InventoryHJB, steps: int) -> dict[str, Strategy]:
    """The strategies that go with a model, by name.

    Args:
        model: the problem whose solution is the best there is.
        averse: the same market with a risk aversion γ > 0, for those that need one.
        steps: of the horizon.
    """
    solution = model.solve(model.horizon / steps * np.arange(steps))
    gap = averse if averse.curvature > 0.0 else model
    skew = float(np.sqrt(gap.curvature / gap.coupling)) / gap.depth_decay
    return {
        "hjb": TableStrategy(solution),
        "avellaneda_stoikov": AvellanedaStoikov(averse),
        "symmetric": SymmetricSpread(averse),
        "inventory_aware": InventoryAware(1.0 / model.depth_decay, skew),
        "constant": ConstantSpread(1.0 / model.depth_decay),
    }


def quoting_baselines(env_id: str, env_kwargs: Mapping[str, Any]) -> dict[str, Baseline]:
    """The strategies of a simulated market maker's model.

    "hjb" is the best for the reward "inventory_penalty" and for "pnl"; for "sharpe" it is that of the former.
    """
    markets: Any = make_markets(env_id, 1, **env_kwargs)
    config = markets.config
    reward = env_kwargs.get("reward", "inventory_penalty")
    model = config.problem("pnl" if reward == "pnl" else "inventory_penalty")
    found = strategies_of(model, config.problem("utility"), config.steps)
    return {name: Baseline(policy=policy, env_id=env_id, env_kwargs=env_kwargs) for name, policy in found.items()}
