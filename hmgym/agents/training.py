"""What every training run is asked for, what is checked before its first step, and the one function that trains."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hmgym.agents.algorithms import ALGORITHMS, find_algorithm
from hmgym.agents.checkpoints import Checkpoint, check_folder, newest_checkpoint
from hmgym.agents.run import Progress, TrainingResult, TrainingRun
from hmgym.checks import integer, integer_or_none
from hmgym.envs import make_markets

_FREE = ("timesteps", "checkpoint_every")  # what a resumed run may change


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What to train.

    Attributes:
        algo: a name in :data:`~hmgym.agents.algorithms.ALGORITHMS`.
        env_id: a registered id.
        timesteps: periods over all learners of all markets together; None takes the algorithm's own.
        num_envs: markets side by side; None takes the algorithm's own.
        seed: of the markets and of the learner.
        out: folder of checkpoints and TensorBoard logs.
        resume: go on from the newest checkpoint in `out`, if there is one; it must be of the same plan, but for
            `timesteps` and `checkpoint_every`.
        overwrite: remove what an older run wrote to `out`; without it, and without `resume`, a used folder is refused.
        checkpoint_every: periods between checkpoints; None takes a quarter of the run.
        curve_episodes: episodes that every point of the learning curve is measured on; 0 measures none.
        env_kwargs: arguments of the environment; with ``n_learners`` all learners of a market share the policy.
        hyperparameters: changes to the algorithm's own.
    """

    algo: str = "ppo"
    env_id: str = "hmgym/Beliefs-v0"
    timesteps: int | None = None
    num_envs: int | None = None
    seed: int = 0
    out: Path = Path("runs/ppo")
    resume: bool = False
    overwrite: bool = False
    checkpoint_every: int | None = None
    curve_episodes: int = 256
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.algo not in ALGORITHMS:
            raise ValueError(f"`algo` must be one of {sorted(ALGORITHMS)}, got {self.algo!r}")
        for name in ("timesteps", "num_envs", "checkpoint_every"):
            integer_or_none(name, getattr(self, name), 1)
        for name in ("seed", "curve_episodes"):
            integer(name, getattr(self, name), 0)
        if self.seed >= 2**32:
            raise ValueError(f"`seed` must be < 2**32, got {self.seed}")
        if self.resume and self.overwrite:
            raise ValueError("`resume` and `overwrite` must not both be set: one goes on with what the other removes")

    @property
    def total_steps(self) -> int:
        """Periods over all learners of all markets."""
        return find_algorithm(self.algo).timesteps_for(self.env_id) if self.timesteps is None else self.timesteps

    @property
    def num_markets(self) -> int:
        """Markets side by side."""
        return find_algorithm(self.algo).num_envs if self.num_envs is None else self.num_envs

    @property
    def checkpoint_steps(self) -> int:
        """Periods between checkpoints."""
        return max(1, self.total_steps // 4) if self.checkpoint_every is None else self.checkpoint_every

    @property
    def market_seed(self) -> int:
        """Seed of the first market."""
        return spread_seed(self.seed)

    def described(self) -> dict[str, Any]:
        """Everything that tells this run from others, ready for JSON, defaults filled in."""
        return {
            "algo": self.algo,
            "env_id": self.env_id,
            "seed": int(self.seed),
            "num_envs": int(self.num_markets),
            "curve_episodes": int(self.curve_episodes),
            "env_kwargs": _plain(self.env_kwargs),
            "hyperparameters": _plain(hyperparameters_of(self)),
            "timesteps": int(self.total_steps),
            "checkpoint_every": int(self.checkpoint_steps),
        }

    @classmethod
    def of_checkpoint(cls, checkpoint: Checkpoint) -> TrainingPlan:
        """The plan that a checkpoint was written by, with the run's folder as `out`.

        Environment arguments that are objects (a `config`, a reward function) are stored as descriptions only.
        """
        return cls(**checkpoint.plan, out=checkpoint.folder.parent.parent)

    def default_folder(self) -> Path:
        """``runs/ALGO-ENVIRONMENT-SEED-DIGEST``; the digest is of everything else that a resumed run must share."""
        described = {name: value for name, value in self.described().items() if name not in _FREE}
        digest = hashlib.sha256(_canonical(described).encode()).hexdigest()[:8]
        environment = self.env_id.split("/")[-1].removesuffix("-v0").lower()
        return Path("runs") / f"{self.algo}-{environment}-{self.seed}-{digest}"


def spread_seed(seed: int, *stage: int) -> int:
    """A seed far from those of other runs: markets count up from it, and runs whose seeds count up would share them."""
    return int(np.random.SeedSequence([seed, *stage]).generate_state(1)[0])


def hyperparameters_of(plan: TrainingPlan) -> dict[str, Any]:
    """What the algorithm runs with: its own hyperparameters on that environment, and the plan's in their place."""
    return dataclasses.asdict(find_algorithm(plan.algo).hyperparameters_for(plan.env_id, plan.hyperparameters))


def train(plan: TrainingPlan, progress: Progress | None = None) -> TrainingResult:
    """Train as planned; writes checkpoints and TensorBoard logs under ``plan.out``.

    Args:
        plan: what to train.
        progress: told how far the run is.

    Raises:
        ValueError: an argument is out of range; the folder holds another run; or the run to be resumed has another
            plan. Nothing has been written or removed then.
        ImportError: a package that the algorithm needs, or TensorBoard, is not installed.
    """
    algorithm = find_algorithm(plan.algo)
    hyperparameters = algorithm.hyperparameters_for(plan.env_id, plan.hyperparameters)
    make_markets(plan.env_id, 1, **plan.env_kwargs).close()  # refuses what the environment refuses
    found = newest_checkpoint(plan.out) if plan.resume else None
    if found is not None:
        check_same_run(plan, found)
    check_folder(plan.out, overwrite=plan.overwrite or plan.resume)
    return algorithm.train(TrainingRun(plan, hyperparameters, found, progress))


def check_same_run(plan: TrainingPlan, found: Checkpoint) -> None:
    """Check that a plan goes on with the run of a checkpoint.

    Raises:
        ValueError: it differs; names the argument, what the run had and what the plan has.
    """
    own = json.loads(_canonical(plan.described()))
    for name, value in own.items():
        if name in _FREE:
            continue
        before = found.plan.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            for key in sorted({*value, *before}):
                _check_same(key, before.get(key, "the default"), value.get(key, "the default"), found)
        else:
            _check_same(name, before, value, found)
    asked = min(found.env_steps, found.plan.get("timesteps", found.env_steps))
    if plan.total_steps < asked:
        raise ValueError(
            f"`timesteps` must be >= {asked}, which the run that is resumed has done ({found.folder}), "
            f"got {plan.total_steps}"
        )


def _check_same(name: str, before: Any, now: Any, found: Checkpoint) -> None:
    if _canonical(before) != _canonical(now):
        raise ValueError(f"`{name}` must be {before!r}, as in the run that is resumed ({found.folder}), got {now!r}")


def _canonical(described: Any) -> str:
    return json.dumps(described, sort_keys=True)


def _plain(value: Any) -> Any:
    """A description of any argument that JSON can hold; equal arguments have equal ones."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {item.name: _plain(getattr(value, item.name)) for item in dataclasses.fields(value)}
        return {"type": type(value).__qualname__, **fields}
    if hasattr(value, "__qualname__"):  # functions and classes
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)
