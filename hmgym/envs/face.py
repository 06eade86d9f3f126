"""What the single, the vector and the parallel environment have in common: one simulator, its maps, its drawings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.envs.boxes import ActionBox, ObservationBox
from hmgym.envs.protocol import Simulator
from hmgym.envs.rendering import RENDER_FPS, Viewer, check_render_mode


class BatchFace:
    """Access to what an environment runs on; the environment itself speaks Gymnasium or PettingZoo."""

    _batch: Simulator
    _viewer: Viewer | None = None  # Gymnasium closes a deleted environment, also one whose arguments were refused

    def _take(self, batch: Simulator, render_mode: str | None) -> None:
        self.render_mode = check_render_mode(render_mode)
        if render_mode is not None and batch.history is None:
            raise ValueError(f"`render_mode` must be None where the simulator records no history, got {render_mode!r}")
        self._batch = batch
        self._viewer = None if render_mode is None else Viewer(render_mode, RENDER_FPS)

    @property
    def n_learners(self) -> int:
        """L, learners of a market."""
        return self._batch.n_learners

    @property
    def action_map(self) -> ActionBox:
        """What an action means."""
        return self._batch.action_map

    @property
    def observation_map(self) -> ObservationBox:
        """What an observation means."""
        return self._batch.observation_map

    def _series(self, market: int) -> Any:
        if self._batch.history is None:
            raise ValueError("`render_mode` must be set for the episode to be recorded, got None")
        return self._batch.history.episode(market)

    def _draw(self, market: int, name: str, suffix: str = "") -> npt.NDArray[np.uint8] | None:
        """The frame of one market, None in "human" mode or without a mode; titled with `name` and the period."""
        if self._viewer is None:
            return None
        series = self._series(market)
        return self._viewer.draw(series, f"{name}   {series.period} {len(series) - 1}{suffix}")

    def _close_window(self) -> None:
        if self._viewer is not None:
            self._viewer.close()


def check_options(options: Any) -> dict[str, Any]:
    """The options of a reset, empty where there are none.

    Raises:
        ValueError: `options` is no dictionary.
    """
    if options is None:
        return {}
    if not isinstance(options, dict):
        raise ValueError(f"`options` must be a dictionary or None, got {options!r}")
    return options


def spec_name(spec: Any) -> str:
    """The id of a Gymnasium spec, or the library's name where an environment was made without one."""
    return "hmgym" if spec is None else str(spec.id)
