"""The native vector environment: E markets in one batch, with episodes, truncation and autoreset."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import load_env_creator
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from hmgym.checks import integer, integer_or_none
from hmgym.envs.face import BatchFace, check_options, spec_name
from hmgym.envs.protocol import Flags, FloatArray, Infos, Observations, Simulator, StepResult
from hmgym.envs.rendering import RENDER_FPS, RENDER_MODES


@dataclass(frozen=True, kw_only=True)
class Period:
    """What one period of all markets returns: R rows, a row a learner, the L learners of a market together.

    Attributes:
        observation: shape (R, size), of the new episode where one began in this period.
        reward: shape (R,).
        terminated: shape (R,).
        truncated: shape (R,).
        final_observation: shape (R, size), before any new episode; None where none began in this period.
        final_infos: likewise.
    """

    observation: Observations
    reward: FloatArray
    terminated: Flags
    truncated: Flags
    final_observation: Observations | None = None
    final_infos: Infos | None = None


class BatchVectorEnv(BatchFace, VectorEnv[Observations, npt.NDArray[np.float32], Any]):
    """E independent markets of any simulator; an id's own class adds its arguments.

    Row i, seeded s, equals the single environment seeded s + i, also across resets.

    With L learners in every market there are E·L rows, and the attribute `num_envs` says so: row e·L + l is learner l
    of market e, and market e, seeded s, is the parallel environment seeded s + e. A row that is terminated ends its
    episode; its next one begins at once in the same market, with a newcomer. The end of a market's periods truncates
    all its rows, and a market none of whose learners is left begins anew.

    A market whose period cannot be run (it does not clear) is truncated alone, with a warning: its observation is the
    last one again, its reward 0. It begins anew as the autoreset mode says, and nothing changes for the others.

    Args:
        batch: the simulator, of all E markets.
        render_mode: None, "rgb_array" or "human"; the last two need a simulator that records a history.
        max_episode_steps: periods after which this environment truncates an episode itself; None never does.
        autoreset_mode: an :class:`~gymnasium.vector.AutoresetMode` or its value, "NextStep", "SameStep", "Disabled";
            None is "NextStep", with several learners "SameStep".

    Raises:
        ValueError: an argument is out of range or unknown, or several learners have another mode than "SameStep".
    """

    metadata: dict[str, Any] = {  # noqa: RUF012
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        batch: Simulator,
        *,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode | None = None,
    ) -> None:
        self._take(batch, render_mode)
        self.max_episode_steps = integer_or_none("max_episode_steps", max_episode_steps, 1)
        self.num_markets = batch.num_markets
        self._shape = (batch.num_markets, batch.n_learners)
        several = batch.n_learners > 1
        default = AutoresetMode.SAME_STEP if several else AutoresetMode.NEXT_STEP
        self.autoreset_mode = default if autoreset_mode is None else _autoreset_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        if several and self.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                '`autoreset_mode` must be "SameStep" where a market has several learners, because it does not wait for '
                f"one of them, got {self.autoreset_mode.value!r}"
            )
        self.num_envs = batch.num_markets * batch.n_learners
        self.single_action_space = batch.action_map.space()
        self.single_observation_space = batch.observation_map.space()
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._generators: list[np.random.Generator | None] = [None] * self.num_markets
        self._seeds: list[int] = [-1] * self.num_markets
        self._elapsed = np.zeros(self.num_markets, np.int64)
        self._ended = np.zeros(self.num_markets, np.bool_)
        self._finished_episodes: dict[int, Any] = {}

    @property
    def state(self) -> Any:
        """A copy of the state of all markets, leading dimension E."""
        return self._batch.state

    @property
    def started(self) -> bool:
        """Whether every market was reset at least once."""
        return self._batch.started

    @property  # type: ignore[override]
    def np_random(self) -> tuple[np.random.Generator, ...]:
        """The random generator of every market."""
        return tuple(self._seeded_generators())

    @np_random.setter  # type: ignore[override]
    def np_random(self, value: Sequence[np.random.Generator]) -> None:
        if len(value) != self.num_markets:
            raise ValueError(
                f"`np_random` must hold one generator for each of {self.num_markets} markets, got {len(value)}"
            )
        self._generators, self._seeds = list(value), [-1] * self.num_markets

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of every market's generator."""
        self._seeded_generators()
        return tuple(self._seeds)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin new episodes in all markets, or in those of a mask.

        Args:
            seed: None lets every stream go on; an int s seeds market e with s + e; a sequence gives one seed a market.
            options: ``{"reset_mask": mask}`` with a boolean array (E,) resets only these markets.

        Raises:
            ValueError: the number of seeds or the mask's shape is wrong, the mask is empty, or it leaves out markets at
                the first reset.
            TypeError: the mask is no boolean array.
        """
        mask = _reset_mask(options, self.num_markets)
        if not self.started and not mask.all():
            raise ValueError(
                "`options['reset_mask']` must be True for every market at the first reset, "
                f"got False for markets {np.flatnonzero(~mask).tolist()}"
            )
        seeds = _spread_seed(seed, self.num_markets)
        rows = np.flatnonzero(mask)
        for row in rows:
            if seeds[row] is not None:
                self._generators[row], self._seeds[row] = seeding.np_random(seeds[row])
        self._begin_episodes(rows)
        if self.render_mode == "human":
            self.render()
        return self._observe(), _with_masks(self._batch.infos(), mask.repeat(self._shape[1]))

    def step(self, actions: npt.NDArray[np.float32]) -> tuple[Observations, FloatArray, Flags, Flags, dict[str, Any]]:
        """Run one period in all markets; `actions` holds a row a learner.

        In NEXT_STEP mode a market whose episode has ended is reset instead, its action ignored, its reward 0. In
        SAME_STEP mode it is reset at once, the last observation and info in ``final_obs`` and ``final_info``. In
        DISABLED mode the caller resets it with a mask before the next step.

        Raises:
            ValueError: `actions` has another shape or is not finite, or in DISABLED mode an ended market was not reset.
        """
        period = self.advance(actions)
        if self.render_mode == "human":
            self.render()
        infos = _with_masks(self._batch.infos(), np.ones(self.num_envs, np.bool_))
        if period.final_observation is not None and period.final_infos is not None:
            ended = period.terminated | period.truncated
            final = np.full(self.num_envs, None, dtype=object)
            for row in np.flatnonzero(ended):
                final[row] = period.final_observation[row].copy()
            infos["final_obs"], infos["_final_obs"] = final, ended.copy()
            infos["final_info"], infos["_final_info"] = _with_masks(period.final_infos, ended), ended.copy()
        return period.observation, period.reward, period.terminated, period.truncated, infos

    def advance(self, actions: npt.NDArray[Any]) -> Period:
        """`step` without its infos: the part that is paid for at every step of training."""
        actions = np.array(actions, dtype=np.float64)
        waiting = self._ended
        frozen: Flags | None = None
        if waiting.any():  # one learner a market, see __init__: its row is the market
            if self.autoreset_mode is AutoresetMode.DISABLED:
                raise ValueError(
                    f"markets {np.flatnonzero(waiting).tolist()} have ended: reset them with "
                    '`options={"reset_mask": ...}` before `step`'
                )
            frozen = waiting.copy()
            if actions.shape == self.action_space.shape:
                actions[frozen] = 0.0  # ignored, so it need not be finite
        if actions.shape == self.action_space.shape and self._shape[1] > 1:
            actions = actions.reshape(*self._shape, -1)
            values = self._batch.action_map.check(actions, *self._shape)
        else:
            values = self._batch.action_map.check(actions, self.num_envs).reshape(*self._shape, -1)
        if frozen is not None and frozen.all():
            result = StepResult(np.zeros(self._shape), np.zeros(self._shape, np.bool_))
        else:
            result = self._batch.step(values, self._seeded_generators(), frozen)
            self._elapsed += 1
        if frozen is not None:
            self._begin_episodes(np.flatnonzero(frozen))
        if self.max_episode_steps is None:
            over = np.zeros(self.num_markets, np.bool_)
        else:
            over = self._elapsed >= self.max_episode_steps
        for market in result.failed:
            over[market] = True
        period = self._end_episodes(result, over)
        for market, reason in result.failed.items():
            gym.logger.warn(f"market {market}: {reason}; its episode is truncated")
        return period

    def _end_episodes(self, result: StepResult, over: Flags) -> Period:
        """What the period returns, after the markets and rows that ended in it began anew as the mode says."""
        gone = result.terminated
        observation, terminated, truncated = self._observe(), gone.ravel(), over.repeat(self._shape[1])
        ended = terminated | truncated
        period = Period(
            observation=observation, reward=result.reward.ravel(), terminated=terminated, truncated=truncated
        )
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended = ended
            return period
        if not ended.any():
            return period
        final_infos = self._batch.infos()
        finished = over | gone.all(1)
        if finished.any():
            markets = np.flatnonzero(finished)
            if self._batch.history is not None:
                self._finished_episodes.update((int(market), self._series(int(market))) for market in markets)
            self._begin_episodes(markets)
        newcomers = gone & ~finished[:, None]
        if newcomers.any():
            self._batch.seat_newcomers(newcomers)
        return replace(period, observation=self._observe(), final_observation=observation, final_infos=final_infos)

    def closing_measures(self) -> dict[str, FloatArray]:
        """What is worth reporting of rows whose episode is truncated in this step, by name, a row a learner."""
        return {name: values.ravel() for name, values in self._batch.closing_measures().items()}

    def infos(self) -> Infos:
        """Arrays of what else is known now, a row a learner."""
        return self._batch.infos()

    def episode(self, market: int) -> Any:
        """Series of one market's running episode; kept only where there is a `render_mode`.

        Raises:
            ValueError: the environment was made without a `render_mode`.
            RuntimeError: `reset` was not called yet.
        """
        return self._series(market)

    def finished_episode(self, market: int) -> Any:
        """Series of the market's last episode that SAME_STEP mode has reset; None before the first."""
        return self._finished_episodes.get(market)

    def render(self) -> tuple[npt.NDArray[np.uint8], ...] | None:
        """One frame a market; in "human" mode the window shows market 0."""
        if self._viewer is None:
            return None
        if self.render_mode == "human":
            self.render_market(0)
            return None
        frames = (self.render_market(market) for market in range(self.num_markets))
        return tuple(frame for frame in frames if frame is not None)

    def render_market(self, market: int) -> npt.NDArray[np.uint8] | None:
        """The frame of one market, None in "human" mode or without a mode."""
        return self._draw(market, spec_name(self.spec), f"   market {market}")

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window, if there is one."""
        self._close_window()

    def _observe(self) -> Observations:
        return self._batch.observe().reshape(self.num_envs, -1)

    def _begin_episodes(self, markets: npt.NDArray[np.int64]) -> None:
        self._batch.reset(markets, self._seeded_generators())
        self._elapsed[markets] = 0
        self._ended[markets] = False

    def _seeded_generators(self) -> list[np.random.Generator]:
        generators = self._generators
        if None in generators:
            for row, generator in enumerate(generators):
                if generator is None:
                    generators[row], self._seeds[row] = seeding.np_random()
        return generators  # type: ignore[return-value]


def make_markets(env_id: str, num_envs: int, **kwargs: Any) -> BatchVectorEnv:
    """The vector environment of a registered id, unwrapped; `kwargs` as in `gym.make_vec`.

    Raises:
        ValueError: `env_id` is not registered or is no :class:`BatchVectorEnv`, or an argument is out of range.
    """
    num_envs = integer("num_envs", num_envs, 1)
    if ":" in env_id:
        importlib.import_module(env_id.split(":")[0])
    spec = gym.registry.get(env_id.split(":")[-1])
    if spec is None:
        raise ValueError(f"`env_id` must be a registered market, got {env_id!r}")
    creator: Any = spec.vector_entry_point
    if isinstance(creator, str):
        creator = load_env_creator(creator)
    if not (isinstance(creator, type) and issubclass(creator, BatchVectorEnv)):
        raise ValueError(f"`env_id` must name a market of hmgym or another BatchVectorEnv, got {env_id!r}")
    markets = gym.make_vec(spec, num_envs, **kwargs).unwrapped
    assert isinstance(markets, BatchVectorEnv)
    return markets


def _autoreset_mode(mode: str | AutoresetMode) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError:
        expected = [known.value for known in AutoresetMode]
        raise ValueError(f"`autoreset_mode` must be an AutoresetMode or one of {expected}, got {mode!r}") from None


def _spread_seed(seed: int | Sequence[int | None] | None, num_envs: int) -> list[int | None]:
    if seed is None:
        return [None] * num_envs
    if not isinstance(seed, (list, tuple, range, np.ndarray)):
        first = integer("seed", seed, 0)
        return [first + row for row in range(num_envs)]
    seeds = [integer_or_none("seed", one, 0) for one in seed]
    if len(seeds) != num_envs:
        raise ValueError(f"`seed` must be an int or hold one seed for each of {num_envs} markets, got {len(seeds)}")
    return seeds


def _reset_mask(options: dict[str, Any] | None, num_envs: int) -> Flags:
    mask = check_options(options).get("reset_mask")
    if mask is None:
        return np.ones(num_envs, np.bool_)
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
        raise TypeError(f"`options['reset_mask']` must be a boolean numpy array, got {mask!r}")
    if mask.shape != (num_envs,):
        raise ValueError(f"`options['reset_mask']` must have shape {(num_envs,)}, got {mask.shape}")
    if not mask.any():
        raise ValueError("`options['reset_mask']` must hold at least one True, got none")
    return mask


def _with_masks(infos: Infos, mask: Flags) -> dict[str, Any]:
    """Gymnasium's form: beside every array the mask of markets that it speaks of; zero elsewhere."""
    result: dict[str, Any] = {}
    everywhere = bool(mask.all())
    for name, values in infos.items():
        if not everywhere:
            values[~mask] = 0
        result[name], result[f"_{name}"] = values, mask.copy()
    return result
