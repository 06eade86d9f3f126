"""The Gymnasium environment of one market: a batch of one."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from hmgym.envs.face import MarketFace, spec_name
from hmgym.envs.history import EpisodeSeries
from hmgym.envs.rendering import Viewer
from hmgym.envs.rewards import RewardFunction
from hmgym.envs.setup import RENDER_FPS, RENDER_MODES, check_render_mode, make_batch
from hmgym.market import MarketConfig, MarketState

Observation = npt.NDArray[np.float32]
_ONLY = np.zeros(1, np.int64)


class MarketEnv(MarketFace, gym.Env[Observation, npt.NDArray[np.float32]]):
    """A learner among heterogeneous investors whose trades, with everybody's, make the price.

    ## Description
    Every month all investors post demand, one vector of prices clears it, and trades settle at that price. The learner
    is investor 0 and runs a fund: it sets its leverage limits, its beliefs, or both, and the market does the rest.

    ## Action space
    A box of [-1, 1]; which entries it has depends on the id. Entries outside are clipped, NaN and infinity raise.

    | id                         | entries (in this order)                                     |
    |----------------------------|-------------------------------------------------------------|
    | `hmgym/Leverage-v0`        | short leverage κ, long leverage θ                           |
    | `hmgym/Beliefs-v0`         | expected log return of each asset (and the scale of risk)   |
    | `hmgym/LeverageBeliefs-v0` | κ, θ, expected log return of each asset (and scale of risk) |

    Maps to natural units: :class:`~hmgym.envs.actions.ActionMap`.

    ## Observation space
    A float32 vector in [-1, 1], every entry ``tanh(x / scale)``; the table of entries, units and scales is
    :data:`~hmgym.envs.observation.OBSERVATION_TABLE`. It holds what the learner may know before it acts: this month's
    news and its private signal, never next month's news.

    ## Reward
    Change of log unit value; its sum is the log of the final ``info["unit_value"]``. Others by `reward`.

    ## Start and end
    An episode starts in a market that the seed draws. It is terminated when the unit value falls below the ruin
    fraction of the configuration; the registered ids truncate it after 120 months (`max_episode_steps`).

    ## Info
    `prices (N,)`, `holdings (N,)` shares of the learner, `unit_value`, `wealth` money, `residual` and `iterations` of
    the clearing, `active_limits (N+1,)` int8, cash first: −1 at −κ, 1 at θ, 0 between. With `amplification`, also
    `gradient_amplification`: the norm of the derivative of the log prices of this period with respect to the action.

    Args:
        leverage: whether the action sets leverage limits (fixed by the id).
        beliefs: whether the action sets expected returns (fixed by the id).
        confidence: whether an action with beliefs also sets the scale of risk.
        n_assets: number of assets N; None takes that of `config`.
        n_investors: number of investors B, the learner included; None takes that of `config`.
        reward: a name of :data:`~hmgym.envs.rewards.REWARDS` or a function ``reward(previous, outcome, state)``.
        config: the economy; None is the default economy.
        render_mode: None, "rgb_array" or "human".
        amplification: whether `info` holds `gradient_amplification`, which costs a second clearing and its gradients.

    Raises:
        ValueError: an argument is out of range or unknown.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}  # noqa: RUF012
    title: ClassVar[str] = "hmgym"

    def __init__(
        self,
        *,
        leverage: bool = True,
        beliefs: bool = False,
        confidence: bool = False,
        n_assets: int | None = None,
        n_investors: int | None = None,
        reward: str | RewardFunction = "log_unit_value",
        config: MarketConfig | None = None,
        render_mode: str | None = None,
        amplification: bool = False,
    ) -> None:
        self.render_mode = check_render_mode(render_mode)
        self._batch = make_batch(
            num_markets=1, leverage=leverage, beliefs=beliefs, confidence=confidence, n_assets=n_assets,
            n_investors=n_investors, reward=reward, config=config, record=render_mode is not None,
            amplification=amplification,
        )  # fmt: skip
        if self.config.n_learners != 1:
            raise ValueError(
                "`config.n_learners` must be 1 in this environment (`hmgym.envs.parallel_env` takes many), "
                f"got {self.config.n_learners}"
            )
        self._viewer = None if render_mode is None else Viewer(render_mode, RENDER_FPS)
        self.action_space = self._batch.action_map.space()  # type: ignore[assignment]
        self.observation_space = self._batch.observation_map.space()  # type: ignore[assignment]

    @property
    def state(self) -> MarketState:
        """A copy of the market's state, leading dimension 1: a place to plan from, with gradients if you like."""
        return self._batch.state.clone()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode; without a seed the random stream goes on."""
        super().reset(seed=seed)
        self._batch.reset(_ONLY, [self.np_random])
        if self.render_mode == "human":
            self.render()
        return self._batch.observe()[0, 0], self._info()

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Run one period. Never truncates by itself.

        Raises:
            ValueError: `action` has another shape or is not finite.
        """
        values = self._batch.action_map.check(np.asarray(action)[None], 1)
        reward, ruined = self._batch.step(values, [self.np_random])
        if self.render_mode == "human":
            self.render()
        return self._batch.observe()[0, 0], float(reward[0, 0]), bool(ruined[0, 0]), False, self._info()

    def episode(self) -> EpisodeSeries:
        """Series of the running episode; kept only where there is a `render_mode`.

        Raises:
            ValueError: the environment was made without a `render_mode`.
        """
        return self._series(0)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The episode so far as one frame, None in "human" mode or without a mode."""
        if self._viewer is None:
            gym.logger.warn("`render` was called on an environment made without a `render_mode`")
        return self._draw(0, spec_name(self.spec))

    def close(self) -> None:
        """Close the window, if there is one."""
        self._close_window()

    def _info(self) -> dict[str, Any]:
        return {name: values[0] for name, values in self._batch.infos().items()}
