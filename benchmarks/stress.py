"""Does anything ever fail to clear? A million random markets and 10^5 steps of the economy.

``python -m benchmarks.stress`` counts failures, the worst residual and the worst conservation error, and writes
``benchmarks/results/stress.json``. Markets run from quiet daily to yearly risk, with heavy-tailed wealth, limits from
nearly a single portfolio to 2.5 times wealth long and twice short, limits of every position, sell orders, trading costs
and risk conditioned up to 1e12. Each has an equilibrium. Every portfolio is checked against its first-order conditions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.markets import random_markets
from benchmarks.timing import print_table
from hmgym.clearing import ClearingSolution, clear_market
from hmgym.diagnostics.plausibility import simulate
from hmgym.market import MarketConfig

VOLATILITIES = (0.003, 0.01, 0.03, 0.1, 0.3)  # of one period: quiet days, days, weeks, months, years
SHARES = {(20, 3): 0.6, (8, 2): 0.26, (40, 5): 0.13, (100, 10): 0.01}  # of all markets, by (B, N)
EXTRAS: tuple[dict[str, Any], ...] = (
    {},
    {"with_orders": True},
    {"with_cost": True},
    {"with_own_limits": True},
    {"with_own_limits": True, "with_cost": True},
    {"with_orders": True, "with_cost": True, "condition": 1e12},
    {"with_own_limits": True, "with_cost": True, "condition": 1e12},
)
CHUNK = 2000
WRONG = 1e-9  # an error of a portfolio above which it counts as wrong


def portfolio_errors(markets: dict[str, torch.Tensor], solution: ClearingSolution) -> dict[str, float | int]:
    """Worst errors of the portfolios of cleared markets, and how many markets have one above ``WRONG``.

    ``budget`` is relative to gross weights; ``optimality`` is what moving money between two positions would gain, were
    it allowed to, relative to the largest sum of terms in a marginal. No code is shared with the solver.
    """
    x = {name: value[solution.converged].numpy() for name, value in markets.items()}
    p, w = (value[solution.converged].numpy() for value in (solution.prices, solution.weights))
    short, long = (
        limit if limit.ndim == 3 else limit[..., None] for limit in (x["short_leverage"], x["long_leverage"])
    )
    lower, upper = -short + np.zeros_like(w), long + np.zeros_like(w)
    excess_return = x["beliefs"] - np.log(p)[:, None]
    products = 2.0 * x["risk"] * w[..., None, 1:]
    marginal, terms, cost, trade, near = (np.zeros_like(w) for _ in range(5))
    marginal[..., 1:] = excess_return - products.sum(-1)
    terms[..., 1:] = np.abs(excess_return) + np.abs(products).sum(-1)
    if "trading_cost" in x:
        reference = x["last_prices"][:, None] * x["positions"] / x["wealth"][..., None]
        cost[..., 1:], trade[..., 1:] = x["trading_cost"], w[..., 1:] - reference
        near[..., 1:] = 1e-12 * (1.0 + np.abs(reference))
    buy = marginal - np.where(trade >= -near, cost, -cost)
    sell = marginal - np.where(trade > near, cost, -cost)
    buy[w >= upper - 1e-12 * (1.0 + np.abs(upper))] = -np.inf
    sell[w <= lower + 1e-12 * (1.0 + np.abs(lower))] = np.inf
    gain = np.maximum(buy.max(-1) - sell.min(-1), 0.0)
    errors = {
        "budget": np.abs(w.sum(-1) - 1.0) / (1.0 + np.abs(w).sum(-1)),
        "bounds": np.maximum(np.maximum(lower - w, w - upper), 0.0).max(-1),
        "optimality": gain / (terms + cost).max(-1),
    }
    wrong = np.any([~(error <= WRONG).all(-1) for error in errors.values()], axis=0)  # NaN is wrong too
    return {name: float(error.max(initial=0.0)) for name, error in errors.items()} | {"wrong": int(wrong.sum())}


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
                errors: dict[str, float | int] = {"budget": 0.0, "bounds": 0.0, "optimality": 0.0, "wrong": 0}
                rng = np.random.default_rng([seed, round(volatility * 1000), B])
                part = 0
                while left > 0:
                    size = min(-(-row["markets"] // len(EXTRAS)), left, CHUNK * 20 // B)
                    extras = EXTRAS[part % len(EXTRAS)]
                    markets = random_markets(rng, size, B, N, volatility=volatility, **extras)
                    solution = clear_market(**markets, errors="mark", backend="kernel")
                    if not bool(solution.converged.all()):
                        rescued += int((~solution.converged).sum())
                        solution = clear_market(**markets, errors="mark")
                    failures += int((~solution.converged).sum())
                    rescued -= int((~solution.converged).sum())
                    nan += int(solution.holdings.isnan().any(-1).any(-1).sum())
                    cleared = solution.residual[solution.converged]
                    residual = max(residual, float(cleared.max()) if len(cleared) else 0.0)
                    found_errors = portfolio_errors(markets, solution)
                    errors = {
                        name: errors[name] + x if name == "wrong" else max(errors[name], x)
                        for name, x in found_errors.items()
                    }
                    iterations = max(iterations, int(solution.iterations.max()))
                    left, part = left - size, part + 1
                    bar.update(size)
                found = {"failures": failures, "rescued": rescued, "nan": nan}
                rows.append(row | found | errors | {"worst_residual": residual, "most_iterations": iterations})
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
    head = (
        "volatility", "investors", "assets", "markets", "failures", "rescued", "wrong", "budget", "bounds",
        "optimality", "worst_residual", "most_iterations",
    )  # fmt: skip
    print_table("clearing", [head, *(tuple(_cell(row[name]) for name in head) for row in clearing)])
    total = {name: sum(row[name] for row in clearing) for name in ("markets", "failures", "rescued", "wrong", "nan")}
    worst = ("worst_residual", "budget", "bounds", "optimality")
    total |= {name: max(row[name] for row in clearing) for name in worst}
    print(
        f"\n{total['markets']:,} markets: {total['failures']} not cleared, {total['rescued']} not by the kernel's "
        f"first try, {total['wrong']} wrong, worst residual {total['worst_residual']:.2g}"
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
