"""The native vector environment: E markets in one batch, with episodes, truncation and autoreset."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from hmgym.envs.batch import Infos
from hmgym.envs.face import MarketFace, spec_name
from hmgym.envs.history import EpisodeSeries
from hmgym.envs.registration import VECTOR_ENTRY_POINT
from hmgym.envs.rendering import Viewer
from hmgym.envs.rewards import RewardFunction
from hmgym.envs.setup import RENDER_FPS, RENDER_MODES, check_render_mode, make_batch
from hmgym.market import MarketConfig, MarketState

FloatArray = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Observations = npt.NDArray[np.float32]


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


class MarketVectorEnv(MarketFace, VectorEnv[Observations, npt.NDArray[np.float32], Any]):
    """E independent markets stepped together; arguments and spaces as in :class:`~hmgym.envs.single.MarketEnv`.

    Row i, seeded s, equals the single environment seeded s + i, also across resets.

    With L learners in every market there are E·L rows, and the attribute `num_envs` says so: row e·L + l is learner l
    of market e, and market e, seeded s, is the parallel environment seeded s + e. A row whose fund is ruined ends its
    episode; its next one begins at once in the same market, with the newcomer that takes the seat (unit value 1). The
    end of a market's months truncates all its rows, and a market none of whose learners is left begins anew.

    Args:
        num_envs: number of markets E.
        n_learners: learners L of every market; None takes that of `config`. Without a `config` each has a target share
            of .1 of all wealth, or .5 / L where L is more than 5.
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
        *,
        num_envs: int = 1,
        n_learners: int | None = None,
        leverage: bool = True,
        beliefs: bool = False,
        confidence: bool = False,
        n_assets: int | None = None,
        n_investors: int | None = None,
        reward: str | RewardFunction = "log_unit_value",
        config: MarketConfig | None = None,
        render_mode: str | None = None,
        amplification: bool = False,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"`num_envs` must be >= 1, got {num_envs}")
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"`max_episode_steps` must be >= 1 or None, got {max_episode_steps}")
        self.num_markets = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = check_render_mode(render_mode)
        self._batch = make_batch(
            num_markets=num_envs, leverage=leverage, beliefs=beliefs, confidence=confidence, n_assets=n_assets,
            n_investors=n_investors, reward=reward, config=config, record=render_mode is not None,
            n_learners=n_learners, amplification=amplification,
        )  # fmt: skip
        self._shape = (num_envs, self.config.n_learners)
        several = self.config.n_learners > 1
        default = AutoresetMode.SAME_STEP if several else AutoresetMode.NEXT_STEP
        self.autoreset_mode = default if autoreset_mode is None else _autoreset_mode(autoreset_mode)
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        if several and self.autoreset_mode is not AutoresetMode.SAME_STEP:
            raise ValueError(
                '`autoreset_mode` must be "SameStep" where a market has several learners, because it does not wait for '
                f"one of them, got {self.autoreset_mode.value!r}"
            )
        self.num_envs = num_envs * self.config.n_learners
        self._viewer = None if render_mode is None else Viewer(render_mode, RENDER_FPS)
        self.single_action_space = self._batch.action_map.space()
        self.single_observation_space = self._batch.observation_map.space()
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._seeds: list[int] = [-1] * num_envs
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.zeros(num_envs, np.bool_)

    @property
    def state(self) -> MarketState:
        """A copy of the state of all markets, leading dimension E."""
        return self._batch.state.clone()

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
            ValueError: the number of seeds or the mask's shape is wrong, or the mask is empty.
            TypeError: the mask is no boolean array.
        """
        mask = _reset_mask(options, self.num_markets)
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
        values = self._batch.action_map.check(actions, self.num_envs).reshape(*self._shape, -1)
        if frozen is not None and frozen.all():
            reward, ruined = np.zeros(self._shape), np.zeros(self._shape, np.bool_)
        else:
            reward, ruined = self._batch.step(values, self._seeded_generators(), frozen)
            self._elapsed += 1
        if frozen is not None:
            self._begin_episodes(np.flatnonzero(frozen))
        if self.max_episode_steps is None:
            over = np.zeros(self.num_markets, np.bool_)
        else:
            over = self._elapsed >= self.max_episode_steps
        observation, terminated, truncated = self._observe(), ruined.ravel(), over.repeat(self._shape[1])
        ended = terminated | truncated
        period = Period(observation=observation, reward=reward.ravel(), terminated=terminated, truncated=truncated)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended = ended
            return period
        if not ended.any():
            return period
        final_infos = self._batch.infos()
        finished = over | ruined.all(1)
        if finished.any():
            self._begin_episodes(np.flatnonzero(finished))
        newcomers = ruined & ~finished[:, None]
        if newcomers.any():
            self._batch.seat_newcomers(newcomers)
        return replace(period, observation=self._observe(), final_observation=observation, final_infos=final_infos)

    def terminal_mark_gain(self) -> npt.NDArray[np.float64]:
        """What each learner's mark gained from its own trade of the last step, a row each, in log unit value.

        Wealth is marked at prices that the learner moved: a last trade can inflate a sum of rewards by this much.
        """
        return self._batch.terminal_mark_gain().ravel()

    def infos(self) -> Infos:
        """Arrays of what else is known now, a row a learner."""
        return self._batch.infos()

    def episode(self, market: int) -> EpisodeSeries:
        """Series of one market's running episode; kept only where there is a `render_mode`.

        Raises:
            ValueError: the environment was made without a `render_mode`.
        """
        return self._series(market)

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


def make_markets(env_id: str, num_envs: int, **kwargs: Any) -> MarketVectorEnv:
    """The vector environment of a registered id, unwrapped; `kwargs` as in `gym.make_vec`.

    Raises:
        ValueError: `env_id` is not registered or is no market, or an argument is out of range.
    """
    if ":" in env_id:
        importlib.import_module(env_id.split(":")[0])
    spec = gym.registry.get(env_id.split(":")[-1])
    if spec is None:
        raise ValueError(f"`env_id` must be a registered market, got {env_id!r}")
    if spec.vector_entry_point != VECTOR_ENTRY_POINT:
        raise ValueError(f"`env_id` must name a market of hmgym, got {env_id!r}")
    markets = gym.make_vec(spec, num_envs, **kwargs).unwrapped
    assert isinstance(markets, MarketVectorEnv)
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
    if isinstance(seed, int | np.integer):
        return [int(seed) + row for row in range(num_envs)]
    seeds = [None if one is None else int(one) for one in seed]
    if len(seeds) != num_envs:
        raise ValueError(f"`seed` must be an int or hold one seed for each of {num_envs} markets, got {len(seeds)}")
    return seeds


def _reset_mask(options: dict[str, Any] | None, num_envs: int) -> Flags:
    mask = None if options is None else options.get("reset_mask")
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
