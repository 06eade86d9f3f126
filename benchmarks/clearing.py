"""Clearing a market: this package beside what one would write without it.

The rivals solve markets of the same size. cvxpy solves each investor's portfolio inside a search for the root of excess
demand (``scipy.optimize.root``), which is what a first version of such a market looks like; cvxpylayers solves one
round of portfolios, forward and backward, without any clearing; the seed library (``heteromarket``) clears price
beliefs, the problem of ``find_equilibrium_prices`` here, and is measured where it can be imported, on the same markets
in turn as this package. Price beliefs are the harder problem (no potential, several equilibria), so its line beside
``clear_market`` compares what one market of a given size costs, not two solvers of one problem; the lines of
``find_equilibrium_prices`` do that.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.markets import random_markets
from benchmarks.price_beliefs import seed_like_market
from benchmarks.timing import human, print_table, seconds
from hmgym import clear_market, find_equilibrium_prices
from hmgym.clearing import Problem, clear

SIZES = ((3, 20), (10, 100), (30, 200))
SMOOTHED = ("smoothed 1e-2", "smoothed 1e-6", "smoothed backward", "smoothed single")
BATCH = {(3, 20): 256, (10, 100): 16, (30, 200): 2}


def run() -> dict[str, Any]:
    """All measurements, seconds a market."""
    results: dict[str, Any] = {}
    rows = [("N, B", "batched", "warm", "with gradients", "backward", "unchecked", "single", "single, unchecked")]
    smooth_rows = [("N, B", *SMOOTHED)]
    for N, B in SIZES:
        E = BATCH[N, B]
        markets = random_markets(np.random.default_rng(0), E, B, N)
        one = {name: x[:1] for name, x in markets.items()}
        near = clear_market(**markets).prices * torch.exp(0.01 * torch.randn(E, N, dtype=torch.float64))
        leaves = {name: x.clone().requires_grad_() for name, x in markets.items()}
        solution = clear_market(**leaves)
        outputs, inputs = (solution.prices, solution.weights), tuple(leaves.values())
        smoothed = clear_market(**leaves, smoothing=1e-2)
        calls: dict[str, Callable[[], object]] = {
            "batched": partial(clear_market, **markets),
            "warm": partial(clear_market, **markets, warm_start=near),
            "with gradients": partial(clear_market, **leaves),
            "backward": partial(
                torch.autograd.grad, outputs, inputs, [torch.ones_like(x) for x in outputs], retain_graph=True
            ),
            "unchecked": lambda markets=markets: clear(Problem.of(**markets)),
            "single": partial(clear_market, **one),
            "single, unchecked": lambda one=one: clear(Problem.of(**one)),
            "smoothed 1e-2": partial(clear_market, **markets, smoothing=1e-2),
            "smoothed 1e-6": partial(clear_market, **markets, smoothing=1e-6),
            "smoothed backward": partial(
                torch.autograd.grad,
                (smoothed.prices, smoothed.weights),
                inputs,
                [torch.ones_like(x) for x in outputs],
                retain_graph=True,
            ),
            "smoothed single": partial(clear_market, **one, smoothing=1e-2),
        }
        taken = seconds(calls)
        taken = {name: duration / (1 if "single" in name else E) for name, duration in taken.items()}
        results[f"{N}x{B}"] = taken
        rows.append((f"{N}, {B}", *(human(taken[name]) for name in rows[0][1:])))
        smooth_rows.append((f"{N}, {B}", *(human(taken[name]) for name in SMOOTHED)))
    print_table("clear_market, time a market; batches of " + ", ".join(map(str, BATCH.values())), rows)
    print_table("clear_market with smoothing, time a market; the same batches", smooth_rows)
    results["rivals"] = _rivals(results["3x20"])
    return results


_COPIES = "find_equilibrium_prices, 64 copies of the seed's market at once"
_DIFFERENT = "find_equilibrium_prices, 64 different markets at once"


def _rivals(ours: dict[str, float]) -> dict[str, float]:
    taken = seconds(_seed_size_calls(), repeats=3, least=0.0)
    for name in (_COPIES, _DIFFERENT):
        taken[name] /= 64
    rows = [("at N=3, B=20", "a market", "against batched", "against single", "against warm")]
    for name, duration in taken.items():
        ratios = (f"{duration / ours[mode]:,.0f} x" for mode in ("batched", "single", "warm"))
        rows.append((name, human(duration), *ratios))
    print_table("what one would write otherwise, and how many times longer than clear_market it takes", rows)
    return taken


def _seed_size_calls() -> dict[str, Callable[[], object]]:
    calls: dict[str, Callable[[], object]] = {}
    seed = _seed_market()
    B, N = seed["expected_returns"].shape
    names = ("budget", "short_leverage", "long_leverage", "supply")
    zero = torch.zeros(B, N, dtype=torch.float64)
    arguments = [seed["Sigma"], seed["expected_returns"], zero, zero, *(seed[name] for name in names)]
    copies = [x.expand(64, *x.shape).contiguous() for x in arguments]
    drawn = [seed_like_market(N, B, k) for k in range(64)]
    different = {name: np.stack([market[name] for market in drawn]) for name in drawn[0] if name != "commission"}
    in_turn = cycle(drawn)
    calls["find_equilibrium_prices, seed's market"] = partial(find_equilibrium_prices, *arguments)
    calls["find_equilibrium_prices, different markets in turn"] = lambda: find_equilibrium_prices(**next(in_turn))
    calls[_COPIES] = partial(find_equilibrium_prices, *copies)
    calls[_DIFFERENT] = partial(find_equilibrium_prices, **different, commission=0.0)
    if importlib.util.find_spec("heteromarket") is not None:
        import heteromarket

        theirs = cycle([_for_the_seed_library(market) for market in drawn])

        def seed_library() -> object:
            # Its compiled form does not run on torch 2.13, nor does torch.cond with its arguments outside of one.
            with torch.compiler.set_stance("force_eager"), mock.patch("torch.cond", _eager_cond):
                return heteromarket.find_equilibrium_prices(*next(theirs))

        calls["seed library (heteromarket), different markets in turn"] = seed_library
    markets = {name: x[0] for name, x in random_markets(np.random.default_rng(0), 1, B, N).items()}
    if importlib.util.find_spec("cvxpy") is not None:
        calls["cvxpy portfolios inside scipy's root finder"] = _cvxpy_market(markets)
    if importlib.util.find_spec("cvxpylayers") is not None:
        forward, backward = _layers(markets)
        calls["cvxpylayers, portfolios only, forward"] = forward
        calls["cvxpylayers, portfolios only, backward"] = backward
    return calls


def _for_the_seed_library(market: dict[str, Any]) -> list[torch.Tensor]:
    """A market's arguments in the seed library's order; its commission is per investor."""
    arguments = [torch.as_tensor(x, dtype=torch.float64) for x in market.values()]
    arguments[2] = torch.zeros(arguments[4].shape, dtype=torch.float64)
    return arguments


def _eager_cond(predicate: torch.Tensor, true: Callable[..., Any], false: Callable[..., Any], operands: Any) -> Any:
    return true(*operands) if bool(predicate) else false(*operands)


def _seed_market() -> dict[str, torch.Tensor]:
    path = Path(__file__).parent.parent / "tests" / "fixtures" / "seed_market.json"
    numbers = {name: x for name, x in json.loads(path.read_text()).items() if name != "source"}
    return {name: torch.tensor(x, dtype=torch.float64) for name, x in numbers.items()}


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
