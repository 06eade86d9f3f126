"""A training run under way: what a trainer is given to keep its curve, write its checkpoints and tell how far it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmgym.agents.checkpoints import Checkpoint, open_folder, write_checkpoint
from hmgym.agents.learning_curve import CurvePoint, LearningCurve
from hmgym.agents.policy import Policy

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

    from hmgym.agents.training import TrainingPlan

Progress = Callable[[int, float], None]
"""Told the environment steps so far and the mean return, or nan, of the policy that explores."""
_PROGRESS_FILE = "progress.json"


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A trained policy and how it got there."""

    policy: Policy
    curve: list[CurvePoint]
    env_steps: int
    seconds: float


class TrainingRun:
    """What a trainer works with.

    Args:
        plan: of the run.
        hyperparameters: an instance of the algorithm's dataclass.
        found: the checkpoint to go on from; None begins.
        progress: told how far the run is.
    """

    def __init__(
        self, plan: TrainingPlan, hyperparameters: Any, found: Checkpoint | None, progress: Progress | None = None
    ) -> None:
        self.plan, self.hyperparameters, self.found = plan, hyperparameters, found
        self.curve = LearningCurve(plan)
        self.progress: Progress = progress or _tell_nobody

    def start(self) -> None:
        """Open the folder and start the clock; to be called once everything that may be refused has been made."""
        if self.found is not None:
            self.curve.read(self.found.folder / _PROGRESS_FILE)
        elif not self.plan.resume:
            open_folder(self.plan.out, overwrite=self.plan.overwrite)
        self.curve.start()

    @contextlib.contextmanager
    def checkpoint(self, env_steps: int, transient: Sequence[str] = ()) -> Iterator[Path]:
        """A folder to write the learner into; it becomes a checkpoint when the block ends.

        Args:
            env_steps: periods so far.
            transient: names of files that only the newest checkpoint keeps.
        """
        with write_checkpoint(self.plan.out, env_steps, self.plan.described(), transient) as folder:
            yield folder
            self.curve.write(folder / _PROGRESS_FILE)

    def writer(self) -> SummaryWriter:
        """TensorBoard's, under the run's folder.

        Raises:
            ImportError: TensorBoard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError('training logs need TensorBoard: pip install "hmgym[train]"') from error
        writer: SummaryWriter = SummaryWriter(str(self.plan.out / "tensorboard" / self.plan.algo))
        return writer

    def result(self, policy: Policy, env_steps: int) -> TrainingResult:
        """What the run leaves: its policy after so many periods, its curve and its seconds."""
        return TrainingResult(
            policy=policy, curve=self.curve.points, env_steps=env_steps, seconds=self.curve.seconds
        )  # fmt: skip


def _tell_nobody(env_steps: int, mean_return: float) -> None:
    """Progress of a run that nobody watches."""
