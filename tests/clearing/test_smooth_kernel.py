"""The compiled kernel of smoothed markets against the torch path, central differences and the exact solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.markets import random_markets
from hmgym.clearing import ClearingError, Problem, clear, clear_market, smooth_kernels
from hmgym.clearing.adjoint import _with_kernel, _with_torch
from hmgym.clearing.solve import Options, solve
from tests.clearing.test_gradients import functional

EXTRAS = pytest.mark.parametrize(
    "extras", [{}, {"with_orders": True, "with_cost": True}], ids=["plain", "orders, cost"]
)


def hard_markets(rng: np.random.Generator, E: int, B: int, N: int, volatility: float) -> dict[str, Tensor]:
    """No short sales, single points, wealth over orders of magnitude and below zero, sellers of most buying power."""
    n = N + 1
    markets = random_markets(rng, E, B, N, volatility=volatility, with_cost=True)
    wealth = np.exp(3 * rng.normal(size=(E, B)))
    wealth[rng.random((E, B)) < 0.1] = -1.0
    wealth[:, 0], wealth[:, 1] = 1.0, 0.0
    short = rng.choice([0.0, 0.0, 0.01, 0.5, 2.0], (E, B))
    long = rng.choice([1.0, 1.0, 1.5, 10.0], (E, B))
    tight = rng.random((E, B))
    long = np.where(tight < 0.1, (1 + 10 ** rng.uniform(-13, -1, (E, B))) / n, long)
    long = np.where((tight > 0.1) & (tight < 0.2), rng.uniform(1.001 / n, 1.0, (E, B)), long)
    k = np.arange(1, n)
    reach = np.minimum(k * long[..., None], 1 + short[..., None] * (n - k))
    power = (np.maximum(wealth, 0.0)[..., None] * reach).sum(1).min(1, keepdims=True)
    sold = rng.uniform(0.0, 0.9, (E, 1)) * rng.dirichlet(np.ones(N), E) * (rng.random((E, 1)) < 0.5)
    level = np.log(0.7 * np.maximum(wealth, 0.0).sum(1, keepdims=True) / N / markets["supply"].numpy())
    spread = rng.choice([2 * volatility, 0.1, 0.4], (E, 1, 1))
    arrays = {"wealth": wealth, "short_leverage": short, "long_leverage": long, "orders": -sold * power}
    arrays |= {"beliefs": level[:, None] + spread * rng.normal(size=(E, B, N)), "last_prices": np.exp(level)}
    held = rng.uniform(-0.2, 0.6, (E, B, N)) * rng.choice([1.0, 1.0, 30.0], (E, B, 1))
    arrays["positions"] = held * np.where(wealth > 0, wealth, 1.0)[..., None] / arrays["last_prices"][:, None]
    return markets | {name: torch.as_tensor(x) for name, x in arrays.items()}


@EXTRAS
@pytest.mark.parametrize("smoothing", [1.0, 1e-1, 1e-2, 1e-4, 1e-6, 1e-8])
def test_agrees_with_the_torch_path(smoothing: float, extras: dict[str, bool]) -> None:
    for seed, volatility in enumerate((0.003, 0.05, 0.3)):
        markets = random_markets(np.random.default_rng(seed), 40, 12, 3, volatility=volatility, **extras)
        kernel = clear_market(**markets, smoothing=smoothing, backend="kernel")
        batched = clear_market(**markets, smoothing=smoothing, backend="torch")
        assert float(kernel.residual.max()) <= 1e-12
        torch.testing.assert_close(kernel.prices, batched.prices, rtol=1e-12, atol=0.0)
        torch.testing.assert_close(kernel.weights, batched.weights, rtol=0.0, atol=1e-11)
        torch.testing.assert_close(kernel.weights.sum(-1), torch.ones(40, 12).double(), rtol=0.0, atol=1e-13)


@pytest.mark.parametrize(("B", "N"), [(3, 1), (20, 3), (70, 6)])
@pytest.mark.parametrize("volatility", [0.003, 0.4])
def test_hard_markets(volatility: float, B: int, N: int) -> None:
    markets = hard_markets(np.random.default_rng(B), 200 if B < 70 else 40, B, N, volatility)
    rich = markets["wealth"] > 0
    for smoothing in (1e-8, 1e-5, 1e-2, 1.0):
        kernel = clear_market(**markets, smoothing=smoothing, backend="kernel")
        batched = clear_market(**markets, smoothing=smoothing, backend="torch")
        assert float(kernel.residual.max()) <= 1e-9
        torch.testing.assert_close(kernel.prices, batched.prices, rtol=1e-11, atol=0.0)
        torch.testing.assert_close(kernel.weights, batched.weights, rtol=0.0, atol=1e-9)
        inside = (kernel.weights > -markets["short_leverage"][..., None]) & (
            kernel.weights < markets["long_leverage"][..., None]
        )
        assert bool(inside[rich].all())
        assert torch.equal(kernel.weights[~rich], torch.eye(N + 1).double()[:1].expand(int((~rich).sum()), -1))


@EXTRAS
@pytest.mark.parametrize("smoothing", [1.0, 1e-2, 1e-6])
def test_the_adjoint_is_that_in_torch(smoothing: float, extras: dict[str, bool]) -> None:
    for seed, volatility in enumerate((0.003, 0.1, 0.4)):
        markets = random_markets(np.random.default_rng(10 + seed), 60, 8, 3, volatility=volatility, **extras)
        markets["wealth"][::5, 2] = -1.0
        problem = Problem.of(**markets)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            solved = solve(problem, Options(smoothing, "kernel"))
            cotangents = [
                torch.randn(x.shape, generator=generator, dtype=torch.float64)
                for x in (solved.prices, solved.weights, solved.holdings)
            ]
            arguments = (problem, smoothing, solved.prices, solved.weights, solved.state, *cotangents)
            kernel, batched = _with_kernel(*arguments), _with_torch(*arguments)
        for ours, theirs in zip(kernel.inputs, batched.inputs, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                scale = theirs.abs().flatten(1).amax(1)
                assert bool(((ours - theirs).abs().flatten(1).amax(1) <= 1e-9 * scale).all())


@EXTRAS
@pytest.mark.parametrize("smoothing", [1e-1, 1e-3])
def test_every_input_against_central_differences(smoothing: float, extras: dict[str, bool]) -> None:
    rng = np.random.default_rng(31)
    markets = random_markets(rng, 40, 6, 3, volatility=0.15, **extras)
    cotangents = [torch.as_tensor(rng.normal(size=(40, *shape))) for shape in ((3,), (6, 4), (6, 3))]
    options = {"backend": "kernel", "smoothing": smoothing}
    leaves = {name: x.clone().requires_grad_() for name, x in markets.items()}
    gradients = torch.autograd.grad(functional(leaves, cotangents, **options).sum(), list(leaves.values()))
    for (name, x), gradient in zip(markets.items(), gradients, strict=True):
        direction = torch.as_tensor(rng.normal(size=x.shape)) * x.abs()
        values = [
            functional(dict(markets, **{name: x + sign * 1e-5 * direction}), cotangents, **options) for sign in (1, -1)
        ]
        measured = (values[0] - values[1]) / 2e-5
        exact = (gradient * direction).flatten(1)
        error = (measured - exact.sum(1)).abs() / exact.abs().sum(1).clamp(min=1e-3)
        assert float(error.max()) <= 1e-5, name


def test_gradcheck() -> None:
    markets = random_markets(np.random.default_rng(32), 2, 3, 2, volatility=0.2, with_orders=True, with_cost=True)
    markets["short_leverage"] = markets["short_leverage"] + 0.01
    markets["trading_cost"] = markets["trading_cost"] + 0.002
    names = list(markets)

    def values(*tensors: Tensor) -> tuple[Tensor, ...]:
        arguments = dict(zip(names, tensors, strict=True))
        arguments["risk"] = 0.5 * (arguments["risk"] + arguments["risk"].mT)
        solution = clear_market(**arguments, smoothing=1e-2, backend="kernel")
        return solution.prices, solution.weights, solution.holdings

    inputs = tuple(x.clone().requires_grad_() for x in markets.values())
    assert torch.autograd.gradcheck(values, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_second_derivatives_where_some_trades_are_free_and_somebody_is_ruined() -> None:
    markets = random_markets(np.random.default_rng(33), 2, volatility=0.2, with_cost=True)
    markets["wealth"][:, 1] = 0.0
    markets["short_leverage"][:, 1] = 0.0
    assert bool((markets["trading_cost"] == 0).any())
    risk, cost = (markets.pop(name).requires_grad_() for name in ("risk", "trading_cost"))

    def penalty(risk: Tensor, cost: Tensor) -> Tensor:
        symmetric = 0.5 * (risk + risk.mT)
        prices = clear_market(**markets, risk=symmetric, trading_cost=cost, smoothing=1e-2, backend="kernel").prices
        first = torch.autograd.grad(prices.sum(), (risk, cost), create_graph=True)
        return sum(x.square().sum() for x in first)

    gradients = torch.autograd.grad(penalty(risk, cost), (risk, cost))
    generator = torch.Generator().manual_seed(1)
    moves = [torch.randn(x.shape, generator=generator, dtype=torch.float64) * x.detach() for x in (risk, cost)]
    ahead, behind = (
        penalty(*((x + sign * 1e-5 * d).detach().requires_grad_() for x, d in zip((risk, cost), moves, strict=True)))
        for sign in (1, -1)
    )
    exact = sum((g * d).sum() for g, d in zip(gradients, moves, strict=True))
    torch.testing.assert_close(exact, (ahead - behind).detach() / 2e-5, rtol=1e-4, atol=1e-7)


def test_tends_to_the_exact_solution() -> None:
    markets = random_markets(np.random.default_rng(34), 60, volatility=0.2, with_orders=True, with_cost=True)
    exact = clear_market(**markets)
    taus = (1e-2, 1e-4, 1e-6, 1e-8)
    biases = [clear_market(**markets, smoothing=tau).weights.sub(exact.weights).abs() for tau in taus]
    # Of the order of tau away from kinks, of its root at one.
    assert all(float(bias.max()) <= 2 * tau**0.5 for tau, bias in zip(taus, biases, strict=True))
    assert all(float(bias.median()) <= 4 * tau for tau, bias in zip(taus, biases, strict=True))


def test_a_market_gives_the_same_bits_alone_and_among_others() -> None:
    markets = random_markets(np.random.default_rng(35), 60, 20, 3, with_orders=True, with_cost=True)
    markets["wealth"][7, 3:9] = -1.0
    leaves = {name: x.clone().requires_grad_() for name, x in markets.items()}
    together = clear_market(**leaves, smoothing=1e-4)
    loss = together.prices.log().sum() + together.weights.square().sum() + together.holdings.sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    for market in (0, 6, 7, 8, 59):
        row = slice(market, market + 1)
        one = {name: x[row].clone().requires_grad_() for name, x in markets.items()}
        alone = clear_market(**one, smoothing=1e-4)
        for name in ("prices", "weights", "holdings", "residual", "iterations"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[market]), name
        loss = alone.prices.log().sum() + alone.weights.square().sum() + alone.holdings.sum()
        for x, y in zip(torch.autograd.grad(loss, list(one.values())), gradients, strict=True):
            assert torch.equal(x[0], y[market])


def test_the_start_does_not_matter() -> None:
    markets = random_markets(np.random.default_rng(36), 30, with_cost=True)
    cold = clear_market(**markets, smoothing=1e-3)
    for start in (cold, cold.prices * 3, torch.full_like(cold.prices, torch.nan)):
        warm = clear_market(**markets, smoothing=1e-3, warm_start=start)
        torch.testing.assert_close(warm.prices, cold.prices, rtol=1e-13, atol=0.0)


def test_one_bad_market_is_marked_and_has_no_gradient() -> None:
    markets = random_markets(np.random.default_rng(37), 5)
    good = clear_market(**markets, smoothing=1e-2)
    markets["supply"][2, 1] = -1.0
    with pytest.raises(ClearingError, match="market 2: `supply` must be > 0, got -1"):
        clear_market(**markets, smoothing=1e-2)
    beliefs = markets.pop("beliefs").requires_grad_()
    marked = clear_market(beliefs, **markets, smoothing=1e-2, errors="mark")
    assert marked.converged.tolist() == [True, True, False, True, True]
    assert bool(marked.prices[2].isnan().all() & marked.weights[2].isnan().all())
    rest = [0, 1, 3, 4]
    assert torch.equal(marked.prices[rest], good.prices[rest])
    torch.where(marked.converged[:, None], marked.prices, 0.0).sum().backward()
    assert bool((beliefs.grad[2] == 0).all() & (beliefs.grad[rest].abs().amax((1, 2)) > 0).all())


def test_unchecked_nonsense_is_announced() -> None:
    markets = random_markets(np.random.default_rng(38), 6)
    markets["beliefs"][0, 1, 1] = torch.nan
    markets["risk"][1, 2] = torch.inf
    markets["wealth"][2] = -1.0
    markets["long_leverage"][3, 0] = torch.nan
    markets["supply"][4, 0] = torch.inf
    solution = clear(Problem.of(**markets), smoothing=1e-2, backend="kernel")
    assert solution.converged.tolist() == [False] * 5 + [True]
    assert bool(solution.prices[:5].isnan().all() & solution.weights[:5].isnan().all())


def test_a_market_that_the_kernel_gives_up_goes_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    markets = random_markets(np.random.default_rng(39), 4, with_cost=True)
    whole = clear_market(**markets, smoothing=1e-3)
    compiled = smooth_kernels.clear_markets

    def gives_up(first: int, last: int, *arguments: object) -> None:
        compiled(first, last, *arguments)
        *_, prices, weights, _, _, status = arguments
        row = min(1, len(prices) - 1)  # the second of four, and that one alone when it starts cold
        prices[row], weights[row], status[row] = np.nan, np.nan, smooth_kernels.NOT_CONVERGED

    monkeypatch.setattr(smooth_kernels, "clear_markets", gives_up)
    alone = clear_market(**markets, smoothing=1e-3, backend="kernel", errors="mark")
    assert alone.converged.tolist() == [True, False, True, True]
    rescued = clear_market(**markets, smoothing=1e-3)
    assert bool(rescued.converged.all())
    torch.testing.assert_close(rescued.holdings, whole.holdings, rtol=1e-10, atol=1e-12)
