"""E markets side by side behind one numpy face: the single dynamics of every environment.

The single environment is a batch of one market, the vector environment and the stable-baselines3 adapter are batches
of many. Nothing here knows about episodes, horizons or autoreset.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hmgym.arrays import Numpy, namespace, to_numpy, to_torch
from hmgym.envs.actions import ActionMap
from hmgym.envs.history import History
from hmgym.envs.observation import ObservationMap
from hmgym.envs.protocol import Flags, FloatArray, Infos, Observations, Simulator, StepResult
from hmgym.envs.rewards import Reward, RewardFunction, make_reward
from hmgym.envs.series import EpisodeSeries
from hmgym.envs.shock_stream import ShockStream
from hmgym.market import Action, Market, MarketConfig, MarketState, Outcome, Shocks
from hmgym.market.registry import numpy_ready

SHOCK_PERIODS = 30
"""Periods of shocks that each market draws at a time; part of what a seed means."""


class MarketBatch(Simulator):
    """E markets with L >= 1 learners each, stepped together; a market never depends on the other markets.

    Args:
        config: the economy.
        action_map: what an action sets.
        reward: a name or a function, see :mod:`hmgym.envs.rewards`.
        num_markets: number of markets E.
        record: whether to keep the history that a frame shows.
        amplification: whether `infos` hold the gradient amplification.
        hidden_regime: whether observations leave out the signal's regime.
    """

    def __init__(
        self,
        config: MarketConfig,
        action_map: ActionMap,
        reward: str | RewardFunction,
        num_markets: int,
        record: bool = False,
        amplification: bool = False,
        hidden_regime: bool = False,
    ) -> None:
        if config.n_learners < 1:
            raise ValueError(f"`config.n_learners` must be >= 1 in an environment, got {config.n_learners}")
        if config.n_assets != action_map.n_assets:
            raise ValueError(f"`action_map` is for {action_map.n_assets} assets, `config` has {config.n_assets}")
        self.config = config
        self.market = Market(config)
        # The same market in numpy, which a step is cheaper in; the one in tensors has the gradients.
        self._runs = Market(config, arrays="numpy") if numpy_ready(config) else self.market
        self.action_map = action_map
        self.observation_map = ObservationMap(config, hidden_regime)
        self.reward: Reward = make_reward(reward)
        self.num_markets, self.n_learners = num_markets, config.n_learners
        self.history: History | None = None
        if record:
            self.history = History(num_markets, partial(EpisodeSeries, assets=config.selected_history.assets))
        self.amplification = amplification
        self._shocks = ShockStream(self._runs, SHOCK_PERIODS)
        self._memory = self._runs.memory()
        self._state: MarketState | None = None
        self._outcome: Outcome | None = None
        self._just_reset = np.ones((num_markets, config.n_learners), np.bool_)
        self._not_cleared: Flags | None = None  # in the last period; None where all cleared
        self._newcomers: Flags | None = None
        self._last_period: tuple[MarketState, Action, Shocks] | None = None
        self._last_values: tuple[FloatArray, Flags | None] | None = None
        self._last_amplification: FloatArray | None = None

    @property
    def started(self) -> bool:
        """Whether there is a state."""
        return self._state is not None

    @property
    def state(self) -> MarketState:
        """A copy of the state of all markets at the start of the current period.

        Raises:
            RuntimeError: no market was reset yet.
        """
        return self._current.clone().as_tensors()

    @property
    def _current(self) -> MarketState:
        if self._state is None:
            raise RuntimeError("call `reset` before `step`")
        return self._state

    def reset(self, rows: npt.NDArray[np.int64], generators: list[np.random.Generator]) -> None:
        """Begin a new episode in the given markets, each drawn from its own entry of `generators` (all E of them)."""
        with torch.inference_mode():
            chosen = [generators[row] for row in rows]
            fresh = self._runs.initial(self._runs.draw_initial_shocks(chosen))
            if rows.size == self.num_markets:
                self._state = fresh
            else:
                self._state = self._current.with_rows(self._index(rows), fresh)
        if self._memory is not None:
            self._memory.forget(rows)
        starting = np.zeros_like(self._just_reset)
        starting[rows] = True
        self._just_reset |= starting
        self._shocks.restart(rows, self.num_markets)
        self.reward.restart(starting)
        if self.history is not None:
            self.history.restart(rows, EpisodeSeries.snapshot(self._current))

    def seat_newcomers(self, seats: Flags) -> None:
        """Begin a new episode for learners whose fund was ruined in the last period, in the market that goes on.

        The newcomers take their seats as the next period begins; until then `observe` and `infos` show them as they
        will be then.

        Args:
            seats: shape (E, L), of ruined learners only.
        """
        self._newcomers = seats
        self._just_reset |= seats
        self.reward.restart(seats)

    def step(
        self,
        action: FloatArray,
        generators: list[np.random.Generator],
        frozen: Flags | None = None,
        acting: Flags | None = None,
    ) -> StepResult:
        """Run one period in every market; nothing has changed where this raises.

        A market that does not clear stays as it was, its shocks used, and is named in the result.

        Args:
            action: checked actions in [-1, 1], shape (E, L, size).
            generators: one a market.
            frozen: shape (E,), markets that wait for a reset; they draw nothing and return 0 and False.
            acting: shape (E, L), the learners whose action counts; the others do as their own limits and beliefs say.

        Raises:
            ValueError: the reward of a market that is not frozen and cleared is not finite.
        """
        previous = self._current
        with self._without_gradients():
            shocks = self._shocks.next(generators, frozen)
            market_action = self._market_action(action, previous, acting)
            state, outcome = self._runs.transition(previous, market_action, shocks, errors="mark", memory=self._memory)
        cleared = to_numpy(outcome.converged)
        everywhere = bool(cleared.all())
        if not everywhere:
            stuck = self._index(np.flatnonzero(~cleared))
            with self._without_gradients():
                state = state.with_rows(stuck, previous.select(stuck))
        reward, ruined = self.reward(previous, outcome, state), np.array(to_numpy(outcome.ruined))
        idle = frozen
        if not everywhere:
            idle = ~cleared if frozen is None else ~cleared | frozen
        if idle is not None:
            reward[idle], ruined[idle] = 0.0, False
        if not np.isfinite(reward).all():
            shown = reward[:, 0] if reward.shape[1] == 1 else reward
            raise ValueError(f"`reward` must be finite in every market, got {shown}")
        # From here on nothing fails: what the period brought is taken over as a whole.
        self._shocks.advance(frozen)
        self._state, self._outcome = state, outcome
        self._last_period = (previous, market_action, shocks)
        if self.amplification:
            self._last_values, self._last_amplification = (action, acting), None
        self._just_reset[:] = False
        self._newcomers = None
        if self.history is not None:
            self.history.append(EpisodeSeries.snapshot(state))
        if everywhere:
            self._not_cleared = None
            return StepResult(reward, ruined)
        self._not_cleared = ~cleared if frozen is None else ~cleared & ~frozen
        failed = {
            int(row): f"the market did not clear (residual {float(outcome.residual[row]):.3g})"
            for row in np.flatnonzero(self._not_cleared)
        }
        return StepResult(reward, ruined, failed)

    def closing_measures(self) -> dict[str, FloatArray]:
        """What a last trade did to its own mark, see `terminal_mark_gain`."""
        return {"terminal_mark_gain": self.terminal_mark_gain()} if self.market.marks_by_clearing else {}

    def terminal_mark_gain(self) -> FloatArray:
        """What each learner's mark gained from its own trade of the last step, (E, L), in log unit value.

        Wealth is marked at prices that the learner moved: a last trade can inflate a sum of rewards by this much. It is
        0 where the market did not clear.

        Raises:
            RuntimeError: no step was taken yet.
        """
        if self._last_period is None:
            raise RuntimeError("call `step` before `terminal_mark_gain`")
        with torch.inference_mode():
            gain: FloatArray = np.array(to_numpy(self._runs.terminal_mark_gain(*self._last_period)))
        if self._not_cleared is not None:
            gain[self._not_cleared] = 0.0
        return gain

    def gradient_amplification(self) -> FloatArray:
        """How strongly each learner's action moved log prices in the last step: shape (E, L).

        The Frobenius norm of ∂u/∂a, u the N log prices of the clearing and a the entries of the learner's action in
        [-1, 1] as they were applied (clipped), by N backward passes through a second clearing.

        Raises:
            RuntimeError: no step was taken yet, or the batch was made without `amplification`.
        """
        if self._last_period is None or self._last_values is None:
            raise RuntimeError("call `step` of a batch made with `amplification=True` before `gradient_amplification`")
        if self._last_amplification is None:
            (previous, _, shocks), (values, acting) = self._last_period, self._last_values
            with torch.inference_mode(False), torch.enable_grad():
                state, given = previous.clone().as_tensors(), torch.from_numpy(values).clone().requires_grad_()
                shocks = shocks.map(to_torch)
                log_prices = self.market.log_prices(state, self._market_action(given, state, acting), shocks)
                squares = torch.zeros(given.shape[:2], dtype=torch.float64)
                for asset in range(self.config.n_assets):
                    (slope,) = torch.autograd.grad(log_prices[:, asset].sum(), given, retain_graph=True)
                    squares += (slope * slope).sum(-1)
            self._last_amplification = squares.sqrt().numpy()
        return self._last_amplification.copy()

    def observe(self) -> Observations:
        """What each learner knows before it acts, shape (E, L, size of one observation)."""
        state = self._current
        observation = self.observation_map(state)
        if self._newcomers is not None:
            observation[self._newcomers] = self.observation_map(self._runs.seated(state))[self._newcomers]
        return observation

    def infos(self) -> Infos:
        """Arrays of what else is known, a row a learner: leading dimension E·L, learners of a market together; fresh.

        What belongs to the market (prices, residual, iterations) is the same in the rows of all its learners.
        `not_cleared` is there where a market did not clear in the last period, and true for that market.
        """
        state, outcome, n = self._current, self._outcome, self.n_learners
        infos: Infos = {
            "prices": to_numpy(state.prices).repeat(n, 0),
            "holdings": _rows(state.holdings, n),
            "unit_value": _rows(state.unit_value, n),
            "wealth": _rows(state.wealth, n),
        }
        if self._newcomers is not None:
            seated, newcomers = self._runs.seated(state), self._newcomers.ravel()
            for name in ("holdings", "unit_value", "wealth"):
                infos[name][newcomers] = _rows(getattr(seated, name), n)[newcomers]
        pooled = self.config.price_mechanism == "pools"
        if outcome is None:
            count = self.num_markets * n
            if pooled:
                infos["pool_loss"] = np.zeros(count)
            infos["residual"] = np.zeros(count)
            infos["iterations"] = np.zeros(count, np.int64)
            infos["active_limits"] = np.zeros((count, self.config.n_assets + 1), np.int8)
            if self.amplification:
                infos["gradient_amplification"] = np.zeros(count)
            return infos
        infos["residual"] = to_numpy(outcome.residual).repeat(n)
        infos["iterations"] = to_numpy(outcome.iterations).astype(np.int64).repeat(n)
        infos["active_limits"] = _rows(outcome.active_limits, n)
        if pooled and outcome.trade.solution is not None and outcome.trade.solution.pool_loss is not None:
            infos["pool_loss"] = np.array(to_numpy(outcome.trade.solution.pool_loss.sum(-1))).repeat(n)
        if self.amplification:
            infos["gradient_amplification"] = self.gradient_amplification().ravel()
        if self._not_cleared is not None:
            stuck = self._not_cleared.repeat(n) & ~self._just_reset.ravel()
            if stuck.any():
                infos["not_cleared"] = stuck
        if self._just_reset.any():  # these learners have not traded in this episode
            for name in ("residual", "iterations", "active_limits", "pool_loss", "gradient_amplification"):
                if name in infos:
                    infos[name][self._just_reset.ravel()] = 0
        return infos

    def _market_action(self, values: FloatArray | torch.Tensor, state: MarketState, acting: Flags | None) -> Action:
        action = self.action_map.to_market(values, state.prices)
        if acting is None or acting.all():
            return action
        market = self._runs if namespace(state.prices) is Numpy else self.market
        return _chosen(acting, action, market.own_action(state))

    def _without_gradients(self) -> AbstractContextManager[None]:
        return nullcontext() if self._runs.arrays == "numpy" else torch.inference_mode()

    def _index(self, rows: npt.NDArray[np.int64]) -> Any:
        """Rows as the states of this batch are indexed."""
        return rows if self._runs.arrays == "numpy" else torch.from_numpy(rows)


def _rows(of_seats: torch.Tensor, n_learners: int) -> npt.NDArray[Any]:
    """A fresh array (E·L, ...) of the first L seats (E, B, ...)."""
    rows: npt.NDArray[Any] = np.array(to_numpy(of_seats)[:, :n_learners])
    return rows.reshape(-1, *rows.shape[2:])


def _chosen(chosen: Flags, action: Action, otherwise: Action) -> Action:
    """`action` for the chosen learners (E, L), `otherwise` for the others; parts that `action` leaves out stay out."""
    parts: dict[str, torch.Tensor] = {}
    for part in fields(Action):
        value = getattr(action, part.name)
        if value is not None:
            xp, own = namespace(value), getattr(otherwise, part.name)
            if own.ndim > value.ndim:  # one limit a position
                value = xp.spread(value, own.shape[-1])
            mask: Any = chosen.reshape(*chosen.shape, *[1] * (value.ndim - 2))
            if xp is not Numpy:
                mask = torch.from_numpy(mask).to(value.device)
            parts[part.name] = xp.where(mask, value, own)
    return Action(**parts)
