"""Learning curves: returns of the deterministic policy against environment steps, gradient steps and seconds."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hmgym.agents.evaluation import evaluate
from hmgym.agents.policy import Policy

if TYPE_CHECKING:
    from hmgym.agents.training import TrainingPlan

CURVE_SEED = 3_000_000
"""First seed of the episodes that learning curves are measured on."""
_CURVE_GROWTH = 1.25  # environment steps from one point of the curve to the next, as a ratio
_CURVE_FIRST = 200  # as many points at most if they were evenly spaced


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One point of a learning curve.

    Attributes:
        env_steps: periods so far, over all learners of all markets.
        gradient_steps: optimiser steps so far.
        seconds: of training so far, resumed runs added up, the measuring of the curve left out.
        mean_return: mean sum of rewards of the deterministic policy, on episodes that are the same for every point.
    """

    env_steps: int
    gradient_steps: int
    seconds: float
    mean_return: float


class LearningCurve:
    """Measures a policy at geometrically spaced points of its training, on a clock that stops meanwhile.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        self._plan = plan
        self.points: list[CurvePoint] = []
        self._next = 0
        self._before = 0.0
        self._begin = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far, resumed runs added up."""
        return self._before + time.perf_counter() - self._begin

    def start(self) -> None:
        """Start the clock."""
        self._begin = time.perf_counter()

    def pause(self) -> None:
        """Stop the clock."""
        self._before, self._begin = self.seconds, time.perf_counter()

    def measure(self, policy: Policy, env_steps: int, gradient_steps: int, *, last: bool = False) -> None:
        """Add a point if one is due, or at the end of the run; the clock stops meanwhile."""
        plan = self._plan
        done = bool(self.points) and self.points[-1].env_steps == env_steps
        if plan.curve_episodes == 0 or done or (env_steps < self._next and not last):
            return
        self.pause()
        run = evaluate(
            policy, plan.env_id, episodes=plan.curve_episodes, first_seed=CURVE_SEED, env_kwargs=plan.env_kwargs
        )
        point = CurvePoint(
            env_steps=env_steps, gradient_steps=gradient_steps, seconds=round(self._before, 3),
            mean_return=float(run.returns.mean()),
        )  # fmt: skip
        self.points.append(point)
        self._next = max(env_steps + plan.total_steps // _CURVE_FIRST, int(_CURVE_GROWTH * env_steps))
        self.start()

    def write(self, path: Path) -> None:
        """Write what a continued run needs, as JSON."""
        self.pause()
        stored = {"seconds": self._before, "next": self._next, "curve": [vars(point) for point in self.points]}
        path.write_text(json.dumps(stored))
        self.start()

    def read(self, path: Path) -> None:
        """Go on where `write` was called."""
        stored = json.loads(path.read_text())
        self._before, self._next = stored["seconds"], stored["next"]
        self.points = [CurvePoint(**point) for point in stored["curve"]]
