"""Progress bars: of a training run, with the mean return of the policy that explores; of choices of what to beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from tqdm import tqdm

from hmgym.agents.probes import choose_rules
from hmgym.agents.rule_search import RuleChoice
from hmgym.agents.selection import ConstantChoice, choose_best_constant


class ProgressBar:
    """Counts environment steps; a context, so that the bar is closed whatever happens.

    Args:
        timesteps: where the bar ends.
        begin: called when training begins, before the bar is drawn.
    """

    def __init__(self, timesteps: int, begin: Callable[[], None] | None = None) -> None:
        self._timesteps, self._begin = timesteps, begin
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def started(self) -> bool:
        """Whether training has begun."""
        return self._bar is not None

    def __call__(self, env_steps: int, mean_return: float) -> None:
        """Show how far the run is."""
        if self._bar is None:
            if self._begin is not None:
                self._begin()
            # A resumed run starts where the checkpoint is; that part must not count towards the speed.
            self._bar = tqdm(
                initial=env_steps, total=self._timesteps, unit="step", unit_scale=True, smoothing=0.1, mininterval=0.5
            )
        if not math.isnan(mean_return):
            self._bar.set_postfix_str(f"mean return {mean_return:+.3f}", refresh=False)
        self._bar.update(env_steps - self._bar.n)


def choose_with_bar(env_id: str, **settings: Any) -> ConstantChoice:
    """:func:`~hmgym.agents.choose_best_constant` with a bar, where there is a terminal; same arguments."""
    with tqdm(desc="best constant", unit="policy", leave=False, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return choose_best_constant(env_id, progress=advance, **settings)


def rules_with_bar(env_id: str, env_kwargs: Mapping[str, Any] | None = None, **settings: Any) -> dict[str, RuleChoice]:
    """:func:`~hmgym.agents.probes.choose_rules` with a bar, where there is a terminal; same arguments."""
    with tqdm(unit="episode", unit_scale=True, leave=False, disable=None) as bar:
        shown = ""

        def advance(name: str, done: int, total: int) -> None:
            nonlocal shown
            if name != shown:
                shown = name
                bar.reset()
                bar.set_description(name.replace("_", " "))
            bar.total = total
            bar.update(done - bar.n)

        return choose_rules(env_id, env_kwargs, progress=advance, **settings)
