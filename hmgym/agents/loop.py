"""The loop that most trainers share: update, log, measure, write checkpoints, until the planned periods are done."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from hmgym.agents.policy import Policy
from hmgym.agents.run import TrainingResult, TrainingRun

MEAN_RETURN = "rollout/mean_return"
"""Name of the mean return of the policy that explores among what an update logs."""


class Learner(Protocol):
    """An algorithm with its markets, ready to take the next update."""

    @property
    def policy(self) -> Policy:
        """What it has learnt so far."""

    @property
    def env_steps(self) -> int:
        """Periods so far, over all learners of all markets."""

    @property
    def gradient_steps(self) -> int:
        """Optimiser steps so far."""

    def update(self, progress: float) -> Mapping[str, float]:
        """Learn from some more periods; returns what TensorBoard logs, :data:`MEAN_RETURN` among it.

        Args:
            progress: share of the run that is done, in [0, 1].
        """

    def save(self, folder: Path) -> None:
        """Write everything that a continued run needs."""

    def load(self, folder: Path) -> None:
        """Go on where `save` was called."""


def train_learner(run: TrainingRun, learner: Learner) -> TrainingResult:
    """Train a learner as the run says, from its checkpoint where it has one."""
    plan, curve = run.plan, run.curve
    if run.found is not None:
        learner.load(run.found.folder)
    run.start()
    writer = run.writer()
    saved = None if run.found is None else learner.env_steps
    next_checkpoint = learner.env_steps + plan.checkpoint_steps
    while learner.env_steps < plan.total_steps:
        curve.measure(learner.policy, learner.env_steps, learner.gradient_steps)
        logged = learner.update(learner.env_steps / plan.total_steps)
        for name, value in {**logged, "time/seconds": curve.seconds}.items():
            writer.add_scalar(name, value, learner.env_steps)
        run.progress(learner.env_steps, logged.get(MEAN_RETURN, float("nan")))
        if next_checkpoint <= learner.env_steps < plan.total_steps:
            next_checkpoint = learner.env_steps + plan.checkpoint_steps
            _save(run, learner)
    curve.measure(learner.policy, learner.env_steps, learner.gradient_steps, last=True)
    curve.pause()
    if learner.env_steps != saved:
        _save(run, learner)
    writer.close()
    return run.result(learner.policy, learner.env_steps)


def _save(run: TrainingRun, learner: Learner) -> None:
    with run.checkpoint(learner.env_steps) as folder:
        learner.save(folder)
