"""Limits of every position: ``short_leverage`` and ``long_leverage`` of shape (E, B, N+1), cash first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from benchmarks.markets import random_markets
from hmgym.clearing import ClearingError, clear_market
from tests.clearing.test_clear_market import BACKENDS
from tests.clearing.test_gradients import functional, interior_margin

SMOOTHINGS = pytest.mark.parametrize("smoothing", [0.0, 1e-3])


def per_position(markets: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same limits, said for every position."""
    n = markets["supply"].shape[-1] + 1
    names = ("short_leverage", "long_leverage")
    return markets | {name: markets[name][..., None].expand(*markets[name].shape, n).clone() for name in names}


def own_limits(rng: np.random.Generator, markets: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Limits of their own around a random portfolio: forced holdings, forced shorts, positions without room."""
    E, B, N = markets["beliefs"].shape
    middle = rng.dirichlet(np.ones(N + 1), (E, B)) * 1.5 - 0.5 / (N + 1)
    below, above = (rng.exponential(0.4, (E, B, N + 1)) + 0.02 for _ in range(2))
    stuck = rng.random((E, B, N + 1)) < 0.05
    stuck[..., 0] = False
    below[stuck] = above[stuck] = 0.0
    return markets | {
        "short_leverage": torch.tensor(below - middle),
        "long_leverage": torch.tensor(middle + above),
    }


@SMOOTHINGS
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("extras", [{}, {"with_orders": True, "with_cost": True}], ids=["plain", "orders and cost"])
def test_alike_for_all_positions_is_one_for_the_investor(
    backend: str, smoothing: float, extras: dict[str, bool]
) -> None:
    markets = random_markets(np.random.default_rng(41), 40, 6, 3, **extras)
    options = {"backend": backend, "smoothing": smoothing}
    one = {name: x.clone().requires_grad_() for name, x in markets.items()}
    every = {name: x.clone().requires_grad_() for name, x in per_position(markets).items()}
    solutions = [clear_market(**x, **options) for x in (one, every)]
    torch.testing.assert_close(solutions[1].prices, solutions[0].prices, rtol=1e-13, atol=0)
    torch.testing.assert_close(solutions[1].weights, solutions[0].weights, rtol=0, atol=1e-12)
    assert torch.equal(*(solution.active_limits for solution in solutions))
    for x, solution in zip((one, every), solutions, strict=True):
        (solution.prices.log().sum() + solution.weights.square().sum()).backward()
        assert all(leaf.grad.shape == leaf.shape for leaf in x.values())
    for name in ("short_leverage", "long_leverage"):
        torch.testing.assert_close(every[name].grad.sum(-1), one[name].grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("volatility", [0.003, 0.05, 0.3])
@pytest.mark.parametrize("extras", [{}, {"with_cost": True}], ids=["plain", "cost"])
def test_everybody_is_optimal_inside_its_own_limits(backend: str, volatility: float, extras: dict[str, bool]) -> None:
    rng = np.random.default_rng(42)
    markets = own_limits(rng, random_markets(rng, 100, 6, 3, volatility=volatility, **extras))
    markets["orders"] = torch.tensor(0.5 * rng.random((100, 3))) * markets["wealth"].sum(1, keepdim=True)
    solution = clear_market(**markets, backend=backend)
    lower, upper = -markets["short_leverage"], markets["long_leverage"]
    w = solution.weights
    assert bool(((w >= lower) & (w <= upper)).all())
    torch.testing.assert_close(w.sum(-1), torch.ones(100, 6).double(), rtol=0, atol=1e-12)
    marginal = torch.zeros_like(w)
    marginal[..., 1:] = markets["beliefs"] - solution.prices.log()[:, None]
    marginal[..., 1:] -= 2 * torch.einsum("ebij,ebj->ebi", markets["risk"], w[..., 1:])
    buy, sell = marginal.clone(), marginal.clone()
    if "trading_cost" in markets:
        held = markets["last_prices"][:, None] * markets["positions"] / markets["wealth"][..., None]
        trade, cost = w[..., 1:] - held, markets["trading_cost"]
        buy[..., 1:] -= torch.where(trade >= -1e-12, cost, -cost)
        sell[..., 1:] -= torch.where(trade > 1e-12, cost, -cost)
    buy[w >= upper - 1e-13], sell[w <= lower + 1e-13] = -torch.inf, torch.inf
    assert float((buy.amax(-1) - sell.amin(-1)).max()) <= 1e-11
    at = solution.active_limits
    assert torch.equal(at, (w == upper).to(torch.int8) - (w == lower).to(torch.int8))


@pytest.mark.parametrize("extras", [{}, {"with_cost": True}], ids=["plain", "cost"])
@SMOOTHINGS
def test_both_paths_agree(smoothing: float, extras: dict[str, bool]) -> None:
    for volatility in (0.01, 0.2):
        rng = np.random.default_rng(43)
        markets = own_limits(rng, random_markets(rng, 60, 8, 4, volatility=volatility, **extras))
        if smoothing:
            markets["long_leverage"] += 0.01
        markets["orders"] = 0.2 * markets["wealth"].sum(1, keepdim=True).expand_as(markets["supply"])
        kernel, batched = (clear_market(**markets, smoothing=smoothing, backend=backend) for backend in BACKENDS)
        torch.testing.assert_close(kernel.prices, batched.prices, rtol=1e-9, atol=0)
        torch.testing.assert_close(kernel.weights, batched.weights, rtol=0, atol=1e-9)


@SMOOTHINGS
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_against_central_differences(backend: str, smoothing: float) -> None:
    rng = np.random.default_rng(44)
    markets = own_limits(rng, random_markets(rng, 80, 4, 2, volatility=0.15, with_cost=True))
    markets["long_leverage"] += 0.01
    markets["orders"] = 0.2 * markets["wealth"].sum(1, keepdim=True).expand_as(markets["supply"]).clone()
    if smoothing == 0.0:
        keep = interior_margin(markets)
        assert int(keep.sum()) >= 20
        markets = {name: x[keep] for name, x in markets.items()}
    E = markets["supply"].shape[0]
    cotangents = [torch.as_tensor(rng.normal(size=(E, *shape))) for shape in ((2,), (4, 3), (4, 2))]
    options = {"backend": backend, "smoothing": smoothing}
    leaves = {name: markets[name].clone().requires_grad_() for name in ("short_leverage", "long_leverage")}
    gradients = torch.autograd.grad(functional(markets | leaves, cotangents, **options).sum(), list(leaves.values()))
    for (name, x), gradient in zip(leaves.items(), gradients, strict=True):
        assert gradient.shape == (E, 4, 3)
        direction = torch.as_tensor(rng.normal(size=x.shape))
        ahead, behind = (
            functional(markets | {name: x.detach() + s * 1e-6 * direction}, cotangents, **options) for s in (1, -1)
        )
        exact = (gradient * direction).flatten(1)
        error = ((ahead - behind) / 2e-6 - exact.sum(1)).abs() / exact.abs().sum(1).clamp(min=1e-2)
        assert float(error.max()) <= 1e-5, name


def test_an_equilibrium_exists_where_a_linear_program_finds_portfolios_that_take_up_all_sales() -> None:
    rng = np.random.default_rng(45)
    markets = own_limits(rng, random_markets(rng, 150, 3, 3))
    wealth, lower, upper = (
        x.numpy() for x in (markets["wealth"], -markets["short_leverage"], markets["long_leverage"])
    )
    sold = wealth.sum(1, keepdims=True) * rng.normal(0.2, 0.4, (150, 3))
    markets["orders"] = torch.tensor(-sold)
    exists = []
    for e in range(150):
        # The most t at which investors hold t more of every asset than is sold.
        budgets = np.kron(np.eye(3), np.ones(4))
        holdings = -np.tile(np.eye(4)[1:], 3) * np.repeat(wealth[e], 4)
        bounds = [*itertools.chain(zip(lower[e].ravel(), upper[e].ravel(), strict=True)), (None, None)]
        found = linprog(
            np.r_[np.zeros(12), -1.0], np.c_[holdings, np.ones(3)], -sold[e], np.c_[budgets, np.zeros(3)], np.ones(3),
            bounds,
        )  # fmt: skip
        exists.append(-found.fun > 0.0)
        assert abs(found.fun) > 1e-9
    solution = clear_market(**markets, errors="mark")
    assert solution.converged.tolist() == exists
    assert 30 < sum(exists) < 120
    assert all("sell orders do not exceed buying power" in reason for reason in solution.reasons.values())


BAD = [
    ("long_leverage", (0, 1, 2), -3.0, "`long_leverage` must be >= -`short_leverage` everywhere"),
    ("short_leverage", (0, 1), -0.5, "`short_leverage` must sum to >= -1 over an investor's positions, got -2"),
    ("long_leverage", (0, 1), 0.2, "`long_leverage` must sum to >= 1 over an investor's positions, got 0.8"),
    ("long_leverage", (0, slice(None), 2), 0.0, "`long_leverage` must let investors hold some of every asset"),
]


@pytest.mark.parametrize(("name", "where", "value", "message"), BAD)
def test_limits_that_leave_no_portfolio_or_no_buyer(name: str, where, value: float, message: str) -> None:
    markets = per_position(random_markets(np.random.default_rng(46), 2))
    markets["short_leverage"][:] = 0.0
    markets["long_leverage"][:] = 1.0
    markets[name][where] = value
    with pytest.raises(ClearingError, match=f"market 0: {message}"):
        clear_market(**markets)


def test_a_wrong_shape_is_named() -> None:
    markets = random_markets(np.random.default_rng(47), 2)
    with pytest.raises(ValueError, match=r"`long_leverage` must have shape \(2, 6, 4\), got \(2, 6, 3\)"):
        clear_market(**markets | {"long_leverage": torch.ones(2, 6, 3)})
