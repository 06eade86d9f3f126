"""The PettingZoo environment: several learners who act at once in one market. Needs the `multi` extra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import seeding

from hmgym.checks import integer_or_none
from hmgym.data import PriceHistory
from hmgym.envs.face import BatchFace, check_options
from hmgym.envs.markets import MarketFace
from hmgym.envs.protocol import Simulator
from hmgym.envs.registration import CONTROLS, MAX_EPISODE_STEPS
from hmgym.envs.rendering import RENDER_FPS, RENDER_MODES
from hmgym.envs.rewards import RewardFunction
from hmgym.envs.setup import make_batch
from hmgym.market import MarketConfig
from hmgym.market.pooled import PoolInvestor

try:
    from pettingzoo import ParallelEnv
except ImportError as error:
    raise ImportError('several learners need PettingZoo: pip install "hmgym[multi]"') from error

Observation = npt.NDArray[np.float32]
_ONLY = np.zeros(1, np.int64)
_LEARNERS = 2


class BatchParallelEnv(BatchFace, ParallelEnv[str, Observation, npt.NDArray[np.float32]]):  # type: ignore[misc]
    """One market of any simulator, with learners ``"learner_0"``, ``"learner_1"``, ... who act at once.

    A learner that is terminated leaves `agents`, and the market goes on. `max_episode_steps` periods truncate all
    learners that are left, and so does a period that cannot be run (the market does not clear), with a warning: the
    observations are the last ones again and the rewards 0.

    Args:
        batch: the simulator, of one market.
        render_mode: None, "rgb_array" or "human"; the last two need a simulator that records a history.
        max_episode_steps: periods of an episode; None never truncates.

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "name": "hmgym_v0",
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
        "is_parallelizable": True,
    }

    def __init__(
        self, batch: Simulator, *, render_mode: str | None = None, max_episode_steps: int | None = None
    ) -> None:
        self._take(batch, render_mode)
        if batch.num_markets != 1:
            raise ValueError(f"`batch` must be one market, got {batch.num_markets}")
        self.max_episode_steps = integer_or_none("max_episode_steps", max_episode_steps, 1)
        self.possible_agents = [f"learner_{number}" for number in range(batch.n_learners)]
        self.agents: list[str] = []
        self.observation_spaces = {agent: batch.observation_map.space() for agent in self.possible_agents}
        self.action_spaces = {agent: batch.action_map.space() for agent in self.possible_agents}
        self._generator: np.random.Generator | None = None
        self._elapsed = 0

    @property
    def market_state(self) -> Any:
        """A copy of the market's state, leading dimension 1."""
        return self._batch.state

    @property
    def state_space(self) -> spaces.Box:
        """The space of `state`."""
        one = self.observation_map.space()
        count = len(self.possible_agents)
        return spaces.Box(np.tile(one.low, count), np.tile(one.high, count), dtype=np.float32)

    def observation_space(self, agent: str) -> spaces.Box:
        """The space of one learner's observation."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Box:
        """The space of one learner's action."""
        return self.action_spaces[agent]

    def state(self) -> Observation:
        """The observations on all seats in a row, what a central critic may read."""
        return self._batch.observe().ravel()

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Begin a new episode with all learners; without a seed the random stream goes on. There are no options.

        Raises:
            ValueError: `options` is no dictionary.
        """
        check_options(options)
        if seed is not None or self._generator is None:
            self._generator, _ = seeding.np_random(seed)
        self._batch.reset(_ONLY, [self._generator])
        self.agents = list(self.possible_agents)
        self._elapsed = 0
        if self.render_mode == "human":
            self.render()
        return self._observations(self.agents), self._infos(self.agents)

    def step(
        self, actions: Mapping[str, npt.NDArray[np.float32]]
    ) -> tuple[dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Run one period; all results are keyed by the learners that acted.

        Args:
            actions: one of every learner in `agents`, and of no other.

        Raises:
            ValueError: a learner is missing or unknown or was terminated, or an action is of another shape or not
                finite.
            RuntimeError: `reset` was not called yet.
        """
        acted = self.agents
        if set(actions) != set(acted):
            raise ValueError(f"`actions` must hold one action for each of {acted}, got {list(actions)}")
        if not acted:
            if not self._batch.started:
                raise RuntimeError("call `reset` before `step`")
            return {}, {}, {}, {}, {}
        idle = np.zeros(self.action_map.size)
        rows = [[actions.get(agent, idle) for agent in self.possible_agents]]
        values = self.action_map.check(rows, 1, len(self.possible_agents))
        acting = np.array([[agent in actions for agent in self.possible_agents]])
        assert self._generator is not None
        reward, gone, failed = self._batch.step(values, [self._generator], acting=acting)
        self._elapsed += 1
        out_of_time = self.max_episode_steps is not None and self._elapsed >= self.max_episode_steps
        over = out_of_time or bool(failed)
        if self.render_mode == "human":
            self.render()
        seats = {agent: seat for seat, agent in enumerate(self.possible_agents) if agent in actions}
        rewards = {agent: float(reward[0, seat]) for agent, seat in seats.items()}
        terminated = {agent: bool(gone[0, seat]) for agent, seat in seats.items()}
        self.agents = [] if over else [agent for agent in acted if not terminated[agent]]
        for reason in failed.values():
            gym.logger.warn(f"{reason}: the episode is truncated")
        return self._observations(acted), rewards, terminated, dict.fromkeys(acted, over), self._infos(acted)

    def episode(self) -> Any:
        """Series of the running episode; kept only where there is a `render_mode`.

        Raises:
            ValueError: the environment was made without a `render_mode`.
        """
        return self._series(0)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The episode so far as one frame, None in "human" mode or without a mode."""
        if self._viewer is None:
            gym.logger.warn("`render` was called on an environment made without a `render_mode`")
            return None
        return self._draw(0, f"hmgym, {len(self.possible_agents)} learners")

    def close(self) -> None:
        """Close the window, if there is one."""
        self._close_window()

    def _observations(self, agents: list[str]) -> dict[str, Observation]:
        observation = self._batch.observe()[0]
        return {agent: observation[self.possible_agents.index(agent)].copy() for agent in agents}

    def _infos(self, agents: list[str]) -> dict[str, dict[str, Any]]:
        rows = self._batch.infos()
        return {
            agent: {name: values[self.possible_agents.index(agent)] for name, values in rows.items()}
            for agent in agents
        }


class ParallelMarketEnv(MarketFace, BatchParallelEnv):
    """One market with learners ``"learner_0"``, ``"learner_1"``, ...: investors who act at once and make one price.

    Action, observation, reward, start, end and info are, learner by learner, those of
    :class:`~hmgym.envs.markets.MarketEnv`, and with one learner the two are equal to the last bit. "All others" of an
    observation are all investors but the learner, other learners included.

    A learner whose fund is ruined is terminated and leaves `agents`, and the market goes on: its positions are sold in
    the next clearing, and the newcomer on its seat acts by the learner's own limits and beliefs. `max_episode_steps`
    periods truncate all learners that are left, and so does a market that does not clear, with a warning.

    Args:
        n_learners: number of learners L; None takes that of `config`, or 2. Without a `config` each has a target share
            of .05 of all wealth, or .5 / L where L is more than 10.
        control: "leverage", "beliefs" or "both": which parts an action has.
        confidence: whether an action with beliefs also sets the scale of risk.
        n_assets: number of assets N; None takes that of `config`.
        n_investors: number of investors B, learners included; None takes that of `config`.
        reward: a name of :data:`~hmgym.envs.rewards.REWARDS` or a function ``reward(previous, outcome, state)`` that
            returns numbers of shape (1, L), or (1,) for one learner.
        config: the economy; None is the default economy.
        render_mode: None, "rgb_array" or "human".
        max_episode_steps: periods of an episode; None never truncates.
        amplification: whether infos hold `gradient_amplification`, which costs a second clearing and its gradients.
        hidden_regime: whether observations leave out the regime.
        leverage_axes: 1 for one limit ℓ = κ = θ, or 2 for κ and θ.
        history: of fundamentals, in place of the configuration's: "training", "held-out", "all" or a price history.
        scenario: who is in the market, a name in `hmgym.market.SCENARIOS`; None is that of `config`, or the crowd.
        pools: pools on a weighted invariant that join the market, their number or a sequence of
            :class:`~hmgym.market.pooled.PoolInvestor`; None is what `config` says, or none.

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    def __init__(
        self,
        *,
        n_learners: int | None = None,
        control: str = "leverage",
        confidence: bool = False,
        n_assets: int | None = None,
        n_investors: int | None = None,
        reward: str | RewardFunction = "log_unit_value",
        config: MarketConfig | None = None,
        render_mode: str | None = None,
        max_episode_steps: int | None = MAX_EPISODE_STEPS,
        amplification: bool = False,
        hidden_regime: bool = True,
        leverage_axes: int = 1,
        history: PriceHistory | str | None = None,
        scenario: str | None = None,
        pools: int | Sequence[PoolInvestor] | None = None,
    ) -> None:
        if control not in CONTROLS:
            raise ValueError(f"`control` must be one of {list(CONTROLS)}, got {control!r}")
        batch = make_batch(
            num_markets=1, **CONTROLS[control], confidence=confidence, n_assets=n_assets, n_investors=n_investors,
            reward=reward, config=config, record=render_mode is not None, amplification=amplification,
            n_learners=_LEARNERS if n_learners is None and config is None else n_learners,
            hidden_regime=hidden_regime, leverage_axes=leverage_axes, history=history, scenario=scenario, pools=pools,
        )  # fmt: skip
        super().__init__(batch, render_mode=render_mode, max_episode_steps=max_episode_steps)


parallel_env = ParallelMarketEnv
"""PettingZoo's name for what makes a parallel environment."""
