"""What a policy is: anything that can be asked for actions, by observation or by the market's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hmgym.market import MarketState

Observations = npt.NDArray[np.float32]
Actions = npt.NDArray[Any]

PolicyFunction = Callable[[Observations], Actions]
"""From observations (E, size) to actions (E, size of one action), each in [-1, 1]."""


class Predictor(Protocol):
    """A policy with the `predict` of stable-baselines3, whose own models are such policies too."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        """Actions (E, size of one action) for observations (E, size), and a state that is None."""


class Planner(Protocol):
    """A policy that plans from the market's state rather than from what the learner observes."""

    def act(self, state: MarketState) -> Actions:
        """Actions (E, size of one action) for E markets."""


Policy = PolicyFunction | Predictor | Planner


class HasState(Protocol):
    """Markets that can be asked for their state."""

    @property
    def state(self) -> MarketState:
        """A copy of the state of all markets, leading dimension E."""


def actions_of(policy: Policy, observation: Observations, markets: HasState) -> Actions:
    """What a policy of any kind does now; `predict` is asked for the deterministic action.

    Args:
        policy: of any kind.
        observation: shape (E, size).
        markets: that were observed; a policy that plans gets their state.

    Raises:
        ValueError: `policy` is none.
    """
    if hasattr(policy, "act"):
        planned: Actions = policy.act(markets.state)
        return planned
    if hasattr(policy, "predict"):
        predicted: Actions = policy.predict(observation, deterministic=True)[0]
        return predicted
    if callable(policy):
        return policy(observation)
    raise ValueError(f"`policy` must have `predict` or `act` or be a function, got {type(policy).__name__}")
