"""The flow followed in time by scipy's LSODA, problem by problem, with an event that ends it where it has come to rest.

A problem of quadratic cost with equalities only follows the penalty flow, from which `penalty_flow` in closed form
differs by the integrator's error. Any other follows the projected primal-dual flow of `hmgym.portfolio.primal_dual`
from multipliers of 0, in the problem's own units, with α the largest for which its explicit steps converge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmgym.checks import check_number
from hmgym.portfolio.checks import check_penalty, common_shape
from hmgym.portfolio.feasibility import scipy_module
from hmgym.portfolio.penalty import check_start, check_times, stiffness
from hmgym.portfolio.primal_dual import explicit_step
from hmgym.portfolio.problem import PortfolioProblem
from hmgym.portfolio.program import dot
from hmgym.portfolio.solve import program_of_problem

_SHARE = 1e-2  # of the tolerance that one step may err by
_LEAST = 1e-13  # that LSODA can keep

Floats = NDArray[np.float64]
Slope = Callable[[float, Floats], Floats]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Weights along the flow.

    Attributes:
        times: (T,) since the start, as given.
        weights: (T, ..., N); after a stop those of the stop.
        stopped: (...) whether the flow came to rest by the last of the times.
        stop_times: (...) when; inf where it did not.
    """

    times: Tensor
    weights: Tensor
    stopped: Tensor
    stop_times: Tensor


@torch.no_grad()
def integrate(
    problem: PortfolioProblem,
    penalty: Any,
    start: Any,
    times: Any,
    *,
    tolerance: float = 1e-8,
    stop_below: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Trajectory:
    """Follow the flow; no gradients (`penalty_flow` has them).

    Args:
        problem: any.
        penalty: ρ > 0.
        start: (..., N) weights.
        times: (T,) ≥ 0, increasing.
        tolerance: > 0, of weights; a hundredth of it is what a step may err by.
        stop_below: > 0, norm of the flow's velocity (multipliers' included) that counts as rest; None never stops.
        progress: called with how many problems are done, and how many there are.

    Raises:
        ValueError: an argument is none of these.
        ImportError: scipy is missing (`pip install hmgym[portfolio]`).
        RuntimeError: the integrator gave up.
    """
    rate = check_penalty(penalty)
    check_number("tolerance", tolerance, 0.0, strict=True)
    if stop_below is not None:
        check_number("stop_below", stop_below, 0.0, strict=True)
    begin, when = check_start(problem, start), check_times(times)
    if (when.diff() <= 0.0).any():
        raise ValueError(f"`times` must increase, got {when.tolist()!r:.60}")
    solve_ivp = scipy_module("integrate").solve_ivp
    batch, n = common_shape(begin.shape[:-1], problem.batch), problem.assets
    starts = begin.expand(*batch, n).reshape(-1, n).cpu().numpy()
    flows = _penalty_flows if problem.cost == "quadratic" and not problem.constrained else _primal_dual_flows
    slopes = flows(problem, rate, batch)
    at = when.cpu().numpy()
    weights, stops = np.empty((at.size, len(starts), n)), np.full(len(starts), np.inf)
    local = max(_SHARE * tolerance, _LEAST)
    for row, first in enumerate(starts):
        slope, jacobian, extra = slopes(row)
        state = np.concatenate([first, np.zeros(extra)])
        weights[:, row], stops[row] = _follow(solve_ivp, slope, jacobian, state, n, at, local, stop_below)
        if progress is not None:
            progress(row + 1, len(starts))
    found = torch.as_tensor(weights).to(begin.device).reshape(at.size, *batch, n)
    ends = torch.as_tensor(stops).to(begin.device).reshape(batch)
    return Trajectory(times=when, weights=found, stopped=ends.isfinite(), stop_times=ends)


def _follow(
    solve_ivp: Any,
    slope: Slope,
    jacobian: Floats | None,
    state: Floats,
    n: int,
    times: Floats,
    local: float,
    stop_below: float | None,
) -> tuple[Floats, float]:
    """Weights (T, N) at the times, and when the flow stopped."""
    if stop_below is not None and np.linalg.norm(slope(0.0, state)) <= stop_below:
        return np.tile(state[:n], (times.size, 1)), 0.0
    if times[-1] == 0.0:
        return state[None, :n].copy(), np.inf

    def rest(t: float, x: Floats) -> float:
        return float(np.linalg.norm(slope(t, x))) - (stop_below or 0.0)

    rest.terminal = True  # type: ignore[attr-defined]
    rest.direction = -1.0  # type: ignore[attr-defined]
    given = {} if jacobian is None else {"jac": lambda t, x: jacobian}
    found = solve_ivp(
        slope, (0.0, times[-1]), state, method="LSODA", t_eval=times, rtol=local, atol=local,
        events=None if stop_below is None else rest, **given,
    )  # fmt: skip
    if not found.success:
        raise RuntimeError(f"the flow could not be followed: {found.message}; a larger `tolerance` may help")
    stopped = stop_below is not None and found.t_events[0].size > 0
    weights = np.empty((times.size, n))
    reached = found.y.shape[1]
    weights[:reached] = found.y[:n].T
    if stopped:
        weights[reached:] = found.y_events[0][0][:n]
    return weights, float(found.t_events[0][0]) if stopped else np.inf


def _penalty_flows(
    problem: PortfolioProblem, penalty: float, batch: torch.Size
) -> Callable[[int], tuple[Slope, Floats | None, int]]:
    """By row: ẇ, its Jacobian, and how many multipliers there are."""
    n = problem.assets
    matrices = stiffness(problem, penalty)
    matrices = matrices.expand(*batch, n, n).reshape(-1, n, n)
    pulls = problem.pull + 2.0 * penalty * dot(problem.groups.mT, problem.group_totals)
    pulls = pulls.expand(*batch, n).reshape(-1, n)

    def of(row: int) -> tuple[Slope, Floats | None, int]:
        matrix, pull = matrices[row].cpu().numpy(), pulls[row].cpu().numpy()
        return lambda t, x: pull - matrix @ x, -matrix, 0

    return of


def _primal_dual_flows(
    problem: PortfolioProblem, penalty: float, batch: torch.Size
) -> Callable[[int], tuple[Slope, Floats | None, int]]:
    program = program_of_problem(problem, batch, scaled=False)[0]
    alphas = explicit_step(program, penalty)

    def of(row: int) -> tuple[Slope, Floats | None, int]:
        H, c, nu, omega, A, b, low, high = (
            x[row].cpu().numpy()
            for x in (
                program.hessian, program.linear, program.kink_rates, program.kinks, program.rows, program.bounds,
                program.lower, program.upper,
            )
        )  # fmt: skip
        alpha, n, m = float(alphas[row]), c.size, program.equalities

        def slope(t: float, x: Floats) -> Floats:
            w, y = x[:n], x[n:]
            ahead = y + penalty * (A @ w - b)
            ahead[m:] = np.maximum(ahead[m:], 0.0)
            away = w - alpha * (H @ w + c + A.T @ ahead) - omega
            there = omega + np.sign(away) * np.maximum(np.abs(away) - alpha * nu, 0.0)
            return np.concatenate([np.clip(there, low, high) - w, ahead - y])

        return slope, None, b.size

    return of
