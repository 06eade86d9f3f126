"""Pools: speed, training on daily prices of stocks, and tuning on monthly ones.

``python -m benchmarks.pools --prices prices_daily.csv.gz`` measures the pipeline at 3 assets and 150 days of minutes in
processor time, then trains the rule on the prices up to the end of 2009 and takes Sharpe ratios of 2010 and later.
The untrained start and the limit of weights a day were chosen with two earlier versions of this table in sight. 20
stocks make five pools of four, drawn once. Intervals are of blocks of 63 trading days, drawn with replacement, the same
for all pools and strategies. ``--only`` runs one part; only training needs ``--prices``.

Clearing: ``clear_market`` with one and with two pools beside none, in turns, in processor time.

Tuning: `tune_pool` and `train_pool` on the packaged monthly prices up to 2009, the same five pools, several seeds, from
the start and with the limits that ``hmgym pool simulate`` and ``hmgym/Pool-v0`` have; blocks of 12 months. The held-out
years have been looked at before, for the tables of daily prices and for ``hmgym/Pool-v0``.

Writes ``benchmarks/results/pools.json`` and ``pools.md``; parts that are not run keep the figures of the last run.
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

from benchmarks.jobs import RESULTS, command_of, markdown_table, write_tables
from benchmarks.pool_roots import random_markets
from hmgym.clearing import clear_market, set_num_threads
from hmgym.data import PriceHistory, read_prices, sp500_monthly
from hmgym.pools import (
    PoolConfig,
    PoolParameters,
    PowerChannelPool,
    performance,
    reserves_with_fees,
    reserves_without_fees,
    train_pool,
    tune_pool,
)

FIRST_HELD_OUT = "2010-01-01"
ASSETS, POOLS, SETS, BLOCK, DRAWS, DAYS = 4, 5, 4, 63, 10_000, 252.0
FEE = 0.001
LARGEST = 0.01 / 1440  # of a weight a minute; a change δ made at one price costs about ½ Σ δ²/w of a pool's value
MONTH, MONTHS, MONTH_BLOCK, SEEDS, TRIALS = 21 * 1440, 12.0, 12, 5, 300
MONTHLY_LIMITS = (0.01, 0.05)  # of a weight a row: of `hmgym pool simulate`, and of `hmgym/Pool-v0`
MARKETS = ((3, 20, 256), (10, 100, 16))  # assets, investors, markets
PARTS = ("speed", "clearing", "training", "tuning")
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


def clearing_speeds() -> list[dict[str, Any]]:
    """Milliseconds of ``clear_market`` without, with one and with two pools, and of the gradient with one."""
    set_num_threads(1)
    found = []
    for assets, investors, markets in MARKETS:
        calls: dict[str, Callable[[], object]] = {}
        for pools in (1, 2):
            problem, held = random_markets(markets, investors=investors, assets=assets, pools=pools, size=investors / 2)
            beliefs = torch.as_tensor(problem["beliefs"]).clone().requires_grad_()
            moving = problem | {"beliefs": beliefs}
            if pools == 1:
                calls["no pool"] = lambda problem=problem: clear_market(**problem)  # type: ignore[misc]
                calls["no pool, gradient"] = lambda moving=moving: _gradient(moving, None)  # type: ignore[misc]
                calls["1 pool, gradient"] = lambda moving=moving, held=held: _gradient(moving, held)  # type: ignore[misc]
            name = f"{pools} pool{'s' * (pools > 1)}"
            calls[name] = lambda problem=problem, held=held: clear_market(**problem, pools=held)  # type: ignore[misc]
        taken: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(_ROUNDS + 1):
            for name, call in calls.items():
                start = time.process_time()
                call()
                if turn:
                    taken[name].append(1e3 * (time.process_time() - start))
        middle = {name: statistics.median(each) for name, each in taken.items()}
        found.append({"assets": assets, "investors": investors, "markets": markets, "ms": middle})
    return found


def _gradient(problem: dict[str, Any], held: Any) -> object:
    return torch.autograd.grad(clear_market(**problem, pools=held).prices.log().sum(), problem["beliefs"])


def groups(history: PriceHistory) -> list[list[str]]:
    """Pools of assets that share none."""
    order = np.random.default_rng(0).permutation(history.assets).tolist()
    return [sorted(order[first : first + ASSETS]) for first in range(0, len(order) - ASSETS + 1, ASSETS)]


def sharpe(returns: NDArray[np.float64], per_year: float = DAYS) -> NDArray[np.float64]:
    """Annual, of log returns (T, ...) of which a year has some."""
    ratio: NDArray[np.float64] = returns.mean(0) / returns.std(0, ddof=1) * np.sqrt(per_year)
    return ratio


def with_blocks(
    returns: dict[str, NDArray[np.float64]], reference: str = "trained", block: int = BLOCK, per_year: float = DAYS
) -> dict[str, Any]:
    """Mean over pools of Sharpe ratios of log returns (T, G), and of what the reference has more, with intervals."""
    found = {name: sharpe(each, per_year) for name, each in returns.items()}
    rows = len(returns[reference])
    random, drawn = np.random.default_rng(1), {name: np.empty((DRAWS, each.shape[1])) for name, each in returns.items()}
    for draw in range(DRAWS):
        begins = random.integers(rows, size=-(-rows // block))
        chosen = (begins[:, None] + np.arange(block)).reshape(-1)[:rows] % rows
        for name, each in returns.items():
            drawn[name][draw] = sharpe(each[chosen], per_year)
    table: dict[str, Any] = {}
    for name, each in found.items():
        more, mores = found[reference] - each, drawn[reference] - drawn[name]
        table[name] = {
            "sharpe": float(each.mean()), "ci95": np.quantile(drawn[name].mean(1), [0.025, 0.975]).tolist(),
            "by_pool": each.tolist(), f"{reference}_less_this": float(more.mean()),
            f"{reference}_less_this_ci95": np.quantile(mores.mean(1), [0.025, 0.975]).tolist(),
            f"pools_{reference}_is_better": int((more > 0.0).sum()),
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
        equal = untrained.standing_still()
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


def tuned(limit: float, *, seeds: int = SEEDS, trials: int = TRIALS, epochs: int = 100) -> dict[str, Any]:
    """Tune and train on the packaged prices before `FIRST_HELD_OUT`, several seeds; every strategy from there on."""
    history = sp500_monthly()
    config = PoolConfig(row_minutes=MONTH, chunk_minutes=MONTH, fee=FEE, maximum_change=limit / MONTH)
    pool = PowerChannelPool(config)
    cut = next(row for row, date in enumerate(history.dates) if date.isoformat() >= FIRST_HELD_OUT)
    returns: dict[str, list[NDArray[np.float64]]] = {}
    facts: dict[str, list[dict[str, float]]] = {}
    validated: dict[str, list[float]] = {"tuned": [], "trained": [], "untrained": []}
    work = [(seed, names) for seed in range(seeds) for names in groups(history)]
    for seed, names in tqdm(work, unit="pool", desc=f"limit {limit:g}", disable=None):
        prices = torch.from_numpy(history.select(names).prices.copy())
        untrained = PoolParameters.initial(ASSETS, config, memory=60.0, k_per_day=0.5, pre_scaling=5.0)
        options: dict[str, Any] = {"window_days": 60, "seed": seed, "days_per_year": MONTHS}
        tuning = tune_pool(untrained, prices[:cut], config, trials=trials, **options)
        training = train_pool(
            untrained, prices[:cut], config, sets=SETS, epochs=epochs, patience=30, **options
        )  # fmt: skip
        validated["tuned"].append(tuning.objective)
        validated["trained"].append(training.objective)
        validated["untrained"].append(float(training.validated[0, 0]))
        chosen = {
            "tuned": tuning.parameters, "trained": training.parameters, "untrained": untrained,
            "equal weight": untrained.standing_still(),
        }  # fmt: skip
        runs = {name: pool.simulate(one, prices, start=(cut - 1) * MONTH) for name, one in chosen.items()}
        hold = runs["tuned"].hold
        for name, value in ({name: run.value for name, run in runs.items()} | {"hold": hold}).items():
            returns.setdefault(name, []).append(value.log().diff().numpy())
            one = performance(value, hold=hold, row_minutes=MONTH, days_per_year=MONTHS)
            facts.setdefault(name, []).append({key: float(each) for key, each in one.to_dict().items()})
    stacked = {name: np.stack(each, 1) for name, each in returns.items()}
    table = with_blocks(stacked, "tuned", MONTH_BLOCK, MONTHS)
    for name, each in facts.items():
        for key in ("annual_log_return", "annual_volatility", "maximum_drawdown", "return_over_hold"):
            table[name][key] = statistics.mean(one[key] for one in each)
        table[name]["by_seed"] = np.reshape(table[name].pop("by_pool"), (seeds, -1)).mean(1).tolist()
    return {
        "fee": FEE, "limit_a_row": limit, "seeds": seeds, "trials": trials,
        "held_out": [history.dates[cut - 1].isoformat(), history.dates[-1].isoformat()],
        "validation": {name: statistics.mean(each) for name, each in validated.items()},
        "strategies": table,
    }  # fmt: skip


def page(found: dict[str, Any]) -> str:
    """The tables in Markdown, each part below the command that made it."""
    commands = found["commands"]
    parts = ["# Pools"]
    if "speed" in found:
        parts.append(f"`{commands['speed']}`")
        rows = [("3 assets, 150 days of minutes", "ms of processor time")]
        rows += [(name.replace("_", " "), f"{taken:.1f}") for name, taken in found["speed"].items()]
        parts.append(markdown_table(rows))
    if "clearing" in found:
        parts.append(f"`{commands['clearing']}`")
    for one in found.get("clearing", []):
        taken = one["ms"]
        rows = [(f"{one['markets']} markets of {one['investors']} investors, {one['assets']} assets", "ms", "of plain")]
        for name, each in taken.items():
            plain = taken["no pool, gradient" if name.endswith("gradient") else "no pool"]
            rows.append((name, f"{each:.1f}", f"{each / plain:.2f}"))
        parts.append(markdown_table(rows))
    if "training" in found:
        parts.append(f"`{commands['training']}`")
    for one in found.get("training", []):
        first, last = one["held_out"]
        limit = f"weights move by at most {1440 * one['maximum_change']:g} a day"
        table = _strategies(one["strategies"], "trained")
        parts.append(f"Fee {one['fee']:g}, {limit}, held out {first} to {last}:\n\n{table}")
    if "tuning" in found:
        parts.append(f"`{commands['tuning']}`")
    for one in found.get("tuning", []):
        first, last = one["held_out"]
        limit = f"weights move by at most {one['limit_a_row']:g} a month"
        runs = f"{one['seeds']} seeds of {one['trials']} trials"
        table = _strategies(one["strategies"], "tuned")
        valid = ", ".join(f"{name} {each:.2f}" for name, each in one["validation"].items())
        parts.append(
            f"Monthly prices, fee {one['fee']:g}, {limit}, {runs}, held out {first} to {last}; "
            f"on the validation years {valid}:\n\n{table}"
        )
    return "\n\n".join(parts) + "\n"


def _strategies(table: dict[str, Any], reference: str) -> str:
    """A table of strategies in Markdown; runs are pools, or pools and seeds."""
    rows = [
        ("strategy", "Sharpe (95 %)", f"{reference} less this (95 %)", "pools", "return", "volatility", "drawdown",
         *(("by seed",) if "by_seed" in table[reference] else ()))
    ]  # fmt: skip
    for name, row in table.items():
        low, high = row["ci95"]
        less, (less_low, less_high) = row[f"{reference}_less_this"], row[f"{reference}_less_this_ci95"]
        other, seeds = name != reference, row.get("by_seed")
        count = len(row.get("by_pool", ())) or len(seeds or ()) * POOLS
        rows.append(
            (
                name, f"{row['sharpe']:.2f} [{low:.2f}, {high:.2f}]",
                f"{less:+.2f} [{less_low:+.2f}, {less_high:+.2f}]" if other else "",
                f"{row[f'pools_{reference}_is_better']} of {count}" if other else "",
                f"{row['annual_log_return']:.1%}", f"{row['annual_volatility']:.1%}",
                f"{row['maximum_drawdown']:.0%}",
                *((f"{min(seeds):.2f} to {max(seeds):.2f}" if max(seeds) > min(seeds) else "",) if seeds else ()),
            )
        )  # fmt: skip
    return markdown_table(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.pools", description=__doc__)
    parser.add_argument("--prices", type=Path, help="CSV file of daily prices")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of tuning")
    parser.add_argument("--trials", type=int, default=TRIALS, help="of tuning")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    parts = (options.only,) if options.only else PARTS
    if options.prices is None and "training" in parts:
        parser.error("--prices is needed for training")
    torch.set_num_threads(1)
    path = options.results / "pools.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    found.pop("command", None)
    if "speed" in parts:
        found["speed"] = speeds()
    if "clearing" in parts:
        found["clearing"] = clearing_speeds()
    if "training" in parts:
        history = read_prices(options.prices)
        found["training"] = [held_out(history, limit, options.epochs) for limit in (LARGEST, 3e-4)]
    if "tuning" in parts:
        found["tuning"] = [
            tuned(limit, seeds=options.seeds, trials=options.trials, epochs=options.epochs) for limit in MONTHLY_LIMITS
        ]
    command = command_of("benchmarks.pools", argv)
    found["commands"] = found.get("commands", {}) | dict.fromkeys(parts, command)
    write_tables(options.results, "pools", command, found, page(found))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
