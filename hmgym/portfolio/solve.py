"""The exact solution of portfolio problems, and the nearest weights that keep constraints.

Without limits, bounds and linear cost one linear system has it,

    [[H₀, U'], [U, 0]] [w; η] = [μ + 2σν∘Ω; λ],   H₀ = γΘ + 2σ diag ν.

Otherwise the primal-dual flow (`hmgym.portfolio.primal_dual`) finds what binds, and the linear system of that is
solved. Gradients are those of the linear systems; where what binds is about to change they are one-sided. Of redundant
groups the multipliers are the smallest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hmgym.checks import check_number, integer
from hmgym.portfolio.checks import check_penalty, tensor
from hmgym.portfolio.feasibility import check_unsettled, independent, program_of
from hmgym.portfolio.primal_dual import settle
from hmgym.portfolio.problem import PortfolioProblem
from hmgym.portfolio.program import Piece, Program, dot, solve_on

_CONVEX = 1e-12  # of the largest curvature: the least that fixes the weights
_PROJECTION = 1e-12
_PROJECTION_STEPS = 20_000


@dataclass(frozen=True, kw_only=True, eq=False)
class PortfolioSolution:
    """The solution, and the multipliers of L = f + η'(Uw − λ) + z'(Gw − g) + zu'(w − ub) − zl'(w − lb).

    Multipliers are returns a period by a weight.

    Attributes:
        weights: (..., N).
        group_multipliers: (..., M) η.
        limit_multipliers: (..., P) z ≥ 0.
        lower_multipliers: (..., N) zl ≥ 0.
        upper_multipliers: (..., N) zu ≥ 0.
        residual: (...) largest violation of the optimality conditions, in weights: of constraints as they stand (rows
            scaled to norm 1), of slopes over the mean curvature; relative to the largest weight where that is above 1.
        converged: (...) whether that is within tolerance.
    """

    weights: Tensor
    group_multipliers: Tensor
    limit_multipliers: Tensor
    lower_multipliers: Tensor
    upper_multipliers: Tensor
    residual: Tensor
    converged: Tensor


def solve(
    problem: PortfolioProblem, *, penalty: Any = 1.0, tolerance: float = 1e-9, max_iterations: int = 20_000
) -> PortfolioSolution:
    """The best weights; differentiable with respect to μ, Θ, γ, ν, Ω, σ, λ, g and the bounds.

    Args:
        problem: strictly convex where the groups leave freedom.
        penalty: ρ > 0 of the flow, in units of the mean curvature; where it comes to rest does not depend on it.
        tolerance: > 0, of `residual`.
        max_iterations: ≥ 1, steps of the flow; a problem that has not settled by then is not `converged`.

    Raises:
        ValueError: an argument is none of these; or the objective does not fix the weights; or no weights keep the
            constraints.
    """
    rate = check_penalty(penalty)
    check_number("tolerance", tolerance, 0.0, strict=True)
    max_iterations = integer("max_iterations", max_iterations, 1)
    if not problem.constrained and problem.cost == "quadratic":
        return _closed_form(problem, float(tolerance))
    check_convex(problem)
    program, scale, size, keep, batch = program_of_problem(problem)
    weights, multipliers, residual, settled = _exact(program, rate, float(tolerance), max_iterations)
    slope = program.slope(weights, multipliers)
    below, above = _of_the_box(program, weights, slope)
    multipliers = multipliers * scale / size
    m = program.equalities
    groups = multipliers[:, :m] if keep is None else dot(keep, multipliers[:, :m])
    return PortfolioSolution(
        weights=weights.reshape(*batch, -1),
        group_multipliers=groups.reshape(*batch, m),
        limit_multipliers=multipliers[:, m:].reshape(*batch, multipliers.shape[-1] - m),
        lower_multipliers=(scale * below).reshape(*batch, -1),
        upper_multipliers=(scale * above).reshape(*batch, -1),
        residual=residual.reshape(batch),
        converged=settled.reshape(batch),
    )


def project(
    point: Any,
    *,
    groups: Any,
    group_totals: Any,
    limit_groups: Any = None,
    group_limits: Any = None,
    lower: Any = None,
    upper: Any = None,
) -> Tensor:
    """The weights (..., N) nearest to a point (..., N) that keep constraints; differentiable.

    Args:
        point: (..., N).
        groups: as of `PortfolioProblem`, the others too.
        group_totals: (..., M).
        limit_groups: (..., P, N).
        group_limits: (..., P).
        lower: (..., N) or a number.
        upper: (..., N) or a number.

    Raises:
        ValueError: an argument is none of these, or no weights keep the constraints.
    """
    here = tensor("point", point, "(..., N)", 1)
    n = here.shape[-1]
    problem = PortfolioProblem(
        expected_returns=here,
        covariance=torch.eye(n, dtype=here.dtype, device=here.device),
        risk_aversion=here.new_ones(()),
        cost_rates=torch.zeros(n, dtype=here.dtype, device=here.device),
        holdings=here.detach(),
        groups=groups,
        group_totals=group_totals,
        limit_groups=limit_groups,
        group_limits=group_limits,
        lower=lower,
        upper=upper,
    )
    found = solve(problem, tolerance=_PROJECTION, max_iterations=_PROJECTION_STEPS)
    return found.weights


def program_of_problem(
    problem: PortfolioProblem, batch: torch.Size | None = None, *, scaled: bool = True
) -> tuple[Program, Tensor, Tensor, Tensor | None, torch.Size]:
    """`program_of` a whole problem, expanded to a batch where one is given."""
    none = torch.full_like(problem.expected_returns, torch.inf)
    upper = none if problem.upper is None else problem.upper
    return program_of(
        problem.curvature, -problem.pull, problem.cost_rates if problem.cost == "linear" else None, problem.holdings,
        problem.groups, problem.group_totals, problem.limit_groups, problem.group_limits,
        -none if problem.lower is None else problem.lower,
        upper if batch is None else upper.expand(*batch, problem.assets), scaled=scaled,
    )  # fmt: skip


@torch.no_grad()
def check_convex(problem: PortfolioProblem, curvature: Tensor | None = None) -> None:
    """Check that H₀, given where it is known, is positive definite on weights that all groups sum to 0.

    Raises:
        ValueError: it is not.
    """
    curvature, groups = problem.curvature if curvature is None else curvature, problem.groups
    size = curvature.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None]
    rows = groups / groups.norm(dim=-1, keepdim=True).clamp(min=1e-300)
    total = curvature / torch.where(size > 0.0, size, 1.0) + rows.mT @ rows
    room = _CONVEX * torch.eye(problem.assets, dtype=total.dtype, device=total.device)
    if torch.linalg.cholesky_ex(total - room).info.any():
        least = float(torch.linalg.eigvalsh(total).min())
        raise ValueError(
            "`covariance`, `risk_aversion` and `cost_rates` must fix the weights that groups leave free, got an "
            f"objective that is flat in some direction (least relative curvature {least:.1e})"
        )


def saddle(problem: PortfolioProblem, give: float, curvature: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """w (..., N) and η (..., M) of [[H₀, U'], [U, −give]] [w; η] = [μ + 2σν∘Ω; λ]; differentiable.

    Raises:
        ValueError: the objective does not fix the weights.
    """
    groups, totals, keep = problem.groups.detach(), problem.group_totals, independent(problem.groups)
    missing = torch.zeros_like(totals)
    if keep is not None:
        groups, totals = keep.mT @ groups, dot(keep.mT, totals)
        missing = 1.0 - keep.square().sum(-2)
    curvature, pull = problem.curvature if curvature is None else curvature, problem.pull
    scale = curvature.detach().diagonal(dim1=-2, dim2=-1).mean(-1)
    scale = torch.where(scale > 0.0, scale, 1.0)[..., None]
    batch, n = problem.batch, problem.assets
    corner = torch.diag_embed(-give * scale - missing)
    rows = groups.expand(*batch, *groups.shape[-2:])
    matrix = torch.cat(
        [
            torch.cat([(curvature / scale[..., None]).expand(*batch, n, n), rows.mT], -1),
            torch.cat([rows, corner.expand(*batch, *corner.shape[-2:])], -1),
        ],
        -2,
    )
    pull = (pull / scale).expand(*batch, n)
    right = torch.cat([pull, totals.expand(*batch, totals.shape[-1])], -1)
    solution, info = torch.linalg.solve_ex(matrix, right)
    if info.any() or not bool(solution.detach().isfinite().all()):
        check_convex(problem, curvature)
    multipliers = scale * solution[..., n:]
    return solution[..., :n], multipliers if keep is None else dot(keep, multipliers)


def _closed_form(problem: PortfolioProblem, tolerance: float) -> PortfolioSolution:
    curvature = problem.curvature
    check_convex(problem, curvature)
    weights, multipliers = saddle(problem, 0.0, curvature)
    with torch.no_grad():
        scale = curvature.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
        scale = torch.where(scale > 0.0, scale, 1.0)
        slope = (dot(curvature, weights) - problem.pull + dot(problem.groups.mT, multipliers)) / scale
        missed = (dot(problem.groups, weights) - problem.group_totals) / problem.groups.norm(dim=-1).clamp(min=1e-300)
        residual = torch.cat([slope, missed.expand(*problem.batch, missed.shape[-1])], -1).abs().amax(-1)
        residual = residual / weights.abs().amax(-1).clamp(min=1.0)
    none = torch.zeros_like(weights)
    return PortfolioSolution(
        weights=weights,
        group_multipliers=multipliers,
        limit_multipliers=weights.new_zeros(*problem.batch, 0),
        lower_multipliers=none,
        upper_multipliers=none.clone(),
        residual=residual,
        converged=residual <= tolerance,
    )


def _exact(
    program: Program, penalty: float, tolerance: float, max_iterations: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where the flow rests, solved once more on the piece that it rests on, for the gradients."""
    weights, multipliers, residual, settled = settle(program, penalty, tolerance, max_iterations)
    check_unsettled(program, settled)
    with torch.no_grad():
        piece = Piece.at(program, weights, multipliers)
    last = solve_on(program, piece, multipliers)
    with torch.no_grad():
        size = program.residual(*last)
        # Rounding may put a weight that only just is at its bound elsewhere; what the flow found stays then.
        better = size <= torch.maximum(residual, torch.full_like(residual, tolerance))
    kept = better.unsqueeze(-1)
    weights, multipliers = torch.where(kept, last[0], weights), torch.where(kept, last[1], multipliers)
    return weights, program.raised(multipliers), torch.where(better, size, residual), settled


def _of_the_box(program: Program, weights: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) zl and zu from the slope r: the part of −r that cost does not take."""
    side = (weights - program.kinks).sign()
    rates = program.kink_rates
    # At Ω the cost takes a slope up to ν of either sign; elsewhere exactly ν against the side.
    taken = torch.where(side == 0.0, torch.minimum(torch.maximum(-slope, -rates), rates), rates * side)
    left = slope + taken
    below = torch.where(weights <= program.lower, left.clamp(min=0.0), 0.0)
    return below, torch.where(weights >= program.upper, (-left).clamp(min=0.0), 0.0)
