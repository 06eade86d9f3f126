"""Markets of many assets that were cleared before have a kernel of their own: same results, whatever it gives up."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.markets import random_markets
from hmgym.clearing import PortfolioMemory, Problem, clear, set_num_threads
from hmgym.clearing import solve as solving
from hmgym.clearing.clearing import ClearingSolution
from hmgym.clearing.wide_kernels import LEAST_ASSETS, states_of
from tests.clearing.test_clear_market import optimality_gap

E, B, N = 4, 12, LEAST_ASSETS + 1

KINDS: list[dict[str, bool]] = [{}, {"with_cost": True}, {"with_own_limits": True}, {"with_orders": True}]


def months(count: int, volatility: float, **kind: bool) -> list[dict[str, Any]]:
    """The same markets month by month: beliefs drift, somebody has nothing, risk of one investor changes."""
    rng = np.random.default_rng(4)
    markets: dict[str, Any] = random_markets(rng, E, B, N, volatility=volatility, **kind)
    rows = []
    for month in range(count):
        markets["beliefs"] = markets["beliefs"] + 0.02 * torch.from_numpy(rng.normal(size=(E, B, N)))
        markets["risk"][:, 1] *= 1.1
        if not kind:
            markets["wealth"][:, 2] = -1.0 if month % 2 else 1.0
        rows.append({name: value.clone() for name, value in markets.items()})
    return rows


def assert_same(found: ClearingSolution, expected: ClearingSolution) -> None:
    assert bool(found.converged.all())
    torch.testing.assert_close(found.prices, expected.prices, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.residual, torch.zeros_like(found.residual), rtol=0, atol=1e-12)


@pytest.fixture
def kernels_used(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Markets that each kernel has cleared so far, by its module."""
    cleared: dict[str, int] = {}
    run = solving.run_kernel

    def counted(kernel: Any, *arguments: Any, **options: Any) -> Any:
        solved = run(kernel, *arguments, **options)
        name = kernel.py_func.__module__.split(".")[-1]
        cleared[name] = cleared.get(name, 0) + int(solved.converged.sum())
        return solved

    monkeypatch.setattr(solving, "run_kernel", counted)
    return cleared


@pytest.mark.parametrize("kind", KINDS)
def test_months_with_a_memory_are_those_without(kind, kernels_used):
    memory = PortfolioMemory()
    start = None
    for month, markets in enumerate(months(5, 0.3, **kind)):
        problem = Problem.of(**markets, start=start)
        kernels_used.clear()
        found = clear(problem, backend="kernel", memory=memory)
        assert month < 2 or kernels_used["wide_kernels"] == E
        assert_same(found, clear(problem, backend="kernel"))
        if markets["short_leverage"].ndim == 2:
            assert optimality_gap(markets, found) < 1e-9
        start = found.prices


def test_what_it_gives_up_others_clear_and_it_goes_on_from_there(kernels_used):
    """At daily risk a little news turns portfolios over; from the solution itself there is nothing to do."""
    markets = months(1, 0.01)[0]
    problem, memory = Problem.of(**markets), PortfolioMemory()
    found = clear(problem, backend="kernel", memory=memory)
    assert kernels_used["wide_kernels"] < E
    assert_same(found, clear(problem, backend="kernel"))
    kernels_used.clear()
    assert_same(clear(problem.replace(start=found.prices), backend="kernel", memory=memory), found)
    assert kernels_used == {"wide_kernels": E}


@pytest.mark.parametrize("fill", [np.nan, np.inf, -1.0, 0.0, 2.0, 4.0, 9.0, "random", "foreign"])
@pytest.mark.parametrize("kind", KINDS[:2])
def test_whatever_the_memory_holds_the_result_is_right(fill, kind):
    markets = months(1, 0.3, **kind)[0]
    problem, memory = Problem.of(**markets), PortfolioMemory()
    expected = clear(problem, memory=memory)
    rows = memory.rows(E, B, N)
    if fill == "random":
        rows[:] = np.random.default_rng(0).uniform(-1, 5, rows.shape)
    elif fill == "foreign":
        rows[:] = rows[::-1].copy()
    else:
        rows[:] = fill
    assert_same(clear(problem, memory=memory), expected)
    assert (states_of(memory.rows(E, B, N), B, N) >= 0.0).all()


def test_a_row_depends_on_neither_neighbours_nor_threads():
    together, alone, serial = PortfolioMemory(), PortfolioMemory(), PortfolioMemory()
    many = {"beliefs": 40, "risk": 40, "wealth": 40, "short_leverage": 40, "long_leverage": 40}
    for markets in months(2, 0.3, with_orders=True):
        wide = {name: torch.cat([x] * 4, 1) if name in many else 4.0 * x for name, x in markets.items()}
        problem = Problem.of(**wide)
        set_num_threads(2)
        both = clear(problem, memory=together)
        one = clear(problem.rows(slice(3, 4)), memory=alone)
        set_num_threads(1)
        single = clear(problem, memory=serial)
        set_num_threads(2)
        assert torch.equal(both.prices[3:4], one.prices)
        assert torch.equal(both.weights[3:4], one.weights)
        assert torch.equal(both.weights, single.weights)


def test_gradients_do_not_depend_on_the_kernel():
    markets, gradients = months(1, 0.3)[0], []
    for memory in (PortfolioMemory(), None):
        beliefs = markets["beliefs"].clone().requires_grad_()
        clear(Problem.of(**markets | {"beliefs": beliefs}), memory=memory).prices.log().sum().backward()
        gradients.append(beliefs.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=1e-9)


def test_a_market_that_is_not_admissible_stays_without_prices():
    problem, memory = Problem.of(**months(1, 0.3)[0]), PortfolioMemory()
    found = clear(problem, memory=memory, rejected=[1])
    assert found.converged.tolist() == [True, False, True, True]
    assert bool(torch.isnan(found.prices[1]).all())
    assert memory.rows(E, B, N)[1, 0] < 0.0


@pytest.mark.parametrize("seed", [1, 3])
def test_an_investor_whose_rounds_do_not_end_is_followed(seed, kernels_used):
    """Without that, one of these markets is given up."""
    problem = Problem.of(**random_markets(np.random.default_rng(seed), 4, 12, 41, volatility=0.3))
    found = clear(problem, memory=PortfolioMemory())
    assert kernels_used == {"wide_kernels": 4}
    assert_same(found, clear(problem))
