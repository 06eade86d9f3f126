"""What the single, the vector and the parallel environment have in common: one batch, its maps, its drawings."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.envs.actions import ActionMap
from hmgym.envs.batch import MarketBatch
from hmgym.envs.history import EpisodeSeries
from hmgym.envs.observation import ObservationMap
from hmgym.envs.rendering import Viewer
from hmgym.market import MarketConfig


class MarketFace:
    """Access to what an environment runs on; the environment itself speaks Gymnasium or PettingZoo."""

    _batch: MarketBatch
    _viewer: Viewer | None = None  # Gymnasium closes a deleted environment, also one whose arguments were refused

    @property
    def config(self) -> MarketConfig:
        """The economy that runs."""
        return self._batch.config

    @property
    def action_map(self) -> ActionMap:
        """What an action means."""
        return self._batch.action_map

    @property
    def observation_map(self) -> ObservationMap:
        """What an observation means."""
        return self._batch.observation_map

    def _series(self, market: int) -> EpisodeSeries:
        if self._batch.history is None:
            raise ValueError("`render_mode` must be set for the episode to be recorded, got None")
        return self._batch.history.episode(market)

    def _draw(self, market: int, name: str, suffix: str = "") -> npt.NDArray[np.uint8] | None:
        """The frame of one market, None in "human" mode or without a mode; titled with `name` and the month."""
        if self._viewer is None:
            return None
        series = self._series(market)
        return self._viewer.draw(series, f"{name}   month {len(series.unit_value) - 1}{suffix}")

    def _close_window(self) -> None:
        if self._viewer is not None:
            self._viewer.close()


def spec_name(spec: Any) -> str:
    """The id of a Gymnasium spec, or the library's name where an environment was made without one."""
    return "hmgym" if spec is None else str(spec.id)
