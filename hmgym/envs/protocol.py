"""What a simulator has, so that every face fits it: environments, adapter, evaluation, baselines and reports.

A simulator is a batch of E markets that run side by side, each with L >= 1 learners. It knows dynamics; episodes,
horizons and autoreset belong to the faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hmgym.envs.boxes import ActionBox, ObservationBox
from hmgym.envs.history import History

FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Observations = npt.NDArray[np.float32]
Infos = dict[str, npt.NDArray[Any]]

_NOTHING: Mapping[int, str] = MappingProxyType({})


class StepResult(NamedTuple):
    """What one period brought.

    Attributes:
        reward: shape (E, L), finite.
        terminated: shape (E, L), learners whose episode has come to an end of its own, ruin for one.
        failed: why the period of a market could not be run, by its index. It is as it was before the period, with
            reward 0, and the faces truncate its episode.
    """

    reward: FloatArray
    terminated: Flags
    failed: Mapping[int, str] = _NOTHING


class Simulator(Protocol):
    """E markets with L learners each; a class that inherits from it gets what it leaves out.

    A market draws from its own generator alone and never depends on the others, so that row i of a batch seeded s is
    the single environment seeded s + i. All returned arrays are fresh.

    Attributes:
        num_markets: E.
        action_map: names and space of one learner's action.
        observation_map: names and space of one learner's observation.
        n_learners: L.
        history: series of the running episodes, where these are recorded, to render and to plot; else None.
    """

    num_markets: int
    action_map: ActionBox
    observation_map: ObservationBox
    n_learners: int = 1
    history: History | None = None

    @property
    def started(self) -> bool:
        """Whether every market was reset at least once."""

    @property
    def state(self) -> Any:
        """A copy of the state of all markets, for those who plan from it.

        Raises:
            RuntimeError: no market was reset yet.
        """

    def reset(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> None:
        """Begin a new episode in the given markets; `generators` has one for each of all E markets."""

    def step(
        self,
        action: FloatArray,
        generators: list[np.random.Generator],
        frozen: Flags | None = None,
        acting: Flags | None = None,
    ) -> StepResult:
        """Run one period in every market; where this raises, nothing has changed.

        Args:
            action: shape (E, L, size), checked by `action_map`.
            generators: one a market.
            frozen: shape (E,), markets that wait for a reset: they draw nothing and bring 0 and False.
            acting: shape (E, L), learners whose action counts, where some have left a market that goes on; None is all.
        """

    def observe(self) -> Observations:
        """What each learner knows before it acts, shape (E, L, size)."""

    def infos(self) -> Infos:
        """What else is known, by name, a row a learner: leading dimension E·L, learners of a market together."""

    def seat_newcomers(self, seats: Flags) -> None:
        """Begin a new episode for terminated learners (E, L) whose market goes on; only where L > 1."""
        missing = "learners of a market that goes on have no newcomers here"
        raise NotImplementedError(missing)

    def closing_measures(self) -> Mapping[str, FloatArray]:
        """What is worth reporting of learners whose episode is truncated now, by name, each (E, L)."""
        return {}
