"""What runs on the CPU runs on an accelerator and says the same; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.markets import random_markets
from hmgym.clearing import clear_market
from hmgym.market import Action, Market, MarketConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize("extras", [{}, {"with_orders": True, "with_cost": True}], ids=["plain", "orders and cost"])
def test_clearing_and_its_gradients(extras: dict[str, bool]) -> None:
    markets = random_markets(np.random.default_rng(31), 200, 20, 3, **extras)
    results = []
    for device in ("cpu", "cuda"):
        leaves = {name: x.to(device).requires_grad_() for name, x in markets.items()}
        solution = clear_market(**leaves)
        assert solution.prices.device.type == device
        loss = solution.prices.log().sum() + solution.weights.square().sum() + solution.holdings.sin().sum()
        gradients = torch.autograd.grad(loss, list(leaves.values()))
        results.append([x.detach().cpu() for x in (solution.prices, solution.weights, *gradients)])
    for name, here, there in zip(("prices", "weights", *markets), *results, strict=True):
        tolerance = {"prices": 1e-9, "weights": 1e-9}.get(name, 1e-6)
        scale = float(here.abs().max())
        torch.testing.assert_close(there, here, rtol=tolerance, atol=tolerance * scale, msg=name)


def test_a_market_on_the_device_follows_the_one_on_the_cpu() -> None:
    paths = []
    for device in ("cpu", "cuda"):
        market = Market(MarketConfig(trading_cost=0.002), device=device)
        generators = [np.random.default_rng(seed) for seed in range(16)]
        state = market.initial(market.draw_initial_shocks(generators))
        short = torch.full((16, 1), 0.5, dtype=torch.float64, device=device, requires_grad=True)
        reward = torch.zeros((), dtype=torch.float64, device=device)
        for _ in range(6):
            action = Action(short_leverage=short, long_leverage=torch.full_like(short, 2.0))
            state, outcome = market.transition(state, action, market.draw_shocks(generators))
            reward = reward + outcome.reward.sum()
        (gradient,) = torch.autograd.grad(reward, short)
        paths.append([x.detach().cpu() for x in (state.prices, state.unit_value, gradient)])
    for here, there in zip(*paths, strict=True):
        torch.testing.assert_close(there, here, rtol=1e-7, atol=1e-9)
