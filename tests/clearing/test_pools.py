"""Pools that trade along their invariants in the clearing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.pool_roots import random_markets, scan
from hmgym.clearing import ClearingError, Pools, clear_market, pool_kernels
from hmgym.clearing import pools as pools_module

FLOAT = torch.float64


@pytest.mark.parametrize("pools", [1, 3])
@pytest.mark.parametrize(("short", "size"), [(0.0, 0.2), (0.0, 5.0), (1.0, 1.0), (2.0, 8.0)])
def test_everything_is_conserved_and_pools_stay_on_their_invariant(pools: int, short: float, size: float) -> None:
    problem, held = random_markets(64, pools=pools, short=short, size=size)
    solution = clear_market(**problem, pools=held)
    reserves, loss = solution.pool_reserves, solution.pool_loss
    assert reserves is not None
    assert loss is not None
    supply, prices = torch.as_tensor(problem["supply"]), solution.prices
    total = solution.holdings.sum(1) + reserves[..., 1:].sum(1)
    torch.testing.assert_close(total, supply, rtol=1e-9, atol=0.0)
    weights, before = torch.as_tensor(held.weights), torch.as_tensor(held.reserves)
    invariant = (weights * torch.log(reserves / before)).sum(-1)
    assert float(invariant.abs().max()) < 1e-9
    priced = torch.cat([torch.ones_like(prices[:, :1]), prices], -1)[:, None]
    value = (reserves * priced).sum(-1)
    torch.testing.assert_close(reserves * priced, weights * value[..., None], rtol=1e-9, atol=0.0)
    torch.testing.assert_close(loss, (before * priced).sum(-1) - value, rtol=1e-9, atol=1e-12)
    assert bool((loss >= 0.0).all())
    assert bool(solution.converged.all())


def test_a_market_of_pools_alone_has_prices_in_closed_form() -> None:
    problem, held = random_markets(32, investors=1)
    problem["wealth"] = np.full((32, 1), 1e-13)
    problem["supply"] = held.reserves[:, 0, 1:] * np.random.default_rng(1).uniform(0.5, 2.0, (32, 3))
    solution = clear_market(**problem, pools=held)
    weights, reserves = torch.as_tensor(held.weights)[:, 0], torch.as_tensor(held.reserves)[:, 0]
    # At p = 1 the value is V; there a_i = log(w_i V / S_i), and x = a + Σ w_j a_j / w_0.
    value = torch.exp((weights * torch.log(reserves / weights)).sum(-1, keepdim=True))
    a = torch.log(weights[:, 1:] * value / torch.as_tensor(problem["supply"]))
    expected = a + (weights[:, 1:] * a).sum(-1, keepdim=True) / weights[:, :1]
    torch.testing.assert_close(torch.log(solution.prices), expected, rtol=0.0, atol=1e-9)


def test_no_trade_where_a_pool_already_stands_at_the_clearing_prices() -> None:
    problem, held = random_markets(16, pools=2)
    first = clear_market(**problem, pools=held)
    again = clear_market(**problem, pools=Pools(weights=held.weights, reserves=first.pool_reserves))
    torch.testing.assert_close(again.prices, first.prices, rtol=1e-11, atol=0.0)
    torch.testing.assert_close(again.pool_reserves, first.pool_reserves, rtol=1e-11, atol=0.0)
    assert again.pool_loss is not None
    assert float(again.pool_loss.abs().max()) < 1e-12


@pytest.mark.parametrize("pools", [1, 2])
def test_derivatives_are_those_of_central_differences(pools: int) -> None:
    problem, held = random_markets(3, investors=4, assets=2, pools=pools, seed=4)
    inputs = {
        name: torch.as_tensor(problem[name]).clone().requires_grad_() for name in ("beliefs", "wealth", "supply")
    } | {name: torch.as_tensor(getattr(held, name)).clone().requires_grad_() for name in ("weights", "reserves")}
    random = torch.Generator().manual_seed(1)
    shares = [torch.randn(shape, generator=random, dtype=FLOAT) for shape in ((3, 2), (3, pools, 3), (3, pools))]

    def objective(values: dict[str, torch.Tensor]) -> torch.Tensor:
        others = {name: value for name, value in values.items() if name not in ("weights", "reserves")}
        solution = clear_market(
            **(problem | others), pools=Pools(weights=values["weights"], reserves=values["reserves"])
        )  # fmt: skip
        parts = solution.prices, solution.pool_reserves, solution.pool_loss
        return sum(
            ((share * part).sum() for share, part in zip(shares, parts, strict=True)), torch.zeros((), dtype=FLOAT)
        )

    gradients = torch.autograd.grad(objective(inputs), list(inputs.values()))
    for (name, value), gradient in zip(inputs.items(), gradients, strict=True):
        direction = torch.randn(value.shape, generator=random, dtype=FLOAT) * value.detach().abs()
        if name == "weights":  # along which they still sum to 1
            direction = direction - value.detach() * direction.sum(-1, keepdim=True)
        found = []
        for step in (1e-6, -1e-6):
            moved = {key: other.detach() for key, other in inputs.items()}
            found.append(float(objective(moved | {name: value.detach() + step * direction})))
        slope = (found[0] - found[1]) / 2e-6
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-8), name


def test_the_gap_has_one_root_where_nobody_is_short() -> None:
    """v − log V(u(v)) rises by at least the cash weight, so it crosses zero once."""
    changes, slope = scan(*random_markets(200, size=3.0, seed=9))
    assert changes.tolist() == [1] * 200
    assert float(slope.min()) >= -1e-9


def test_one_market_is_a_row_and_a_warm_start_changes_nothing() -> None:
    problem, held = random_markets(8, pools=2, short=0.5)
    whole = clear_market(**problem, pools=held)
    pick = {name: value[3] if isinstance(value, np.ndarray) else value for name, value in problem.items()}
    one = clear_market(**pick, pools=Pools(weights=held.weights[3], reserves=held.reserves[3]))
    torch.testing.assert_close(one.prices, whole.prices[3], rtol=1e-12, atol=0.0)
    assert one.pool_reserves is not None
    assert one.pool_reserves.shape == (2, 4)
    torch.testing.assert_close(one.pool_reserves, whole.pool_reserves[3], rtol=1e-12, atol=0.0)
    warm = clear_market(**problem, pools=held, warm_start=whole)
    torch.testing.assert_close(warm.prices, whole.prices, rtol=1e-11, atol=0.0)
    assert clear_market(**problem).pool_reserves is None


def test_pools_beside_orders_costs_and_smoothing() -> None:
    problem, held = random_markets(6, short=0.3)
    more = {
        "last_prices": np.ones((6, 3)), "positions": np.full((6, 6, 3), 0.05), "trading_cost": 0.01,
        "orders": np.full((6, 3), -0.05),
    }  # fmt: skip
    for smoothing in (0.0, 0.01):
        solution = clear_market(**problem, **more, pools=held, smoothing=smoothing)
        assert solution.pool_reserves is not None
        total = solution.holdings.sum(1) + solution.pool_reserves[..., 1:].sum(1)
        expected = torch.as_tensor(problem["supply"]) - torch.as_tensor(more["orders"]) / solution.prices
        torch.testing.assert_close(total, expected, rtol=1e-8, atol=0.0)


def _given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the compiled search find nothing."""

    def nothing(problem: Any, pools: Any, first: torch.Tensor, rejected: Any) -> Any:
        return pools_module._nothing(problem, first)

    monkeypatch.setattr(pools_module, "_search_compiled", nothing)


@pytest.mark.parametrize("pools", [1, 3])
@pytest.mark.parametrize(("short", "size"), [(0.0, 3.0), (1.0, 1.0), (2.0, 8.0)])
def test_the_compiled_search_and_the_careful_one_find_the_same(
    pools: int, short: float, size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem, held = random_markets(48, pools=pools, short=short, size=size, seed=5)
    fast = clear_market(**problem, pools=held)
    _given_up(monkeypatch)
    careful = clear_market(**problem, pools=held)
    assert fast.pool_reserves is not None
    for name in ("prices", "weights", "holdings", "pool_reserves"):
        torch.testing.assert_close(getattr(fast, name), getattr(careful, name), rtol=1e-9, atol=1e-11, msg=name)
    held_by_pools = torch.as_tensor(held.weights) * torch.log(fast.pool_reserves / torch.as_tensor(held.reserves))
    assert float(held_by_pools.sum(-1).abs().max()) < 3e-14
    total = fast.holdings.sum(1) + fast.pool_reserves[..., 1:].sum(1)
    torch.testing.assert_close(total, torch.as_tensor(problem["supply"]), rtol=5e-15, atol=0.0)


def test_the_compiled_search_gives_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> Any:
        raise AssertionError("a market was left to the careful search")

    monkeypatch.setattr(pools_module, "_search_with_care", fails)
    for pools, short, size in ((1, 0.0, 30.0), (4, 0.0, 3.0), (2, 2.0, 10.0)):
        problem, held = random_markets(100, pools=pools, short=short, size=size, seed=3)
        assert bool(clear_market(**problem, pools=held).converged.all())


@pytest.mark.parametrize("start", [-6.0, 3.0])
def test_values_far_from_the_root_are_a_start_too(start: float, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, held = random_markets(32, pools=2, short=0.5, seed=6)
    expected = clear_market(**problem, pools=held)
    first = pools_module._first_values
    monkeypatch.setattr(pools_module, "_first_values", lambda *given: first(*given) + start)
    again = clear_market(**problem, pools=held)
    torch.testing.assert_close(again.prices, expected.prices, rtol=1e-9, atol=0.0)


def test_what_the_compiled_search_gives_up_is_searched_with_care(monkeypatch: pytest.MonkeyPatch) -> None:
    problem, held = random_markets(8, pools=2)
    expected = clear_market(**problem, pools=held)
    search = pools_module._search_compiled

    def some(*given: Any) -> Any:
        found, done = search(*given)
        lost = torch.arange(8) % 3 == 0
        for each in (found.values, found.slopes, found.solved.prices, found.solved.weights):
            each[lost] = math.nan
        found.solved.converged[lost] = False
        return found, done & ~lost

    monkeypatch.setattr(pools_module, "_search_compiled", some)
    again = clear_market(**problem, pools=held)
    torch.testing.assert_close(again.prices, expected.prices, rtol=1e-12, atol=0.0)
    torch.testing.assert_close(again.holdings, expected.holdings, rtol=1e-9, atol=1e-12)


def test_torch_clears_pools_too() -> None:
    problem, held = random_markets(4, pools=2)
    expected = clear_market(**problem, pools=held)
    again = clear_market(**problem, pools=held, backend="torch")
    torch.testing.assert_close(again.prices, expected.prices, rtol=1e-9, atol=0.0)


def test_slopes_of_the_compiled_search_are_those_of_the_adjoint() -> None:
    problem, held = random_markets(5, pools=2, short=0.5)
    fixed = {name: torch.as_tensor(value) for name, value in problem.items() if isinstance(value, np.ndarray)}
    posed = pools_module.Problem.of(
        **fixed, short_leverage=torch.full((5, 6), 0.5, dtype=FLOAT), long_leverage=torch.full((5, 6), 2.0, dtype=FLOAT)
    )
    tensors = Pools(weights=torch.as_tensor(held.weights), reserves=torch.as_tensor(held.reserves))
    found = pools_module._search(posed, tensors, pools_module.Options())
    orders = pools_module._with_orders(posed, tensors, found.values).orders.clone().requires_grad_()
    prices = clear_market(**problem, orders=orders).prices
    for pool in range(2):
        logs = (torch.as_tensor(held.weights)[:, pool, 1:] * torch.log(prices)).sum()
        (expected,) = torch.autograd.grad(logs, orders, retain_graph=True)
        torch.testing.assert_close(found.slopes[:, pool], expected, rtol=1e-9, atol=1e-12)
    assert float(found.error.max()) <= pool_kernels.ROUNDING * 10.0


def test_bad_pools_are_named() -> None:
    problem, held = random_markets(2)

    def cleared(weights: Any = held.weights, reserves: Any = held.reserves, **options: Any) -> Any:
        return clear_market(**problem, pools=Pools(weights=weights, reserves=reserves), **options)

    with pytest.raises(ValueError, match="`pools` must be Pools or None, got dict"):
        clear_market(**problem, pools={})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`pools.weights` must have shape \(2, 'K', 4\), got \(2, 1, 3\)"):
        cleared(weights=held.weights[..., :3])
    with pytest.raises(ValueError, match=r"`pools.reserves` must have the shape of `pools.weights`"):
        cleared(reserves=np.repeat(held.reserves, 2, 1))
    with pytest.raises(ClearingError, match=r"market 1: `pools.weights` must sum to 1 over a pool's positions"):
        cleared(weights=held.weights * np.array([1.0, 1.1])[:, None, None])
    with pytest.raises(ClearingError, match=r"market 0: `pools.reserves` must be finite and > 0, got -"):
        cleared(reserves=held.reserves * np.array([-1.0, 1.0])[:, None, None])
    solution = cleared(reserves=held.reserves * np.array([math.nan, 1.0])[:, None, None], errors="mark")
    assert solution.converged.tolist() == [False, True]
    assert bool(torch.isnan(solution.pool_loss[0]).all())
    assert bool(torch.isfinite(solution.pool_loss[1]).all())
