"""`clear_market`: values. Both paths, the compiled kernel and batched torch, run every test."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.markets import random_markets
from hmgym.clearing import ClearingError, clear_market, set_num_threads
from tests.problems import Problem, closed_form_problems

BACKENDS = ("kernel", "torch")


def optimality_gap(markets: dict[str, torch.Tensor], solution) -> float:
    """By how much the first-order conditions of any investor fail, in units of r (zero at the optimum).

    A feasible w is optimal when, over all pairs of positions, moving money from j (above its lower limit) to i (under
    its upper one) raises the objective by nothing: the best marginal to buy is at most the worst marginal to sell.
    """
    w = solution.weights
    r = torch.zeros_like(w)
    r[..., 1:] = markets["beliefs"] - torch.log(solution.prices)[:, None]
    marginal = r.clone()
    marginal[..., 1:] -= 2 * torch.einsum("ebij,ebj->ebi", markets["risk"], w[..., 1:])
    buy, sell = marginal.clone(), marginal.clone()
    if "trading_cost" in markets:
        reference = markets["last_prices"][:, None] * markets["positions"] / markets["wealth"][..., None]
        x, c = w[..., 1:] - reference, markets["trading_cost"]
        buy[..., 1:] -= torch.where(x >= -1e-11, c, -c)
        sell[..., 1:] -= torch.where(x > 1e-11, c, -c)
    high, low = markets["long_leverage"][..., None], -markets["short_leverage"][..., None]
    buy[w >= high - 1e-12] = -torch.inf
    sell[w <= low + 1e-12] = torch.inf
    rich = (markets["wealth"] > 0)[..., None]
    gap = torch.where(rich[..., 0], buy.amax(-1) - sell.amin(-1), torch.zeros(()).double())
    assert bool(((w <= high + 1e-14) & (w >= low - 1e-14) | ~rich).all())
    assert torch.allclose(w.sum(-1), torch.ones(()).double(), atol=1e-9)
    return float(gap.max())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("problem", closed_form_problems(), ids=lambda problem: problem.name)
def test_closed_form(problem: Problem, backend: str) -> None:
    solution = clear_market(**problem.arguments, **problem.options, backend=backend)
    torch.testing.assert_close(solution.prices, problem.prices, rtol=1e-12, atol=0)
    assert bool(solution.converged)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("volatility", [0.003, 0.05, 0.3])
@pytest.mark.parametrize("extras", [{}, {"with_orders": True}, {"with_cost": True}], ids=["plain", "orders", "cost"])
def test_everybody_is_optimal_and_the_market_clears(backend: str, volatility: float, extras: dict[str, bool]) -> None:
    markets = random_markets(np.random.default_rng(5), 60, volatility=volatility, **extras)
    solution = clear_market(**markets, backend=backend)
    assert optimality_gap(markets, solution) <= 1e-12 + 1e-9 * volatility**2
    orders = markets.get("orders", torch.zeros_like(markets["supply"]))
    excess = solution.holdings.sum(1) + orders / solution.prices - markets["supply"]
    residual = (excess.abs() / markets["supply"]).amax(1)
    torch.testing.assert_close(solution.residual, residual, rtol=0, atol=1e-13)
    assert float(residual.max()) <= 1e-9


@pytest.mark.parametrize("extras", [{}, {"with_orders": True}, {"with_cost": True}], ids=["plain", "orders", "cost"])
def test_both_paths_agree(extras: dict[str, bool]) -> None:
    for volatility in (0.01, 0.1, 0.4):
        markets = random_markets(np.random.default_rng(6), 100, volatility=volatility, **extras)
        kernel, batched = (clear_market(**markets, backend=backend) for backend in BACKENDS)
        torch.testing.assert_close(kernel.prices, batched.prices, rtol=1e-9, atol=0)
        torch.testing.assert_close(kernel.weights, batched.weights, rtol=0, atol=1e-9)
        assert torch.equal(kernel.active_limits, batched.active_limits)


def test_a_market_does_not_see_its_neighbours() -> None:
    markets = random_markets(np.random.default_rng(7), 65, 12, with_cost=True)
    together = clear_market(**markets)
    for e in (0, 17, 64):
        alone = clear_market(**{name: x[e] for name, x in markets.items()})
        assert torch.equal(alone.prices, together.prices[e])
        assert torch.equal(alone.weights, together.weights[e])


def test_threads_change_no_bit() -> None:
    markets = random_markets(np.random.default_rng(8), 64, 20)
    solutions = []
    try:
        for n_threads in (1, 3):
            set_num_threads(n_threads)
            solutions.append(clear_market(**markets))
    finally:
        set_num_threads(os.cpu_count() or 1)
    assert torch.equal(solutions[0].weights, solutions[1].weights)
    assert torch.equal(solutions[0].prices, solutions[1].prices)


@pytest.mark.parametrize("backend", BACKENDS)
def test_warm_start_changes_nothing(backend: str) -> None:
    markets = random_markets(np.random.default_rng(9), 40)
    cold = clear_market(**markets, backend=backend)
    for start in (cold, cold.prices * 1.3, torch.full_like(cold.prices, torch.nan)):
        warm = clear_market(**markets, warm_start=start, backend=backend)
        torch.testing.assert_close(warm.prices, cold.prices, rtol=1e-12, atol=0)
        torch.testing.assert_close(warm.weights, cold.weights, rtol=0, atol=1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_wealth_no_demand(backend: str) -> None:
    markets = random_markets(np.random.default_rng(10), 5)
    some = clear_market(**{name: x if name == "supply" else x[:, :-2] for name, x in markets.items()}, backend=backend)
    markets["wealth"] = markets["wealth"].clone()
    markets["wealth"][:, -2:] = torch.tensor([0.0, -3.0]).double()
    solution = clear_market(**markets, backend=backend)
    torch.testing.assert_close(solution.prices, some.prices, rtol=1e-12, atol=0)
    assert bool((solution.holdings[:, -2:] == 0).all())
    assert solution.weights[0, -1].tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_vertices_where_every_position_is_at_a_limit(backend: str) -> None:
    # kappa = 0 and theta = 1: all in one asset is optimal for one investor and cash for another.
    solution = clear_market(
        [[5.0, 1.0], [0.0, 5.0], [-9.0, -9.0]],
        np.broadcast_to(0.01 * np.eye(2), (3, 2, 2)).copy(),
        [2.0, 3.0, 4.0], 0.0, 1.0, [1.0, 1.0], backend=backend,
    )  # fmt: skip
    torch.testing.assert_close(solution.prices, torch.tensor([2.0, 3.0]).double(), rtol=1e-12, atol=0)
    assert solution.weights.round(decimals=10).tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_only_portfolio_there_is(backend: str) -> None:
    # theta (N+1) = 1 leaves a single point.
    solution = clear_market([[0.3, -0.3]], 0.1 * np.eye(2)[None], [3.0], 0.4, 1.0 / 3.0, [1.0, 2.0], backend=backend)
    torch.testing.assert_close(solution.prices, torch.tensor([1.0, 0.5]).double(), rtol=1e-12, atol=0)


@given(st.integers(0, 2**31), st.floats(0.2, 5.0))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_invariances(seed: int, factor: float) -> None:
    """Order of investors and assets, unit of money, unit of shares, and splitting an investor change nothing."""
    rng = np.random.default_rng(seed)
    markets = random_markets(rng, 2, with_cost=True, with_orders=True)
    base = clear_market(**markets)

    investors = torch.as_tensor(rng.permutation(6))
    per_investor = ("beliefs", "risk", "wealth", "short_leverage", "long_leverage", "positions", "trading_cost")
    shuffled = clear_market(**{n: x[:, investors] if n in per_investor else x for n, x in markets.items()})
    torch.testing.assert_close(shuffled.prices, base.prices, rtol=1e-11, atol=0)

    assets = torch.as_tensor(rng.permutation(3))
    turned = {
        n: x[..., assets] if n not in ("wealth", "short_leverage", "long_leverage") else x for n, x in markets.items()
    }
    turned["risk"] = turned["risk"][:, :, assets]
    torch.testing.assert_close(clear_market(**turned).prices, base.prices[:, assets], rtol=1e-11, atol=0)

    money = {n: x * factor if n in ("wealth", "orders", "last_prices") else x for n, x in markets.items()}
    money["beliefs"] = money["beliefs"] + np.log(factor)
    torch.testing.assert_close(clear_market(**money).prices, base.prices * factor, rtol=1e-11, atol=0)

    split = {n: torch.cat([x, x[:, :1]], 1) if n in per_investor else x for n, x in markets.items()}
    for name in ("wealth", "positions"):
        split[name] = split[name].clone()
        split[name][:, 0] *= 0.25
        split[name][:, -1] *= 0.75
    torch.testing.assert_close(clear_market(**split).prices, base.prices, rtol=1e-11, atol=0)


def test_smoothing_tends_to_the_exact_solution() -> None:
    markets = random_markets(np.random.default_rng(11), 30, volatility=0.2)
    exact = clear_market(**markets)
    biases = []
    for smoothing in (1e-2, 1e-4, 1e-6):
        solution = clear_market(**markets, smoothing=smoothing)
        assert float(solution.residual.max()) <= 1e-9
        biases.append(float((solution.weights - exact.weights).abs().max()))
    assert biases[0] > biases[1] > biases[2]
    assert biases[2] < 1e-2


def test_orders_of_sellers_up_to_buying_power() -> None:
    markets = random_markets(np.random.default_rng(12), 40, with_orders=True)
    short, long = markets["short_leverage"], markets["long_leverage"]
    reach = [torch.minimum(k * long, 1 + (4 - k) * short) for k in (1, 2, 3)]
    power = torch.stack([(markets["wealth"] * most).sum(1) for most in reach]).amin(0)
    markets["orders"] = torch.zeros_like(markets["supply"])
    markets["orders"][:, 0] = -0.95 * power
    solution = clear_market(**markets)
    assert bool(solution.converged.all())
    markets["orders"][3, 0] = -1.01 * power[3]
    with pytest.raises(ClearingError, match=r"market 3: `orders` must be such that sell orders do not exceed"):
        clear_market(**markets)


@pytest.mark.parametrize("backend", BACKENDS)
def test_supply_below_the_rounding_of_demand_is_not_cleared(backend: str) -> None:
    markets = random_markets(np.random.default_rng(17), 3)
    markets["supply"][1] *= 1e-20
    solution = clear_market(**markets, errors="mark", backend=backend)
    assert solution.converged.tolist() == [True, False, True]


BAD = [
    ("beliefs", lambda x: x[..., :2], r"`risk` must have shape \(4, 6, 2, 2\)"),
    ("risk", lambda x: x[..., :2], r"`risk` must have shape"),
    ("supply", lambda x: -x, r"`supply` must be > 0"),
    ("wealth", lambda x: -x, r"`wealth` must be > 0 for at least one investor"),
    ("beliefs", lambda x: x * torch.nan, r"`beliefs` must be finite, got nan"),
    ("long_leverage", lambda x: x * 0 + 0.2, r"`long_leverage` must be >= 1/\(N\+1\) = 0.25, got 0.2"),
    ("short_leverage", lambda x: x - 9, r"`short_leverage` must be >= 0"),
    ("risk", lambda x: -x, r"`risk` must be positive definite, got least eigenvalue -"),
    ("risk", lambda x: x + torch.tensor([[0, 1, 0], [0, 0, 0], [0, 0, 0]]), r"`risk` must be symmetric"),
    ("wealth", lambda x: x > 0, r"`wealth` must hold real numbers, got dtype torch.bool"),
    ("supply", lambda x: x.numpy() + 1j, r"`supply` must hold real numbers, got dtype complex128"),
    ("supply", lambda x: "many", r"`supply` must be an array of numbers, got str"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), BAD)
def test_bad_input_names_the_argument(name: str, spoil, message: str) -> None:
    markets = random_markets(np.random.default_rng(13), 4)
    markets[name] = spoil(markets[name])
    with pytest.raises(ValueError, match=message):
        clear_market(**markets)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"errors": "ignore"}, r'`errors` must be "raise" or "mark", got \'ignore\''),
        ({"backend": "cuda"}, "`backend` must be"),
        ({"smoothing": -1.0}, "`smoothing` must be a finite number >= 0, got -1.0"),
        ({"trading_cost": 0.1}, "`last_prices` must be given with `trading_cost`"),
        ({"trading_cost": 0.1, "last_prices": np.ones((4, 3))}, "`positions` must be given"),
        ({"warm_start": np.ones(2)}, r"`warm_start` must have shape \(4, 3\), got \(2,\)"),
    ],
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        clear_market(**random_markets(np.random.default_rng(14), 4), **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_bad_market_is_reported_and_the_others_are_cleared(backend: str) -> None:
    markets = random_markets(np.random.default_rng(15), 5)
    good = clear_market(**markets, backend=backend)
    markets["supply"] = markets["supply"].clone()
    markets["supply"][2, 1] = -1.0
    with pytest.raises(ClearingError) as caught:
        clear_market(**markets, backend=backend)
    assert list(caught.value.markets) == [2]
    assert "`supply` must be > 0, got -1" in caught.value.markets[2]
    marked = clear_market(**markets, errors="mark", backend=backend)
    for solution in (caught.value.solution, marked):
        assert solution.converged.tolist() == [True, True, False, True, True]
        assert bool(solution.prices[2].isnan().all())
        assert torch.equal(solution.prices[[0, 1, 3, 4]], good.prices[[0, 1, 3, 4]])


def test_unbatched_and_array_likes() -> None:
    markets = random_markets(np.random.default_rng(16), 1)
    batch = clear_market(**markets)
    single = clear_market(**{name: x[0].tolist() for name, x in markets.items()})
    assert single.prices.shape == (3,)
    assert single.weights.shape == (6, 4)
    assert single.converged.shape == ()
    assert torch.equal(single.prices, batch.prices[0])
