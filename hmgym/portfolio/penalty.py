"""The penalty flow ẇ = μ − γΘw − 2σν∘(w−Ω) − 2ρU'(Uw−λ), in closed form.

It is linear: with H = γΘ + 2σ diag ν + 2ρU'U it rests at w* = H⁻¹(μ + 2σν∘Ω + 2ρU'λ), and

    w(t) = w* + e^{−Ht}(w₀ − w*).

As ρ → ∞, w* tends to the exact solution with an error of order 1/ρ, and 2ρ(Uw* − λ) to its multipliers η. w* is taken
from the system [[H₀, U'], [U, −1/2ρ]], whose condition does not grow with ρ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hmgym.portfolio import kernels
from hmgym.portfolio.checks import batch_shape, check_last, check_penalty, common_shape, tensor
from hmgym.portfolio.problem import PortfolioProblem
from hmgym.portfolio.program import dot
from hmgym.portfolio.solve import check_convex, saddle


def penalty_solution(problem: PortfolioProblem, penalty: Any) -> Tensor:
    """w* (..., N), where the penalty flow rests; differentiable.

    Args:
        problem: of quadratic cost, without limits and bounds.
        penalty: ρ > 0.

    Raises:
        ValueError: an argument is none of these; or the objective does not fix the weights.
    """
    rate = check_penalty(penalty)
    check_flow(problem)
    curvature = problem.curvature
    check_convex(problem, curvature)
    return saddle(problem, 0.5 / rate, curvature)[0]


def penalty_flow(problem: PortfolioProblem, penalty: Any, start: Any, times: Any) -> Tensor:
    """w(t) (T, ..., N); differentiable (once) with respect to the problem and the start, not the times.

    Args:
        problem: of quadratic cost, without limits and bounds.
        penalty: ρ > 0.
        start: (..., N) w₀.
        times: (T,) ≥ 0, any order; a weight changes by a slope (a return a period) in a unit of time.

    Raises:
        ValueError: an argument is none of these; or the objective does not fix the weights.
    """
    rate = check_penalty(penalty)
    begin, when = check_start(problem, start), check_times(times)
    check_flow(problem)
    curvature = problem.curvature
    check_convex(problem, curvature)
    rest = saddle(problem, 0.5 / rate, curvature)[0]
    away = (begin - rest).expand(*common_shape(begin.shape[:-1], problem.batch), problem.assets)
    matrix = stiffness(problem, rate, curvature)
    matrix = matrix.expand(*away.shape[:-1], *matrix.shape[-2:])
    moved: Tensor = _Decay.apply(matrix, away, when.to(away.device))  # type: ignore[no-untyped-call]
    return rest + moved


def stiffness(problem: PortfolioProblem, penalty: float, curvature: Tensor | None = None) -> Tensor:
    """(..., N, N) H, from H₀ where that is known."""
    groups = problem.groups.detach()
    return (problem.curvature if curvature is None else curvature) + 2.0 * penalty * groups.mT @ groups


def check_flow(problem: PortfolioProblem) -> None:
    """Check that the penalty flow is the problem's.

    Raises:
        ValueError: cost is linear, or there are limits or bounds.
    """
    if problem.cost != "quadratic":
        raise ValueError(f'`cost` must be "quadratic" for the penalty flow, got "{problem.cost}"')
    for name in ("limit_groups", "lower", "upper"):
        if getattr(problem, name) is not None:
            raise ValueError(f"`{name}` must be None for the penalty flow, which has equalities only; `solve` takes it")


def check_start(problem: PortfolioProblem, start: Any) -> Tensor:
    """Weights (..., N) to start from.

    Raises:
        ValueError: they are none.
    """
    begin = tensor("start", start, "(..., N)", 1)
    check_last("start", begin, "(..., N)", (problem.assets,))
    batch_shape({"batch": problem.batch, "start": begin.shape[:-1]})
    return begin


def check_times(times: Any) -> Tensor:
    """(T,) times since the start.

    Raises:
        ValueError: they are none, or negative.
    """
    when = tensor("times", times, "(T,)", 1).detach()
    if when.ndim != 1 or not when.numel() or bool((when < 0.0).any()):
        raise ValueError(f"`times` must be (T,) numbers >= 0, T >= 1, got {when.tolist()!r:.60}")
    return when


_COMPILED = 24  # rows up to which the compiled eigendecomposition is the faster


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., N), in no order, and eigenvectors (..., N, N) in columns, of symmetric matrices."""
    n = matrix.shape[-1]
    if matrix.device.type == "cpu" and n <= _COMPILED:
        flat = np.ascontiguousarray(matrix.detach().reshape(-1, n, n).numpy())
        values, vectors = np.empty(flat.shape[:2]), np.empty(flat.shape)
        if kernels.eigen(flat, values, vectors):
            return torch.from_numpy(values).reshape(matrix.shape[:-1]), torch.from_numpy(vectors).reshape(matrix.shape)
    found: tuple[Tensor, Tensor] = torch.linalg.eigh(matrix)
    return found


class _Decay(torch.autograd.Function):
    """e^{−Ht}x (T, ..., N) of H (..., N, N), x (..., N), t (T,).

    With H = VΛV' the derivative of e^{−Ht} in a direction is V(F ∘ V'dH V)V', F of divided differences,
    −t e^{−t min} (1 − e^{−2d}) / 2d with d = t|λ_i − λ_j| / 2: smooth where eigenvalues meet, unlike that of V.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, x: Tensor, times: Tensor) -> Tensor:
        values, vectors = _eigen(matrix)
        inside = dot(vectors.mT, x)
        decay = torch.exp(-times.reshape(-1, *([1] * values.ndim)) * values)
        ctx.save_for_backward(values, vectors, inside, decay, times)
        return dot(vectors, decay * inside)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        values, vectors, inside, decay, times = ctx.saved_tensors
        outer = dot(vectors.mT, gradients[0])
        least = torch.minimum(values.unsqueeze(-1), values.unsqueeze(-2))
        gap = (values.unsqueeze(-1) - values.unsqueeze(-2)).abs()
        total = torch.zeros_like(gap)
        for t, row in zip(times, outer, strict=True):  # (T, ..., N, N) at once would be large
            twice = t * gap
            share = torch.where(twice > 0.0, -torch.expm1(-twice) / twice.clamp(min=1e-300), 1.0)
            total -= t * torch.exp(-t * least) * share * row.unsqueeze(-1) * inside.unsqueeze(-2)
        inner = vectors @ total @ vectors.mT
        return 0.5 * (inner + inner.mT), dot(vectors, (decay * outer).sum(0)), None
