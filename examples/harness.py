"""What the examples share and no library of learners brings: the comparison."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

from hmgym.agents import ConstantChoice, Policy, choose_best_constant, evaluate, evaluate_baselines
from hmgym.agents.report import build_report, comparison_table


def choose_constant(env_id: str, *, screening_episodes: int, episodes: int) -> ConstantChoice:
    """The best constant action, chosen on seeds of its own, with a progress bar."""
    with tqdm(desc="best constant", unit="policy", leave=False, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return choose_best_constant(
            env_id, screening_episodes=screening_episodes, episodes=episodes, progress=advance
        )  # fmt: skip


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
        choice = choose_constant(env_id, screening_episodes=screening_episodes, episodes=episodes)
    report = build_report(
        env_id=env_id, algo=name, seed=seed, env_steps=env_steps, seconds=seconds, curve=[], choice=choice,
        final=evaluate(policy, env_id, name=name, episodes=episodes),
        baselines=evaluate_baselines(env_id, episodes=episodes, choice=choice),
    )  # fmt: skip
    print(f"\n{comparison_table(report)}\n")
    print(f"{env_steps:,} environment steps in {seconds:.0f} s ({report['frames_per_second']:,.0f} a second)")
    return report
