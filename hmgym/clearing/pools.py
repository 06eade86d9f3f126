"""Pools in the clearing: reserves on an invariant, which trade along it to the prices that clear.

A pool with weights w (cash first, Σ w = 1) and reserves R⁰ holds at prices p, with p_0 = 1 for cash,

    R_i = w_i V / p_i,     log V = Σ w_i (log R⁰_i − log w_i + log p_i):

it stays on Π R_i^{w_i} = Π R⁰_i^{w_i} and holds w_i of its value V in each asset. So it posts the money orders w_i V,
and V depends on the prices. With u(v) the log prices that clear while the K pools' values are held at e^v, what is left

    is  v_k = log V_k(u(v)),     k = 1 … K,

by Newton's method: ∂u/∂v = H⁻¹(w_k e^v_k), H the Hessian of the clearing. Where the others hold net no short of any
asset, the matrix of slopes has all eigenvalues at least the least cash weight, so there is one root.

The compiled search of ``pool_kernels.py`` goes from each clearing to the next without building portfolios again. What
it gives up, and smoothing and other devices, are searched here with more care: one pool's value is kept between two of
different signs, several pools' steps are halved where they do not help, and the map itself is tried where none does.

What its arbitrageurs gain is what a pool loses against keeping R⁰: Σ p_i R⁰_i − V ≥ 0, also where w is new.

Source: Martin and Mushegian (2019), Balancer, for the invariant; Milionis et al. (2022), Automated market making and
loss-versus-rebalancing, for the loss.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hmgym.arrays import to_torch
from hmgym.clearing import pool_kernels
from hmgym.clearing.adjoint import pull_back
from hmgym.clearing.differentiable import differentiable_solve
from hmgym.clearing.kernels import BELOW
from hmgym.clearing.lane_kernels import memory_size
from hmgym.clearing.pool_kernels import PRECISION, ROUNDING
from hmgym.clearing.problem import Problem
from hmgym.clearing.solve import Options, Solved, run_kernel, solve
from hmgym.clearing.threads import as_array

_STEPS = 100  # clearings at most
_CLEARED = 1e-10  # of v, up to which a market counts as cleared
_LEAST_SHARE = 1.0 / 64.0  # of a Newton step, before the map itself is tried
_LEAST_AWAY, _FURTHEST = 0.1, 50.0  # of v: a step where nothing bounds it; the longest of Newton's, in gaps


@dataclass(frozen=True, kw_only=True)
class Pools:
    """K pools of every market; arrays or tensors, unbatched or batched as the other arguments of ``clear_market``.

    Attributes:
        weights: ``(E, K, N+1)`` share of a pool's value in each position, cash first; > 0, summing to 1.
        reserves: ``(E, K, N+1)`` money and shares held before the trade, > 0.
    """

    weights: Any
    reserves: Any


class PoolTrade(NamedTuple):
    """What pools hold after the clearing."""

    reserves: Tensor  # (E, K, N+1) money and shares
    loss: Tensor  # (E, K) money, against keeping the reserves


def log_values(pools: Pools, log_prices: Tensor) -> Tensor:
    """log V (E, K) at log prices (E, N)."""
    held = torch.log(pools.reserves) - torch.log(pools.weights)
    value: Tensor = (pools.weights * held).sum(-1) + (pools.weights[..., 1:] * log_prices[:, None]).sum(-1)
    return value


def solve_with_pools(problem: Problem, pools: Pools, options: Options) -> tuple[Solved, PoolTrade]:
    """``solve`` with pools among the investors, differentiable by the problem's inputs and by the pools.

    Args:
        problem: of the others, in tensors.
        pools: checked tensors, batched.
        options: of every clearing.
    """
    fixed = _detached(problem)
    held = Pools(weights=pools.weights.detach(), reserves=pools.reserves.detach())
    found = _search(fixed, held, options)
    values, options = found.values, dataclasses.replace(options, rejected=(), found=found.solved)
    tracked = torch.is_grad_enabled() and any(
        x is not None and x.requires_grad for x in (*problem.inputs, pools.weights, pools.reserves)
    )
    solved = found.solved
    if tracked:
        # One implicit step, which moves nothing: v = v* + J⁻¹ (log V(u(v*)) − v*) has the derivatives of the root.
        solved = differentiable_solve(_with_orders(problem, pools, values), options)
        gap = log_values(pools, torch.log(solved.prices)) - values
        inverse = torch.linalg.inv(_jacobian(held, values, found.slopes))
        step = (inverse @ torch.nan_to_num(gap)[..., None])[..., 0]
        values = values + (step - step.detach())
        solved = differentiable_solve(_with_orders(problem, pools, values), options)
    worth = torch.exp(values)
    prices = torch.cat([torch.ones_like(solved.prices[:, :1]), solved.prices], -1)[:, None]
    reserves = pools.weights * worth[..., None] / prices
    loss = (pools.reserves * prices).sum(-1) - worth
    converged = solved.converged & (found.error <= _CLEARED)
    if not bool(converged.all()):
        bad = ~converged
        solved = solved._replace(
            **{name: _blank(getattr(solved, name), bad) for name in ("prices", "weights", "holdings")},
            converged=converged,
        )
        reserves, loss = _blank(reserves, bad), _blank(loss, bad)
    return solved, PoolTrade(reserves, loss)


class _Point(NamedTuple):
    """Where a search stands in some markets, (E, …)."""

    values: Tensor  # (E, K) v
    gap: Tensor  # (E, K) v − log V(u(v))
    slopes: Tensor  # (E, K, N) w_k'∂u/∂orders
    prices: Tensor  # (E, N) that clear
    error: Tensor  # (E,) largest gap; infinite where the market does not clear

    def where(self, chosen: Tensor, other: _Point) -> _Point:
        """The other point in the chosen markets."""
        pairs = zip(self, other, strict=True)
        return _Point(*(torch.where(chosen.reshape(-1, *[1] * (x.ndim - 1)), y, x) for x, y in pairs))

    def rows(self, index: Tensor) -> _Point:
        """Some of the markets."""
        return _Point(*(x[index] for x in self))

    def with_rows(self, index: Tensor, other: _Point) -> _Point:
        """Other points in some of the markets."""
        return _Point(*(x.index_copy(0, index, y) for x, y in zip(self, other, strict=True)))


class _Found(NamedTuple):
    """The end of a search."""

    values: Tensor  # (E, K) roots v; 0 where nothing was searched
    slopes: Tensor  # (E, K, N) w_k'∂u/∂orders there
    error: Tensor  # (E,) what is left of the equations
    solved: Solved  # the markets cleared with pools of these values


def _search(problem: Problem, pools: Pools, options: Options) -> _Found:
    """Roots of all markets but the ``rejected`` ones: by the compiled search, then with care where that gives up."""
    first = _first_values(problem, pools)
    on_cpu = problem.beliefs.device.type == "cpu"
    if on_cpu and options.smoothing == 0.0 and options.backend != "torch":
        found, done = _search_compiled(problem, pools, first, options.rejected)
    else:
        found, done = _nothing(problem, first)
    done[list(options.rejected)] = True
    if bool(done.all()):
        return found
    rows = torch.nonzero(~done)[:, 0]
    own, here = problem.rows(rows), Pools(weights=pools.weights[rows], reserves=pools.reserves[rows])
    careful = dataclasses.replace(options, rejected=())
    best = _search_with_care(own, here, first[rows], careful)
    solved = solve(_with_orders(own, here, best.values), careful)
    for each, new in zip(found.solved, solved, strict=True):
        each[rows] = new
    found.values[rows], found.slopes[rows], found.error[rows] = best.values, best.slopes, best.error
    return found


def _first_values(problem: Problem, pools: Pools) -> Tensor:
    """v (E, K) to start from: at prices that are given, or at the investors' mean belief, or what cash says."""
    if problem.start is not None:
        return log_values(pools, torch.log(problem.start))
    rich = problem.wealth.clamp(min=0.0)
    believed = log_values(pools, (rich[..., None] * problem.beliefs).sum(1) / rich.sum(1)[:, None])
    cash = torch.log(pools.reserves[..., 0] / pools.weights[..., 0])
    return torch.where(torch.isfinite(believed), believed, cash)


def _nothing(problem: Problem, first: Tensor) -> tuple[_Found, Tensor]:
    """An empty result to enter markets in, and that none is done."""
    E, B, N = problem.beliefs.shape
    new, device = problem.beliefs.new_full, first.device
    solved = Solved(
        prices=new((E, N), torch.nan), weights=new((E, B, N + 1), torch.nan), holdings=new((E, B, N), torch.nan),
        residual=new((E,), torch.nan), iterations=torch.zeros(E, dtype=torch.int64, device=device),
        converged=torch.zeros(E, dtype=torch.bool, device=device),
        state=torch.full((E, B, N + 1), BELOW, dtype=torch.int8, device=device),
    )  # fmt: skip
    found = _Found(torch.zeros_like(first), new((*first.shape, N), 0.0), new((E,), torch.inf), solved)
    return found, torch.zeros(E, dtype=torch.bool, device=device)


def _search_compiled(problem: Problem, pools: Pools, first: Tensor, rejected: tuple[int, ...]) -> tuple[_Found, Tensor]:
    """What the kernel found, and where it did (E,)."""
    E, B, N = problem.beliefs.shape
    share = pools.weights
    held = as_array((share * (torch.log(pools.reserves) - torch.log(share))).sum(-1))
    values, slopes, error = as_array(first).copy(), np.zeros((*first.shape, N)), np.full(E, np.inf)
    extra = (memory_size(B, N), as_array(share), held, values, slopes, error)
    solved = run_kernel(pool_kernels.clear_with_pools, problem.as_arrays(), list(rejected), after=extra)
    failed = ~as_array(solved.converged)
    values[failed], slopes[failed], error[failed] = 0.0, 0.0, np.inf
    tensors = Solved(*map(to_torch, solved))
    found = _Found(to_torch(values), to_torch(slopes), to_torch(error), tensors)
    return found, found.solved.converged.clone()


def _search_with_care(problem: Problem, pools: Pools, first: Tensor, options: Options) -> _Point:
    """The best points of markets, a batch of clearings a step."""
    trial = first
    best = _probe(problem, pools, trial, options)
    one = trial.shape[1] == 1
    search: _Bracketed | _Damped = _Bracketed(best) if one else _Damped(best)
    done = best.error <= PRECISION * (1.0 + best.values.abs().amax(-1))
    for _ in range(_STEPS):
        rows = torch.nonzero(~done)[:, 0]
        if not rows.numel():
            break
        here = Pools(weights=pools.weights[rows], reserves=pools.reserves[rows])
        trial = search.trial(rows, here)
        at = _probe(problem.rows(rows).replace(start=best.prices[rows]), here, trial, options)
        finished = search.learn(rows, at)
        better = at.error < best.error[rows]
        best = best.with_rows(rows, best.rows(rows).where(better, at))
        error, size = best.error[rows], 1.0 + best.values[rows].abs().amax(-1)
        done[rows] = finished | (error <= PRECISION * size) | (~better & (error <= ROUNDING * size))
    return best


class _Bracketed:
    """One pool: Newton's method, kept between two values where the gap has two signs."""

    def __init__(self, start: _Point) -> None:
        self._at = start
        self._low = torch.full_like(start.error, -torch.inf)
        self._high = torch.full_like(start.error, torch.inf)
        self._halve = torch.zeros_like(start.error, dtype=torch.bool)
        self._note(torch.arange(start.error.numel(), device=start.error.device), start)

    def trial(self, rows: Tensor, pools: Pools) -> Tensor:
        """The next values (rows, 1)."""
        at, low, high = self._at.rows(rows), self._low[rows], self._high[rows]
        value, gap = at.values[:, 0], at.gap[:, 0]
        newton = value - gap / _jacobian(pools, at.values, at.slopes)[:, 0, 0]
        closed = torch.isfinite(low) & torch.isfinite(high)
        away = value - torch.sign(gap) * torch.clamp(2.0 * gap.abs(), min=_LEAST_AWAY)
        other = torch.where(closed, 0.5 * (low + high), away)
        use = (newton > low) & (newton < high) & ~(self._halve[rows] & closed)
        use &= (newton - value).abs() <= torch.clamp(_FURTHEST * gap.abs(), min=1e-12)
        return torch.where(use, newton, other)[:, None]

    def learn(self, rows: Tensor, at: _Point) -> Tensor:
        """Take in the points of a trial; whether nothing more can be learnt (rows,)."""
        self._halve[rows] = ~(at.error <= 0.5 * self._at.error[rows])
        self._at = self._at.with_rows(rows, at)
        self._note(rows, at)
        width = self._high[rows] - self._low[rows]
        return ~(width > PRECISION * (1.0 + at.values[:, 0].abs()))

    def _note(self, rows: Tensor, at: _Point) -> None:
        value, gap = at.values[:, 0], at.gap[:, 0]
        # A market that does not clear at these orders has prices without end: what the pool orders is too much.
        above = (gap > 0.0) & torch.isfinite(at.error) | ~torch.isfinite(at.error)
        self._high[rows] = torch.where(above, torch.minimum(self._high[rows], value), self._high[rows])
        self._low[rows] = torch.where(~above, torch.maximum(self._low[rows], value), self._low[rows])


class _Damped:
    """Several pools: Newton's method, its steps halved where they do not help, and the map itself where none does."""

    def __init__(self, start: _Point) -> None:
        self._best = start
        self._share = torch.ones_like(start.error)

    def trial(self, rows: Tensor, pools: Pools) -> Tensor:
        """The next values (rows, K)."""
        at, share = self._best.rows(rows), self._share[rows]
        newton = -torch.linalg.solve(_jacobian(pools, at.values, at.slopes), at.gap[..., None])[..., 0]
        plain = share < _LEAST_SHARE
        return at.values + torch.where(plain[:, None], -at.gap, share[:, None] * newton)

    def learn(self, rows: Tensor, at: _Point) -> Tensor:
        """Take in the points of a trial; whether nothing more can be learnt (rows,)."""
        better, before = at.error < self._best.error[rows], self._share[rows]
        self._best = self._best.with_rows(rows, self._best.rows(rows).where(better, at))
        self._share[rows] = torch.where(better, torch.ones_like(before), 0.5 * before)
        return ~better & (before < _LEAST_SHARE)


def _probe(problem: Problem, pools: Pools, values: Tensor, options: Options) -> _Point:
    """The markets cleared with pools of these values."""
    with torch.no_grad():
        posed = _with_orders(problem, pools, values)
        solved = solve(posed, options)
        nothing = torch.zeros_like(solved.weights), torch.zeros_like(solved.holdings)
        given = posed, solved.prices, solved.weights, solved.state
        slopes = [
            pull_back(*given, weights / solved.prices, *nothing, smoothing=options.smoothing).orders
            for weights in pools.weights[..., 1:].unbind(1)
        ]
        stacked = torch.stack(slopes, 1)
        gap = values - log_values(pools, torch.log(solved.prices))
        good = solved.converged & torch.isfinite(stacked).all(-1).all(-1) & torch.isfinite(gap).all(-1)
        start = torch.ones_like(solved.prices) if problem.start is None else problem.start
        return _Point(
            values=values, gap=torch.nan_to_num(gap), slopes=torch.nan_to_num(stacked),
            prices=torch.where(good[:, None], solved.prices, start),
            error=torch.where(good, gap.abs().amax(-1), torch.full_like(gap[:, 0], torch.inf)),
        )  # fmt: skip


def _with_orders(problem: Problem, pools: Pools, values: Tensor) -> Problem:
    """The problem with what pools of these log values (E, K) order."""
    return problem.replace(orders=problem.orders + (pools.weights[..., 1:] * torch.exp(values)[..., None]).sum(1))


def _jacobian(pools: Pools, values: Tensor, slopes: Tensor) -> Tensor:
    """∂(v − log V(u(v)))/∂v, (E, K, K)."""
    money = pools.weights[..., 1:] * torch.exp(values)[..., None]
    one = torch.eye(values.shape[1], dtype=values.dtype, device=values.device)
    jacobian: Tensor = one - slopes @ money.mT
    return jacobian


def _detached(problem: Problem) -> Problem:
    fields = {item.name: getattr(problem, item.name) for item in dataclasses.fields(problem)}
    kept: dict[str, Any] = {name: None if x is None else x.detach() for name, x in fields.items()}
    return Problem(**kept)


def _blank(x: Tensor, rows: Tensor) -> Tensor:
    """NaN in some rows."""
    return torch.where(rows.reshape(-1, *[1] * (x.ndim - 1)), torch.full_like(x, torch.nan), x)
