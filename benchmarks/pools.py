"""Pools: speed, and training on daily prices of stocks.

``python -m benchmarks.pools --prices prices_daily.csv.gz`` measures the pipeline at 3 assets and 150 days of minutes in
processor time, then trains the rule on the prices up to the end of 2009 and takes Sharpe ratios of 2010 and later.
The untrained start and the limit of weights a day were chosen with two earlier versions of this table in sight. 20
stocks make five pools of four, drawn once. Intervals are of blocks of 63 trading days, drawn with replacement, the same
for all pools and strategies. ``--only speed`` needs no prices. Writes
``benchmarks/results/pools.json`` and ``pools.md``; parts that are not run keep the figures of the last run.
``--only market`` trains the rule inside markets that clear and writes ``pool_market.json`` and ``.md``
(:mod:`benchmarks.pool_market`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from benchmarks import pool_market
from benchmarks.jobs import RESULTS, command_of, markdown_table, write_tables
from hmgym.data import PriceHistory, read_prices
from hmgym.pools import (
    PoolConfig,
    PoolParameters,
    PowerChannelPool,
    performance,
    reserves_with_fees,
    reserves_without_fees,
    train_pool,
)

FIRST_HELD_OUT = "2010-01-01"
ASSETS, SETS, BLOCK, DRAWS, DAYS = 4, 4, 63, 10_000, 252.0
FEE = 0.001
LARGEST = 0.01 / 1440  # of a weight a minute; a change δ made at one price costs about ½ Σ δ²/w of a pool's value
_ROUNDS = 15


def milliseconds(call: Callable[[], object]) -> float:
    """Median processor time of a call."""
    call()
    taken = []
    for _ in range(_ROUNDS):
        start = time.process_time()
        call()
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken)


def speeds() -> dict[str, float]:
    """Milliseconds at 3 assets and 150 days of minutes; a gradient includes the forward pass."""
    rows, assets = 150 * 1440, 3
    random = np.random.default_rng(0)
    prices = torch.from_numpy(
        np.exp((8e-4 * random.standard_normal((rows, assets))).cumsum(0)) * [30_000.0, 2_000.0, 1.0]
    )
    pool = PowerChannelPool(PoolConfig(fee=0.003))
    parameters = PoolParameters.initial(assets, pool.config, memory=10.0, k_per_day=2.0)
    leaf = parameters.map(lambda each: each.clone().requires_grad_())
    weights = pool.weights(parameters, prices)
    initial = 1e6 * weights[0] / prices[0]
    moved, ones = weights.clone().requires_grad_(), torch.ones_like(weights)

    def backward(call: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(call(), moved, ones)

    def gradient() -> None:
        pool.simulate(leaf, prices).value[-1].log().backward()  # type: ignore[no-untyped-call]

    return {
        "pipeline_with_fees": milliseconds(lambda: pool.simulate(parameters, prices)),
        "pipeline_with_fees_gradient": milliseconds(gradient),
        "reserves_without_fees": milliseconds(lambda: reserves_without_fees(initial, weights, prices)),
        "reserves_without_fees_gradient": milliseconds(backward(lambda: reserves_without_fees(initial, moved, prices))),
        "reserves_with_fees": milliseconds(lambda: reserves_with_fees(initial, weights, prices, fee=0.003)),
        "reserves_with_fees_gradient": milliseconds(
            backward(lambda: reserves_with_fees(initial, moved, prices, fee=0.003))
        ),
    }


def groups(history: PriceHistory) -> list[list[str]]:
    """Pools of assets that share none."""
    order = np.random.default_rng(0).permutation(history.assets).tolist()
    return [sorted(order[first : first + ASSETS]) for first in range(0, len(order) - ASSETS + 1, ASSETS)]


def sharpe(returns: NDArray[np.float64]) -> NDArray[np.float64]:
    """Annual, of daily log returns (T, ...)."""
    ratio: NDArray[np.float64] = returns.mean(0) / returns.std(0, ddof=1) * np.sqrt(DAYS)
    return ratio


def with_blocks(returns: dict[str, NDArray[np.float64]]) -> dict[str, Any]:
    """Mean over pools of Sharpe ratios of daily log returns (T, G), and of what trained has more, with intervals."""
    found = {name: sharpe(each) for name, each in returns.items()}
    days = len(returns["trained"])
    random, drawn = np.random.default_rng(1), {name: np.empty((DRAWS, each.shape[1])) for name, each in returns.items()}
    for draw in range(DRAWS):
        begins = random.integers(days, size=-(-days // BLOCK))
        rows = (begins[:, None] + np.arange(BLOCK)).reshape(-1)[:days] % days
        for name, each in returns.items():
            drawn[name][draw] = sharpe(each[rows])
    table: dict[str, Any] = {}
    for name, each in found.items():
        more, mores = found["trained"] - each, drawn["trained"] - drawn[name]
        table[name] = {
            "sharpe": float(each.mean()), "ci95": np.quantile(drawn[name].mean(1), [0.025, 0.975]).tolist(),
            "by_pool": each.tolist(), "trained_less_this": float(more.mean()),
            "trained_less_this_ci95": np.quantile(mores.mean(1), [0.025, 0.975]).tolist(),
            "pools_trained_is_better": int((more > 0.0).sum()),
        }  # fmt: skip
    return table


def held_out(history: PriceHistory, limit: float, epochs: int) -> dict[str, Any]:
    """Train on the prices before `FIRST_HELD_OUT`, then run every strategy from there on."""
    config = PoolConfig(row_minutes=1440, fee=FEE, maximum_change=limit)
    pool = PowerChannelPool(config)
    cut = next(row for row, date in enumerate(history.dates) if date.isoformat() >= FIRST_HELD_OUT)
    returns: dict[str, list[NDArray[np.float64]]] = {}
    facts: dict[str, list[dict[str, float]]] = {}
    chosen = []
    for number, names in enumerate(tqdm(groups(history), unit="pool", disable=None)):
        prices = torch.from_numpy(history.select(names).prices.copy())
        untrained = PoolParameters.initial(ASSETS, config, memory=60.0, k_per_day=0.5, pre_scaling=5.0)
        training = train_pool(
            untrained, prices[:cut], config, window_days=504, sets=SETS, epochs=epochs, patience=30, seed=number,
            days_per_year=DAYS,
        )  # fmt: skip
        # k of 1e-12: weights stand still.
        equal = PoolParameters(**{**untrained.to_dict(), "sp_k": torch.full_like(untrained.sp_k, -1e12)})
        # The row before the first return is the last day of training, whose price is known there.
        runs = {
            name: pool.simulate(parameters, prices, start=(cut - 1) * 1440)
            for name, parameters in (
                ("trained", training.parameters),
                ("untrained", untrained),
                ("equal weight", equal),
            )
        }
        values = {name: run.value for name, run in runs.items()} | {"hold": runs["trained"].hold}
        for name, value in values.items():
            returns.setdefault(name, []).append(value.log().diff().numpy())
            one = performance(value, hold=runs["trained"].hold, row_minutes=1440, days_per_year=DAYS)
            facts.setdefault(name, []).append({key: float(each) for key, each in one.to_dict().items()})
        rule = training.parameters.decode(config)
        chosen.append(
            {
                "assets": names, "validation": training.objective, "best_epoch": training.best_epoch,
                "best_set": training.best_set, "epochs": len(training.trained),
                "validation_untrained": float(training.validated[0, 0]),
                "rule": {key: getattr(rule, key).tolist() for key in ("k", "memory_days", "exponents", "pre_scaling")},
            }
        )  # fmt: skip
    table = with_blocks({name: np.stack(each, 1) for name, each in returns.items()})
    for name, each in facts.items():
        for key in ("annual_log_return", "annual_volatility", "maximum_drawdown", "return_over_hold"):
            table[name][key] = statistics.mean(one[key] for one in each)
    first, last = history.dates[cut - 1], history.dates[-1]
    return {
        "fee": FEE,
        "maximum_change": limit,
        "held_out": [first.isoformat(), last.isoformat()],
        "strategies": table,
        "training": chosen,
    }


def page(found: dict[str, Any], command: str) -> str:
    """The tables in Markdown."""
    parts = [f"# Pools\n\n`{command}`"]
    if "speed" in found:
        rows = [("3 assets, 150 days of minutes", "ms of processor time")]
        rows += [(name.replace("_", " "), f"{taken:.1f}") for name, taken in found["speed"].items()]
        parts.append(markdown_table(rows))
    for one in found.get("training", []):
        rows = [("strategy", "Sharpe (95 %)", "trained less this (95 %)", "pools", "return", "volatility", "drawdown")]
        for name, row in one["strategies"].items():
            low, high = row["ci95"]
            less, (less_low, less_high) = row["trained_less_this"], row["trained_less_this_ci95"]
            other = name != "trained"
            rows.append(
                (
                    name, f"{row['sharpe']:.2f} [{low:.2f}, {high:.2f}]",
                    f"{less:+.2f} [{less_low:+.2f}, {less_high:+.2f}]" if other else "",
                    f"{row['pools_trained_is_better']} of {len(row['by_pool'])}" if other else "",
                    f"{row['annual_log_return']:.1%}", f"{row['annual_volatility']:.1%}",
                    f"{row['maximum_drawdown']:.0%}",
                )
            )  # fmt: skip
        first, last = one["held_out"]
        limit = f"weights move by at most {1440 * one['maximum_change']:g} a day"
        parts.append(f"Fee {one['fee']:g}, {limit}, held out {first} to {last}:\n\n{markdown_table(rows)}")
    return "\n\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.pools", description=__doc__)
    parser.add_argument("--prices", type=Path, help="CSV file of daily prices")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--only", choices=("speed", "training", "market"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    if options.prices is None and options.only not in ("speed", "market"):
        parser.error("--prices is needed but for --only speed and --only market")
    torch.set_num_threads(1)
    if options.only in (None, "market"):
        figures = pool_market.measure()
        write_tables(
            options.results, "pool_market", "python -m benchmarks.pools --only market", figures,
            pool_market.page(figures),
        )  # fmt: skip
    if options.only == "market":
        return 0
    path = options.results / "pools.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if options.only != "training":
        found["speed"] = speeds()
    if options.only != "speed":
        history = read_prices(options.prices)
        found["training"] = [held_out(history, limit, options.epochs) for limit in (LARGEST, 3e-4)]
    command = command_of("benchmarks.pools", argv)
    write_tables(options.results, "pools", command, found, page(found, command))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
