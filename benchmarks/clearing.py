"""Clearing a market: this package beside what one would write without it.

The rivals solve markets of the same size. cvxpy solves each investor's portfolio inside a search for the root of excess
demand (``scipy.optimize.root``), which is what a first version of such a market looks like; cvxpylayers solves one
round of portfolios, forward and backward, without any clearing; the seed library (``heteromarket``) clears price
beliefs, as ``find_equilibrium_prices`` does here, and is measured where it can be imported.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.timing import human, print_table, seconds
from hmgym import clear_market, find_equilibrium_prices
from hmgym.clearing import clear_unchecked
from tests.problems import random_markets

SIZES = ((3, 20), (10, 100), (30, 200))
BATCH = {(3, 20): 256, (10, 100): 16, (30, 200): 2}


def run() -> dict[str, Any]:
    """All measurements, seconds a market."""
    results: dict[str, Any] = {}
    rows = [("N, B", "cold", "warm", "with gradients", "backward", "one market", "checked")]
    for N, B in SIZES:
        E = BATCH[N, B]
        markets = random_markets(np.random.default_rng(0), E, B, N)
        one = {name: x[:1] for name, x in markets.items()}
        near = clear_market(**markets).prices * torch.exp(0.01 * torch.randn(E, N, dtype=torch.float64))
        leaves = {name: x.clone().requires_grad_() for name, x in markets.items()}
        solution = clear_unchecked(**leaves)
        cotangents = [torch.ones_like(x) for x in (solution.prices, solution.weights)]

        def backward(
            outputs: tuple[Any, ...] = (solution.prices, solution.weights),
            inputs: tuple[Any, ...] = tuple(leaves.values()),
            cotangents: list[Any] = cotangents,
        ) -> object:
            return torch.autograd.grad(outputs, inputs, cotangents, retain_graph=True)

        taken = seconds(
            {
                "cold": lambda markets=markets: clear_unchecked(**markets),
                "warm": lambda markets=markets, near=near: clear_unchecked(**markets, warm_start=near),
                "with gradients": lambda leaves=leaves: clear_unchecked(**leaves),
                "backward": backward,
                "one market": lambda one=one: clear_unchecked(**one),
                "checked": lambda one=one: clear_market(**one),
            }
        )
        for name in ("cold", "warm", "with gradients", "backward"):
            taken[name] /= E
        results[f"{N}x{B}"] = taken
        rows.append((f"{N}, {B}", *(human(taken[name]) for name in rows[0][1:])))
    print_table("clear_market, time a market (batched but for the last two columns)", rows)
    results["rivals"] = _rivals(results)
    return results


def _rivals(ours: dict[str, Any]) -> dict[str, float]:
    calls = _seed_size_calls()
    taken = seconds(calls, repeats=3, least=0.0)
    rows = [("at N=3, B=20", "a market", "batched clear_market is", "single clear_market is")]
    batched, single = ours["3x20"]["cold"], ours["3x20"]["checked"]
    for name, duration in taken.items():
        rows.append(
            (name, human(duration), f"{duration / batched:,.0f} x faster", f"{duration / single:,.0f} x faster")
        )
    print_table("what one would write otherwise", rows)
    return taken


def _seed_size_calls() -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    seed_market = _seed_market()
    names = (
        "Sigma",
        "expected_returns",
        "commission",
        "holdings",
        "budget",
        "short_leverage",
        "long_leverage",
        "supply",
    )
    arguments = [seed_market[name] for name in names]
    calls["hmgym.find_equilibrium_prices (seed's market)"] = lambda: find_equilibrium_prices(*arguments)
    if importlib.util.find_spec("heteromarket") is not None:
        import heteromarket

        calls["heteromarket.find_equilibrium_prices (seed's market)"] = lambda: heteromarket.find_equilibrium_prices(
            *arguments
        )
    markets = {name: x[0] for name, x in random_markets(np.random.default_rng(0), 1, 20, 3).items()}
    if importlib.util.find_spec("cvxpy") is not None:
        calls["cvxpy portfolios inside scipy's root finder"] = _cvxpy_market(markets)
    if importlib.util.find_spec("cvxpylayers") is not None:
        calls["cvxpylayers, portfolios only, forward"], calls["cvxpylayers, portfolios only, backward"] = _layers(
            markets
        )
    return calls


def _seed_market() -> dict[str, torch.Tensor]:
    path = Path(__file__).parent.parent / "tests" / "fixtures" / "seed_market.json"
    return {name: torch.tensor(x, dtype=torch.float64) for name, x in json.loads(path.read_text()).items()}


def _cvxpy_market(markets: dict[str, torch.Tensor]) -> Callable[[], object]:
    import cvxpy as cp
    from scipy.optimize import root

    x = {name: value.numpy() for name, value in markets.items()}
    B, N = x["beliefs"].shape
    portfolios, parameters, variables = [], [], []
    for k in range(B):
        w, r = cp.Variable(N + 1), cp.Parameter(N)
        objective = cp.Maximize(r @ w[1:] - cp.quad_form(w[1:], cp.psd_wrap(x["risk"][k])))
        limits = [cp.sum(w) == 1, w >= -x["short_leverage"][k], w <= x["long_leverage"][k]]
        portfolios.append(cp.Problem(objective, limits))
        parameters.append(r)
        variables.append(w)

    def excess(log_prices: np.ndarray) -> np.ndarray:
        demand = np.zeros(N)
        for k in range(B):
            parameters[k].value = x["beliefs"][k] - log_prices
            portfolios[k].solve(solver=cp.CLARABEL)
            demand += x["wealth"][k] * variables[k].value[1:]
        return demand / (x["supply"] * np.exp(log_prices)) - 1.0

    start = (x["wealth"][:, None] * x["beliefs"]).sum(0) / x["wealth"].sum()
    return lambda: root(excess, start, method="hybr", tol=1e-9)


def _layers(markets: dict[str, torch.Tensor]) -> tuple[Callable[[], object], Callable[[], object]]:
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    N = markets["beliefs"].shape[1]
    w, r, root = cp.Variable(N + 1), cp.Parameter(N), cp.Parameter((N, N))
    low, high = cp.Parameter(), cp.Parameter()
    problem = cp.Problem(cp.Maximize(r @ w[1:] - cp.sum_squares(root @ w[1:])), [cp.sum(w) == 1, w >= low, w <= high])
    layer = CvxpyLayer(problem, parameters=[r, root, low, high], variables=[w])
    roots = torch.linalg.cholesky(markets["risk"]).mT.contiguous()
    start = markets["beliefs"].mean(0)
    inputs = [
        (markets["beliefs"] - start).requires_grad_(),
        roots,
        -markets["short_leverage"],
        markets["long_leverage"],
    ]
    outcome = layer(*inputs)[0]

    def backward() -> object:
        return torch.autograd.grad(outcome.sum(), inputs[0], retain_graph=True)

    return lambda: layer(*inputs), backward
