"""A progress bar with the time left and the mean return of the last episodes."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm


class ProgressBar(BaseCallback):
    """Counts environment steps; a context, so that the bar is closed whatever happens.

    Args:
        timesteps: where the bar ends.
    """

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self._bar: Any = tqdm(total=timesteps, unit="step", unit_scale=True, smoothing=0.1, mininterval=0.5)

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def _on_training_start(self) -> None:
        # A resumed run starts where the checkpoint is; that part must not count towards the speed.
        self._bar.initial = self.num_timesteps
        self._bar.n = self.num_timesteps
        self._bar.refresh()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        recent = self.model.ep_info_buffer
        if recent:
            mean = np.mean([episode["r"] for episode in recent])
            self._bar.set_postfix_str(f"mean return {mean:+.3f}", refresh=False)
        self._bar.update(self.num_timesteps - self._bar.n)
