"""The best constant of an environment, and what an agent is compared with, on the seeds of the protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hmgym.agents.baselines import baselines_of
from hmgym.agents.constant import ConstantPolicy, constant_grid
from hmgym.agents.evaluation import PROTOCOL, Evaluation, evaluate
from hmgym.agents.rule_search import RuleChoice
from hmgym.checks import integer
from hmgym.envs import make_markets


@dataclass(frozen=True, kw_only=True)
class ConstantChoice:
    """The best constant and how it was chosen.

    Attributes:
        policy: the best one.
        names: of all constants of the grid.
        screening: shape (grid,), mean sum of rewards of each constant on the screening episodes.
        first_seed: first seed of the episodes it was chosen on.
    """

    policy: ConstantPolicy
    names: list[str]
    screening: npt.NDArray[np.float64]
    first_seed: int


def choose_best_constant(
    env_id: str,
    *,
    screening_episodes: int = PROTOCOL.screening_episodes,
    episodes: int = PROTOCOL.episodes,
    first_seed: int = PROTOCOL.selection_seed,
    env_kwargs: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ConstantChoice:
    """Choose among the constants of the grid, on seeds that no report uses.

    Every constant runs the same screening episodes; the best eighth of the grid then runs `episodes`, and the best of
    these is chosen.

    Args:
        env_id: a registered id.
        screening_episodes: episodes of every constant.
        episodes: episodes of the best eighth; 0 chooses by the screening alone.
        first_seed: first seed of both.
        env_kwargs: arguments of the environment.
        progress: called with the number of evaluations done and in all.

    Raises:
        ValueError: an argument is out of range.
    """
    screening_episodes = integer("screening_episodes", screening_episodes, 1)
    episodes = integer("episodes", episodes, 0)
    markets = make_markets(env_id, 1, **(env_kwargs or {}))
    grid = constant_grid(markets.action_map)
    finalists = max(1, len(grid) // 8) if episodes > 0 else 0
    total = len(grid) + finalists
    done = 0

    def mean(policy: ConstantPolicy, count: int) -> float:
        nonlocal done
        value = float(
            evaluate(policy, env_id, episodes=count, first_seed=first_seed, env_kwargs=env_kwargs).returns.mean()
        )
        done += 1
        if progress is not None:
            progress(done, total)
        return value

    screening = np.array([mean(policy, screening_episodes) for policy in grid])
    order = np.argsort(-screening, kind="stable")
    best = grid[int(order[0])]
    if finalists:
        chosen = [grid[int(index)] for index in order[:finalists]]
        best = chosen[int(np.argmax([mean(policy, episodes) for policy in chosen]))]
    return ConstantChoice(
        policy=best, names=[policy.name for policy in grid], screening=screening, first_seed=first_seed
    )


def evaluate_baselines(
    env_id: str,
    *,
    episodes: int = PROTOCOL.episodes,
    first_seed: int = PROTOCOL.first_seed,
    env_kwargs: Mapping[str, Any] | None = None,
    choice: ConstantChoice | None = None,
    rules: Mapping[str, RuleChoice] | None = None,
) -> dict[str, Evaluation]:
    """Evaluate what an agent is compared with: the id's own baselines, the best constant and rules that were chosen.

    See :func:`~hmgym.agents.baselines.baselines_of` and :func:`~hmgym.agents.probes.choose_rules`.
    """
    settings: dict[str, Any] = {"episodes": episodes, "first_seed": first_seed}
    runs = {
        name: evaluate(
            baseline.policy, baseline.env_id, name=name.replace("_", " "), env_kwargs=baseline.env_kwargs, **settings
        )
        for name, baseline in baselines_of(env_id, env_kwargs).items()
    }  # fmt: skip
    chosen: dict[str, Any] = {} if choice is None else {"best_constant": choice.policy}
    for name, policy in {**chosen, **{name: rule.policy for name, rule in (rules or {}).items()}}.items():
        label = f"{name.replace('_', ' ')} ({policy.name})"
        runs[name] = evaluate(policy, env_id, name=label, env_kwargs=env_kwargs, **settings)
    return runs
