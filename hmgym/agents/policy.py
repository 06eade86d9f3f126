"""What a policy is: anything that can be asked for actions, by observation or by the market's state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Observations = npt.NDArray[np.float32]
Actions = npt.NDArray[Any]

PolicyFunction = Callable[[Observations], Actions]
"""From observations (E, size) to actions (E, size of one action), each in [-1, 1]."""


class Predictor(Protocol):
    """A policy with the `predict` of stable-baselines3, whose own models are such policies too."""

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> Any:
        """Actions (E, size of one action) for observations (E, size), and the state of a recurrent policy, else None.

        Args:
            observation: shape (E, size).
            state: what the last call returned; None at the first.
            episode_start: shape (E,) bool, rows whose episode begins with this observation.
            deterministic: whether to leave out exploration.
        """


class Planner(Protocol):
    """A policy that plans from the market's state rather than from what the learner observes."""

    def act(self, state: Any) -> Actions:
        """Actions (E, size of one action) for E markets."""


Policy = PolicyFunction | Predictor | Planner


class HasState(Protocol):
    """Markets that can be asked for their state."""

    @property
    def state(self) -> Any:
        """A copy of the state of all markets, leading dimension E."""


class Actor:
    """A policy of any kind at work in some markets, with the memory of a recurrent one.

    Args:
        policy: of any kind.
        markets: that are observed; a policy that plans gets their state.

    Raises:
        ValueError: `policy` is none.
    """

    def __init__(self, policy: Policy, markets: HasState) -> None:
        if not (hasattr(policy, "act") or hasattr(policy, "predict") or callable(policy)):
            raise ValueError(f"`policy` must have `predict` or `act` or be a function, got {type(policy).__name__}")
        self._policy: Any = policy
        self._markets = markets
        self._memory: Any = None

    def __call__(self, observation: Observations, starting: npt.NDArray[np.bool_]) -> Actions:
        """What the policy does now; `predict` is asked for the deterministic action.

        Args:
            observation: shape (E, size).
            starting: shape (E,), rows whose episode begins with this observation.
        """
        policy = self._policy
        actions: Actions
        if hasattr(policy, "act"):
            actions = policy.act(self._markets.state)
        elif hasattr(policy, "predict"):
            actions, self._memory = policy.predict(
                observation, state=self._memory, episode_start=starting, deterministic=True
            )
        else:
            actions = policy(observation)
        return actions
