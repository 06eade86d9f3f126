"""Learners that run an active fund, against the average active fund of the same market.

``python -m benchmarks.fund_learners`` trains PPO and APG in the active/passive market on both ids, five seeds each, and
holds them against no leverage, the best constant and the best one-line rule, all chosen on the training span. It writes
``benchmarks/results/fund_learners.json`` and ``fund_learners.md``. The market is a small one, see :data:`MARKETS`: a
month of the default size takes ten times as long.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.jobs import Job, command_of, markdown_table, run_jobs, write_tables
from benchmarks.leaderboard.agents import AGENTS
from benchmarks.training import (
    Progress,
    environment_of,
    options_of,
    over_seeds,
    settings_of,
    short_name,
    test,
    with_interval,
)
from hmgym.agents import PROTOCOL, Policy, baselines_of, choose_best_constant
from hmgym.agents.probes import choose_rules, no_information
from hmgym.agents.rule_search import RuleBudget

IDS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0")
LEARNERS = {"PPO": 300_000, "APG": 50_000}
"""Months of training."""
MARKETS: dict[str, Any] = {
    "environment": {"scenario": "active-passive", "n_learners": 1},
    "economy": {"n_assets": 5, "n_retail": 24, "n_active": 6, "n_passive": 3},
}
_OVER, _NOISE = "over the average active fund", "without information"
_BUDGET = {"candidates": 8, "screening_episodes": 32, "families": 2, "generations": 6, "search_episodes": 64}


def tests_of(markets: Mapping[str, Any]) -> dict[str, Any]:
    """The markets that everybody is tested in, by name."""
    environment, economy = markets["environment"], markets["economy"]
    return {
        "own": markets,
        _OVER: {"environment": {**environment, "reward": "over_active_funds"}, "economy": economy},
        _NOISE: {"environment": environment, "economy": {**economy, **no_information(environment_of(markets))}},
    }


def untrained(
    out: Path, progress: Progress, *, env_id: str, markets: Mapping[str, Any], episodes: int, screening: int,
    budget: Mapping[str, int], settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """The id's baselines, the best constant and the best rule in all markets; a job of :mod:`benchmarks.jobs`."""
    protocol = dataclasses.replace(PROTOCOL, episodes=episodes, screening_episodes=screening)
    kwargs = environment_of(markets)
    choice = choose_best_constant(
        env_id, progress=lambda done, total: progress(0.3 * done / total, "constants"),
        **protocol.selection(env_id, kwargs),
    )  # fmt: skip
    rule = choose_rules(
        env_id, kwargs, protocol=protocol, budget=RuleBudget(**budget),
        progress=lambda name, done, total: progress(0.3 + 0.5 * done / total, "rules"),
    )["best_rule"]  # fmt: skip
    chosen: dict[str, tuple[str, Policy]] = {
        "best constant": (choice.policy.name, choice.policy), "best rule": (rule.policy.name, rule.policy),
    }  # fmt: skip
    rows: dict[str, Any] = {name: {"setting": setting, "tests": {}} for name, (setting, _) in chosen.items()}
    for name, where in tests_of(markets).items():
        progress(0.9, f"testing {name}")
        for row, (_, policy) in chosen.items():
            rows[row]["tests"][name] = test(policy, env_id, where, episodes)
        for row, baseline in baselines_of(env_id, environment_of(where)).items():
            label = row.replace("_", " ")
            found = test(baseline.policy, baseline.env_id, {"environment": dict(baseline.env_kwargs)}, episodes)
            rows.setdefault(label, {"setting": "", "tests": {}})["tests"][name] = found
    return {"rows": rows}


def jobs_of(env_id: str, options: argparse.Namespace) -> dict[str, list[Job]]:
    """All jobs of an id: those of each learner, one a seed, and "untrained"."""
    common = {"env_id": env_id, "episodes": options.episodes}
    arguments = {
        **common, "markets": MARKETS, "screening": options.screening, "budget": _BUDGET,
        "settings": settings_of(env_id, None, MARKETS, {}),
    }  # fmt: skip
    word = short_name(env_id)
    jobs = {
        "untrained": [
            Job(name=f"funds-untrained-{word}", kind="untrained", call="benchmarks.fund_learners:untrained",
                arguments=arguments)
        ]
    }  # fmt: skip
    for name, months in LEARNERS.items():
        agent = AGENTS[name]
        jobs[name] = [
            Job(
                name=f"funds-{name.lower()}-{word}-{seed}", kind=name, call="benchmarks.training:train_and_test",
                arguments={
                    **common, "algo": agent.algo, "seed": seed, "training": MARKETS, "tests": tests_of(MARKETS),
                    "hyperparameters": dict(agent.hyperparameters), "timesteps": options.timesteps or months,
                    "settings": settings_of(env_id, agent.algo, MARKETS, agent.hyperparameters),
                },
            )
            for seed in range(options.seeds)
        ]  # fmt: skip
    return jobs


def table_of(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Rows by agent: what each test gave, over seeds where there are some, else over episodes.

    Args:
        found: results of the jobs of `jobs_of`.
    """
    rows: dict[str, Any] = {}
    for name, row in found["untrained"][0]["rows"].items():
        tests = {one: {key: run[key] for key in ("mean", "ci95")} for one, run in row["tests"].items()}
        own = row["tests"]["own"]
        rows[name] = {"setting": row["setting"], "tests": tests, "growth": own["growth"], "ruined": own["ruined"]}
    for name in LEARNERS:
        runs = found[name]
        tests = {one: over_seeds([run["tests"][one]["mean"] for run in runs]) for one in runs[0]["tests"]}
        own = [run["tests"]["own"] for run in runs]
        rows[name] = {
            "setting": "", "tests": tests, "growth": sum(run["growth"] for run in own) / len(own),
            "ruined": sum(run["ruined"] for run in own) / len(own), "env_steps": runs[0]["env_steps"],
            "seconds": statistics.median(run["seconds"] for run in runs),
        }  # fmt: skip
    return rows


def page(environments: Mapping[str, Any], command: str, options: argparse.Namespace) -> str:
    """The tables in Markdown."""
    sizes = MARKETS["economy"]
    parts = [
        f"# Learners that run a fund\n\n`{command}`: the active/passive market with {sizes['n_assets']} assets, "
        f"{sizes['n_retail']} retail investors, {sizes['n_active']} active and {sizes['n_passive']} passive funds; "
        f"{options.episodes:,} episodes of 120 months on the held-out span, all funds after fees. Of PPO and APG mean "
        f"over {options.seeds} training seeds with Student's 95 % interval, of the others over episodes. \"Over the "
        "average active fund\" is paired month by month. Without information no signal tells anything, the funds' own "
        "included.\n"
    ]
    for env_id, rows in environments.items():
        shown = [("agent", "return", _OVER, _NOISE, "growth a year", "ruined", "months of training", "seconds")]
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["tests"]["own"]["mean"]):
            tests, steps, seconds = row["tests"], row.get("env_steps"), row.get("seconds")
            shown.append(
                (
                    name + (f" ({row['setting']})" if row["setting"] else ""), with_interval(tests["own"]),
                    with_interval(tests[_OVER], "+.3f"), with_interval(tests[_NOISE]), f"{row['growth']:.1%}",
                    f"{row['ruined']:.1%}", "" if steps is None else f"{steps:,}",
                    "" if seconds is None else f"{seconds:,.0f}",
                )
            )  # fmt: skip
        parts.append(f"## `{env_id}`\n\n{markdown_table(shown)}\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has to be run, gather and write; returns the exit status."""
    parser = options_of("fund_learners", __doc__, IDS, episodes=512)
    parser.add_argument("--screening", type=int, default=64, help="episodes that every constant of the grid gets")
    options = parser.parse_args(argv)
    wanted = {env_id: jobs_of(env_id, options) for env_id in options.ids}
    every = [job for jobs in wanted.values() for of_name in jobs.values() for job in of_name]
    results = iter(run_jobs(every, options.runs, options.workers))
    environments = {
        env_id: table_of({name: [next(results) for _ in of_name] for name, of_name in jobs.items()})
        for env_id, jobs in wanted.items()
    }
    command = command_of("benchmarks.fund_learners", argv)
    found = {"markets": MARKETS, "episodes": options.episodes, "environments": environments}
    write_tables(options.results, "fund_learners", command, found, page(environments, command, options))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
