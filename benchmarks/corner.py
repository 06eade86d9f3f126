"""Does cornering pay? Learners whose signals are noise, of several sizes and together, against a price-taker.

``python -m benchmarks.corner`` trains PPO, APG and SHAC in economies whose signals tell nothing (R² 0): one learner
with a share of all wealth of .1 and of .3, four of .1 each, and as control one of .001, which moves no price, trained
twice as long. What a large learner earns above the price-taker it earns by its size. The three ids are one economy with
three kinds of action, so a row is held against the best price-taker of any of them. Writes
``benchmarks/results/corner.json`` and ``corner.md``: returns, the largest share of an asset that a learner ever held at
the start of a month, and the mean log(price / value) of the assets.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.jobs import Job, command_of, markdown_table, run_jobs, stored_first, write_tables
from benchmarks.leaderboard.agents import AGENTS, IDS
from benchmarks.training import environment_of, options_of, over_seeds, settings_of, short_name, with_interval
from hmgym.agents.algorithms import find_algorithm
from hmgym.agents.probes import NO_INFORMATION, PRICE_TAKER_SHARE
from hmgym.envs import make_markets

LEARNERS, CONTROL = ("PPO", "APG", "SHAC"), "price-taker"
SIZES: dict[str, dict[str, Any]] = {
    CONTROL: {"learner_share": PRICE_TAKER_SHARE},
    "share .1": {"learner_share": 0.1},
    "share .3": {"learner_share": 0.3},
    "four of .1": {"learner_share": 0.1, "n_learners": 4},
}
_MOST_SEEDS = 5
_CONTROL_TRAINS = 2
"""How many times as long a price-taker trains: what it cannot move is mostly noise to it."""
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
    timesteps = options.timesteps or find_algorithm(agent.algo).timesteps
    if size == CONTROL:
        timesteps *= _CONTROL_TRAINS
    arguments = {
        "env_id": env_id, "algo": agent.algo, "seed": seed, "training": markets, "tests": {"own": markets},
        "hyperparameters": dict(agent.hyperparameters), "episodes": options.episodes, "timesteps": timesteps,
        "settings": settings_of(env_id, agent.algo, markets, agent.hyperparameters),
    }  # fmt: skip
    words = size.replace(" ", "").replace(".", "")
    return Job(
        name=f"corner-{short_name(env_id)}-{name.lower()}-{words}-{seed}", kind=f"{name} {size}",
        call="benchmarks.training:train_and_test", arguments=arguments,
    )  # fmt: skip


def all_found(options: argparse.Namespace) -> dict[str, dict[tuple[str, str], list[Mapping[str, Any]]]]:
    """All that was run, now and before: by id, then by learner and size, one result a seed."""
    found: dict[str, dict[tuple[str, str], list[Mapping[str, Any]]]] = {}
    for env_id, size, name in itertools.product(IDS, SIZES, LEARNERS):
        jobs = (corner_job(env_id, name, size, seed, options) for seed in range(max(options.seeds, _MOST_SEEDS)))
        runs = stored_first(jobs, options.runs)
        if runs:
            found.setdefault(env_id, {})[name, size] = runs
    return found


def table_of(
    found: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], env_id: str, control: float
) -> list[dict[str, Any]]:
    """Rows: returns over seeds, against the price-taker's, and what was held.

    Args:
        found: results by learner and size, one a seed.
        env_id: a registered id.
        control: mean return of the best price-taker.
    """
    rows = []
    for (name, size), runs in found.items():
        tests = [run["tests"]["own"] for run in runs]
        moved = [sum(column) / len(column) for column in zip(*(t["log_price_over_value"] for t in tests), strict=True)]
        ahead = over_seeds([t["mean"] - control for t in tests])
        limit = make_markets(env_id, 1, **environment_of(markets_of(size))).config.largest_learner_holding
        passes = size == CONTROL or (ahead["mean"] <= MAY_GAIN and max(map(abs, moved)) <= MAY_MOVE)
        rows.append(
            {
                "learner": name, "size": size, "return": over_seeds([t["mean"] for t in tests]), "minus_control": ahead,
                "largest_share": max(t["largest_share"] for t in tests), "limit": limit, "log_price_over_value": moved,
                "ruined": sum(t["ruined"] for t in tests) / len(tests), "passes": bool(passes),
            }
        )  # fmt: skip
    return rows


def page(environments: Mapping[str, Any], control: Mapping[str, Any], command: str) -> str:
    """The tables in Markdown."""
    parts = [
        f"# Cornering the market\n\n`{command}`: signals are noise (R² 0), in training and in evaluation; mean sum of "
        f"rewards an episode over training seeds with Student's 95 % interval, held-out span. The control is the best "
        f"price-taker (share {PRICE_TAKER_SHARE}, trained {_CONTROL_TRAINS} times as long): {control['learner']} on "
        f"`{control['id']}`, {with_interval(control['return'])}. A row passes where the learner is at most {MAY_GAIN} "
        f"above it and every asset's mean log(price / value) is within ± {MAY_MOVE}. The ownership limit is on what is "
        "planned, at the last close and the month's news; a price that falls further leaves more, as the table says.\n"
    ]
    for env_id, found in environments.items():
        rows = [("learner", "size", "seeds", "return", "minus the control", "largest share of an asset held", "limit",
                 "mean log(price / value), by asset", "ruined", "passes")]  # fmt: skip
        for row in found:
            moved = " ".join(f"{one:+.2f}" for one in row["log_price_over_value"])
            passes = "" if row["size"] == CONTROL else ("yes" if row["passes"] else "**no**")
            rows.append(
                (
                    row["learner"], row["size"], str(row["return"]["seeds"]), with_interval(row["return"]),
                    with_interval(row["minus_control"], "+.3f"), f"{row['largest_share']:.3f}", f"{row['limit']:.2f}",
                    moved, f"{row['ruined']:.1%}", passes,
                )
            )  # fmt: skip
        parts.append(f"## `{env_id}`\n\n{markdown_table(rows)}\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has to be run, gather and write; returns the exit status."""
    parser = options_of("corner", __doc__, IDS)
    parser.add_argument("--learners", nargs="+", choices=LEARNERS, default=list(LEARNERS))
    options = parser.parse_args(argv)
    keys = [
        (env_id, name, size, seed)
        for size in SIZES for name in options.learners for env_id in options.ids for seed in range(options.seeds)
    ]  # fmt: skip
    run_jobs([corner_job(*key, options) for key in keys], options.runs, options.workers)
    found = all_found(options)
    takers = [
        {"id": env_id, "learner": name, "return": over_seeds([run["tests"]["own"]["mean"] for run in runs])}
        for env_id, of_id in found.items() for (name, size), runs in of_id.items() if size == CONTROL
    ]  # fmt: skip
    control = max(takers, key=lambda taker: taker["return"]["mean"])
    environments = {env_id: table_of(of_id, env_id, control["return"]["mean"]) for env_id, of_id in found.items()}
    command = command_of("benchmarks.corner", argv)
    result = {"control": control, "environments": environments}
    write_tables(options.results, "corner", command, result, page(environments, control, command))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
