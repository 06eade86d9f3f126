"""Batched clearing on a device against the same on the processor: agreement, failures, markets a second.

python benchmarks/batched_device.py --device cuda --markets 65536
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from hmgym.clearing.batched import clear_batched

SIZES = ((20, 3), (8, 2), (40, 5), (100, 10))  # investors, assets


def random_markets(n_markets: int, n_investors: int, n_assets: int, seed: int, costs: bool) -> dict[str, Tensor | None]:
    """Monthly risk, heavy-tailed wealth, tight and loose limits, orders up to half of the cash that could buy."""
    rng = np.random.default_rng(seed)
    shape = (n_markets, n_investors, n_assets)
    factors = rng.standard_normal((n_markets, n_assets, n_assets))
    covariance = factors @ factors.transpose(0, 2, 1) / n_assets + 0.3 * np.eye(n_assets)
    aversion = np.exp(rng.uniform(0.0, 2.3, shape[:2]))
    wealth = rng.pareto(1.2, shape[:2]) + 0.1
    prices = np.exp(rng.uniform(-1.0, 4.0, (n_markets, n_assets)))
    long_leverage = np.where(rng.random(shape[:2]) < 0.3, 1.0, rng.uniform(0.5, 4.0, shape[:2]))
    power = (wealth * np.minimum(long_leverage, 1.0)).sum(1, keepdims=True)
    arrays = {
        "beliefs": np.log(prices)[:, None] + 0.1 * rng.standard_normal(shape),
        "risk": 0.5 * 0.06**2 * aversion[..., None, None] * covariance[:, None],
        "wealth": wealth,
        "short_leverage": np.where(rng.random(shape[:2]) < 0.3, 0.0, rng.uniform(0.0, 2.0, shape[:2])),
        "long_leverage": long_leverage,
        "supply": 0.8 * wealth.sum(1, keepdims=True) / prices * rng.dirichlet(np.ones(n_assets), n_markets),
        "orders": rng.uniform(-0.5, 0.5, (n_markets, n_assets)) * power / n_assets,
        "last_prices": prices,
        "reference_weights": rng.dirichlet(np.ones(n_assets + 1), shape[:2])[..., 1:] if costs else None,
        "trading_cost": np.full(shape, 2e-3) if costs else None,
    }
    return {name: None if x is None else torch.from_numpy(np.ascontiguousarray(x)) for name, x in arrays.items()}


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
            host = random_markets(n_markets, n_investors, n_assets, 0, costs)
            there = {name: None if x is None else x.to(device) for name, x in host.items()}
            some = {name: None if x is None else x[: arguments.compared] for name, x in host.items()}
            expected = clear_batched(**some, smoothing=smoothing)
            clear_batched(**there, smoothing=smoothing)
            wait(device)
            start = time.perf_counter()
            for _ in range(arguments.repeats):
                prices, weights, _, converged, steps = clear_batched(**there, smoothing=smoothing)
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
