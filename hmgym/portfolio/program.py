"""What every portfolio problem is to the solver: a convex quadratic program with a kink in each weight.

    min ½ w'Hw + c'w + Σ ν_i |w_i − Ω_i|   over  Uw = λ, Gw ≤ g, lb ≤ w ≤ ub

in rows of a batch. Its Karush-Kuhn-Tucker (KKT) conditions are the zeros of the natural residual

    w − prox(w − r),  r = Hw + c + U'η + G'z,  prox(v) = clip(Ω + soft(v − Ω, ν), lb, ub);  Uw − λ;  z − [z + Gw − g]₊,

which is piecewise linear: on a piece every weight is free, at a bound or at Ω, every limit binds or does not, and what
is left is one symmetric linear system.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

_SHIFT = 1e-7  # of the multipliers' diagonal, which keeps the system regular where what binds is redundant
_LEAST_CURVATURE = 1e-2  # that the natural residual measures a slope by
_REFINEMENTS = 6
_LOWER, _FREE, _UPPER, _KINK = -1, 0, 1, 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Program:
    """B problems; curvature about 1, rows of constraints of norm 1 (`scaled`).

    Attributes:
        hessian: (B, N, N).
        linear: (B, N).
        kink_rates: (B, N) ν ≥ 0.
        kinks: (B, N) Ω.
        rows: (B, M+P, N) of U, then of G.
        bounds: (B, M+P) λ, then g.
        equalities: M.
        lower: (B, N), −inf where there is none.
        upper: (B, N), inf where there is none.
        give: (B, 1) ≥ 0, by which a constraint gives way to its multiplier: Uw − λ = give η.
    """

    hessian: Tensor
    linear: Tensor
    kink_rates: Tensor
    kinks: Tensor
    rows: Tensor
    bounds: Tensor
    equalities: int
    lower: Tensor
    upper: Tensor
    give: Tensor

    def pick(self, chosen: Tensor) -> Program:
        """The problems of a mask or of indices, without gradients."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        picked: dict[str, Any] = {name: x.detach()[chosen] if isinstance(x, Tensor) else x for name, x in values}
        return Program(**picked)

    @property
    def steps(self) -> Tensor:
        """(B, N) 1 / d."""
        return 1.0 / self.hessian.diagonal(dim1=-2, dim2=-1).clamp(min=_LEAST_CURVATURE)

    def prox(self, point: Tensor, step: Tensor | float) -> Tensor:
        """(B, N) where cost and box send a point after a step of this size."""
        away = point - self.kinks
        kept = (away.abs() - step * self.kink_rates).clamp(min=0.0)
        return torch.minimum(torch.maximum(self.kinks + away.sign() * kept, self.lower), self.upper)

    def slope(self, weights: Tensor, multipliers: Tensor) -> Tensor:
        """(B, N) r, the gradient of the Lagrangian but for the kinks and the box."""
        return dot(self.hessian, weights) + self.linear + dot(self.rows.mT, multipliers)

    def excess(self, weights: Tensor, multipliers: Tensor) -> Tensor:
        """(B, M+P) by which equalities and limits are exceeded."""
        return dot(self.rows, weights) - self.bounds - self.give * multipliers

    def raised(self, multipliers: Tensor) -> Tensor:
        """Multipliers with those of limits at least 0."""
        m = self.equalities
        return torch.cat([multipliers[:, :m], multipliers[:, m:].clamp(min=0.0)], -1)

    def residual(self, weights: Tensor, multipliers: Tensor) -> Tensor:
        """(B,) largest entry of the natural residual, relative to the largest weight where that is above 1."""
        steps = self.steps
        off = weights - self.prox(weights - steps * self.slope(weights, multipliers), steps)
        missed = multipliers - self.raised(multipliers + self.excess(weights, multipliers))
        size = torch.cat([off, missed], -1).abs().amax(-1) / weights.abs().amax(-1).clamp(min=1.0)
        return size.nan_to_num(nan=torch.inf)


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Which linear piece of the natural residual.

    Attributes:
        state: (B, N) −1 at the lower bound, 0 free, 1 at the upper, 2 at Ω.
        side: (B, N) sign of w − Ω.
        binding: (B, M+P) whether a row binds; equalities always do.
    """

    state: Tensor
    side: Tensor
    binding: Tensor

    @staticmethod
    def at(program: Program, weights: Tensor, multipliers: Tensor) -> Piece:
        """The piece that a point lies on."""
        steps = program.steps
        point = weights - steps * program.slope(weights, multipliers)
        away = point - program.kinks
        there = program.prox(point, steps)
        state = torch.zeros_like(point, dtype=torch.int8)
        state[(away.abs() <= steps * program.kink_rates) & (program.kink_rates > 0.0)] = _KINK
        state[there >= program.upper] = _UPPER
        state[there <= program.lower] = _LOWER
        binding = multipliers + program.excess(weights, multipliers) > 0.0
        binding[:, : program.equalities] = True
        return Piece(state=state, side=away.sign(), binding=binding)


def solve_on(program: Program, piece: Piece, multipliers: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (B, N) and multipliers (B, M+P) that solve the KKT conditions of a piece; differentiable.

    Where the rows that bind are redundant on the free weights, the multipliers are the nearest to those given.
    """
    free = (piece.state == _FREE).to(program.hessian)
    held = torch.where(piece.state == _LOWER, program.lower, 0.0)
    held = torch.where(piece.state == _UPPER, program.upper, held)
    held = torch.where(piece.state == _KINK, program.kinks, held)
    binding = piece.binding.to(program.hessian)
    hessian = free.unsqueeze(-1) * program.hessian * free.unsqueeze(-2) + torch.diag_embed(1.0 - free)
    rows = binding.unsqueeze(-1) * program.rows * free.unsqueeze(-2)
    matrix = torch.cat(
        [
            torch.cat([hessian, rows.mT], -1),
            torch.cat([rows, torch.diag_embed(binding - 1.0 - binding * program.give)], -1),
        ],
        -2,
    )
    slope = program.linear + program.kink_rates * piece.side + dot(program.hessian, held)
    right = torch.cat([held - free * slope, binding * (program.bounds - dot(program.rows, held))], -1)
    n = held.shape[-1]
    start = torch.cat([torch.zeros_like(held), binding * multipliers], -1).detach()
    shift = torch.cat([torch.zeros_like(held), _SHIFT * binding], -1).detach()
    solution: Tensor = _SymmetricSolve.apply(matrix, right, start, shift)  # type: ignore[no-untyped-call]
    return solution[..., :n], solution[..., n:]


class _SymmetricSolve(torch.autograd.Function):
    """x of Kx = b, K symmetric, perhaps singular on the entries that have a shift; there x stays near its start.

    (K − diag shift) Δx = b − Kx is solved again and again with one factorisation. The adjoint is the same solve.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, right: Tensor, start: Tensor, shift: Tensor) -> Tensor:
        factors, pivots, _ = torch.linalg.lu_factor_ex(matrix - torch.diag_embed(shift))
        x, left = start, right - dot(matrix, start)
        size = left.abs().amax(-1, keepdim=True)
        for _ in range(_REFINEMENTS):
            tried = x + torch.linalg.lu_solve(factors, pivots, left.unsqueeze(-1)).squeeze(-1)
            still = right - dot(matrix, tried)
            now = still.abs().amax(-1, keepdim=True)
            better = now < size
            if not better.any():
                break
            x, left, size = torch.where(better, tried, x), torch.where(better, still, left), torch.minimum(now, size)
        ctx.save_for_backward(matrix, x, shift)
        return x

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        matrix, x, shift = ctx.saved_tensors
        right: Tensor = _SymmetricSolve.apply(matrix, gradients[0], torch.zeros_like(x), shift)  # type: ignore[no-untyped-call]
        return -right.unsqueeze(-1) * x.unsqueeze(-2), right, None, None


def dot(matrix: Tensor, vector: Tensor) -> Tensor:
    """(…, m) of a matrix (…, m, n) and a vector (…, n)."""
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)
