"""Does cornering pay? Learners whose signals are noise, of several sizes and together, against a price-taker.

``python -m benchmarks.corner`` trains PPO, APG and SHAC in economies whose signals tell nothing (R² 0): one learner
with a share of all wealth of .1 and of .3, four of .1 each, and as control one of .001, which moves no price, in its
own economy. What a large learner earns above the price-taker it earns by its size. Writes
``benchmarks/results/corner.json`` and ``corner.md``: returns, the largest share of an asset that a learner ever held at
the start of a month, and the mean log(price / value) of the assets.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.jobs import RESULTS, ROOT, Job, command_of, markdown_table, run_jobs, stored_first, write_tables
from benchmarks.leaderboard.agents import AGENTS, IDS
from benchmarks.training import environment_of, over_seeds, settings_of, short_name, with_interval
from hmgym.agents import PROTOCOL
from hmgym.agents.probes import NO_INFORMATION, PRICE_TAKER_SHARE
from hmgym.envs import make_markets

LEARNERS = ("PPO", "APG", "SHAC")
SIZES: dict[str, dict[str, Any]] = {
    "price-taker": {"learner_share": PRICE_TAKER_SHARE},
    "share .1": {"learner_share": 0.1},
    "share .3": {"learner_share": 0.3},
    "four of .1": {"learner_share": 0.1, "n_learners": 4},
}
_MOST_SEEDS = 5
MAY_GAIN, MAY_MOVE = 0.1, 0.5
"""By how much a learner may be above the price-taker, and prices off values, for the market not to be cornered."""


def markets_of(size: str) -> dict[str, Any]:
    """The markets of a size of learners, as JSON can hold them."""
    changes = dict(SIZES[size])
    learners = changes.pop("n_learners", None)
    own = {} if learners is None else {"environment": {"n_learners": learners}}
    return {**own, "economy": {**NO_INFORMATION, **changes}}


def corner_job(env_id: str, name: str, size: str, seed: int, options: argparse.Namespace) -> Job:
    """Train one agent in one economy and test it there."""
    agent, markets = AGENTS[name], markets_of(size)
    arguments = {
        "env_id": env_id, "algo": agent.algo, "seed": seed, "training": markets, "tests": {"own": markets},
        "hyperparameters": dict(agent.hyperparameters), "episodes": options.episodes, "timesteps": options.timesteps,
        "settings": settings_of(env_id, agent.algo, markets, agent.hyperparameters),
    }  # fmt: skip
    words = size.replace(" ", "").replace(".", "")
    return Job(
        name=f"corner-{short_name(env_id)}-{name.lower()}-{words}-{seed}", kind=f"{name} {size}",
        call="benchmarks.training:train_and_test", arguments=arguments,
    )  # fmt: skip


def table_of(found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], env_id: str) -> dict[str, Any]:
    """Returns over seeds, against the best of the price-takers, and what was held.

    Args:
        found: results by learner and size, one a seed.
        env_id: a registered id.
    """
    returns = {key: over_seeds([run["tests"]["own"]["mean"] for run in runs]) for key, runs in found.items()}
    best = max((key for key in returns if key[1] == "price-taker"), key=lambda key: returns[key]["mean"])
    taker, rows = returns[best], []
    for (name, size), runs in found.items():
        tests = [run["tests"]["own"] for run in runs]
        moved = [sum(column) / len(column) for column in zip(*(t["log_price_over_value"] for t in tests), strict=True)]
        ahead = over_seeds([t["mean"] - taker["mean"] for t in tests])
        limit = make_markets(env_id, 1, **environment_of(markets_of(size))).config.largest_holding
        held = max(t["largest_share"] for t in tests)
        rows.append(
            {
                "learner": name, "size": size, "return": returns[name, size], "minus_price_taker": ahead,
                "largest_share": held, "limit": limit, "log_price_over_value": moved,
                "ruined": sum(t["ruined"] for t in tests) / len(tests),
                "passes": bool(
                    size == "price-taker" or (ahead["mean"] <= MAY_GAIN and max(map(abs, moved)) <= MAY_MOVE)
                ),
            }
        )  # fmt: skip
    return {"price_taker": best[0], "rows": rows}


def page(environments: Mapping[str, Any], command: str) -> str:
    """The tables in Markdown."""
    parts = [
        f"# Cornering the market\n\n`{command}`: signals are noise (R² 0), in training and in evaluation; mean sum of "
        f"rewards an episode over training seeds with Student's 95 % interval, held-out span. A row passes where "
        f"the learner is at most {MAY_GAIN} above the best price-taker (share {PRICE_TAKER_SHARE}) in its own "
        f"economy and every asset's mean log(price / value) is within ± {MAY_MOVE}. The ownership limit is on what is "
        "planned, at the last close and the month's news; a price that falls further leaves more, as the table says.\n"
    ]
    takers = [row for found in environments.values() for row in found["rows"] if row["size"] == "price-taker"]
    best = max(row["return"]["mean"] for row in takers)
    for env_id, found in environments.items():
        rows = [("learner", "size", "seeds", "return", "minus the best price-taker", "the same, of any id",
                 "largest share of an asset held", "limit", "mean log(price / value), by asset", "passes")]  # fmt: skip
        for row in found["rows"]:
            moved = " ".join(f"{one:+.2f}" for one in row["log_price_over_value"])
            passes = "" if row["size"] == "price-taker" else ("yes" if row["passes"] else "**no**")
            rows.append(
                (
                    row["learner"], row["size"], str(row["return"]["seeds"]), with_interval(row["return"]),
                    with_interval(row["minus_price_taker"], "+.3f"), f"{row['return']['mean'] - best:+.3f}",
                    f"{row['largest_share']:.3f}",
                    f"{row['limit']:.2f}", moved, passes,
                )
            )  # fmt: skip
        parts.append(f"## `{env_id}`\n\n{markdown_table(rows)}\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has to be run, gather and write; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes at a time")
    parser.add_argument("--ids", nargs="+", choices=IDS, default=list(IDS))
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    parser.add_argument("--episodes", type=int, default=PROTOCOL.episodes)
    parser.add_argument("--timesteps", type=int, help="of every training; default the algorithms' own")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "corner")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    keys = [
        (env_id, name, size, seed)
        for size in SIZES for name in options.learners for env_id in options.ids for seed in range(options.seeds)
    ]  # fmt: skip
    run_jobs([corner_job(*key, options) for key in keys], options.runs, options.workers)
    environments = {}
    for env_id in IDS:  # all that was run, now and before
        found = {}
        for size, name in itertools.product(SIZES, LEARNERS):
            jobs = (corner_job(env_id, name, size, seed, options) for seed in range(max(options.seeds, _MOST_SEEDS)))
            runs = stored_first(jobs, options.runs)
            if runs:
                found[name, size] = runs
        if any(size == "price-taker" for _, size in found):
            environments[env_id] = table_of(found, env_id)
    command = command_of("benchmarks.corner", argv)
    text = page(environments, command)
    write_tables(options.results, "corner", command, {"environments": environments}, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
