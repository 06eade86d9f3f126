"""Compare a trained policy, or a baseline, with the others on the same shocks.

POLICY is a checkpoint, the folder of a run (its newest checkpoint is taken), best_constant, a baseline of the
environment such as random or no_leverage, or a planner: myopic, planner.

Constants and rules are chosen on the training span of the history, and everything is reported on the held-out span, on
other seeds; a history given by `--parameters history=...` is used for both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from hmgym.agents import PROTOCOL, MyopicPolicy, PlannerPolicy, Policy, baselines_of, evaluate, evaluate_baselines
from hmgym.agents.algorithms import find_algorithm
from hmgym.agents.checkpoints import find_checkpoint
from hmgym.agents.probes import has_rules, lookups, without_information
from hmgym.agents.progress import choose_with_bar, rules_with_bar
from hmgym.agents.report import build_report, comparison_table, write_report
from hmgym.agents.training import TrainingPlan
from hmgym.commands.books import BookOptions, book_arguments
from hmgym.commands.console import check_at_least, environment_arguments, named_values, parse, refusals, say
from hmgym.envs import make_markets

PROG = "hmgym evaluate"
BEST_CONSTANT = "best_constant"
PLANNERS = {"myopic": MyopicPolicy, "planner": PlannerPolicy}


@dataclass(frozen=True, kw_only=True)
class Arguments(BookOptions):
    """Options."""

    policy: Annotated[str, tyro.conf.Positional]
    """a checkpoint, the folder of a run, best_constant, a baseline (random, no_leverage), myopic or planner"""
    env: str | None = None
    """id of the environment; default that of the checkpoint, hmgym/Beliefs-v0 for the others"""
    episodes: int = PROTOCOL.episodes
    """episodes, each a seed that every policy meets"""
    seed: int = PROTOCOL.first_seed
    """of the first episode; the others count up from it"""
    screening_episodes: int = PROTOCOL.screening_episodes
    """episodes that every constant of the grid gets, on other seeds; 0 leaves out the best constant"""
    lookup: bool = False
    """also look this month's news up in the history, which should earn no more than in permuted histories"""
    rules: bool = False
    """also search the best one-line rule, and the best filter rule where the regime is hidden (some minutes)"""
    workers: int = 1
    """processes of that search"""
    n_assets: int | None = None
    """assets N; default as in training, or the environment's"""
    n_investors: int | None = None
    """investors B; default as in training, or the environment's"""
    n_learners: int | None = None
    """learners of every market, who share the policy; default as in training, or the environment's"""
    reward: str | None = None
    """name of the reward; default as in training, or the environment's"""
    parameters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """parameters of the environment or of its economy that are held at a value"""
    out: Path | None = None
    """file that the comparison is written to, as JSON"""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is evaluated: a trained policy, or by its name a baseline or a planner."""

    name: str
    policy: Policy | None
    env_id: str
    env_kwargs: dict[str, Any]
    seed: int = 0
    env_steps: int = 0


def main(argv: Sequence[str]) -> int:
    """Evaluate and print the table; returns the exit status."""
    arguments = parse(Arguments, argv, prog=PROG, description=__doc__)
    torch.set_num_threads(1)
    with refusals(PROG):
        check_at_least(arguments, episodes=2, screening_episodes=0, seed=0, workers=1)
        if arguments.out is not None and not (arguments.out.parent.is_dir() or not arguments.out.parent.exists()):
            raise ValueError(f"`out` must lie in a folder, got {arguments.out}")
        report = evaluate_subject(arguments)
    say(comparison_table(report))
    if arguments.out is not None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        write_report(report, arguments.out)
    return 0


def evaluate_subject(arguments: Arguments) -> dict[str, Any]:
    """The report of what is asked for, baselines beside it."""
    subject = find_subject(arguments)
    make_markets(subject.env_id, 1, **subject.env_kwargs).close()  # refuses what the environment refuses
    env_id, env_kwargs = subject.env_id, subject.env_kwargs
    protocol = replace(
        PROTOCOL, episodes=arguments.episodes, first_seed=arguments.seed,
        screening_episodes=arguments.screening_episodes or PROTOCOL.screening_episodes,
    )  # fmt: skip
    reported = protocol.report(env_id, env_kwargs)
    policy = subject.policy
    if subject.name in PLANNERS:  # which knows the model of the markets that it plans in
        policy = PLANNERS[subject.name](env_id, **reported["env_kwargs"])
    choice = choose_with_bar(env_id, **protocol.selection(env_id, env_kwargs)) if arguments.screening_episodes else None
    rules = rules_with_bar(env_id, env_kwargs, protocol=protocol, workers=arguments.workers) if arguments.rules else {}
    baselines = evaluate_baselines(env_id, choice=choice, rules=rules, **reported)
    if arguments.lookup:
        baselines |= lookups(env_id, env_kwargs, protocol=protocol)
    if policy is None:
        final = baselines.pop(subject.name)
    else:
        final = evaluate(policy, env_id, name=subject.name, **reported)
        if subject.name not in PLANNERS and has_rules(env_id, env_kwargs):
            baselines["without_information"] = without_information(policy, env_id, env_kwargs, protocol=protocol)
    report = build_report(
        env_id=env_id, algo=subject.name, seed=subject.seed, env_steps=subject.env_steps, seconds=0.0, curve=[],
        final=final, baselines=baselines, choice=choice, protocol=protocol.described(env_id, env_kwargs), rules=rules,
        settings={name: str(value) if name == "config" else value for name, value in env_kwargs.items()},
    )  # fmt: skip
    for of_training in ("seconds", "frames_per_second", "curve"):
        del report[of_training]
    return report


def find_subject(arguments: Arguments) -> Subject:
    """The policy that is asked for, with its environment.

    Raises:
        ValueError: there is no such policy, or its checkpoint cannot be read.
    """
    name = arguments.policy
    sizes = {key: getattr(arguments, key) for key in ("n_assets", "n_investors", "n_learners", "reward")}
    parameters = named_values(arguments.parameters)
    if not Path(name).is_dir():
        env_id = arguments.env or TrainingPlan.env_id
        sizes |= book_arguments(arguments, env_id)
        env_kwargs = environment_arguments(env_id, sizes, parameters)
        if name == BEST_CONSTANT and not arguments.screening_episodes:
            raise ValueError("`screening_episodes` must be >= 1 to choose the best constant, got 0")
        known = [*baselines_of(env_id, env_kwargs), BEST_CONSTANT, *PLANNERS]
        if name in known:
            return Subject(name=name, policy=None, env_id=env_id, env_kwargs=env_kwargs)
        raise ValueError(f"`policy` must be the folder of a checkpoint or of a run, or one of {known}, got {name!r}")
    checkpoint = find_checkpoint(Path(name))
    plan = TrainingPlan.of_checkpoint(checkpoint)
    env_id = arguments.env or plan.env_id
    sizes |= book_arguments(arguments, env_id)
    given = {**plan.env_kwargs, **{key: value for key, value in sizes.items() if value is not None}}
    return Subject(
        name=plan.algo, policy=find_algorithm(plan.algo).load_policy(checkpoint.folder, plan), env_id=env_id,
        env_kwargs=environment_arguments(env_id, given, parameters), seed=plan.seed, env_steps=checkpoint.env_steps,
    )  # fmt: skip
