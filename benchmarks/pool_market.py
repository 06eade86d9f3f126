"""Training a pool's rule inside markets that clear, and what it earns in markets of other years.

``python -m benchmarks.pool_market``: trained on the fundamentals of 1990 to 2009, from two starts, by two objectives,
each with three seeds; then 128 markets of 60 months on those of 2010 to 2022, the same shocks for all. Set beside where
training began and a pool whose weights stand still, k = 0. Writes ``benchmarks/results/pool_market.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.jobs import RESULTS, command_of, markdown_table, write_tables
from hmgym.agents import Estimate, estimate, over_training_seeds
from hmgym.agents.pool_training import (
    MARKET_OBJECTIVES,
    PoolMarketRun,
    run_pool_in_market,
    train_pool_in_market,
    with_constant_weights,
    with_pool,
)
from hmgym.market import MarketConfig
from hmgym.market.pooled import PoolInvestor
from hmgym.pools import PoolParameters

STARTS = {"strong": 0.1, "gentle": 0.02}
"""k a day of memory where training begins; 90 days, q = 1, s = 5."""
SEEDS = (0, 1, 2)
UPDATES, MARKETS, MONTHS, SHOCKS = 100, 128, 60, 10_000


def market_of(k_per_day: float) -> MarketConfig:
    """The default market with a pool of a tenth of its value."""
    bounds = PoolInvestor().config
    parameters = PoolParameters.initial(4, bounds, memory=90.0, k_per_day=k_per_day, pre_scaling=5.0)
    return MarketConfig(price_mechanism="pools", pools=(PoolInvestor(parameters=parameters),))


def measure() -> dict[str, Any]:
    """Growth of every pool in the held-out markets, and what trained ones have more, with intervals."""
    rows = []
    for start, objective in tqdm(list(itertools.product(STARTS, MARKET_OBJECTIVES)), unit="row", disable=None):
        config = market_of(STARTS[start])
        trained = [train_pool_in_market(config, objective=objective, updates=UPDATES, seed=seed) for seed in SEEDS]
        runs = {"untrained": held_out(config), "constant": held_out(with_constant_weights(config))}
        mine = [held_out(with_pool(config, one.pool)) for one in trained]
        held = {name: getattr(run, objective) for name, run in runs.items()}
        own = [getattr(run, objective) for run in mine]
        rules = [one.parameters.decode(one.pool.config) for one in trained]
        rows.append(
            {
                "start": start, "objective": objective,
                "trained": [float(one.mean()) for one in own],
                **{name: float(one.mean()) for name, one in held.items()},
                "lost_to_arbitrage": {
                    **{name: float(run.log_loss.mean()) for name, run in runs.items()},
                    "trained": [float(run.log_loss.mean()) for run in mine],
                },
                "by_seed": {
                    name: [written(estimate((one - other).numpy())) for one in own] for name, other in held.items()
                },
                "over_seeds": {
                    name: written(over_training_seeds([float((one - other).mean()) for one in own]))
                    for name, other in held.items()
                },
                "rules": [
                    {key: getattr(rule, key).tolist() for key in ("k", "memory_days", "exponents", "pre_scaling")}
                    for rule in rules
                ],
                "first_and_last_window": [[float(one.objective[0]), float(one.objective[-1])] for one in trained],
            }
        )  # fmt: skip
    return {"updates": UPDATES, "markets": MARKETS, "months": MONTHS, "rows": rows}


def held_out(config: MarketConfig) -> PoolMarketRun:
    """The pool in markets that training did not see."""
    return run_pool_in_market(config.replace(history="held-out"), months=MONTHS, markets=MARKETS, seed=SHOCKS)


def written(one: Estimate) -> list[float]:
    """Mean, low, high."""
    return [one.mean, one.low, one.high]


def page(found: dict[str, Any], command: str) -> str:
    """The tables in Markdown."""
    head = ("start", "objective", "untrained", "k = 0", "trained, a seed each", "less untrained (95 %)",
            "less k = 0 (95 %)", "less k = 0, a seed each (95 %)")  # fmt: skip
    rows = [head]
    for row in found["rows"]:
        rows.append(
            (
                row["start"], row["objective"], f"{row['untrained']:.3f}", f"{row['constant']:.3f}",
                ", ".join(f"{one:.3f}" for one in row["trained"]),
                "{:+.3f} [{:+.3f}, {:+.3f}]".format(*row["over_seeds"]["untrained"]),
                "{:+.4f} [{:+.4f}, {:+.4f}]".format(*row["over_seeds"]["constant"]),
                ", ".join("{:+.4f} [{:+.4f}, {:+.4f}]".format(*one) for one in row["by_seed"]["constant"]),
            )
        )  # fmt: skip
    losses = [("start", "objective", "untrained", "k = 0", "trained, a seed each")]
    for row in found["rows"]:
        lost = row["lost_to_arbitrage"]
        each = ", ".join(f"{one:.3f}" for one in lost["trained"])
        losses.append((row["start"], row["objective"], f"{lost['untrained']:.3f}", f"{lost['constant']:.3f}", each))
    return (
        f"# Pools trained in markets\n\n`{command}`\n\n"
        f"{markdown_table(rows)}\n\nLost to arbitrage, in log:\n\n{markdown_table(losses)}\n"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.pool_market", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    found, command = measure(), command_of("benchmarks.pool_market", argv)
    write_tables(options.results, "pool_market", command, found, page(found, command))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
