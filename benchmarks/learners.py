"""Several learners in one market: one policy for all by PPO and by SHAC, and best responses until nobody gains.

``python -m benchmarks.learners`` writes ``benchmarks/results/learners.json`` and ``learners.md``. Learners share a
policy; PPO sees each of them as a row, SHAC ascends each one's own return. Then one learner at a time deviates from
SHAC's policy, by gradient, and everybody takes over what it found, for as long as it gains: the 95 % interval of the
gain is above 0. What gradient ascent finds is a lower bound of what a deviation gains, so that the last gain says how
near the policy is to an equilibrium as far as this search can tell.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.jobs import Job, command_of, markdown_table, run_jobs, write_tables
from benchmarks.training import (
    Progress,
    environment_of,
    options_of,
    over_seeds,
    settings_of,
    short_name,
    test,
    train_and_test,
    with_interval,
)
from hmgym.agents import PROTOCOL
from hmgym.agents.best_response import best_response
from hmgym.agents.checkpoints import find_checkpoint
from hmgym.agents.networks import SquashedGaussianPolicy
from hmgym.agents.training import spread_seed

IDS = ("hmgym/Leverage-v0", "hmgym/Beliefs-v0")
SIZES = {"ppo": (2_000_000, 64), "shac": (400_000, 8)}  # periods over all learners, markets
RESPONSE_STEPS = 100_000
ROUNDS = 8


def learners_job(env_id: str, algo: str, seed: int, options: argparse.Namespace) -> Job:
    """Train one algorithm, and let learners deviate from what SHAC found."""
    markets = {"environment": {"n_learners": options.n_learners}}
    timesteps, num_envs = SIZES[algo]
    arguments = {
        "env_id": env_id, "algo": algo, "seed": seed, "training": markets, "tests": {"own": markets},
        "hyperparameters": {}, "episodes": options.episodes, "timesteps": options.timesteps or timesteps,
        "num_envs": num_envs, "settings": settings_of(env_id, algo, markets, {}),
    }  # fmt: skip
    call = "benchmarks.training:train_and_test"
    if algo == "shac":
        call = "benchmarks.learners:train_and_deviate"
        arguments |= {"rounds": options.rounds, "response_steps": options.response_steps}
    return Job(name=f"learners-{short_name(env_id)}-{algo}-{seed}", kind=algo, call=call, arguments=arguments)


def train_and_deviate(
    out: Path, progress: Progress, *, rounds: int, response_steps: int, **arguments: Any
) -> dict[str, Any]:
    """Train by gradient, then best responses, round after round, until nobody gains.

    What the rounds found is kept in the folder, so that a job that was cut off goes on with the next round.
    """
    trained = train_and_test(out, lambda share, text="": progress(0.4 * share, text), **arguments)
    policy = SquashedGaussianPolicy.load(find_checkpoint(out).folder / "policy.pt")
    env_id, markets, episodes = arguments["env_id"], arguments["training"], arguments["episodes"]
    n_learners = markets["environment"]["n_learners"]
    kept = out / "rounds.json"
    done: list[dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else []
    if done:
        policy = SquashedGaussianPolicy.load(out / f"round-{len(done)}.pt")
    while len(done) < rounds and not (done and done[-1]["ci95"][0] <= 0.0):
        share = 0.4 + 0.6 * len(done) / rounds
        progress(share, f"round {len(done) + 1}")
        found = best_response(
            policy, env_id, n_learners=n_learners, env_kwargs=environment_of(markets), timesteps=response_steps,
            episodes=episodes, seed=spread_seed(arguments["seed"], 100 + len(done)),
        )  # fmt: skip
        gained = found.gain.low > 0.0
        policy = found.policy if gained else policy
        after = test(policy, env_id, markets, episodes)
        done.append(
            {
                "before": found.before.mean, "gain": found.gain.mean, "ci95": found.gain.ci95, "taken_over": gained,
                "after": after["mean"], "largest_share": after["largest_share"],
                "log_price_over_value": after["log_price_over_value"],
            }
        )  # fmt: skip
        policy.save(out / f"round-{len(done)}.pt")
        kept.write_text(json.dumps(done))
    return {**trained, "rounds": done}


def table_of(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns over seeds, and the rounds of every seed."""
    found: dict[str, Any] = {}
    for algo, results in runs.items():
        own = [run["tests"]["own"] for run in results]
        found[algo] = {
            "return": over_seeds([test["mean"] for test in own]),
            "largest_share": max(test["largest_share"] for test in own),
            "log_price_over_value": [test["log_price_over_value"] for test in own],
            "env_steps": results[0]["env_steps"], "seconds": [run["seconds"] for run in results],
        }  # fmt: skip
    found["rounds"] = [run["rounds"] for run in runs["shac"]]
    found["first_gain"] = over_seeds([rounds[0]["gain"] for rounds in found["rounds"]])
    found["last_gain"] = over_seeds([rounds[-1]["gain"] for rounds in found["rounds"]])
    found["last_return"] = over_seeds([rounds[-1]["after"] for rounds in found["rounds"]])
    found["settled"] = sum(rounds[-1]["ci95"][0] <= 0.0 for rounds in found["rounds"])
    return found


def page(environments: Mapping[str, Any], command: str, n_learners: int, seeds: int) -> str:
    """The tables in Markdown."""
    rows = [("environment", "PPO", "SHAC", "gain of one that deviates from SHAC's", "after the rounds", "last gain",
             "rounds", "seeds in which nobody gains at last")]  # fmt: skip
    for env_id, found in environments.items():
        rows.append(
            (
                f"`{env_id}`", with_interval(found["ppo"]["return"]), with_interval(found["shac"]["return"]),
                with_interval(found["first_gain"], "+.3f"), with_interval(found["last_return"]),
                with_interval(found["last_gain"], "+.3f"), ", ".join(str(len(rounds)) for rounds in found["rounds"]),
                f"{found['settled']} of {len(found['rounds'])}",
            )
        )  # fmt: skip
    return (
        f"# Several learners\n\n`{command}`: {n_learners} learners of one market share a policy; mean sum of rewards "
        f"of a learner an episode over {seeds} training seeds with Student's 95 % interval, held-out span. Rounds: one "
        f"deviates by gradient and everybody takes over what it found, until the interval of its gain reaches 0.\n\n"
        f"{markdown_table(rows)}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has to be run, gather and write; returns the exit status."""
    parser = options_of("learners", __doc__, IDS, seeds=3, episodes=PROTOCOL.episodes // 4)
    parser.add_argument("--n-learners", type=int, default=4)
    parser.add_argument("--response-steps", type=int, default=RESPONSE_STEPS, help="periods of a deviation's training")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="at most")
    options = parser.parse_args(argv)
    keys = [(env_id, algo, seed) for env_id in options.ids for algo in SIZES for seed in range(options.seeds)]
    results = dict(zip(keys, run_jobs([learners_job(*key, options) for key in keys], options.runs, options.workers),
                       strict=True))  # fmt: skip
    environments = {
        env_id: table_of({algo: [results[env_id, algo, seed] for seed in range(options.seeds)] for algo in SIZES})
        for env_id in options.ids
    }
    command = command_of("benchmarks.learners", argv)
    text = page(environments, command, options.n_learners, options.seeds)
    found = {"episodes": options.episodes, "environments": environments}
    write_tables(options.results, "learners", command, found, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
