"""Train an agent on a market, compare it with constants on the same shocks, and write what came of it.

    python train.py --algo ppo --env hmgym/Leverage-v0

writes report.json, figures, checkpoints and TensorBoard logs to the folder of --out.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from hmgym.agents import choose_best_constant, evaluate, evaluate_baselines
from hmgym.agents.arguments import parse_arguments
from hmgym.agents.evaluation import EVALUATION_SEED
from hmgym.agents.progress import ProgressBar
from hmgym.agents.report import (
    build_report,
    comparison_table,
    episode_figure,
    learning_curve_figure,
    record_episode,
    write_report,
)
from hmgym.agents.training import ALGORITHMS, TrainingPlan, hyperparameters_of, train
from hmgym.diagnostics import plausibility
from hmgym.envs import make_markets


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Arguments of the command line."""

    algo: str = "ppo"
    """algorithm: of stable-baselines3, or apg and shac, which backpropagate through the market"""
    env: str = "hmgym/Leverage-v0"
    """id of the environment"""
    timesteps: int | None = None
    """environment steps, over all learners of all markets together; default of the algorithm"""
    num_envs: int | None = None
    """markets side by side; default of the algorithm"""
    seed: int = 0
    """of the markets and of the learner"""
    out: Path | None = None
    """folder of everything written; default runs/ALGO-ENV-SEED"""
    resume: bool = False
    """go on from the newest checkpoint in the folder"""
    checkpoint_every: int | None = None
    """environment steps between checkpoints; default a quarter of the run"""
    curve_episodes: int = TrainingPlan.curve_episodes
    """episodes that every point of the learning curve is measured on, outside the clock; 0 measures none"""
    episodes: int = 2048
    """episodes of the evaluation at the end"""
    screening_episodes: int = 256
    """episodes that every constant of the grid gets before the best of them get as many as the evaluation"""
    n_assets: int | None = None
    """assets N; default of the environment"""
    n_investors: int | None = None
    """investors B, the learner included; default of the environment"""
    n_learners: int = 1
    """learners of every market, who share the policy; the evaluation is then the mean over them"""
    reward: str = "log_unit_value"
    """name of the reward"""


def main(argv: list[str]) -> int:
    """Train, evaluate, report."""
    arguments = parse_arguments(Arguments, argv, __doc__, choices={"algo": ALGORITHMS})
    name = arguments.env.split("/")[-1].removesuffix("-v0").lower()
    out = arguments.out or Path("runs") / f"{arguments.algo}-{name}-{arguments.seed}"
    env_kwargs = {
        key: value
        for key, value in (
            ("n_assets", arguments.n_assets),
            ("n_investors", arguments.n_investors),
            ("n_learners", arguments.n_learners if arguments.n_learners != 1 else None),
            ("reward", arguments.reward),
        )
        if value is not None
    }
    plan = TrainingPlan(
        algo=arguments.algo, env_id=arguments.env, timesteps=arguments.timesteps, num_envs=arguments.num_envs,
        seed=arguments.seed, out=out, resume=arguments.resume, checkpoint_every=arguments.checkpoint_every,
        curve_episodes=arguments.curve_episodes, env_kwargs=env_kwargs,
    )  # fmt: skip
    # The networks are small: a second thread of torch would only keep busy a core that clearing can use.
    torch.set_num_threads(1)
    print(f"Training {arguments.algo} on {arguments.env}, {plan.num_markets} markets side by side; writing to {out}/")
    with ProgressBar(plan.total_steps) as bar:
        result = train(plan, bar)

    begin = time.perf_counter()
    print("Choosing the best constant policy, on seeds of its own")
    with tqdm(unit="policy", leave=False) as grid_bar:

        def advance(done: int, total: int) -> None:
            grid_bar.total = total
            grid_bar.update(done - grid_bar.n)

        choice = choose_best_constant(
            arguments.env,
            screening_episodes=arguments.screening_episodes,
            episodes=arguments.episodes,
            env_kwargs=env_kwargs,
            progress=advance,
        )
    print(f"Evaluating on {arguments.episodes} fresh episodes")
    baselines = evaluate_baselines(arguments.env, episodes=arguments.episodes, env_kwargs=env_kwargs, choice=choice)
    final = evaluate(
        result.policy, arguments.env, name=arguments.algo, episodes=arguments.episodes, env_kwargs=env_kwargs
    )
    report = build_report(
        env_id=arguments.env, algo=arguments.algo, seed=arguments.seed, env_steps=result.env_steps,
        seconds=result.seconds, curve=[vars(point) for point in result.curve], final=final, baselines=baselines,
        choice=choice, settings={
            "timesteps": plan.total_steps, "num_envs": plan.num_markets, **env_kwargs,
            "hyperparameters": hyperparameters_of(plan),
        },
    )  # fmt: skip
    report["evaluation_seconds"] = round(time.perf_counter() - begin, 1)
    write_report(report, out / "report.json")
    learning_curve_figure(report).savefig(out / "learning_curve.png", dpi=120)
    series = record_episode(result.policy, arguments.env, seed=EVALUATION_SEED, env_kwargs=env_kwargs)
    episode_figure(series, f"{arguments.env}: one episode of the trained policy").savefig(out / "episode.png", dpi=120)
    economy = make_markets(arguments.env, 1, **env_kwargs).config
    plausibility.plot(plausibility.simulate(economy, seeds=range(24)), out / "plausibility.png")

    print()
    print(comparison_table(report))
    print(
        f"\n{report['env_steps']:,} environment steps in {report['seconds']:.0f} s "
        f"({report['frames_per_second']:,.0f} a second); wrote {out}/report.json "
        "and learning_curve.png, episode.png, plausibility.png beside it"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
