"""How many roots the equation of a pool in a market has: random markets on a grid of values.

``python -m benchmarks.pool_roots`` clears markets of six investors, three assets and one pool, with the value of the
pool held at each of 61 numbers, and looks at v − log V(u(v)): how often it changes sign, and its least slope beyond the
cash weight. Without short sales theory says once, and 0. Writes ``benchmarks/results/pool_roots.json``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.jobs import RESULTS, command_of, write_result
from hmgym.clearing import Pools, clear_market
from hmgym.clearing.pools import log_values

_BATCH, _POINTS = 500, 61
CASES = {"without short sales": (0.0, 3.0, 10_000), "with short sales": (2.0, 10.0, 2_000)}
"""κ, size of the pool, and number of markets."""


def random_markets(
    count: int,
    *,
    investors: int = 6,
    assets: int = 3,
    pools: int = 1,
    short: float = 0.0,
    size: float = 1.0,
    seed: int = 0,
) -> tuple[dict[str, Any], Pools]:
    """Arguments of ``clear_market`` for some random markets, and their pools."""
    random = np.random.default_rng(seed)
    root = random.normal(size=(count, investors, assets, assets))
    weights = random.uniform(0.1, 1.0, (count, pools, assets + 1))
    reserves = size * random.uniform(0.1, 1.0, (count, pools, assets + 1))
    problem = {
        "beliefs": 0.2 * random.normal(size=(count, investors, assets)),
        "risk": 0.02 * root @ root.swapaxes(-1, -2) + 0.02 * np.eye(assets),
        "wealth": random.uniform(0.3, 1.2, (count, investors)), "short_leverage": short, "long_leverage": 2.0,
        "supply": random.uniform(0.5, 1.0, (count, assets)) * investors / assets + reserves[..., 1:].sum(1),
    }  # fmt: skip
    return problem, Pools(weights=weights / weights.sum(-1, keepdims=True), reserves=reserves)


def scan(problem: dict[str, Any], held: Pools) -> tuple[torch.Tensor, torch.Tensor]:
    """Changes of sign (E,) of one pool's equation, and its least slope less the cash weight (E,)."""
    weights, reserves = torch.as_tensor(held.weights), torch.as_tensor(held.reserves)
    grid = torch.linspace(-4.0, 4.0, _POINTS, dtype=torch.float64) + torch.log(reserves.sum(-1))
    gaps, before = [], None
    for column in range(_POINTS):
        orders = (weights[..., 1:] * torch.exp(grid[:, column])[:, None, None]).sum(1)
        before = clear_market(**problem, orders=orders, warm_start=before)
        value = log_values(Pools(weights=weights, reserves=reserves), torch.log(before.prices))
        gaps.append(grid[:, column] - value[:, 0])
    gap = torch.stack(gaps, 1)
    slope = torch.diff(gap) / torch.diff(grid)
    return (torch.diff(torch.sign(gap)) != 0).sum(1), slope.amin(1) - weights[:, 0, 0]


def main(argv: Sequence[str] | None = None) -> int:
    """Scan and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.pool_roots", description=__doc__)
    parser.add_argument("--markets", type=int, help="of each case; default 10,000 and 2,000")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, (short, size, count) in CASES.items():
        count = options.markets or count
        roots, slopes, taken, plain, cleared = [], [], 0.0, 0.0, 0
        for first in tqdm(range(0, count, _BATCH), unit="batch", desc=name, disable=None):
            problem, held = random_markets(min(_BATCH, count - first), short=short, size=size, seed=first)
            changes, slope = scan(problem, held)
            roots.append(changes)
            slopes.append(slope)
            start = time.process_time()
            clear_market(**problem)
            middle = time.process_time()
            solution = clear_market(**problem, pools=held, errors="mark")
            plain, taken = plain + middle - start, taken + time.process_time() - middle
            cleared += int(solution.converged.sum())
        counts = torch.bincount(torch.cat(roots))
        found[name] = {
            "short_leverage": short, "size": size, "markets": count, "cleared": cleared,
            "markets_by_roots": {str(number): int(times) for number, times in enumerate(counts.tolist()) if times},
            "least_slope_less_cash_weight": float(torch.cat(slopes).min()), "time_against_plain": taken / plain,
        }  # fmt: skip
    write_result(options.results / "pool_roots.json", command_of("benchmarks.pool_roots", argv), found)
    print(found)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
