"""E markets side by side behind one numpy face: the single dynamics of every environment.

The single environment is a batch of one market, the vector environment and the stable-baselines3 adapter are batches
of many. Nothing here knows about episodes, horizons or autoreset.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmgym.clearing import ClearingError
from hmgym.envs.actions import ActionMap
from hmgym.envs.history import History
from hmgym.envs.observation import ObservationMap
from hmgym.envs.rewards import Reward, RewardFunction, make_reward
from hmgym.envs.shock_stream import ShockStream
from hmgym.market import Action, Market, MarketConfig, MarketState, Outcome, Shocks

SHOCK_PERIODS = 30
"""Periods of shocks that each market draws at a time; part of what a seed means."""

Infos = dict[str, npt.NDArray[Any]]


class MarketBatch:
    """E markets with one learner each, stepped together; row i never depends on the other rows.

    Args:
        config: the economy; must have one learner.
        action_map: what an action sets.
        reward: a name or a function, see :mod:`hmgym.envs.rewards`.
        num_markets: number of markets E.
        record: whether to keep the history that a frame shows.
    """

    def __init__(
        self,
        config: MarketConfig,
        action_map: ActionMap,
        reward: str | RewardFunction,
        num_markets: int,
        record: bool = False,
    ) -> None:
        if config.n_learners != 1:
            raise ValueError(f"`config.n_learners` must be 1 in this environment, got {config.n_learners}")
        if config.n_assets != action_map.n_assets:
            raise ValueError(f"`action_map` is for {action_map.n_assets} assets, `config` has {config.n_assets}")
        self.config = config
        self.market = Market(config)
        self.action_map = action_map
        self.observation_map = ObservationMap(config)
        self.reward: Reward = make_reward(reward)
        self.num_markets = num_markets
        self.history: History | None = History(num_markets) if record else None
        self._shocks = ShockStream(self.market, SHOCK_PERIODS)
        self._state: MarketState | None = None
        self._outcome: Outcome | None = None
        self._just_reset = np.ones(num_markets, np.bool_)
        self._last_period: tuple[MarketState, Action, Shocks] | None = None

    @property
    def started(self) -> bool:
        """Whether there is a state."""
        return self._state is not None

    @property
    def state(self) -> MarketState:
        """State of all markets at the start of the current period.

        Raises:
            RuntimeError: no market was reset yet.
        """
        if self._state is None:
            raise RuntimeError("call `reset` before `step`")
        return self._state

    def reset(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> None:
        """Begin a new episode in the given markets, each drawn from its own entry of `generators` (all E of them)."""
        with torch.inference_mode():
            chosen = [generators[row] for row in rows]
            fresh = self.market.initial(self.market.draw_initial_shocks(chosen))
            if rows.size == self.num_markets:
                self._state = fresh
            else:
                self._state = self.state.with_rows(torch.from_numpy(rows), fresh)
        self._just_reset[rows] = True
        self._shocks.restart(rows, self.num_markets)
        self.reward.restart(rows, self.num_markets)
        if self.history is not None:
            self.history.restart(rows, self.state)

    def step(
        self,
        action: npt.NDArray[np.float64],
        generators: list[np.random.Generator],
        frozen: npt.NDArray[np.bool_] | None = None,
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
        """Run one period in every market and return reward and ruin, both of shape (E,).

        Args:
            action: checked actions in [-1, 1], shape (E, size).
            generators: one a market.
            frozen: markets that wait for a reset; they draw nothing and return 0 and False.

        Raises:
            ClearingError: a market that is not frozen did not clear.
            ValueError: the reward of a market that is not frozen is not finite.
        """
        previous = self.state
        with torch.inference_mode():
            shocks = self._shocks.next(generators, frozen)
            market_action = self.action_map.to_market(action, previous.prices)
            state, outcome = self.market.transition(previous, market_action, shocks, errors="mark")
        cleared = outcome.converged.numpy() if frozen is None else outcome.converged.numpy() | frozen
        if not cleared.all():
            failed = {int(row): f"residual {float(outcome.residual[row]):.3g}" for row in np.flatnonzero(~cleared)}
            raise ClearingError(failed, outcome.solution, self.num_markets)
        self._state, self._outcome = state, outcome
        self._last_period = (previous, market_action, shocks)
        self._just_reset[:] = False
        if self.history is not None:
            self.history.append(state)
        reward, ruined = self.reward(previous, outcome, state), outcome.ruined[:, 0].numpy().copy()
        if frozen is not None:
            reward[frozen], ruined[frozen] = 0.0, False
        if not np.isfinite(reward).all():
            raise ValueError(f"`reward` must be finite in every market, got {reward}")
        return reward, ruined

    def terminal_mark_gain(self) -> npt.NDArray[np.float64]:
        """What each learner's mark gained from its own trade of the last step, (E,), in log unit value.

        Raises:
            RuntimeError: no step was taken yet.
        """
        if self._last_period is None:
            raise RuntimeError("call `step` before `terminal_mark_gain`")
        with torch.inference_mode():
            gain: npt.NDArray[np.float64] = self.market.terminal_mark_gain(*self._last_period)[:, 0].numpy()
        return gain

    def observe(self) -> npt.NDArray[np.float32]:
        """What each learner knows before it acts, shape (E, size of one observation)."""
        return self.observation_map(self.state)

    def infos(self) -> Infos:
        """Arrays of what else is known of every market; each entry has leading dimension E and is fresh."""
        state, outcome = self.state, self._outcome
        infos: Infos = {
            "prices": state.prices.numpy().copy(),
            "holdings": state.holdings[:, 0].numpy().copy(),
            "unit_value": state.unit_value[:, 0].numpy().copy(),
            "wealth": state.wealth[:, 0].numpy().copy(),
        }
        if outcome is None:
            infos["residual"] = np.zeros(self.num_markets)
            infos["iterations"] = np.zeros(self.num_markets, np.int64)
            infos["active_limits"] = np.zeros((self.num_markets, self.config.n_assets + 1), np.int8)
            return infos
        infos["residual"] = outcome.residual.numpy().copy()
        infos["iterations"] = outcome.iterations.numpy().astype(np.int64)
        infos["active_limits"] = outcome.active_limits[:, 0].numpy().astype(np.int8)
        if self._just_reset.any():  # these markets have not cleared in this episode
            for name in ("residual", "iterations", "active_limits"):
                infos[name][self._just_reset] = 0
        return infos
