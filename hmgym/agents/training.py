"""What every training run is asked for and what it leaves: plan, learning curve, result; and which code runs it."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hmgym.agents.evaluation import evaluate
from hmgym.agents.policy import Policy

SB3_ALGORITHMS = ("ppo", "a2c", "sac", "td3")
GRADIENT_ALGORITHMS = ("apg", "shac")
ALGORITHMS = SB3_ALGORITHMS + GRADIENT_ALGORITHMS
"""Names that a plan may give."""

DEFAULT_SIZES = {
    "ppo": (2_000_000, 256), "a2c": (2_000_000, 256), "sac": (300_000, 256), "td3": (300_000, 256),
    "apg": (400_000, 16), "shac": (400_000, 16),
}  # fmt: skip
"""Environment steps and markets side by side of a plan that does not say."""

CURVE_SEED = 3_000_000
"""First seed of the episodes that learning curves are measured on."""
_CURVE_GROWTH = 1.25  # environment steps from one point of the curve to the next, as a ratio
_CURVE_FIRST = 200  # as many points at most if they were evenly spaced

Progress = Callable[[int, float], None]
"""Told the environment steps so far and the mean return, or nan, of the policy that explores."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What to train.

    Attributes:
        algo: one of :data:`ALGORITHMS`.
        env_id: a registered id.
        timesteps: periods over all learners of all markets together; None takes the algorithm's own.
        num_envs: markets side by side; None takes the algorithm's own.
        seed: of the markets and of the learner.
        out: folder of checkpoints and TensorBoard logs.
        resume: go on from the newest checkpoint in `out`, if there is one.
        checkpoint_every: periods between checkpoints; None takes a quarter of the run.
        curve_episodes: episodes that every point of the learning curve is measured on; 0 measures none.
        env_kwargs: arguments of the environment; with ``n_learners`` all learners of a market share the policy.
        hyperparameters: changes to the algorithm's own.
    """

    algo: str = "ppo"
    env_id: str = "hmgym/Leverage-v0"
    timesteps: int | None = None
    num_envs: int | None = None
    seed: int = 0
    out: Path = Path("runs/ppo")
    resume: bool = False
    checkpoint_every: int | None = None
    curve_episodes: int = 256
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.algo not in ALGORITHMS:
            raise ValueError(f"`algo` must be one of {sorted(ALGORITHMS)}, got {self.algo!r}")
        for name in ("timesteps", "num_envs", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be >= 1, got {value}")
        if self.curve_episodes < 0:
            raise ValueError(f"`curve_episodes` must be >= 0, got {self.curve_episodes}")

    @property
    def total_steps(self) -> int:
        """Periods over all learners of all markets."""
        return DEFAULT_SIZES[self.algo][0] if self.timesteps is None else self.timesteps

    @property
    def num_markets(self) -> int:
        """Markets side by side."""
        return DEFAULT_SIZES[self.algo][1] if self.num_envs is None else self.num_envs

    @property
    def checkpoint_steps(self) -> int:
        """Periods between checkpoints."""
        return max(1, self.total_steps // 4) if self.checkpoint_every is None else self.checkpoint_every

    @property
    def market_seed(self) -> int:
        """Seed of the first market."""
        return spread_seed(self.seed)


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


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A trained policy and how it got there."""

    policy: Policy
    curve: list[CurvePoint]
    env_steps: int
    seconds: float


def spread_seed(seed: int, *stage: int) -> int:
    """A seed far from those of other runs: markets count up from it, and runs whose seeds count up would share them."""
    return int(np.random.SeedSequence([seed, *stage]).generate_state(1)[0])


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


def newest_checkpoint(out: Path) -> Path | None:
    """Folder of the newest complete checkpoint under `out`, None if there is none.

    A checkpoint is a folder ``checkpoints/<periods>``; ``progress.json`` is written last, so that a folder that has it
    is complete.
    """
    complete = [path.parent for path in (out / "checkpoints").glob("*/progress.json")]
    return max(complete, key=lambda path: int(path.name), default=None)


def checkpoint_folder(out: Path, env_steps: int) -> Path:
    """A new folder for the checkpoint after so many periods."""
    folder = out / "checkpoints" / str(env_steps)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train(plan: TrainingPlan, progress: Progress | None = None) -> TrainingResult:
    """Train as planned, with whatever package the algorithm comes from.

    Args:
        plan: what to train.
        progress: told how far the run is.

    Raises:
        ImportError: stable-baselines3 or TensorBoard is not installed.
    """
    trained: TrainingResult = _trainer_of(plan).train(plan, progress)
    return trained


def hyperparameters_of(plan: TrainingPlan) -> dict[str, Any]:
    """What the algorithm runs with: its own hyperparameters, and the plan's in their place."""
    return {**_trainer_of(plan).HYPERPARAMETERS[plan.algo], **plan.hyperparameters}


def _trainer_of(plan: TrainingPlan) -> Any:
    """The module that trains the plan's algorithm, imported only when it is asked for."""
    return importlib.import_module(
        "hmgym.agents.sb3.training" if plan.algo in SB3_ALGORITHMS else "hmgym.agents.gradient_training"
    )
