"""Train a pool's rule inside markets that clear, where what it buys moves prices, and see what it earns in others.

Trained on the fundamentals of 1990 to 2009; then trained, untrained and constant weights in the same markets of 2010 to
2022. Writes parameters.json, training.csv and summary.txt.
"""

from __future__ import annotations

import csv
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hmgym.agents import estimate
from hmgym.agents.pool_training import (
    MarketPoolTraining,
    PoolMarketRun,
    run_pool_in_market,
    train_pool_in_market,
    with_constant_weights,
    with_pool,
)
from hmgym.checks import integer
from hmgym.commands.console import check_at_least, check_folder, counting_bar, named_values, refusals, say
from hmgym.market import MarketConfig
from hmgym.market.pooled import PoolInvestor
from hmgym.pools import PoolParameters


@dataclass(frozen=True, kw_only=True)
class MarketArguments:
    """Options."""

    size: float = 0.1
    """value of the pool at the start, over the market value of all shares"""
    maximum_change: float = 0.1
    """of a weight in a month"""
    memory: float = 90.0
    """days that the rule remembers, where training begins"""
    k: float = 0.1
    """weight a unit of signal and day of memory, where training begins"""
    scaling: float = 5.0
    """s, what twice of a trend is divided by, where training begins"""
    objective: str = "log_value"
    """log_value, or over_hold"""
    window: int = 12
    """months that a gradient goes through"""
    months: int = 60
    """of an episode, in training and after it"""
    markets: int = 16
    """side by side in training"""
    updates: int = 100
    """steps of the ascent"""
    learning_rate: float = 0.05
    """of AdamW"""
    seed: int = 0
    """of the shocks of training"""
    held_out_markets: int = 64
    """in which pools are compared"""
    held_out_seed: int = 10_000
    """of their shocks"""
    parameters: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE")] = ()
    """of the market's configuration that differ from its own, such as n_investors=30"""
    out: Path | None = None
    """folder of what is written; default runs/pool-market-SEED"""


def train_in_market(arguments: MarketArguments, prog: str) -> int:
    """Train, compare, write; returns the exit status."""
    with refusals(prog):
        check_at_least(arguments, held_out_markets=2, held_out_seed=0)
        integer("seed", arguments.seed, 0)
        out = check_folder(arguments.out or Path("runs") / f"pool-market-{arguments.seed}")
        config = _config(arguments)
        with counting_bar("update") as progress:
            training = train_pool_in_market(
                config, objective=arguments.objective, window=arguments.window, months=arguments.months,
                markets=arguments.markets, updates=arguments.updates, learning_rate=arguments.learning_rate,
                seed=arguments.seed, progress=progress,
            )  # fmt: skip
        runs = {
            name: run_pool_in_market(
                each.replace(history="held-out"), months=arguments.months, markets=arguments.held_out_markets,
                seed=arguments.held_out_seed,
            )
            for name, each in (
                ("trained", with_pool(config, training.pool)),
                ("untrained", config),
                ("constant weights", with_constant_weights(config)),
            )
        }  # fmt: skip
    summary = "\n".join(_table(arguments, runs))
    out.mkdir(parents=True, exist_ok=True)
    _write(out, summary, training)
    say(f"{summary}\n\nwrote {out}/parameters.json, training.csv and summary.txt")
    return 0


def _config(arguments: MarketArguments) -> MarketConfig:
    changes = named_values(arguments.parameters)
    known = {field.name for field in dataclasses.fields(MarketConfig)} - {"pools", "price_mechanism", "history"}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"`parameters` must be some of {sorted(known)}, got {unknown}")
    bounds = PoolInvestor(size=arguments.size, maximum_change=arguments.maximum_change)
    parameters = PoolParameters.initial(
        integer("n_assets", changes.get("n_assets", MarketConfig.n_assets), 1) + 1, bounds.config,
        memory=arguments.memory, k_per_day=arguments.k, pre_scaling=arguments.scaling,
    )  # fmt: skip
    pool = dataclasses.replace(bounds, parameters=parameters)
    return MarketConfig(**changes, price_mechanism="pools", pools=(pool,))


def _table(arguments: MarketArguments, runs: dict[str, PoolMarketRun]) -> list[str]:
    """Growth of every pool, and what the trained one has more, with 95 % intervals over markets."""
    lines = [
        f"{arguments.held_out_markets} markets of {arguments.months} months that training did not see, "
        "growth of the log of value",
        f"{'':18}{'growth':>9}{'over hold':>11}{'to arbitrage':>14}   trained less this (95 %)",
    ]
    for name, run in runs.items():
        line = f"{name:18}{float(run.log_value.mean()):9.3f}{float(run.over_hold.mean()):11.3f}"
        line += f"{float(run.log_loss.mean()):14.3f}"
        if name != "trained":
            more = estimate((runs["trained"].log_value - run.log_value).numpy())
            line += f"   {more.mean:+.4f} [{more.low:+.4f}, {more.high:+.4f}]"
        lines.append(line)
    return lines


def _write(out: Path, summary: str, training: MarketPoolTraining) -> None:
    values = {name: each.tolist() for name, each in training.parameters.to_dict().items()}
    (out / "parameters.json").write_text(json.dumps({"parameters": values}, indent=1) + "\n", encoding="utf-8")
    with (out / "training.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["update", "objective a month", "gradient norm"])
        for update, row in enumerate(zip(training.objective.tolist(), training.gradient_norm.tolist(), strict=True)):
            table.writerow([update + 1, *map(repr, row)])
    (out / "summary.txt").write_text(summary + "\n", encoding="utf-8")
