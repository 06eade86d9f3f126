"""Every agent of the package on the three ids, five seeds each, and what they are held against.

``python -m benchmarks.leaderboard`` trains what is not trained yet and writes ``benchmarks/results/leaderboard.json``,
``docs/leaderboard.md`` and ``docs/images/learning_curves.png``. A run that was cut off goes on where it stopped, with
the same command; `--only` and `--ids` run a part, and what is there already stays in the tables.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.jobs import RESULTS, ROOT, Job, command_of, run_jobs, stored, stored_first, write_result
from benchmarks.leaderboard.agents import AGENTS, IDS, PLANNERS
from benchmarks.leaderboard.gathering import table_of
from benchmarks.leaderboard.outside import rows_from
from benchmarks.leaderboard.page import draw, page
from benchmarks.training import options_of, settings_of, short_name
from hmgym.agents.probes import NO_INFORMATION
from hmgym.agents.training import TrainingPlan

PROBES = ("constants", "rules", *PLANNERS)


def probe_job(env_id: str, name: str, episodes: int, budget: dict[str, int]) -> Job:
    """A job that trains nothing."""
    arguments: dict[str, Any] = {"env_id": env_id, "episodes": episodes, "settings": settings_of(env_id, None, {}, {})}
    call = name
    if name == "rules":
        arguments["budget"] = budget
    if name in PLANNERS:
        arguments["name"], call = name, "planner"
    return Job(
        name=f"{name}-{short_name(env_id)}", kind=name, call=f"benchmarks.leaderboard.probes:{call}",
        arguments=arguments,
    )  # fmt: skip


def training_job(env_id: str, name: str, seed: int, options: argparse.Namespace) -> Job:
    """A job that trains one agent with one seed."""
    agent = AGENTS[name]
    own = {"environment": dict(agent.environment)}
    training = {**own, "economy": dict(agent.economy)}
    arguments = {
        "env_id": env_id, "algo": agent.algo, "seed": seed, "training": training,
        "tests": {"own": own, "without information": {**own, "economy": NO_INFORMATION}},
        "hyperparameters": dict(agent.hyperparameters), "episodes": options.episodes,
        "timesteps": options.timesteps or agent.timesteps, "num_envs": agent.num_envs,
        "curve_episodes": options.curve_episodes,
        "settings": settings_of(env_id, agent.algo, training, agent.hyperparameters),
    }  # fmt: skip
    words = "".join(letter if letter.isalnum() else "-" for letter in name.lower()).replace("--", "-")
    return Job(
        name=f"{words}-{short_name(env_id)}-{seed}", kind=name, call="benchmarks.training:train_and_test",
        arguments=arguments,
    )  # fmt: skip


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """The tables of those ids whose constants are evaluated, with every agent, of as many seeds as there are."""
    environments = {}
    for env_id in IDS:
        probes = [stored(probe_job(env_id, name, options.episodes, options.budget), options.runs) for name in PROBES]
        if probes[0] is None:
            continue
        trained = {}
        for name in AGENTS:
            jobs = (training_job(env_id, name, seed, options) for seed in range(options.seeds))
            found = stored_first(jobs, options.runs)
            if found:
                trained[name] = found
        environments[env_id] = table_of([one for one in probes if one], trained, rows_from(options.rows, env_id))
    return environments


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has to be run, gather and write; returns the exit status."""
    parser = options_of("leaderboard", __doc__, IDS)
    parser.add_argument("--only", nargs="+", choices=[*AGENTS, *PROBES], help="agents and probes to run; default all")
    parser.add_argument("--show", action="store_true", help="run nothing, write the tables of what is there")
    parser.add_argument("--rows", type=Path, default=RESULTS / "rows", help="folder of rows from outside")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs")
    parser.add_argument("--curve-episodes", type=int, default=TrainingPlan.curve_episodes)
    parser.add_argument("--budget", type=json.loads, default={}, help="changes to the search of rules, as JSON")
    options = parser.parse_args(argv)
    seeds, chosen = range(options.seeds), options.only or [*PROBES, *AGENTS]
    jobs = [
        probe_job(env_id, name, options.episodes, options.budget)
        for name in PROBES if name in chosen for env_id in options.ids
    ]  # fmt: skip
    jobs += [
        training_job(env_id, name, seed, options)
        for name in AGENTS if name in chosen for seed in seeds for env_id in options.ids
    ]  # fmt: skip
    if not options.show:
        run_jobs(jobs, options.runs, options.workers)
    environments = gather(options)
    command = command_of("benchmarks.leaderboard", argv).replace(" --show", "")
    gathered = {
        "seeds": options.seeds, "episodes": options.episodes, "workers": options.workers, "environments": environments,
    }  # fmt: skip
    written = (options.results / "leaderboard.json", options.docs / "leaderboard.md")
    write_result(written[0], command, gathered)
    options.docs.mkdir(parents=True, exist_ok=True)
    written[1].write_text(page(gathered, command), encoding="utf-8")
    if environments:
        draw(environments, options.docs / "images" / "learning_curves.png")
    print(f"wrote {written[0]} and {written[1]}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
