"""Values of a clearing problem, without a graph: the compiled kernels, and the torch path where they cannot go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from hmgym.arrays import Numpy, is_array, to_numpy, to_torch
from hmgym.clearing import extended, kernels, lane_kernels, smooth_kernels, wide_kernels
from hmgym.clearing.batched import clear_batched
from hmgym.clearing.memory import PortfolioMemory
from hmgym.clearing.problem import Problem, per_position
from hmgym.clearing.threads import as_array, over_markets

_NONE = np.zeros((1, 1, 1))  # what a kernel gets for a reference and a cost that are not there
_SNAP = 1e-13  # the torch path's positions this close to a limit, relative to its size and one, stand at it


class Solved(NamedTuple):
    """A solution and what its adjoint needs. A market that was not cleared holds NaN."""

    prices: Tensor  # (E, N)
    weights: Tensor  # (E, B, N+1)
    holdings: Tensor  # (E, B, N)
    residual: Tensor  # (E,)
    iterations: Tensor  # (E,)
    converged: Tensor  # (E,) bool
    state: Tensor  # (E, B, N+1) int8, the states of positions as kernels.py numbers them


@dataclass(frozen=True)
class Options:
    """How to solve."""

    smoothing: float = 0.0
    backend: str = "auto"
    rejected: tuple[int, ...] = ()  # markets that are passed over
    memory: PortfolioMemory | None = None  # of these markets
    found: Solved | None = None  # the solution, where it is known: nothing is solved


def solve(problem: Problem, options: Options) -> Solved:
    """Clear every market but the ``rejected`` ones; of a problem in arrays the solution is arrays too.

    With ``backend="auto"`` a market that the kernels give up is tried again by them from the investors' mean belief,
    then by the torch path, from there and from where the first try started, which shares no code with them, and at last
    in decimals.
    """
    if options.found is not None:
        return Solved(*(x.detach() for x in options.found))  # others than given: each result has its own graph
    if is_array(problem.beliefs):
        return _solve_arrays(problem, options)
    if options.backend == "torch" or problem.beliefs.device.type != "cpu":
        return _solve_with_torch(problem, options.smoothing, list(options.rejected))
    return Solved(*(to_torch(x) for x in _solve_arrays(problem.as_arrays(), options)))


def _solve_arrays(problem: Problem, options: Options) -> Solved:
    smoothing, rejected = options.smoothing, list(options.rejected)
    if options.backend == "torch":
        return _arrays_with_torch(problem, smoothing, rejected)
    solved = _solve_with_kernel(problem, smoothing, rejected, options.memory)
    if options.backend == "kernel" or solved.converged.all():
        return solved
    cold = problem if problem.start is None else problem.replace(start=None)
    attempts = [(_arrays_with_torch, cold)]
    if problem.start is not None:
        attempts = [(_solve_with_kernel, cold), (_arrays_with_torch, cold), (_arrays_with_torch, problem)]
    if smoothing == 0.0:
        attempts.append((_solve_in_decimals, cold))
    for method, again in attempts:
        _retry(solved, again, rejected, partial(method, smoothing=smoothing, rejected=[]))
    return solved


def _arrays_with_torch(problem: Problem, smoothing: float, rejected: list[int]) -> Solved:
    return Solved(*(to_numpy(x) for x in _solve_with_torch(problem.as_tensors(), smoothing, rejected)))


def _solve_in_decimals(problem: Problem, smoothing: float, rejected: list[int]) -> Solved:
    assert smoothing == 0.0
    return run_kernel(extended.clear_markets, problem, rejected)


def _mean_belief(problem: Problem) -> Any:
    rich = np.maximum(as_array(problem.wealth), 0.0)
    with np.errstate(all="ignore"):  # a market without wealth, or rejected, starts from NaN and is not cleared
        return np.exp((rich[..., None] * as_array(problem.beliefs)).sum(1) / rich.sum(1, keepdims=True))


def kernel_arrays(problem: Problem) -> tuple[object, ...]:
    """What both kernels take for a problem: limits of every position, and whether there are costs."""
    reference, cost = problem.reference_weights, problem.trading_cost
    n = problem.supply.shape[-1] + 1
    short, long = per_position(problem.short_leverage, n), per_position(problem.long_leverage, n)
    always = (problem.beliefs, problem.risk, problem.wealth, short, long, problem.supply, problem.orders)
    costs = () if reference is None or cost is None else (as_array(reference), as_array(cost))
    return (*map(as_array, always), bool(costs), *(costs or (_NONE, _NONE)))


def _solve_with_kernel(
    problem: Problem, smoothing: float, rejected: list[int], memory: PortfolioMemory | None = None
) -> Solved:
    """By the compiled kernels: without smoothing by a fast one, and by more careful ones what that gives up."""
    if smoothing > 0.0:
        return run_kernel(smooth_kernels.clear_markets, problem, rejected, before=(smoothing,), with_state=False)
    E, B, N = problem.beliefs.shape
    if memory is not None and N >= wide_kernels.LEAST_ASSETS:
        return _solve_wide(problem, rejected, memory)
    numbers = np.empty((0, lane_kernels.memory_size(B, N))) if memory is None else memory.rows(E, B, N)
    solved = run_kernel(lane_kernels.clear_markets, problem, rejected, after=(numbers,))
    _retry(solved, problem, rejected, partial(run_kernel, kernels.clear_markets, rejected=[]))
    return solved


def _solve_wide(problem: Problem, rejected: list[int], memory: PortfolioMemory) -> Solved:
    """Markets of many assets that were cleared before: by the kernel for them, and by the others what that gives up."""
    E, B, N = problem.beliefs.shape
    numbers = memory.rows(E, B, N)
    solved = run_kernel(wide_kernels.clear_markets, problem, rejected, after=(numbers,))
    _retry(solved, problem, rejected, partial(_solve_with_kernel, smoothing=0.0, rejected=[]))
    cleared = as_array(solved.converged)
    wide_kernels.states_of(numbers, B, N)[cleared] = as_array(solved.state).reshape(E, -1)[cleared]
    return solved


def _retry(solved: Solved, problem: Problem, rejected: list[int], method: Callable[[Problem], Solved]) -> None:
    """Solve the markets that have not cleared, but the rejected ones, by another method."""
    converged = as_array(solved.converged)
    if converged.all():
        return
    failed = ~converged
    failed[rejected] = False
    rows = np.flatnonzero(failed)
    if rows.size:
        for values, again in zip(solved, method(problem.rows(rows)), strict=True):
            values[rows] = again


def run_kernel(
    kernel: Callable[..., None],
    problem: Problem,
    rejected: list[int],
    *,
    before: tuple[object, ...] = (),
    after: tuple[object, ...] = (),
    with_state: bool = True,
) -> Solved:
    """Call a kernel that takes the arrays of a problem between others, and fills those of a solution."""
    E, B, N = problem.beliefs.shape
    start = _mean_belief(problem) if problem.start is None else problem.start
    prices, weights = np.empty((E, N)), np.empty((E, B, N + 1))
    residual, iterations, status = np.empty(E), np.zeros(E, np.int64), np.zeros(E, np.int64)
    status[rejected] = kernels.REJECTED
    state = np.full((E, B, N + 1), kernels.BELOW, np.int8)  # smoothed positions are all free
    inputs = (*before, *kernel_arrays(problem), as_array(start), *after)
    outputs = (prices, weights, *((state,) if with_state else ()), residual, iterations, status)
    over_markets(kernel, E, B, *inputs, *outputs)
    holdings = np.maximum(as_array(problem.wealth), 0.0)[..., None] * weights[..., 1:] / Numpy.across(prices, B)
    arrays: Any = (prices, weights, holdings, residual, iterations, status == kernels.CLEARED, state)
    return Solved(*arrays)


def _solve_with_torch(problem: Problem, smoothing: float, rejected: list[int]) -> Solved:
    with torch.no_grad():
        prices, weights, residual, converged, iterations = clear_batched(problem, smoothing=smoothing)
        prices, weights = prices.clone(), weights.clone()
        if rejected:
            converged = converged.clone()
            converged[rejected] = False
        prices[~converged] = torch.nan
        weights[~converged] = torch.nan
        state = torch.full(weights.shape, kernels.BELOW, dtype=torch.int8, device=weights.device)
        if smoothing == 0.0:
            weights = _note_states(problem, weights, state)
        state[problem.wealth <= 0] = kernels.AT_REFERENCE
        holdings = problem.wealth.clamp(min=0.0)[..., None] * weights[..., 1:] / prices[:, None]
    return Solved(prices, weights, holdings, residual, iterations, converged, state)


def _note_states(problem: Problem, weights: Tensor, state: Tensor) -> Tensor:
    """Enter into ``state`` where positions stand. Returns the weights, those at a limit or reference exactly there."""
    n = weights.shape[-1]
    lower, upper = -per_position(problem.short_leverage, n), per_position(problem.long_leverage, n)
    for limit, at_limit in ((lower, kernels.AT_LOWER), (upper, kernels.AT_UPPER)):
        near = (weights - limit).abs() <= _SNAP * limit.abs().clamp(min=1.0)
        weights = torch.where(near, limit, weights)
        state[near] = at_limit
    reference, cost = problem.reference_weights, problem.trading_cost
    if reference is not None and cost is not None:
        risky = state[..., 1:]
        near = (weights[..., 1:] - reference).abs() <= _SNAP * reference.abs().clamp(min=1.0)
        near &= (cost > 0) & (risky & 1).bool()
        weights[..., 1:] = torch.where(near, reference, weights[..., 1:])
        risky[near] = kernels.AT_REFERENCE
    # Where limits leave a single corner the budget still needs one position that may move.
    stuck = ~(state & 1).bool().any(-1)
    state[stuck, weights[stuck].argmax(-1)] = kernels.BELOW
    return weights
