"""Gradients of `clear_market` against central differences, on both paths."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.markets import random_markets
from hmgym.clearing import clear_market
from hmgym.clearing.adjoint import _with_kernel, _with_torch
from hmgym.clearing.problem import Problem
from hmgym.clearing.solve import Options, solve
from tests.clearing.test_clear_market import BACKENDS


def functional(markets: dict[str, torch.Tensor], cotangents: list[torch.Tensor], **options: object) -> torch.Tensor:
    """One number a market that depends on prices, weights and holdings."""
    symmetric = dict(markets, risk=0.5 * (markets["risk"] + markets["risk"].mT))
    solution = clear_market(**symmetric, **options)
    parts = zip((solution.prices, solution.weights, solution.holdings), cotangents, strict=True)
    return sum((x * c).flatten(1).sum(1) for x, c in parts)


def interior_margin(markets: dict[str, torch.Tensor]) -> torch.Tensor:
    """Whether a move of 3e-5 of any input may carry a market across a kink: solutions near by share active sets."""
    base = clear_market(**markets)
    same = torch.ones(base.prices.shape[0], dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        moved = {n: x * (1 + 3e-5 * torch.randn(x.shape, generator=generator).sign()) for n, x in markets.items()}
        moved["risk"] = 0.5 * (moved["risk"] + moved["risk"].mT)
        other = clear_market(**moved)
        same &= (other.active_limits == base.active_limits).flatten(1).all(1)
        if "trading_cost" in markets:
            references = [m["last_prices"][:, None] * m["positions"] / m["wealth"][..., None] for m in (markets, moved)]
            sides = [
                torch.sign((s.weights[..., 1:] - x).round(decimals=9))
                for s, x in zip((base, other), references, strict=True)
            ]
            same &= (sides[0] == sides[1]).flatten(1).all(1)
    return same


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("smoothing", [0.0, 1e-2])
@pytest.mark.parametrize("extras", [{}, {"with_orders": True, "with_cost": True}], ids=["plain", "orders and cost"])
def test_every_input_against_central_differences(backend: str, smoothing: float, extras: dict[str, bool]) -> None:
    rng = np.random.default_rng(21)
    markets = random_markets(rng, 60, 4, 2, volatility=0.15, **extras)
    if smoothing == 0.0:
        keep = interior_margin(markets)
        assert int(keep.sum()) >= 20
        markets = {name: x[keep] for name, x in markets.items()}
    options = {"backend": backend, "smoothing": smoothing}
    E = markets["supply"].shape[0]
    cotangents = [torch.as_tensor(rng.normal(size=(E, *shape))) for shape in ((2,), (4, 3), (4, 2))]
    leaves = {name: x.clone().requires_grad_() for name, x in markets.items()}
    gradients = torch.autograd.grad(functional(leaves, cotangents, **options).sum(), list(leaves.values()))
    for (name, x), gradient in zip(markets.items(), gradients, strict=True):
        direction = torch.as_tensor(rng.normal(size=x.shape)) * x.abs()
        step = 1e-5
        ahead, behind = (
            functional(dict(markets, **{name: x + sign * step * direction}), cotangents, **options) for sign in (1, -1)
        )
        measured = (ahead - behind) / (2 * step)
        exact = (gradient * direction).flatten(1).sum(1)
        scale = (gradient * direction).flatten(1).abs().sum(1)
        error = (measured - exact).abs() / scale.clamp(min=1e-3)
        assert float(error.max()) <= 1e-5, name


@pytest.mark.parametrize("smoothing", [0.0, 1e-2])
def test_gradcheck(smoothing: float) -> None:
    markets = random_markets(np.random.default_rng(24), 30, 3, 2, volatility=0.2, with_orders=True, with_cost=True)
    markets["short_leverage"] = markets["short_leverage"] + 0.01
    markets["trading_cost"] = markets["trading_cost"] + 0.002
    chosen = torch.nonzero(interior_margin(markets))[:2, 0]
    names = list(markets)
    inputs = tuple(markets[name][chosen].requires_grad_() for name in names)

    def values(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arguments = dict(zip(names, tensors, strict=True))
        arguments["risk"] = 0.5 * (arguments["risk"] + arguments["risk"].mT)
        solution = clear_market(**arguments, smoothing=smoothing)
        return solution.prices, solution.weights, solution.holdings

    assert torch.autograd.gradcheck(values, inputs, eps=1e-7, atol=1e-5, rtol=1e-4)


def test_values_do_not_depend_on_gradients() -> None:
    markets = random_markets(np.random.default_rng(23), 8, with_cost=True)
    plain = clear_market(**markets)
    assert plain.prices.grad_fn is None
    tracked = clear_market(**{name: x.clone().requires_grad_() for name, x in markets.items()})
    assert tracked.prices.requires_grad
    for name in ("prices", "weights", "holdings", "residual"):
        assert torch.equal(getattr(plain, name), getattr(tracked, name).detach())


def test_both_paths_have_the_same_gradients() -> None:
    markets = random_markets(np.random.default_rng(24), 50, with_orders=True, with_cost=True)
    gradients = []
    for backend in BACKENDS:
        leaves = {name: x.clone().requires_grad_() for name, x in markets.items()}
        solution = clear_market(**leaves, backend=backend)
        loss = solution.prices.log().sum() + solution.weights.square().sum() + solution.holdings.sin().sum()
        gradients.append(torch.autograd.grad(loss, list(leaves.values())))
    for name, kernel, batched in zip(markets, *gradients, strict=True):
        scale = float(kernel.abs().max())
        torch.testing.assert_close(batched, kernel, rtol=1e-6, atol=1e-7 * scale, msg=name)


def test_scalars_gather_their_gradient_from_everybody() -> None:
    markets = random_markets(np.random.default_rng(25), 3, with_cost=True)
    every = {**markets, "long_leverage": torch.full((3, 6), 1.2).double().requires_grad_()}
    every["trading_cost"] = torch.full((3, 6, 3), 0.004).double().requires_grad_()
    one = {**markets, "long_leverage": torch.tensor(1.2).double().requires_grad_()}
    one["trading_cost"] = torch.tensor(0.004).double().requires_grad_()
    for arguments in (every, one):
        clear_market(**arguments).prices.sum().backward()
    for name in ("long_leverage", "trading_cost"):
        torch.testing.assert_close(every[name].grad.sum(), one[name].grad)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_failed_market_has_no_gradient(backend: str) -> None:
    markets = random_markets(np.random.default_rng(26), 3)
    markets["supply"][1] = -1.0
    beliefs = markets.pop("beliefs").requires_grad_()
    solution = clear_market(beliefs=beliefs, **markets, errors="mark", backend=backend)
    torch.where(solution.converged[:, None], solution.prices, 0.0).sum().backward()
    assert bool((beliefs.grad[1] == 0).all())
    assert bool((beliefs.grad[[0, 2]] != 0).any())
    assert bool(beliefs.grad.isfinite().all())


def test_the_adjoint_in_torch_is_that_of_the_kernel() -> None:
    markets = random_markets(np.random.default_rng(27), 60, with_orders=True, with_cost=True)
    problem = Problem.of(**markets)
    solved = solve(problem, Options(backend="kernel"))
    generator = torch.Generator().manual_seed(0)
    cotangents = [
        torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for x in (solved.prices, solved.weights, solved.holdings)
    ]
    arguments = (problem, 0.0, solved.prices, solved.weights, solved.state, *cotangents)
    for kernel, batched in zip(_with_kernel(*arguments).inputs, _with_torch(*arguments).inputs, strict=True):
        torch.testing.assert_close(batched, kernel, rtol=1e-8, atol=1e-9 * float(kernel.abs().max()))


def test_second_derivatives_are_refused_where_there_are_none_and_right_where_there_are() -> None:
    markets = random_markets(np.random.default_rng(28), 2, volatility=0.2)
    x = markets.pop("beliefs").requires_grad_()
    (first,) = torch.autograd.grad(clear_market(x, **markets).prices.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivatives only with `smoothing`"):
        torch.autograd.grad(first.sum(), x)

    def penalty(beliefs: torch.Tensor) -> torch.Tensor:
        prices = clear_market(beliefs, **markets, smoothing=1e-2).prices
        return torch.autograd.grad(prices.sum(), beliefs, create_graph=True)[0].square().sum()

    (gradient,) = torch.autograd.grad(penalty(x), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ahead, behind = (penalty((x + sign * 1e-5 * direction).detach().requires_grad_()) for sign in (1, -1))
    torch.testing.assert_close((gradient * direction).sum(), (ahead - behind).detach() / 2e-5, rtol=1e-4, atol=1e-7)
