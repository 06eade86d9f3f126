"""Does anything ever fail to clear? A million random markets and 10^5 steps of the economy.

``python -m benchmarks.stress`` counts failures, the worst residual and the worst conservation error, and writes
``benchmarks/results/stress.json``. Markets run from quiet daily to yearly risk, with heavy-tailed wealth, limits from
nearly a single portfolio to 2.5 times wealth long and twice short, sell orders and trading costs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import print_table
from hmgym.clearing import clear_market
from hmgym.diagnostics.plausibility import simulate
from hmgym.market import MarketConfig
from tests.problems import random_markets

VOLATILITIES = (0.003, 0.01, 0.03, 0.1, 0.3)  # of one period: quiet days, days, weeks, months, years
SHARES = {(20, 3): 0.6, (8, 2): 0.26, (40, 5): 0.13, (100, 10): 0.01}  # of all markets, by (B, N)
EXTRAS: tuple[dict[str, bool], ...] = ({}, {"with_orders": True}, {"with_cost": True})
CHUNK = 2000


def stress_clearing(n_markets: int, seed: int) -> list[dict[str, Any]]:
    """Clear ``n_markets`` random markets; one row of figures for each volatility and size."""
    from tqdm import tqdm

    rows = []
    with tqdm(total=n_markets, unit="market", unit_scale=True) as bar:
        for volatility in VOLATILITIES:
            for (B, N), share in SHARES.items():
                left = max(1, round(n_markets * share / len(VOLATILITIES)))
                row = {"volatility": volatility, "investors": B, "assets": N, "markets": left}
                failures, rescued, nan, residual, iterations = 0, 0, 0, 0.0, 0
                rng = np.random.default_rng([seed, round(volatility * 1000), B])
                part = 0
                while left > 0:
                    size = min(left, CHUNK * 20 // B)
                    extras = EXTRAS[part % len(EXTRAS)]
                    markets = random_markets(rng, size, B, N, volatility=volatility, **extras)
                    solution = clear_market(**markets, errors="mark", backend="kernel")
                    if not bool(solution.converged.all()):
                        rescued += int((~solution.converged).sum())
                        solution = clear_market(**markets, errors="mark")
                    failures += int((~solution.converged).sum())
                    rescued -= int((~solution.converged).sum())
                    nan += int(solution.holdings.isnan().any(-1).any(-1).sum())
                    residual = max(residual, float(solution.residual.nan_to_num(torch.inf).max()))
                    iterations = max(iterations, int(solution.iterations.max()))
                    left, part = left - size, part + 1
                    bar.update(size)
                found = {"failures": failures, "rescued": rescued, "nan": nan}
                rows.append(row | found | {"worst_residual": residual, "most_iterations": iterations})
    return rows


def stress_economy(steps: int) -> dict[str, Any]:
    """Run 100 markets for ``steps / 100`` months."""
    simulation = simulate(
        MarketConfig(trading_cost=0.002), seeds=range(100), months=max(1, steps // 100), burn_in=0, progress=True
    )
    return {
        "steps": steps,
        "not_cleared": simulation.not_cleared,
        "worst_residual": simulation.residual,
        "worst_conservation_error": simulation.conservation,
        "nan": int(np.isnan(simulation.returns).sum() + np.isnan(simulation.mispricing).sum()),
    }


def main() -> None:
    """Run both and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--markets", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "stress.json")
    arguments = parser.parse_args()
    with torch.no_grad():
        clearing = stress_clearing(arguments.markets, arguments.seed)
        economy = stress_economy(arguments.steps)
    head = ("volatility", "investors", "assets", "markets", "failures", "rescued", "worst_residual", "most_iterations")
    print_table("clearing", [head, *(tuple(_cell(row[name]) for name in head) for row in clearing)])
    total = {name: sum(row[name] for row in clearing) for name in ("markets", "failures", "rescued", "nan")} | {
        "worst_residual": max(row["worst_residual"] for row in clearing)
    }
    print(
        f"\n{total['markets']:,} markets: {total['failures']} not cleared, {total['rescued']} by the torch path only, "
        f"worst residual {total['worst_residual']:.2g}"
    )
    print_table("economy", [tuple(economy), tuple(_cell(x) for x in economy.values())])
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    options = f"--markets {arguments.markets} --steps {arguments.steps} --seed {arguments.seed}"
    report = {
        "command": f"python -m benchmarks.stress {options}",
        "total": total,
        "clearing": clearing,
        "economy": economy,
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def _cell(x: object) -> str:
    return f"{x:.3g}" if isinstance(x, float) else str(x)


if __name__ == "__main__":
    main()
