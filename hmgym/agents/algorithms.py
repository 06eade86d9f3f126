"""The learning algorithms there are: one record each, found by name and imported only when it is asked for.

To add one, write a module with its hyperparameters, its trainer and its record, and add a line to :data:`ALGORITHMS`
(docs/extending.md has a complete example).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hmgym.lazy import imported

if TYPE_CHECKING:
    from hmgym.agents.policy import Policy
    from hmgym.agents.run import TrainingResult, TrainingRun
    from hmgym.agents.training import TrainingPlan

ALGORITHMS: dict[str, str] = {
    "ppo": "hmgym.agents.sb3.algorithms:PPO",
    "a2c": "hmgym.agents.sb3.algorithms:A2C",
    "sac": "hmgym.agents.sb3.algorithms:SAC",
    "td3": "hmgym.agents.sb3.algorithms:TD3",
    "tqc": "hmgym.agents.sb3.contrib:TQC",
    "recurrent_ppo": "hmgym.agents.sb3.contrib:RECURRENT_PPO",
    "apg": "hmgym.agents.gradient_training:APG",
    "shac": "hmgym.agents.gradient_training:SHAC",
}
"""Where the record of each algorithm is, ``module:attribute``, by the name that plans give."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What has to be known of an algorithm to train it, to set its flags and to load what it left.

    Attributes:
        name: as in :data:`ALGORITHMS`.
        hyperparameters: a frozen keyword-only dataclass whose fields have defaults; each becomes a flag, and the string
            under it the flag's help.
        train: trains as the run says, from its newest checkpoint where it has one.
        load_policy: the deterministic policy of a checkpoint folder; the plan names the environment.
        timesteps: of a plan that does not say: periods over all learners of all markets.
        num_envs: of a plan that does not say: markets side by side.
        by_environment: hyperparameters that differ from the defaults, by environment id.
        timesteps_by_environment: `timesteps` likewise.
    """

    name: str
    hyperparameters: type[Any]
    train: Callable[[TrainingRun], TrainingResult]
    load_policy: Callable[[Path, TrainingPlan], Policy]
    timesteps: int
    num_envs: int
    by_environment: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timesteps_by_environment: Mapping[str, int] = field(default_factory=dict)

    def timesteps_for(self, env_id: str) -> int:
        """Periods of a plan that does not say."""
        return self.timesteps_by_environment.get(env_id, self.timesteps)

    def hyperparameters_for(self, env_id: str, changes: Mapping[str, Any] | None = None) -> Any:
        """An instance of `hyperparameters`: the defaults, what the environment asks for, and `changes` over both.

        Raises:
            ValueError: a name is none of its hyperparameters, or a value is out of range.
        """
        known = [item.name for item in dataclasses.fields(self.hyperparameters)]
        chosen = {**self.by_environment.get(env_id, {}), **(changes or {})}
        unknown = sorted(set(chosen) - set(known))
        if unknown:
            raise ValueError(f"`hyperparameters` of {self.name} must be some of {sorted(known)}, got {unknown}")
        return self.hyperparameters(**chosen)


def find_algorithm(name: str) -> Algorithm:
    """The record of an algorithm.

    Raises:
        ValueError: there is no such algorithm.
        ImportError: a package that it needs is not installed.
    """
    if name not in ALGORITHMS:
        raise ValueError(f"`algo` must be one of {sorted(ALGORITHMS)}, got {name!r}")
    record = imported(ALGORITHMS[name])
    assert isinstance(record, Algorithm)
    return record
