"""Do the books of the fund market balance, and does it stay plausible? 20 seeds of 600 months, in both mechanisms.

``python -m benchmarks.fund_books`` checks every month of every run (`hmgym.market.funds.checks.month_errors`), runs
seeds in parallel processes, prints a table and writes ``benchmarks/results/fund_books.json``. The large size, 50
assets, 500 retail investors and 20 + 20 funds, runs for 24 months.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import print_table
from hmgym.market import Market
from hmgym.market.funds import FundsConfig
from hmgym.market.funds.checks import month_errors

SIZES: dict[str, tuple[int, dict[str, Any]]] = {
    "default": (600, {}),
    "large": (24, {"n_assets": 50, "n_retail": 500, "n_active": 20, "n_passive": 20}),
}
MECHANISMS = ("clearing", "impact")
LARGEST_ERROR, LARGEST_MISPRICING, DEALER = 1e-9, 1.0, 0.5
FLOWS = (0.01, 0.03)


def one(job: tuple[str, str, int]) -> dict[str, Any]:
    """One seed of one mechanism and size: worst errors and averages."""
    torch.set_num_threads(1)
    size, mechanism, seed = job
    months, settings = SIZES[size]
    market = Market(FundsConfig(n_learners=0, price_mechanism=mechanism, **settings), arrays="numpy")
    generators, memory = [np.random.default_rng(seed)], market.memory()
    state = market.initial(market.draw_initial_shocks(generators))
    worst: dict[str, float] = {}
    lowest, gap, level, dealer, unbooked, ruins, flows = np.inf, 0.0, 0.0, 0.0, 0, 0, []
    for _ in range(months):
        old = state
        state, outcome = market.transition(old, None, market.draw_shocks(generators), memory=memory)
        for name, error in month_errors(market, old, state).items():
            worst[name] = max(worst.get(name, 0.0), error)
        mispricing = np.log(state.prices) - state.log_value + state.news
        lowest, gap = min(lowest, float(state.prices.min())), max(gap, float(abs(mispricing).max()))
        level = max(level, float(abs(mispricing.mean())))
        dealer = max(dealer, float(abs(state.dealer_holdings / state.supply).max()))
        unbooked += int((state.scenario.unit_value <= 0.0).sum() + (~outcome.converged).sum())
        ruins += int(state.ruined.sum())
        opened = market.scenario.open(old, None)[0].scenario.units.sum(1)
        flows.append(float(abs(state.scenario.units.sum(1) / opened - 1.0).mean()))
    return {
        "size": size, "mechanism": mechanism, "seed": seed, "errors": worst, "lowest price": lowest,
        "largest mispricing": gap, "largest mean mispricing": level, "dealer": dealer, "unbooked": unbooked,
        "ruins": ruins, "flows": float(np.mean(flows)),
    }  # fmt: skip


def faults(found: dict[str, Any]) -> list[str]:
    """What a run breaks of all that must hold."""
    checks = {
        "books": max(found["errors"].values()) <= LARGEST_ERROR,
        "price": found["lowest price"] > 0.0,
        "mispricing": found["mechanism"] != "clearing" or found["largest mispricing"] < LARGEST_MISPRICING,
        "dealer": found["dealer"] <= DEALER * (1.0 + LARGEST_ERROR),
        "unbooked": found["unbooked"] == 0,
        "flows": FLOWS[0] <= found["flows"] <= FLOWS[1],
    }
    return [name for name, holds in checks.items() if not holds]


def main() -> int:
    """Run, print, write; the exit status is 1 where something does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "fund_books.json")
    arguments = parser.parse_args()
    jobs = [(size, mechanism, seed) for size in SIZES for mechanism in MECHANISMS for seed in range(arguments.seeds)]
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        runs = []
        for run in pool.imap(one, jobs):
            runs.append(run)
            broken = faults(run)
            print(f"{run['size']}, {run['mechanism']}, seed {run['seed']}: {', '.join(broken) or 'holds'}", flush=True)
    rows = [("size, mechanism", "months", "error", "mispricing", "dealer", "flows a month", "ruins", "broken")]
    for size, (months, _) in SIZES.items():
        for mechanism in MECHANISMS:
            group = [run for run in runs if (run["size"], run["mechanism"]) == (size, mechanism)]
            flows = [run["flows"] for run in group]
            rows.append(
                (
                    f"{size}, {mechanism}",
                    f"{months * len(group)}",
                    f"{max(max(run['errors'].values()) for run in group):.1e}",
                    f"{max(run['largest mispricing'] for run in group):.2f}",
                    f"{max(run['dealer'] for run in group):.2f}",
                    f"{min(flows):.4f}–{max(flows):.4f}",
                    f"{sum(run['ruins'] for run in group)}",
                    f"{sum(bool(faults(run)) for run in group)}",
                )
            )
    print_table("The books of the fund market, worst of all seeds", rows)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    return int(any(faults(run) for run in runs))


if __name__ == "__main__":
    sys.exit(main())
