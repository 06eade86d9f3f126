"""A progress bar with the time left and the mean return of the policy that explores."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any

from tqdm import tqdm


class ProgressBar:
    """Counts environment steps; a context, so that the bar is closed whatever happens.

    Args:
        timesteps: where the bar ends.
    """

    def __init__(self, timesteps: int) -> None:
        self._bar: Any = tqdm(total=timesteps, unit="step", unit_scale=True, smoothing=0.1, mininterval=0.5)
        self._started = False

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def __call__(self, env_steps: int, mean_return: float) -> None:
        """Show how far the run is."""
        if not self._started:
            # A resumed run starts where the checkpoint is; that part must not count towards the speed.
            self._bar.initial = self._bar.n = env_steps
            self._started = True
        if not math.isnan(mean_return):
            self._bar.set_postfix_str(f"mean return {mean_return:+.3f}", refresh=False)
        self._bar.update(env_steps - self._bar.n)
