"""Does the size of a learner matter? Policies trained at one share of wealth, tested at others.

``python -m benchmarks.shares`` trains APG at shares .001, .1 and .3 on every id, with and without the ownership limit,
and writes ``benchmarks/results/shares.json`` and ``benchmarks/results/shares.md``. Off the diagonal is what minding the
wrong impact costs; without the limit is what of that is the limit's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.jobs import Job, command_of, markdown_table, run_jobs, write_tables
from benchmarks.leaderboard.agents import AGENTS, IDS
from benchmarks.training import options_of, over_seeds, settings_of, short_name, with_interval

SHARES = (0.001, 0.1, 0.3)
LIMITS: dict[str, dict[str, Any]] = {"with the ownership limit": {}, "without it": {"ownership_limit": None}}
AGENT = "APG"


def share_job(env_id: str, limit: str, share: float, seed: int, options: argparse.Namespace) -> Job:
    """Train at one share, test at all."""
    agent = AGENTS[AGENT]
    tests = {str(other): {"economy": {**LIMITS[limit], "learner_share": other}} for other in SHARES}
    training = tests[str(share)]
    arguments = {
        "env_id": env_id, "algo": agent.algo, "seed": seed, "training": training, "tests": tests,
        "hyperparameters": dict(agent.hyperparameters), "episodes": options.episodes, "timesteps": options.timesteps,
        "settings": settings_of(env_id, agent.algo, training, agent.hyperparameters),
    }  # fmt: skip
    held = "limit" if not LIMITS[limit] else "nolimit"
    return Job(
        name=f"shares-{short_name(env_id)}-{held}-{share}-{seed}", kind="shares",
        call="benchmarks.training:train_and_test", arguments=arguments,
    )  # fmt: skip


def table_of(found: Mapping[float, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns by trained and tested share over seeds, and what the price-taker's policy loses at each share.

    Args:
        found: results of training at each share, one a seed.
    """
    means = {
        trained: {tested: [run["tests"][str(tested)]["mean"] for run in runs] for tested in SHARES}
        for trained, runs in found.items()
    }
    taker = SHARES[0]
    return {
        "returns": {
            str(trained): {str(tested): over_seeds(values) for tested, values in row.items()}
            for trained, row in means.items()
        },
        # Paired by training seed: both policies meet the same episodes.
        "price_taker_loses": {
            str(tested): over_seeds([a - b for a, b in zip(means[tested][tested], means[taker][tested], strict=True)])
            for tested in SHARES[1:]
        },
        "largest_share_held": {
            str(share): max(run["tests"][str(share)]["largest_share"] for run in runs) for share, runs in found.items()
        },
    }  # fmt: skip


def page(environments: Mapping[str, Any], command: str, seeds: int) -> str:
    """The tables in Markdown."""
    parts = [
        f"# Shares of wealth\n\n`{command}`: {AGENT} trained at one share of all wealth and tested at others; mean sum "
        f"of rewards an episode over {seeds} training seeds with Student's 95 % interval, held-out span.\n"
    ]
    for env_id, limits in environments.items():
        for limit, found in limits.items():
            rows = [("trained at", *(f"tested at {share}" for share in SHARES), "largest share of an asset held")]
            for trained in SHARES:
                row = found["returns"][str(trained)]
                held = found["largest_share_held"][str(trained)]
                rows.append((str(trained), *(with_interval(row[str(tested)]) for tested in SHARES), f"{held:.2f}"))
            loses = ", ".join(
                f"{with_interval(one, '+.3f')} at {share}" for share, one in found["price_taker_loses"].items()
            )
            parts.append(
                f"## `{env_id}`, {limit}\n\n{markdown_table(rows)}\n\nThe price-taker's policy loses {loses}.\n"
            )
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    """Run what has to be run, gather and write; returns the exit status."""
    parser = options_of("shares", __doc__, IDS)
    parser.add_argument("--limits", nargs="+", choices=list(LIMITS), default=list(LIMITS))
    options = parser.parse_args(argv)
    places = [(env_id, limit) for env_id in options.ids for limit in options.limits]
    keys = [(*place, share, seed) for place in places for seed in range(options.seeds) for share in SHARES]
    results = dict(zip(keys, run_jobs([share_job(*key, options) for key in keys], options.runs, options.workers),
                       strict=True))  # fmt: skip
    environments: dict[str, Any] = {}
    for env_id, limit in places:
        found = {s: [results[env_id, limit, s, seed] for seed in range(options.seeds)] for s in SHARES}
        environments.setdefault(env_id, {})[limit] = table_of(found)
    command = command_of("benchmarks.shares", argv)
    text = page(environments, command, options.seeds)
    write_tables(options.results, "shares", command, {"agent": AGENT, "environments": environments}, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
