"""Train an agent on a market, compare it with constants on the same shocks, and write what came of it.

Writes report.json, figures, checkpoints and TensorBoard logs to the folder of --out. The hyperparameters of the chosen
algorithm are options too: ``hmgym train --algo apg --help`` lists those of apg.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro

from hmgym.agents import PROTOCOL, evaluate, evaluate_baselines
from hmgym.agents.algorithms import ALGORITHMS, find_algorithm
from hmgym.agents.baselines import baselines_of
from hmgym.agents.checkpoints import newest_checkpoint
from hmgym.agents.progress import ProgressBar, choose_with_bar
from hmgym.agents.report import (
    build_report,
    comparison_table,
    episode_figure,
    learning_curve_figure,
    record_episode,
    typical_seed,
    write_report,
)
from hmgym.agents.training import TrainingPlan, hyperparameters_of, train
from hmgym.analysis import plausibility
from hmgym.analysis.figures import save
from hmgym.commands.books import BookOptions, book_arguments
from hmgym.commands.console import (
    check_at_least,
    named_values,
    own_arguments,
    parse,
    refusals,
    say,
    taken_arguments,
)
from hmgym.diagnostics.plausibility import simulate
from hmgym.envs import MarketVectorEnv, make_markets

PROG = "hmgym train"


@dataclass(frozen=True, kw_only=True)
class Arguments(BookOptions):
    """Options, those of the algorithm left out."""

    algo: str = "ppo"
    """algorithm: of stable-baselines3, or apg and shac, which backpropagate through the market"""
    env: str = TrainingPlan.env_id
    """id of the environment"""
    timesteps: int | None = None
    """environment steps, over all learners of all markets together; default of the algorithm"""
    num_envs: int | None = None
    """markets side by side; default of the algorithm"""
    seed: int = 0
    """of the markets and of the learner"""
    out: Path | None = None
    """folder of everything written; default runs/ALGO-ENV-SEED-DIGEST, with a digest of the other arguments"""
    resume: bool = False
    """go on from the newest checkpoint in the folder"""
    overwrite: bool = False
    """remove what an older run wrote to the folder; a used folder is refused otherwise"""
    checkpoint_every: int | None = None
    """environment steps between checkpoints; default a quarter of the run"""
    curve_episodes: int = TrainingPlan.curve_episodes
    """episodes that every point of the learning curve is measured on, outside the clock; 0 measures none"""
    episodes: int = PROTOCOL.episodes
    """episodes of the evaluation at the end"""
    screening_episodes: int = PROTOCOL.screening_episodes
    """episodes that every constant of the grid gets before the best of them get as many as the evaluation"""
    n_assets: int | None = None
    """assets N; default of the environment"""
    n_investors: int | None = None
    """investors B, the learner included; default of the environment"""
    n_learners: int = 1
    """learners of every market, who share the policy; the evaluation is then the mean over them"""
    scenario: str | None = None
    """who is in the market, a name of `hmgym.market.SCENARIOS`; default of the environment"""
    reward: str | None = None
    """name of the reward; default of the environment"""
    parameters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """other arguments of the environment, such as steps=20"""


def main(argv: Sequence[str]) -> int:
    """Train, evaluate, report; returns the exit status."""
    with refusals(PROG):
        arguments, hyperparameters = _parse(argv)
        check_at_least(arguments, episodes=2, screening_episodes=1)
        plan = _plan(arguments, hyperparameters)
        # What the report needs is refused before training rather than after it.
        make_markets(plan.env_id, 1, **PROTOCOL.report(plan.env_id, plan.env_kwargs)["env_kwargs"]).close()
    # The networks are small: a second thread of torch would only keep busy a core that clearing can use.
    torch.set_num_threads(1)
    title = f"Training {plan.algo} on {plan.env_id}, {plan.num_markets} markets side by side; writing to {plan.out}/"
    if plan.resume and newest_checkpoint(plan.out) is None:
        title += "; no checkpoint there, so the run begins anew"
    with ProgressBar(plan.total_steps, lambda: say(title)) as bar:
        try:
            result = train(plan, bar)
        except (ValueError, ImportError):
            if bar.started:
                raise
            with refusals(PROG):
                raise

    begin = time.perf_counter()
    env_id, out = plan.env_id, plan.out
    protocol = dataclasses.replace(
        PROTOCOL, episodes=arguments.episodes, screening_episodes=arguments.screening_episodes
    )  # fmt: skip
    reported = protocol.report(env_id, plan.env_kwargs)
    env_kwargs = reported["env_kwargs"]
    described = protocol.described(env_id, plan.env_kwargs)
    say("Choosing the best constant policy, on seeds of its own")
    choice = choose_with_bar(env_id, **protocol.selection(env_id, plan.env_kwargs))
    say(f"Evaluating on {arguments.episodes} fresh episodes, history: {described['span']}")
    baselines = evaluate_baselines(env_id, choice=choice, **reported)
    final = evaluate(result.policy, env_id, name=plan.algo, **reported)
    report = build_report(
        env_id=env_id, algo=plan.algo, seed=plan.seed, env_steps=result.env_steps,
        seconds=result.seconds, curve=[vars(point) for point in result.curve], final=final, baselines=baselines,
        choice=choice, protocol=described, settings={
            "timesteps": plan.total_steps, "num_envs": plan.num_markets, **plan.env_kwargs,
            "hyperparameters": hyperparameters_of(plan),
        },
    )  # fmt: skip
    report["evaluation_seconds"] = round(time.perf_counter() - begin, 1)
    write_report(report, out / "report.json")
    save(learning_curve_figure(report), out / "learning_curve.png")
    seed = typical_seed(final)
    series = record_episode(result.policy, env_id, seed=seed, env_kwargs=env_kwargs)
    beside = {
        name.replace("_", " "): record_episode(other.policy, other.env_id, seed=seed, env_kwargs=other.env_kwargs)
        for name, other in baselines_of(env_id, env_kwargs).items()
        if name != "random"
    }
    save(episode_figure(series, f"{env_id}: a typical episode of {plan.algo}", beside), out / "episode.png")
    pictures = ["learning_curve.png", "episode.png"]
    markets = make_markets(env_id, 1, **plan.env_kwargs)
    if isinstance(markets, MarketVectorEnv):  # other simulators have no economy that could be plausible
        pictures.append("plausibility.png")
        plausibility.plot(simulate(markets.config, seeds=range(24)), out / pictures[-1])

    say(f"\n{comparison_table(report)}")
    say(
        f"\n{report['env_steps']:,} environment steps in {report['seconds']:.0f} s "
        f"({report['frames_per_second']:,.0f} a second); wrote {out}/report.json "
        f"and {', '.join(pictures)} beside it"
    )
    return 0


def _parse(argv: Sequence[str]) -> tuple[Arguments, Any]:
    """The options, and the hyperparameters of the algorithm that they name, whose fields are options too."""
    first = argparse.ArgumentParser(prog=PROG, add_help=False, allow_abbrev=False)
    first.add_argument("--algo", default=Arguments.algo, choices=sorted(ALGORITHMS))
    first.add_argument("--env", default=Arguments.env)
    chosen, _ = first.parse_known_args(argv)
    own = find_algorithm(chosen.algo).hyperparameters_for(chosen.env)
    everything: Any = dataclasses.make_dataclass(
        "Arguments", bases=(Arguments,), frozen=True, kw_only=True, namespace={"__doc__": Arguments.__doc__},
        fields=[
            ("algo", Literal[tuple(sorted(ALGORITHMS))], Arguments.algo),
            ("hyperparameters", type(own), own),
        ],
    )  # fmt: skip
    arguments: Any = parse(everything, argv, prog=PROG, description=__doc__)
    return arguments, arguments.hyperparameters


def _plan(arguments: Arguments, hyperparameters: Any) -> TrainingPlan:
    given = {
        "n_assets": arguments.n_assets,
        "n_investors": arguments.n_investors,
        "n_learners": arguments.n_learners if arguments.n_learners != 1 else None,
        "reward": arguments.reward,
        "scenario": arguments.scenario,
        **book_arguments(arguments, arguments.env),
        **own_arguments(arguments.env, named_values(arguments.parameters)),
    }
    plan = TrainingPlan(
        algo=arguments.algo, env_id=arguments.env, timesteps=arguments.timesteps, num_envs=arguments.num_envs,
        seed=arguments.seed, resume=arguments.resume, overwrite=arguments.overwrite,
        checkpoint_every=arguments.checkpoint_every, curve_episodes=arguments.curve_episodes,
        env_kwargs=taken_arguments(arguments.env, given),
        hyperparameters=dataclasses.asdict(hyperparameters),
    )  # fmt: skip
    return dataclasses.replace(plan, out=arguments.out or plan.default_folder())
