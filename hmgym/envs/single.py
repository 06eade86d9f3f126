"""The Gymnasium environment of one market of any simulator: a batch of one."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from hmgym.envs.face import BatchFace, check_options, spec_name
from hmgym.envs.protocol import Simulator
from hmgym.envs.rendering import RENDER_FPS, RENDER_MODES

Observation = npt.NDArray[np.float32]
_ONLY = np.zeros(1, np.int64)


class BatchEnv(BatchFace, gym.Env[Observation, npt.NDArray[np.float32]]):
    """One market with one learner; an id's own class adds its arguments and says what it is.

    A period that cannot be run (a market that does not clear) truncates the episode, with a warning; the observation is
    the last one again and the reward is 0.

    Args:
        batch: the simulator, of one market with one learner.
        render_mode: None, "rgb_array" or "human"; the last two need a simulator that records a history.

    Raises:
        ValueError: `render_mode` is unknown, or the simulator is of another size.
    """

    metadata: dict[str, Any] = {"render_modes": list(RENDER_MODES), "render_fps": RENDER_FPS}  # noqa: RUF012

    def __init__(self, batch: Simulator, render_mode: str | None = None) -> None:
        self._take(batch, render_mode)
        if batch.num_markets != 1 or batch.n_learners != 1:
            raise ValueError(
                f"`batch` must be one market with one learner, got {batch.num_markets} with {batch.n_learners}"
            )
        self.action_space = batch.action_map.space()  # type: ignore[assignment]
        self.observation_space = batch.observation_map.space()  # type: ignore[assignment]
        self._ended = False

    @property
    def state(self) -> Any:
        """A copy of the market's state, leading dimension 1: a place to plan from, with gradients if you like."""
        return self._batch.state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a new episode; without a seed the random stream goes on. There are no options.

        Raises:
            ValueError: `options` is no dictionary.
        """
        check_options(options)
        super().reset(seed=seed)
        self._batch.reset(_ONLY, [self.np_random])
        self._ended = False
        if self.render_mode == "human":
            self.render()
        return self._batch.observe()[0, 0], self._info()

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Run one period. Truncates by itself only where the period cannot be run.

        Raises:
            ValueError: `action` has another shape or is not finite.
            RuntimeError: `reset` was not called yet.
        """
        if self._ended:
            gym.logger.warn(
                "`step` was called although the episode has ended: call `reset` first. What comes is undefined."
            )
        values = self._batch.action_map.check(np.asarray(action)[None], 1)
        reward, terminated, failed = self._batch.step(values, [self.np_random])
        self._ended = bool(terminated[0, 0]) or bool(failed)
        for reason in failed.values():
            gym.logger.warn(f"{reason}: the episode is truncated")
        if self.render_mode == "human":
            self.render()
        return self._batch.observe()[0, 0], float(reward[0, 0]), bool(terminated[0, 0]), bool(failed), self._info()

    def episode(self) -> Any:
        """Series of the running episode; kept only where there is a `render_mode`.

        Raises:
            ValueError: the environment was made without a `render_mode`.
            RuntimeError: `reset` was not called yet.
        """
        return self._series(0)

    def render(self) -> npt.NDArray[np.uint8] | None:
        """The episode so far as one frame, None in "human" mode or without a mode.

        Raises:
            RuntimeError: `reset` was not called yet.
        """
        if self._viewer is None:
            gym.logger.warn("`render` was called on an environment made without a `render_mode`")
        return self._draw(0, spec_name(self.spec))

    def close(self) -> None:
        """Close the window, if there is one."""
        self._close_window()

    def _info(self) -> dict[str, Any]:
        return {name: values[0] for name, values in self._batch.infos().items()}
