"""Reserves: reference values with trades by enumeration, invariants, gradients, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hmgym.pools import reserves_with_fees, reserves_without_fees
from tests.pools import reference
from tests.pools.markets import check_gradient, random_prices, random_weights

COSTS: list[dict[str, Any]] = [
    {"fee": 0.003},
    {"fee": 0.0},
    {"fee": 0.01, "gas_cost": 0.002},
    {"fee": 0.003, "arbitrage_fee": 0.004},
    {"fee": 0.02, "gas_cost": 0.001, "arbitrage_fee": 0.001, "noise_ratio": 1.5, "protocol_share": 0.25},
    {"fee": 0.003, "arbitrage_minutes": 4, "noise_ratio": 2.0, "protocol_share": 0.5},
]
NAMES = {"gas_cost": "gas", "arbitrage_fee": "rebalancing", "noise_ratio": "noise", "protocol_share": "share"}


def pool(
    rows: int, assets: int, seed: int, volatility: float = 0.01, swing: float = 0.02
) -> tuple[Tensor, Tensor, Tensor]:
    """Reserves that prices hold in place, weights, prices; a pool is worth 10."""
    prices, weights = random_prices(rows, assets, seed, volatility), random_weights(rows, assets, seed, swing)
    return 10.0 * weights[0] / prices[0], weights, prices


def slow(initial: Tensor, weights: Tensor, prices: Tensor, costs: dict[str, Any]) -> list[list[float]]:
    named = {NAMES.get(name, name): value for name, value in costs.items()}
    named["every"] = named.pop("arbitrage_minutes", 1)
    return reference.reserves_with_fees(initial.tolist(), weights.tolist(), prices.tolist(), **named)


@pytest.mark.parametrize("assets", [2, 3, 7])
@pytest.mark.parametrize("volatility", [1e-3, 0.05])
def test_reserves_without_fees_against_the_equations(assets: int, volatility: float) -> None:
    initial, weights, prices = pool(400, assets, assets, volatility, 10.0 * volatility)
    initial = initial * torch.linspace(0.8, 1.2, assets, dtype=torch.float64)  # also away from prices
    weights[50:60] = weights[50]
    expected = reference.reserves_without_fees(initial.tolist(), weights.tolist(), prices.tolist())
    found = reserves_without_fees(initial, weights, prices)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert torch.equal(found[0], initial)


@pytest.mark.parametrize("costs", COSTS, ids=str)
@pytest.mark.parametrize("assets", [2, 3, 4])
def test_reserves_with_fees_against_enumeration(costs: dict[str, Any], assets: int) -> None:
    initial, weights, prices = pool(25, assets, 3 * assets)
    found = reserves_with_fees(initial, weights, prices, **costs)
    np.testing.assert_allclose(found, slow(initial, weights, prices, costs), rtol=1e-10)
    moves = (found.diff(dim=0) != 0.0).any(-1)
    assert bool(moves.any())
    every = costs.get("arbitrage_minutes", 1)
    if every > 1:
        assert set((moves.nonzero()[:, 0] + 1).remainder(every).tolist()) == {0}


def test_no_fee_is_the_limit_of_small_ones() -> None:
    initial, weights, prices = pool(300, 3, 1)
    free = reserves_without_fees(initial, weights, prices)
    torch.testing.assert_close(reserves_with_fees(initial, weights, prices, fee=0.0), free, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(reserves_with_fees(initial, weights, prices, fee=1e-9), free, rtol=1e-6, atol=0.0)


def test_trades_leave_no_better_one_and_keep_the_invariant() -> None:
    initial, weights, prices = pool(2000, 4, 2, 0.003, 0.001)
    gamma = 0.997
    found = reserves_with_fees(initial, weights, prices, fee=0.003)
    marginal = prices * found / weights
    assert bool((marginal.amin(-1)[1:] >= gamma * marginal.amax(-1)[1:] * (1.0 - 1e-13)).all())
    # Weights that stand still: Π(R + γ·in − out)^w is kept by each trade, so Π R^w never falls.
    still = weights[:1].expand_as(weights)
    found = reserves_with_fees(initial, still, prices, fee=0.003)
    change = found.diff(dim=0)
    effective = found[:-1] + torch.where(change > 0.0, gamma * change, change)
    kept = (still[1:] * (effective / found[:-1]).log()).sum(-1)
    assert float(kept.abs().max()) < 1e-13
    assert float((still * found.log()).sum(-1).diff().min()) >= -1e-14


def test_a_step_of_one_path_does_not_reach_back() -> None:
    initial, weights, prices = pool(200, 3, 4)
    moved_prices, moved_weights = prices.clone(), weights.clone()
    moved_prices[120:] *= torch.linspace(0.5, 2.0, 3, dtype=torch.float64)
    moved_weights[120:] = weights[:80]
    for find in (reserves_without_fees, lambda *a: reserves_with_fees(*a, **COSTS[4])):
        before, after = find(initial, weights, prices), find(initial, moved_weights, moved_prices)
        assert torch.equal(before[:120], after[:120])
        assert not torch.equal(before[120:], after[120:])


@pytest.mark.parametrize("costs", [None, *COSTS], ids=str)
@pytest.mark.parametrize("assets", [2, 4])
def test_gradients_of_reserves(costs: dict[str, Any] | None, assets: int) -> None:
    initial, weights, prices = pool(14, assets, 5)
    weights[5:7] = weights[5]
    towards = torch.randn(14, assets, dtype=torch.float64, generator=torch.Generator().manual_seed(6))

    def value(initial: Tensor, weights: Tensor, prices: Tensor) -> Tensor:
        if costs is None:
            found = reserves_without_fees(initial, weights, prices)
        else:
            found = reserves_with_fees(initial, weights, prices, **costs)
        return (towards * found).sum()

    check_gradient(lambda x: value(x, weights, prices), initial)
    check_gradient(lambda x: value(initial, x, prices), weights)
    check_gradient(lambda x: value(initial, weights, x), prices)


@pytest.mark.parametrize("level", [1e-12, 1e12])
@pytest.mark.parametrize("costs", [None, COSTS[0], COSTS[5]], ids=str)
def test_tiny_and_huge_prices(level: float, costs: dict[str, Any] | None) -> None:
    initial, weights, prices = pool(40, 3, 7)
    scale = torch.tensor([level, 1.0, 1.0 / level], dtype=torch.float64)

    def find(initial: Tensor, prices: Tensor) -> Tensor:
        if costs is None:
            return reserves_without_fees(initial, weights, prices)
        return reserves_with_fees(initial, weights, prices, **costs)

    leaves = [x.requires_grad_() for x in (initial / scale, prices * scale)]
    found = find(*leaves)
    torch.testing.assert_close((found * scale).detach(), find(initial, prices).detach(), rtol=1e-10, atol=0.0)
    found.log().sum().backward()
    assert all(torch.isfinite(leaf.grad).all() for leaf in leaves if leaf.grad is not None)


def test_batches_are_single_rows() -> None:
    rows, assets = 60, 3
    weights = torch.stack([random_weights(rows, assets, seed) for seed in range(6)]).reshape(2, 3, rows, assets)
    prices = torch.stack([random_prices(rows, assets, seed, 0.01) for seed in range(3)])
    initial = 10.0 * weights[..., 0, :] / prices[:, 0]
    for find in (reserves_without_fees, lambda *a: reserves_with_fees(*a, **COSTS[4])):
        leaf = prices.clone().requires_grad_()
        together = find(initial, weights, leaf)
        (gradient,) = torch.autograd.grad(together.log().sum(), leaf)
        alone = torch.zeros_like(prices)
        for s in range(2):
            for w in range(3):
                one = find(initial[s, w], weights[s, w], leaf[w])
                assert torch.equal(one, together[s, w])
                alone += torch.autograd.grad(one.log().sum(), leaf)[0]
        torch.testing.assert_close(gradient, alone, rtol=1e-10, atol=1e-10)
        shared = find(initial[:, :1], weights[:, :1], prices[0])
        torch.testing.assert_close(shared, find(initial[:, :1], weights[:, :1], prices[:1]), rtol=0.0, atol=0.0)


def test_reserves_that_are_refused() -> None:
    initial, weights, prices = pool(10, 3, 8)
    for place, wrong in ((0, 0.0), (4, -1.0), (9, float("nan")), (5, float("inf"))):
        broken = prices.clone()
        broken[place, 1] = wrong
        for find in (reserves_without_fees, lambda *a: reserves_with_fees(*a, fee=0.003)):
            with pytest.raises(ValueError, match="`prices` must be positive and finite"):
                find(initial, weights, broken)
            with pytest.raises(ValueError, match="`weights` must be positive and finite"):
                find(initial, broken, prices)
    with pytest.raises(ValueError, match=r"`weights` must have shape \(..., T, N\) with T and N of `prices`"):
        reserves_without_fees(initial, weights[1:], prices)
    with pytest.raises(ValueError, match="`initial_reserves` must be of 3 assets"):
        reserves_without_fees(initial[:2], weights, prices)
    for name, value in (("fee", 1.0), ("gas_cost", -1.0), ("protocol_share", 2.0), ("arbitrage_minutes", 0)):
        with pytest.raises(ValueError, match=f"`{name}` must be"):
            reserves_with_fees(initial, weights, prices, **{"fee": 0.003, name: value})
