"""What the examples share and no library of learners brings: the comparison."""

from __future__ import annotations

from typing import Any

from hmgym.agents import Policy, evaluate, evaluate_baselines
from hmgym.agents.progress import choose_with_bar
from hmgym.agents.report import build_report, comparison_table


def compare(
    policy: Policy,
    env_id: str,
    *,
    name: str,
    seed: int,
    env_steps: int,
    seconds: float,
    episodes: int,
    screening_episodes: int,
) -> dict[str, Any]:
    """Evaluate a trained policy as `train.py` does, print the table, and return the report.

    Args:
        policy: from observations (E, size) to actions (E, size of one action).
        env_id: a registered id.
        name: of the learner.
        seed: of the training run.
        env_steps: periods of training, over all markets.
        seconds: of training.
        episodes: of the evaluation, each a seed that every policy meets.
        screening_episodes: that every constant of the grid gets; 0 leaves out the best constant.
    """
    choice = None
    if screening_episodes:
        choice = choose_with_bar(env_id, screening_episodes=screening_episodes, episodes=episodes)
    report = build_report(
        env_id=env_id, algo=name, seed=seed, env_steps=env_steps, seconds=seconds, curve=[], choice=choice,
        final=evaluate(policy, env_id, name=name, episodes=episodes),
        baselines=evaluate_baselines(env_id, episodes=episodes, choice=choice),
    )  # fmt: skip
    print(f"\n{comparison_table(report)}\n")
    print(f"{env_steps:,} environment steps in {seconds:.0f} s ({report['frames_per_second']:,.0f} a second)")
    return report
