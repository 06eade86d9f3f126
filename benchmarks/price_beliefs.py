"""Price beliefs: ``optimize_portfolio`` beside daqp, and what ``find_equilibrium_prices`` takes and finds.

daqp (a dual active-set solver in C) is measured by its own clock, set-up and solution of one problem after another
without what Python adds; ``optimize_portfolio`` by the whole call on a batch of 1,000, checks of the input included, on
one thread. Where daqp is not installed it is left out.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from typing import Any

import numpy as np

from benchmarks.timing import human, print_table
from hmgym import find_equilibrium_prices, optimize_portfolio
from hmgym.clearing import set_num_threads

PORTFOLIOS = 1_000
ASSETS = (3, 10, 30)
MARKETS = ((3, 20, 64), (10, 50, 16), (30, 100, 24))


def run() -> dict[str, Any]:
    """Seconds a portfolio and a market, and how many markets had a result."""
    return {"portfolios": _portfolios(), "markets": _markets()}


def seed_like_market(N: int, B: int, seed: int) -> dict[str, Any]:
    """A market from the distributions of the seed library's example, with N assets and B investors."""
    rng = np.random.default_rng(seed)
    factors = rng.standard_normal((B, N + 1, N)) * np.sqrt(50.0 / (N + 1))
    return {
        "Sigma": np.einsum("bki,bkj->bij", factors, factors),
        "expected_returns": 1.0 + np.sqrt(5.0) * rng.standard_normal((B, N)),
        "commission": 0.0,
        "holdings": np.zeros((B, N)),
        "budget": 130000.0 * (1.0 - rng.random(B)) ** -0.1,
        "short_leverage": rng.beta(1.0, 4.0, B),
        "long_leverage": rng.beta(2.0, 2.0, B) / N * (N - 1) + 1.0 / N,
        "supply": np.full(N, 10000.0),
    }


def _portfolios() -> dict[str, dict[str, float]]:
    results: dict[str, dict[str, float]] = {}
    rows = [("assets", "optimize_portfolio", "daqp", "ratio")]
    with_daqp = importlib.util.find_spec("daqp") is not None
    set_num_threads(1)
    for N in ASSETS:
        problem, prices = _random_portfolios(N)
        ours, theirs = [], []
        for _ in range(8):
            start = time.perf_counter()
            optimize_portfolio(**problem, prices=prices)
            ours.append((time.perf_counter() - start) / PORTFOLIOS)
            if with_daqp:
                theirs.append(_by_daqp(problem, prices))
        ours, theirs = ours[1:], theirs[1:]  # the first call compiles, or loads what was compiled
        taken = {"ours": statistics.median(ours)}
        if with_daqp:
            taken["daqp"] = statistics.median(theirs)
            taken["ratio"] = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        results[str(N)] = taken
        theirs_shown = (human(taken["daqp"]), f"{taken['ratio']:.2f}") if with_daqp else ("-", "-")
        rows.append((str(N), human(taken["ours"]), *theirs_shown))
    print_table(f"one portfolio in batches of {PORTFOLIOS:,}, one thread", rows)
    return results


def _random_portfolios(N: int) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """Returns of a few per cent, volatility about 10 %, shorting and borrowing up to different limits."""
    rng = np.random.default_rng(0)
    prices = np.exp(rng.normal(3.0, 0.5, N))
    loadings = rng.standard_normal((PORTFOLIOS, N, N + 2)) * 0.1 / np.sqrt(N + 2)
    wealth = np.exp(rng.normal(7.0, 1.0, PORTFOLIOS))
    risk = 2.0 * np.einsum("bik,bjk->bij", loadings, loadings) / wealth[:, None, None]
    problem = {
        "Sigma": risk * prices[:, None] * prices,
        "expected_returns": prices * (1.0 + rng.normal(0.02, 0.05, (PORTFOLIOS, N))),
        "commission": 0.0,
        "holdings": np.zeros((PORTFOLIOS, N)),
        "budget": wealth,
        "short_leverage": rng.uniform(0.0, 0.5, PORTFOLIOS),
        "long_leverage": rng.uniform(0.5, 2.5, PORTFOLIOS),
    }
    return problem, prices


def _by_daqp(problem: dict[str, Any], prices: np.ndarray[Any, Any]) -> float:
    """Seconds a portfolio by daqp's own clock, in weights."""
    import daqp

    N = prices.size
    taken = 0.0
    sense = np.zeros(N + 1, np.int32)
    for b in range(PORTFOLIOS):
        wealth, short, long = (problem[name][b] for name in ("budget", "short_leverage", "long_leverage"))
        H = np.ascontiguousarray(2.0 * wealth * problem["Sigma"][b] / np.outer(prices, prices))
        upper, lower = np.append(np.full(N, long), 1.0 + short), np.append(np.full(N, -short), 1.0 - long)
        linear = 1.0 - problem["expected_returns"][b] / prices
        info = daqp.solve(H, linear, np.ones((1, N)), upper, lower, sense)[3]
        taken += info["setup_time"] + info["solve_time"]
    return taken / PORTFOLIOS


def _markets() -> dict[str, dict[str, float]]:
    """Different markets, one after another: time of those with a result, the longest of those without."""
    results: dict[str, dict[str, float]] = {}
    rows = [("N, B", "markets", "solved", "median", "longest solved", "longest flagged")]
    for N, B, count in MARKETS:
        find_equilibrium_prices(**seed_like_market(N, B, count))
        solved, flagged = [], [0.0]
        for seed in range(count):
            market = seed_like_market(N, B, seed)
            start = time.perf_counter()
            solution = find_equilibrium_prices(**market, return_solution=True)
            (solved if bool(solution.converged) else flagged).append(time.perf_counter() - start)
        taken = {
            "markets": count,
            "solved": len(solved),
            "median": statistics.median(solved),
            "longest_solved": max(solved),
            "longest_flagged": max(flagged),
        }
        results[f"{N}x{B}"] = taken
        times = (human(taken[name]) for name in ("median", "longest_solved", "longest_flagged"))
        rows.append((f"{N}, {B}", str(count), str(len(solved)), *times))
    print_table("find_equilibrium_prices, different markets of the seed's generator, one at a time", rows)
    return results
