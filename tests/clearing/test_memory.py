"""Clearing from the last portfolios: the memory saves time and decides nothing."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from benchmarks.markets import random_markets
from hmgym.clearing import PortfolioMemory, Problem, clear, set_num_threads
from hmgym.clearing.clearing import ClearingSolution

SIZES = [(20, 3), (3, 1), (13, 6)]


def _months(months: int, n_markets: int, B: int, N: int, *, cost: float = 0.0, seed: int = 0) -> list[Problem]:
    """The same markets month by month: beliefs and wealth drift, learners move limits, newcomers bring another risk."""
    rng = np.random.default_rng(seed)
    markets = random_markets(rng, n_markets, B, N, volatility=0.08)
    del markets["supply"]
    supply = torch.full((n_markets, N), 5.0, dtype=torch.float64)
    last_prices = 0.7 * markets["wealth"].sum(1, keepdim=True) / N / supply
    positions = 0.5 * markets["wealth"][..., None] / N / last_prices[:, None]
    problems = []
    for month in range(months):
        noise = torch.from_numpy(rng.normal(size=markets["beliefs"].shape))
        markets["beliefs"] = markets["beliefs"] + 0.04 * noise
        markets["wealth"] = markets["wealth"] * torch.from_numpy(np.exp(0.05 * rng.normal(size=(n_markets, B))))
        markets["short_leverage"][:, 0] = torch.from_numpy(rng.uniform(0, 2, n_markets))
        markets["long_leverage"][:, 0] = torch.from_numpy(rng.uniform(1.2 / (N + 1), 4, n_markets))
        if month % 5 == 2:
            markets["risk"][::3, -1] = markets["risk"][::3, 0] * rng.uniform(0.5, 2)
            markets["wealth"][1::4, 1] = -1.0 if month % 2 else 1.0
        fields = {name: value.clone() for name, value in markets.items()}
        costs = {"trading_cost": torch.full_like(positions, cost), "positions": positions} if cost else {}
        problems.append(Problem.of(**fields, supply=supply, last_prices=last_prices, **costs))
        last_prices = last_prices * torch.from_numpy(np.exp(0.05 * rng.normal(size=(n_markets, N))))
    return problems


def _assert_same(found: ClearingSolution, expected: ClearingSolution) -> None:
    assert bool(found.converged.all())
    torch.testing.assert_close(found.prices, expected.prices, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.residual, torch.zeros_like(found.residual), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cost", [0.0, 0.002])
@pytest.mark.parametrize(("B", "N"), SIZES)
def test_months_with_a_memory_are_those_without(B, N, cost):
    memory = PortfolioMemory()
    for problem in _months(30, 24, B, N, cost=cost):
        _assert_same(clear(problem, backend="kernel", memory=memory), clear(problem, backend="kernel"))


def test_last_portfolios_are_used():
    problem = _months(1, 50, 20, 3)[0]
    memory = PortfolioMemory()
    first = clear(problem, memory=memory)
    again = clear(problem.replace(start=first.prices), memory=memory)
    _assert_same(again, first)
    cold = clear(problem.replace(start=first.prices))
    assert int(again.iterations.sum()) < int(cold.iterations.sum())


@pytest.mark.parametrize("fill", [np.nan, np.inf, 0.0, 1.0, 3.0, "random", "foreign", "stale"])
def test_whatever_the_memory_holds_the_result_is_right(fill):
    problems = _months(8, 30, 13, 4, cost=0.001)
    memory = PortfolioMemory()
    clear(problems[0], memory=memory)
    rows = memory.rows(30, 13, 4)
    if fill == "random":
        rows[:] = np.random.default_rng(0).normal(size=rows.shape)
    elif fill == "foreign":  # every market finds another one's portfolios
        rows[:] = rows[::-1].copy()
    elif fill != "stale":
        rows[:] = fill
    _assert_same(clear(problems[-1], backend="kernel", memory=memory), clear(problems[-1], backend="kernel"))
    # And what it leaves behind is good again.
    _assert_same(clear(problems[-2], backend="kernel", memory=memory), clear(problems[-2], backend="kernel"))


def test_a_damaged_transform_is_noticed():
    problem, later = _months(2, 20, 20, 3)
    memory = PortfolioMemory()
    clear(problem, memory=memory)
    rows = memory.rows(20, 20, 3)
    lanes, n = 24, 4
    transforms = rows[:, (2 + 3 * n) * lanes : (2 + 3 * n + n * n) * lanes]
    transforms *= 1.0 + 0.3 * np.random.default_rng(0).normal(size=transforms.shape)
    later = later.replace(risk=problem.risk)  # so that nothing but the result tells
    _assert_same(clear(later, backend="kernel", memory=memory), clear(later, backend="kernel"))


def test_memory_of_other_sizes_starts_empty():
    memory = PortfolioMemory()
    for B, N in SIZES * 2:
        problem = _months(1, 5, B, N)[0]
        _assert_same(clear(problem, memory=memory), clear(problem))


def test_forgotten_markets_start_from_nothing():
    problem, later = _months(2, 6, 20, 3)
    memory = PortfolioMemory()
    memory.forget()  # of nothing
    clear(problem, memory=memory)
    memory.forget([1, 4])
    warm, cold = clear(later, memory=memory), clear(later)
    assert torch.equal(warm.prices[[1, 4]], cold.prices[[1, 4]])
    assert torch.equal(warm.weights[[1, 4]], cold.weights[[1, 4]])
    _assert_same(warm, cold)
    assert (memory.rows(6, 20, 3)[:, :20] >= 0).all()


@pytest.mark.parametrize("other", [copy.copy, copy.deepcopy, lambda memory: pickle.loads(pickle.dumps(memory))])
def test_a_copy_starts_empty(other):
    problem, later = _months(2, 4, 20, 3)
    memory = PortfolioMemory()
    clear(problem, memory=memory)
    copied = other(memory)
    kept = memory.rows(4, 20, 3).copy()
    assert torch.equal(clear(later, memory=copied).prices, clear(later).prices)
    assert np.array_equal(memory.rows(4, 20, 3), kept)


def test_a_row_depends_on_neither_neighbours_nor_threads():
    together, alone, serial = PortfolioMemory(), PortfolioMemory(), PortfolioMemory()
    for problem in _months(6, 40, 20, 3):
        set_num_threads(2)
        both = clear(problem, memory=together)
        one = clear(problem.rows(slice(7, 8)), memory=alone)
        set_num_threads(1)
        single = clear(problem, memory=serial)
        set_num_threads(2)
        assert torch.equal(both.prices[7:8], one.prices)
        assert torch.equal(both.weights[7:8], one.weights)
        assert torch.equal(both.prices, single.prices)


def test_gradients_do_not_depend_on_the_memory():
    problem, later = _months(2, 5, 8, 3)
    memory = PortfolioMemory()
    clear(problem, memory=memory)
    gradients = []
    for kept in (memory, None):
        beliefs = later.beliefs.clone().requires_grad_()
        clear(later.replace(beliefs=beliefs), memory=kept).prices.log().sum().backward()
        gradients.append(beliefs.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)
