"""Batched clearing on a device against the same on the processor: agreement, failures, markets a second.

python -m benchmarks.batched_device --device cuda --markets 65536
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import Tensor

from hmgym.clearing.batched import clear_batched
from tests.problems import random_markets

SIZES = ((20, 3), (8, 2), (40, 5), (100, 10))  # investors, assets


def arguments_of(n_markets: int, n_investors: int, n_assets: int, costs: bool) -> dict[str, Tensor | None]:
    """Random markets as the arguments of ``clear_batched``."""
    markets: dict[str, Tensor | None] = dict(
        random_markets(np.random.default_rng(0), n_markets, n_investors, n_assets, with_orders=True, with_cost=costs)
    )
    positions, last_prices, wealth = markets.pop("positions", None), markets.get("last_prices"), markets["wealth"]
    reference = None
    if positions is not None and last_prices is not None and wealth is not None:
        reference = last_prices[:, None] * positions / wealth[..., None]
    absent = {"last_prices": None, "trading_cost": None}
    return absent | markets | {"reference_weights": reference}


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
            host = arguments_of(n_markets, n_investors, n_assets, costs)
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
