"""Batched clearing on a device against the same on the processor: agreement, failures, markets a second.

python -m benchmarks.batched_device --device cuda --markets 65536
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from benchmarks.markets import random_markets
from hmgym.clearing.batched import clear_batched
from hmgym.clearing.problem import Problem

SIZES = ((20, 3), (8, 2), (40, 5), (100, 10))  # investors, assets


def random_problem(n_markets: int, n_investors: int, n_assets: int, costs: bool) -> Problem:
    """Random markets."""
    rng = np.random.default_rng(0)
    return Problem.of(**random_markets(rng, n_markets, n_investors, n_assets, with_orders=True, with_cost=costs))


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markets", type=int, default=4096, help="at 20 investors and 3 assets; fewer where larger")
    parser.add_argument("--compared", type=int, default=256, help="markets of each size also cleared on the processor")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print("investors assets smoothing cost  markets  markets/s  steps mean max  failed  price diff  weight diff")
    for n_investors, n_assets in SIZES:
        share = min(1.0, 20 * 4**2 / (n_investors * (n_assets + 1) ** 2))
        n_markets = max(arguments.compared, int(arguments.markets * share))
        for smoothing, costs in ((0.0, False), (0.0, True), (1e-3, False)):
            host = random_problem(n_markets, n_investors, n_assets, costs)
            there = host.to(device)
            expected = clear_batched(host.rows(slice(arguments.compared)), smoothing=smoothing)
            clear_batched(there, smoothing=smoothing)
            wait(device)
            start = time.perf_counter()
            for _ in range(arguments.repeats):
                prices, weights, _, converged, steps = clear_batched(there, smoothing=smoothing)
            wait(device)
            seconds = (time.perf_counter() - start) / arguments.repeats
            price_gap = (prices.cpu()[: arguments.compared] / expected[0] - 1.0).abs().max()
            weight_gap = (weights.cpu()[: arguments.compared] - expected[1]).abs().max()
            print(
                f"{n_investors:9d} {n_assets:6d} {smoothing:9g} {costs!s:>5} {n_markets:8d} {n_markets / seconds:10.0f}"
                f"  {steps.double().mean():10.1f} {steps.max():3d} {(~converged).sum():7d}"
                f"  {price_gap:10.1e}  {weight_gap:11.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
