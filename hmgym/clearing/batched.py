"""Market clearing as batched tensor operations: the path for any device, and for markets that a kernel gives up.

A primal-dual interior point on the optimality conditions of all investors and of the market at once, with one step
length a market, then an active-set polish to rounding. Finished markets leave the batch; a market that fails does not
disturb the others.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from hmgym.clearing.batched_interior import Interior, follow_path
from hmgym.clearing.batched_polish import Corner, polish
from hmgym.clearing.batched_problem import Markets, sum_over
from hmgym.clearing.problem import Problem

_GAPS = (1e-3, 1e-7, 1e-11, 1e-15)  # relative products of distance and shadow price at which the polish is tried
_RESIDUAL = 1e-9  # accepted excess demand relative to supply


class Cleared(NamedTuple):
    """What `clear_batched` found. A market that did not converge holds its last iterate."""

    prices: Tensor  # (E, N)
    weights: Tensor  # (E, B, N+1), cash first
    residual: Tensor  # (E,) the largest excess demand in shares over supply
    converged: Tensor  # (E,) bool
    iterations: Tensor  # (E,) interior point and polish together


def clear_batched(problem: Problem, *, smoothing: float = 0.0, max_iterations: int = 200) -> Cleared:
    r"""Log prices u at which the investors' demand and the orders take up the supply, market by market.

    .. math:: \sum_b W_b w_{b,i} + D_i = S_i e^{u_i}, \qquad
        w_b = \arg\max_{1'w = 1,\; -\kappa_b \le w \le \theta_b}
        (m_b - u)'w - w'G_b w - \sum_i c_{b,i} |w_i - \bar w_{b,i}|

    Cash is asset 0 of w and has neither risk, return nor trading cost. Investors with W <= 0 demand nothing; their
    weights are all cash. Nothing is checked.

    Args:
        problem: float64 tensors on one device.
        smoothing: tau; adds tau tr(G_b)/N times the sum of log distances to the limits to every objective and
            smooths the cost accordingly.
        max_iterations: interior-point iterations at most.
    """
    n_markets, n_investors, n_assets = problem.beliefs.shape
    # Large enough to hide the cost of a call, small enough for the memory of the device.
    budget = 2**26 if problem.beliefs.is_cuda else 2**20
    size = max(1, budget // (n_investors * (n_assets + 1) ** 2))
    parts = []
    with torch.no_grad():
        for first in range(0, n_markets, size):
            markets = Markets.of(problem.rows(slice(first, first + size)), smoothing=smoothing)
            parts.append(_clear_chunk(markets, smoothing, max_iterations))
        if not parts:
            empty = problem.beliefs.new_empty
            flags = torch.zeros(0, dtype=torch.bool, device=problem.beliefs.device)
            return Cleared(empty(0, n_assets), empty(0, n_investors, n_assets + 1), empty(0), flags, flags.long())
        return Cleared(*(torch.cat(x) for x in zip(*parts, strict=True)))


def _clear_chunk(markets: Markets, smoothing: float, max_iterations: int) -> Cleared:
    if smoothing > 0.0:
        at, steps, converged = follow_path(markets, Interior.first(markets), None, max_iterations)
        weights, start, log_prices = at.weights, markets.start, at.log_prices
        # Smoothed positions are inside their limits even where rounding would put them there.
        lower = torch.nextafter(markets.lower, markets.upper)
        upper = torch.nextafter(markets.upper, markets.lower)
    else:
        weights, start, log_prices, converged, steps = _clear_exactly(markets, max_iterations)
        lower, upper = markets.lower, markets.upper
    weights = torch.maximum(torch.minimum(weights, upper), lower)
    idle = torch.zeros_like(weights)
    idle[0] = 1.0
    weights = torch.where(markets.wealth > 0.0, weights, idle)
    prices = torch.exp(start) * torch.exp(log_prices)
    holdings = sum_over(markets.wealth * weights[1:] / prices[:, None], 1)
    residual = ((holdings - (markets.supply - markets.orders / prices)).abs() / markets.supply).amax(0)
    converged = converged & (markets.excess(weights, markets.supply * prices)[1] <= _RESIDUAL)
    return Cleared(prices.T, weights.permute(2, 1, 0), residual, converged, steps)


def _clear_exactly(markets: Markets, max_iterations: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Interior point and polish in turn, for the markets that the polish has not yet settled."""
    at = Interior.first(markets)
    live = torch.arange(markets.start.shape[-1], device=markets.start.device)
    converged = torch.zeros_like(live, dtype=torch.bool)
    steps = torch.zeros_like(live)
    result, start = Corner.near(markets, at), markets.start.clone()
    for gap in _GAPS:
        at, taken, reached = follow_path(markets, at, gap, max_iterations)
        # Prices found so far become the polish's start: what is left of a log price is small, and its digits count.
        nearby = dataclasses.replace(markets, start=markets.start + at.log_prices)
        corner, arrived, polished = polish(nearby, Corner.near(nearby, at))
        result.put(live, corner)
        start[:, live] = nearby.start
        converged[live] = arrived
        steps[live] += taken + polished
        keep = torch.nonzero(~arrived & reached)[:, 0]
        if not len(keep):
            break
        live, at, markets = live[keep], at.take(keep), markets.take(keep)
    return result.weights, start, result.log_prices, converged, steps
